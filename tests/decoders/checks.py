"""What must hold of a stock-like workflow on any decoder, beside what `adaptkit.testing` checks of every policy."""

from __future__ import annotations

import copy
import functools
import tempfile
from typing import Any

import torch

from adaptkit.testing import subjects, tiny_clip_vision, tiny_decoder
from adaptkit.testing.subjects import TEXT, Subject, cached_generation_equals_uncached, logits_of
from tests.unit.model.conftest import PLACEHOLDER_ID


@functools.cache
def _encoder_folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    tiny_clip_vision().save_pretrained(folder.name)
    return folder


def workflow_on(family: str, **config: Any) -> Subject:
    """A workflow with an encoder that has a stock checkpoint."""
    encoder = {"name": "clip", "path": _encoder_folder().name}
    image = {"encoder": encoder, "projector": "mlp2x_gelu", "placeholder_id": PLACEHOLDER_ID}
    return subjects.workflow_on(family, modalities={"image": image}, **config)


def stock_on(family: str, workflow: Subject) -> Subject:
    """The untouched base with a workflow's rows, in which words stand for the media."""
    rows = [
        {"input_ids": _words(side["input_ids"]), "attention_mask": side["attention_mask"]}
        for side in (workflow.left, workflow.right)
    ]
    return Subject(tiny_decoder(family), *rows, workflow.labels)


def _words(input_ids: torch.Tensor) -> torch.Tensor:
    return input_ids.masked_fill(input_ids == PLACEHOLDER_ID, 40)


def equals_a_stock_model(subject: Subject) -> None:
    """A stock model built from the workflow's config and tensors computes the same."""
    decoder = subject.decoder
    config = copy.deepcopy(decoder.config)
    stock = type(decoder)(type(config).from_dict(config.to_dict())).eval()
    loaded = stock.load_state_dict(decoder.state_dict(), strict=False)
    assert not loaded.missing_keys, loaded.missing_keys
    assert sum(p.numel() for p in stock.parameters()) >= sum(p.numel() for p in subject.base.parameters())
    assert not torch.equal(logits_of(stock, **TEXT), subject.text_logits)
    assert torch.equal(logits_of(stock, **TEXT), logits_of(subject.model, **TEXT))


def static_cache_equals_none(subject: Subject) -> None:
    cached_generation_equals_uncached(subject, cache_implementation="static", disable_compile=True)


def export_problems(subject: Subject) -> list[str]:
    """Why the workflow has no stock LLaVA checkpoint; empty where it has."""
    from adaptkit.export import llava_problems

    return llava_problems(subject.model)
