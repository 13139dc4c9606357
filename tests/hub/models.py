"""Tiny models on the hub of tests, and a workflow on them."""

from __future__ import annotations

from typing import Any

import torch
from adaptkit_clip.preprocessing import default_processor
from transformers import AutoModelForCausalLM, CLIPVisionModel

import adaptkit
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer


def upload_frozen_models(seed: int = 0) -> None:
    """A base with its tokenizer, and an encoder with its preprocessing."""
    tiny_decoder("llama", seed=seed, num_hidden_layers=2).push_to_hub("user/base")
    tiny_tokenizer().push_to_hub("user/base")
    encoder = tiny_clip_vision()
    encoder.push_to_hub("user/clip")
    default_processor(encoder.config).push_to_hub("user/clip")


def adapt(base: Any, encoder: Any) -> Any:
    """A workflow with one inserted layer."""
    modalities = {"image": {"encoder": encoder, "projector": "linear"}}
    return adaptkit.adapt(base, modalities, {"policy": "inner_adapter", "placement": {"count": 1}})


def workflow_on_the_hub(*, named: bool = False, value: float = 0.0) -> tuple[Any, AdaptkitProcessor]:
    """A workflow on models of the hub, and its processor.

    Args:
        named: Whether the encoder is named by its id; else it is an object.
        value: Added to the workflow's own tensors, so that two workflows differ.
    """
    base = AutoModelForCausalLM.from_pretrained("user/base")
    encoder = {"name": "clip", "path": "user/clip"} if named else CLIPVisionModel.from_pretrained("user/clip")
    model = adapt(base, encoder)
    with torch.no_grad():
        for tensor in model.trainable_state_dict().values():
            tensor.add_(value)
    return model, AdaptkitProcessor.from_model(model)


def same_tensors(one: Any, other: Any) -> bool:
    """Whether two workflows have the same own tensors."""
    left, right = one.trainable_state_dict(), other.trainable_state_dict()
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())
