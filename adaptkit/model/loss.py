"""Cross-entropy at supervised positions, without ever holding all their logits where those are many."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adaptkit.errors import ModelError, install_command

IGNORE_INDEX = -100

LossMode = Literal["auto", "plain", "chunked", "liger"]

CHUNK_ELEMENTS = 1 << 27
"""Logits held at once: half a gigabyte in float32, whatever the vocabulary."""


def mean_loss(logits: Tensor, targets: Tensor, num_items: Tensor | int | None) -> Tensor:
    """Cross-entropy of `(n, vocab)` logits, summed and divided by `num_items` or averaged."""
    return divided(_summed(logits, targets), targets, num_items)


def _summed(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="sum", ignore_index=IGNORE_INDEX)


def shifted_loss(logits: Tensor, labels: Tensor, num_items: Tensor | int | None) -> Tensor:
    """The loss of `(batch, seq, vocab)` logits, each against the label after it."""
    return mean_loss(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), num_items)


def divided(total: Tensor, targets: Tensor, num_items: Tensor | int | None) -> Tensor:
    """A summed loss divided by the number of items."""
    if num_items is None:
        return total / (targets != IGNORE_INDEX).sum()
    return total / (num_items.to(total.device) if isinstance(num_items, Tensor) else num_items)


def with_loss(output: Any, loss: Tensor, **changes: Any) -> Any:
    """A model's output with its loss in the first place, where those who take a tuple look for it."""
    return type(output)(**{**output, "loss": loss, **changes})


def chosen_mode(wanted: LossMode, head: nn.Module, num_logits: int) -> LossMode:
    """How the loss of a batch with so many logits, supervised positions times vocabulary, is computed.

    `auto` takes Liger's kernel where it is installed and the head is on a GPU, else chunks where the logits are many.

    Raises:
        ModelError: Liger's kernel is asked for and cannot run.
    """
    if wanted in ("plain", "chunked"):
        return wanted
    problem = _liger_problem(head)
    if wanted == "auto":
        return "liger" if problem is None else "chunked" if num_logits > CHUNK_ELEMENTS else "plain"
    if problem is not None:
        raise ModelError(f"loss: liger cannot be used here: {problem}. Take auto, which does without.")
    return wanted


def _liger_problem(head: nn.Module) -> str | None:
    if not has_liger():
        return f"the package liger-kernel is not installed ({install_command('liger')})"
    weight = getattr(head, "weight", None)
    if type(head) is not nn.Linear or not isinstance(weight, Tensor) or not weight.is_cuda:
        return "it needs a head that is one linear layer, whole and on a GPU"
    return None if type(weight) is nn.Parameter and not hasattr(weight, "ds_id") else "the head's weight is sharded"


@cache  # a look through the whole path, which no step should take
def has_liger() -> bool:
    """Whether Liger's kernels are installed."""
    return importlib.util.find_spec("liger_kernel") is not None


def summed_loss(hidden: Tensor, head: nn.Module, targets: Tensor, mode: LossMode) -> Tensor:
    """Summed cross-entropy of `(n,)` targets and the logits of `(n, hidden)` inputs of a head, `chunked` or `liger`."""
    if mode == "liger":
        return _liger_loss(hidden, head, targets)
    vocab_size = getattr(head, "out_features", None) or head(hidden[:1].detach()).shape[-1]
    size = max(1, CHUNK_ELEMENTS // int(vocab_size))
    total = hidden.new_zeros((), dtype=torch.float32)
    for part, wanted in zip(torch.split(hidden, size), torch.split(targets, size)):
        total = total + checkpoint(lambda x, y: _summed(head(x), y), part, wanted, use_reentrant=False)
    return total


def token_scores(inputs: Tensor, head: nn.Module, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each of `(n,)` targets, and whether it is the likeliest token.

    Args:
        inputs: Of the head, `(n, hidden)`; logits where `head` is an identity.
    """
    vocab_size = getattr(head, "out_features", None) or head(inputs[:1]).shape[-1]
    losses, hits = [], []
    size = max(1, CHUNK_ELEMENTS // int(vocab_size))
    for part, wanted in zip(torch.split(inputs, size), torch.split(targets, size)):
        logits = head(part).float()
        losses.append(F.cross_entropy(logits, wanted, reduction="none", ignore_index=IGNORE_INDEX))
        hits.append(logits.argmax(-1) == wanted)
    return torch.cat(losses), torch.cat(hits)


def _liger_loss(hidden: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    kernel = LigerFusedLinearCrossEntropyLoss(reduction="sum", ignore_index=IGNORE_INDEX)
    weight, bias = head.weight, head.bias
    total: Tensor = kernel(weight.to(hidden.dtype), hidden, targets, None if bias is None else bias.to(hidden.dtype))
    return total.float()


@contextmanager
def without_head(language_model: nn.Module) -> Iterator[nn.Module]:
    """Let a causal LM return the inputs of its head in place of logits, and yield the head itself."""
    head = language_model.get_output_embeddings()  # type: ignore[operator]
    place = next(name for name, module in language_model.named_modules() if module is head)
    parent_name, _, name = place.rpartition(".")
    parent = language_model.get_submodule(parent_name)
    parent._modules[name] = nn.Identity()  # families look at its weight's dtype or device at most
    try:
        yield head
    finally:
        parent._modules[name] = head


@contextmanager
def given_to_head(language_model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the inputs of the head of a causal LM, which does not run."""
    collected: list[Tensor] = []
    with without_head(language_model):
        stand_in = language_model.get_output_embeddings()  # type: ignore[operator]
        hook = stand_in.register_forward_pre_hook(lambda _, inputs: collected.append(inputs[0]))
        try:
            yield collected
        finally:
            hook.remove()


@contextmanager
def enlarged_inputs(language_model: nn.Module, factor: float = 256.0) -> Iterator[None]:
    """Multiply the inputs of the head of a causal LM."""
    head = language_model.get_output_embeddings()  # type: ignore[operator]
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0] * factor, *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()
