"""Workflows on tiny decoders, and what must hold of each: columns of the support matrix.

The same checks run on untouched bases, to say whose limit a failure is.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from adaptkit.files.hashing import hash_tensors
from adaptkit.model.assembly import adapt
from adaptkit.model.checkpoint import load
from adaptkit.testing.requirements import require
from adaptkit.testing.tensors import require_close
from adaptkit.testing.tiny import tiny_clip_vision, tiny_decoder

LAYERS = [1, 2]
"""Layers of the tiny bases after which something is inserted: one of each kind where layers take turns."""

TEXT = {"input_ids": torch.tensor([[5, 6, 7, 8, 9, 10, 3, 11, 12, 13, 14, 15]])}

_PIXELS = (3, 32, 32)
"""Shape of one input of `tiny_clip_vision`."""


@dataclass(frozen=True)
class MediaBatch:
    """Rows of words and media, padded.

    Attributes:
        inputs: What a workflow is called with.
        labels: What to predict.
        rows: Token ids of each row, without padding.
        num_items: Media of each row.
        pixel_values: Encoder inputs of all media.
    """

    inputs: dict[str, Any]
    labels: Tensor
    rows: list[list[int]]
    num_items: Sequence[int]
    pixel_values: Tensor


def batch_of(
    model: Any, *, num_items: Sequence[int] = (1, 2, 0), padding_side: str = "right", seed: int = 3
) -> MediaBatch:
    """A batch for a workflow with one modality, whose encoder is `tiny_clip_vision`.

    Args:
        model: A workflow.
        num_items: Media of each row.
        padding_side: `left` or `right`.
        seed: Of words and media.
    """
    [(name, entry)] = model.config.modalities.items()
    placeholder = entry["placeholder_id"]
    generator = torch.Generator().manual_seed(seed)
    positions = 1 if model.policy.feature_mode == "context" else model.encode(name, torch.zeros(1, *_PIXELS)).shape[1]
    rows = []
    for row, num in enumerate(num_items):
        words = torch.randint(3, 40, (6 + row,), generator=generator).tolist()
        rows.append([*words[:2], *([placeholder] * positions + words[2:4]) * num, *words[4:]])
    width = max(map(len, rows))
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(rows):
        place = slice(width - len(ids), width) if padding_side == "left" else slice(len(ids))
        input_ids[row, place] = torch.tensor(ids)
        attention_mask[row, place] = 1
    pixel_values = torch.randn(sum(num_items), *_PIXELS, generator=generator)
    labels = input_ids.masked_fill((attention_mask == 0) | (input_ids == placeholder), -100)
    labels[:, : width // 3] = -100
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "features": {name: pixel_values}}
    return MediaBatch(inputs, labels, rows, num_items, pixel_values)


def packed(inputs: Mapping[str, Any], labels: Tensor) -> dict[str, Any]:
    """Rows padded on the right, without their padding, one after the other."""
    real = inputs["attention_mask"] == 1
    return {
        "input_ids": inputs["input_ids"][real].unsqueeze(0),
        "labels": labels[real].unsqueeze(0),
        "features": inputs["features"],
        "segment_lengths": real.sum(1).tolist(),
    }


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
        base_hash: Of the base's tensors, before it was adapted.
    """

    model: Any
    left: dict[str, Any]
    right: dict[str, Any]
    labels: Tensor
    base: PreTrainedModel | None = None
    text_logits: Tensor | None = field(default=None, repr=False)
    base_hash: str = ""

    @property
    def decoder(self) -> Any:
        """The causal LM."""
        return self.model if self.base is None else self.model.language_model


def workflow_on(
    family: str,
    *,
    insertion: Mapping[str, Any] | None = None,
    modalities: Mapping[str, Any] | None = None,
    replace_ends: bool = True,
    noise: float = 0.0,
    **config: Any,
) -> Subject:
    """A workflow whose own tensors have been trained by a step.

    Args:
        family: Of the tiny decoder.
        insertion: As for `adaptkit.adapt`; `inner_adapter` by default.
        modalities: Likewise; one with the encoder `tiny_clip_vision` by default.
        replace_ends: Likewise.
        noise: Moves its tensors off their starting point, before the step.
        config: Settings of the decoder.
    """
    base = tiny_decoder(family, **config)
    text_logits, base_hash = logits_of(base, **TEXT), _hash_of(base)
    torch.manual_seed(1)
    item = {"encoder": tiny_clip_vision(), "projector": "mlp2x_gelu", "type": None}
    insertion = insertion or {"policy": "inner_adapter", "placement": {"layers": LAYERS}}
    model = adapt(base, modalities or {"item": item}, insertion, replace_ends)
    with torch.no_grad():
        for tensor in model.trainable_state_dict().values():
            tensor.add_(noise * torch.randn_like(tensor))
    left, right = batch_of(model, padding_side="left"), batch_of(model)
    subject = Subject(model, left.inputs, right.inputs, right.labels, base, text_logits, base_hash)
    train_one_step(subject)
    return subject


@torch.no_grad()
def logits_of(model: Any, **inputs: Any) -> Tensor:
    """Logits, without a graph."""
    logits: Tensor = model(**inputs).logits
    return logits


def _hash_of(base: PreTrainedModel) -> str:
    return hash_tensors(chain(base.named_parameters(), base.named_buffers()))


def train_one_step(subject: Subject) -> None:
    """Train what is trainable, and return to evaluation mode."""
    model = subject.model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model(**subject.right, labels=subject.labels).loss.backward()
    optimizer.step()
    model.zero_grad()
    model.eval()


def text_is_unchanged(subject: Subject) -> None:
    """The base computes what it did before it was adapted, and holds the same tensors, bit for bit."""
    assert subject.base is not None
    assert subject.text_logits is not None
    same = torch.equal(logits_of(subject.base.eval(), **TEXT), subject.text_logits)
    require(
        same, "the base computes something else than before it was adapted: frozen tensors are not to be written to"
    )
    same = _hash_of(subject.base) == subject.base_hash
    require(
        same, "tensors of the base differ from those before it was adapted: frozen tensors are not to be written to"
    )


def own_tensors_alone_are_trained(subject: Subject) -> None:
    """A step changes every tensor of the workflow's own and no other."""
    own = subject.model.trainable_state_dict().keys()
    before = {name: parameter.detach().clone() for name, parameter in subject.model.named_parameters()}
    train_one_step(subject)
    changed = {name for name, p in subject.model.named_parameters() if not torch.equal(p, before[name])}
    require(changed >= own, f"a training step does not reach {', '.join(sorted(own - changed)[:3])}")
    require(changed <= own, f"a training step changes frozen tensors: {', '.join(sorted(changed - own)[:3])}")


def cached_generation_equals_uncached(subject: Subject, **cache: Any) -> None:
    """Greedy generation gives the same with and without a cache."""
    options = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    cached = subject.model.generate(**subject.left, **options, **cache)
    uncached = subject.model.generate(**subject.left, **options, use_cache=False)
    for step, (one, other) in enumerate(zip(cached.logits, uncached.logits, strict=True)):
        require_close(one, other, f"generation with a cache differs from generation without at token {step}")
    require(torch.equal(cached.sequences, uncached.sequences), "generation with a cache gives other tokens")


def left_padding_equals_right(subject: Subject) -> None:
    """Rows padded on the left and on the right give the same."""
    left_mask, right_mask = (rows["attention_mask"] == 1 for rows in (subject.left, subject.right))
    placed = {}
    if "position_ids" in inspect.signature(subject.decoder.forward).parameters:
        placed["position_ids"] = left_mask.long().cumsum(1).sub(1).clamp(min=0)
    left = logits_of(subject.model, **subject.left, **placed)[left_mask]
    require_close(left, logits_of(subject.model, **subject.right)[right_mask], "left and right padding disagree")


def checkpointing_changes_no_gradient(subject: Subject) -> None:
    """Gradients with gradient checkpointing equal those without."""
    model = subject.model
    gradients = []
    for enable in (None, getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)):
        if enable is not None:
            enable()
        torch.manual_seed(0)  # the same dropout
        gradients.append(loss_and_gradients(model.train(), {**subject.right, "labels": subject.labels})[1])
    getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()
    model.zero_grad()
    model.eval()
    _require_same_gradients(gradients[1], gradients[0], "gradient checkpointing")


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
    require_close(found, expected, "the loss of conversations that share a row differs from that of rows of their own")
    _require_same_gradients(packed_gradients, gradients, "packing")


def save_equals_load(subject: Subject) -> None:
    """A saved and loaded workflow computes the same, bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save_pretrained(folder)
        loaded = load(folder, base=subject.base)
    same = torch.equal(logits_of(loaded, **subject.right), logits_of(subject.model, **subject.right))
    require(same, "a saved and loaded workflow gives other logits: state belongs in parameters and buffers")


def loss_and_gradients(model: Any, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and the gradient of each tensor that gets one."""
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def _require_same_gradients(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], cause: str) -> None:
    require(bool(expected), "no tensor gets a gradient")
    require(found.keys() == expected.keys(), f"{cause} changes which tensors get a gradient")
    for name, gradient in expected.items():
        require_close(found[name], gradient, f"{cause} changes the gradient of {name}")
