"""Where a stock model keeps what a workflow has: trunk, head and its scale."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from adaptkit.errors import ModelError
from adaptkit.export.verification import HALF_TOLERANCE, TOLERANCES


def find_trunk(language_model: PreTrainedModel) -> PreTrainedModel:
    """The part of a causal LM that stock multimodal models build by `AutoModel`.

    Raises:
        ModelError: It has no part of that class.
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


def measure_head(language_model: PreTrainedModel) -> tuple[PreTrainedModel, float]:
    """Run two tokens and see whether the head is one linear map of the trunk's output.

    Returns:
        The model without its head, as `AutoModel` builds it, and which multiple of the head's output logits are.

    Raises:
        ModelError: It is not; the message says what stands between trunk and logits.
    """
    trunk = find_trunk(language_model)
    head: Any = language_model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise ModelError(f"its LM head is a {type(head).__name__}; stock models have one linear map.")
    if cast(Tensor | None, head.bias) is not None:
        raise ModelError("its LM head has a bias, which stock models have not.")
    input_ids = torch.tensor([[0, 1]], device=head.weight.device)
    seen: list[tuple[Tensor, Tensor]] = []
    handle = head.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    try:
        with torch.no_grad():
            logits = language_model(input_ids=input_ids, use_cache=False).logits
            hidden_states = trunk(input_ids=input_ids, use_cache=False)[0]
    finally:
        handle.remove()
    if not seen or not torch.equal(seen[0][0], hidden_states):
        raise ModelError("something stands between its layers and the LM head, which stock models have not.")
    ours, plain = logits.double(), seen[0][1].double()
    scale = float((ours * plain).sum() / (plain * plain).sum())
    tolerance = TOLERANCES.get(logits.dtype, HALF_TOLERANCE)
    if bool((ours - scale * plain).abs().max() > tolerance * ours.abs().max()):
        cap = getattr(language_model.config.get_text_config(decoder=True), "final_logit_softcapping", None)
        how = f"pass a soft-cap (final_logit_softcapping {cap})" if cap else "are not a linear map of its hidden state"
        raise ModelError(f"its logits {how}, and stock multimodal models apply nothing to those of the head.")
    return trunk, 1.0 if abs(scale - 1) < tolerance else scale
