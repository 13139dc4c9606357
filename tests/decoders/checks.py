"""What must hold of a workflow on any decoder; the same checks run on untouched bases, to tell whose limit one is."""

from __future__ import annotations

import copy
import functools
import inspect
import tempfile
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

import adaptkit
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from tests.unit.model.conftest import PLACEHOLDER_ID, batch_of, loss_and_gradients, packed

LAYERS = [1, 2]
"""Layers of the tiny bases after which something is inserted: one of each kind where layers take turns."""

TEXT = {"input_ids": torch.tensor([[5, 6, 7, 8, 9, 10, 3, 11, 12, 13, 14, 15]])}

# Padding, batching and incremental decoding change the shapes of matrix products, and with them the order of float32
# sums: differences of a few 1e-6 of the largest logit.
TOLERANCE = 5e-5


@dataclass
class Subject:
    """A model to check: a workflow, or a stock decoder to which the same is done with text alone.

    Attributes:
        model: A workflow or a stock causal LM.
        left: Inputs padded on the left, with their attention mask.
        right: The same inputs padded on the right.
        labels: What to predict of the inputs padded on the right.
        base: The workflow's base.
        text_logits: What the base computed before it was adapted.
    """

    model: PreTrainedModel
    left: dict[str, Any]
    right: dict[str, Any]
    labels: torch.Tensor
    base: PreTrainedModel | None = None
    text_logits: torch.Tensor | None = field(default=None, repr=False)

    @property
    def decoder(self) -> PreTrainedModel:
        return self.model if self.base is None else self.model.language_model


@functools.cache
def _encoder_folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    tiny_clip_vision().save_pretrained(folder.name)
    return folder


def workflow_on(family: str, **config: Any) -> Subject:
    """A workflow whose own tensors have been trained by a step."""
    base = tiny_decoder(family, **config)
    text_logits = logits_of(base, **TEXT)
    torch.manual_seed(1)
    model = adaptkit.adapt(
        base,
        modalities={
            "image": {
                "encoder": {"name": "clip", "path": _encoder_folder().name},
                "projector": "mlp2x_gelu",
                "placeholder_id": PLACEHOLDER_ID,
            }
        },
        insertion={"policy": "inner_adapter", "placement": {"layers": LAYERS}},
        replace_ends=True,
    )
    left, right = batch_of(model, padding_side="left"), batch_of(model)
    subject = Subject(model, left.inputs, right.inputs, right.labels, base, text_logits)
    train_one_step(subject)
    return subject


def stock_on(family: str, workflow: Subject) -> Subject:
    """The untouched base with a workflow's rows, in which words stand for the media."""
    rows = [
        {"input_ids": _words(side["input_ids"]), "attention_mask": side["attention_mask"]}
        for side in (workflow.left, workflow.right)
    ]
    return Subject(tiny_decoder(family), *rows, workflow.labels)


def _words(input_ids: torch.Tensor) -> torch.Tensor:
    return input_ids.masked_fill(input_ids == PLACEHOLDER_ID, 40)


@torch.no_grad()
def logits_of(model: PreTrainedModel, **inputs: Any) -> torch.Tensor:
    return model(**inputs).logits


def train_one_step(subject: Subject) -> None:
    model = subject.model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model(**subject.right, labels=subject.labels).loss.backward()
    optimizer.step()
    model.zero_grad()
    model.eval()


def _close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE * max(1.0, float(other.abs().max())))


def text_is_unchanged(subject: Subject) -> None:
    """The base computes what it did before it was adapted, bit for bit."""
    assert subject.base is not None
    subject.base.eval()
    assert torch.equal(logits_of(subject.base, **TEXT), subject.text_logits)


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


def cached_generation_equals_uncached(subject: Subject, **cache: Any) -> None:
    options = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    cached = subject.model.generate(**subject.left, **options, **cache)
    uncached = subject.model.generate(**subject.left, **options, use_cache=False)
    for one, other in zip(cached.logits, uncached.logits, strict=True):
        _close(one, other)
    assert torch.equal(cached.sequences, uncached.sequences)


def static_cache_equals_none(subject: Subject) -> None:
    cached_generation_equals_uncached(subject, cache_implementation="static", disable_compile=True)


def left_padding_equals_right(subject: Subject) -> None:
    left_mask, right_mask = (rows["attention_mask"] == 1 for rows in (subject.left, subject.right))
    placed = {}
    if "position_ids" in inspect.signature(subject.decoder.forward).parameters:
        placed["position_ids"] = left_mask.long().cumsum(1).sub(1).clamp(min=0)
    left = logits_of(subject.model, **subject.left, **placed)
    _close(left[left_mask], logits_of(subject.model, **subject.right)[right_mask])


def checkpointing_changes_no_gradient(subject: Subject) -> None:
    model = subject.model
    gradients = []
    for enable in (None, getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)):
        if enable is not None:
            enable()
        model.train()
        model.zero_grad()
        model(**subject.right, labels=subject.labels).loss.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()
    model.zero_grad()
    model.eval()
    assert gradients[0].keys() == gradients[1].keys() != set()
    for name, gradient in gradients[0].items():
        _close(gradients[1][name], gradient)


def packed_equals_padded(subject: Subject) -> None:
    """Loss and gradients of a packed row are those of rows of their own; it is refused where they would not be."""
    model = subject.model.train()
    try:
        expected, gradients = loss_and_gradients(model, {**subject.right, "labels": subject.labels})
        with model.prepared_for_training(packing=True, loss="plain"):
            found, packed_gradients = loss_and_gradients(model, packed(subject.right, subject.labels))
    finally:
        model.zero_grad()
        model.eval()
    _close(found, expected)
    assert packed_gradients.keys() == gradients.keys() != set()
    for name, gradient in gradients.items():
        _close(packed_gradients[name], gradient)


def save_equals_load(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save_pretrained(folder)
        loaded = adaptkit.load(folder, base=subject.base)
    assert torch.equal(logits_of(loaded, **subject.right), logits_of(subject.model, **subject.right))


def export_problems(subject: Subject) -> list[str]:
    """Why the workflow has no stock LLaVA checkpoint; empty where it has."""
    from adaptkit.export import llava_problems

    return llava_problems(subject.model)
