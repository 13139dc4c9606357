"""Where a stock model keeps what a workflow has: trunk, head and its scale."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from adaptkit.errors import ModelError

# Rounding of a product in float32 and in half precision, relative to the largest value
_TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-8}
_HALF_TOLERANCE = 2e-2


@dataclass
class HeadFacts:
    """How a causal LM makes logits.

    Attributes:
        trunk: The model without its head, as `AutoModel` builds it.
        scale: Logits are this multiple of the head's output.
    """

    trunk: PreTrainedModel
    scale: float


def find_trunk(language_model: PreTrainedModel) -> PreTrainedModel:
    """The part of a causal LM that stock multimodal models build by `AutoModel`.

    Raises:
        ModelError: There is none of that class.
    """
    config = language_model.config.get_text_config(decoder=True)
    try:
        expected = AutoModel._model_mapping[type(config)]
    except KeyError as error:
        raise ModelError(f"transformers has no AutoModel for {config.model_type}, which stock models build.") from error
    expected = expected[0] if isinstance(expected, tuple) else expected
    for module in language_model.modules():
        if type(module) is expected:
            return module
    raise ModelError(
        f"{type(language_model).__name__} does not hold a {expected.__name__}, which stock models build for "
        f"{config.model_type}."
    )


def measure_head(language_model: PreTrainedModel) -> HeadFacts:
    """Run two tokens and see whether the head is one linear map of the trunk's output, and at which scale.

    Raises:
        ModelError: It is not; the message says what stands between trunk and logits.
    """
    trunk = find_trunk(language_model)
    head: Any = language_model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise ModelError(f"its LM head is a {type(head).__name__}; stock models have one linear map.")
    bias: Tensor | None = head.bias
    if bias is not None:
        raise ModelError("its LM head has a bias, which stock models have not.")
    input_ids = torch.tensor([[0, 1]], device=head.weight.device)
    with _observed(head) as seen, torch.no_grad():
        logits = language_model(input_ids=input_ids, use_cache=False).logits
        hidden_states = trunk(input_ids=input_ids, use_cache=False)[0]
    if not seen or not torch.equal(seen[0][0], hidden_states):
        raise ModelError("something stands between its layers and the LM head, which stock models have not.")
    ours, plain = logits.double(), seen[0][1].double()
    scale = float((ours * plain).sum() / (plain * plain).sum())
    tolerance = _TOLERANCES.get(logits.dtype, _HALF_TOLERANCE)
    if bool((ours - scale * plain).abs().max() > tolerance * ours.abs().max()):
        raise ModelError(_nonlinear(language_model))
    return HeadFacts(trunk, 1.0 if abs(scale - 1) < tolerance else scale)


def _nonlinear(language_model: PreTrainedModel) -> str:
    config = language_model.config.get_text_config(decoder=True)
    cap = getattr(config, "final_logit_softcapping", None)
    if cap:
        return (
            f"its logits pass a soft-cap (final_logit_softcapping {cap}), which stock multimodal models do not apply."
        )
    return "its logits are not a linear map of the last hidden state, and stock multimodal models apply nothing else."


@contextlib.contextmanager
def _observed(head: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect a module's inputs and outputs."""
    seen: list[tuple[Tensor, Tensor]] = []

    def watch(_: Any, inputs: Any, output: Tensor) -> None:
        seen.append((inputs[0], output))

    handle = head.register_forward_hook(watch)
    try:
        yield seen
    finally:
        handle.remove()
