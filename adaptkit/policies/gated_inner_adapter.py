"""The Inner-Adaptor Architecture's scheme (b), and the gate that it shares with scheme (a)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.interfaces import Encoder
from adaptkit.surgery import Decoder, InsertionPolicy, extend_module, first_output, with_first_output


class GatedInnerAdapter(InsertionPolicy):
    """IAA scheme (b), figure 3b: `y = frozen(x); x_out = y + gate(insertion(y))`.

    The gate is a linear map that starts at zero, so that the workflow starts as the base. Insertion layers hand
    nothing on to each other.
    """

    exports_as_stock = False

    def apply(self, decoder: Decoder, encoders: Mapping[str, Encoder], layers: list[int]) -> None:
        """Insert gated copies."""
        for layer in decoder.insert_copies_after(layers):
            extend_module(layer, GatedLayer, gate=zero_gate(decoder.hidden_size, layer))


class GatedLayer(nn.Module):
    """Mixin of a decoder layer whose output joins its input through a gate."""

    gate: nn.Linear

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Input plus gated output."""
        output = super().forward(hidden_states, *args, **kwargs)
        return with_first_output(output, hidden_states + self.gate(first_output(output)))


def zero_gate(hidden_size: int, beside: nn.Module) -> nn.Linear:
    """A bias-free linear map `(..., hidden) -> (..., hidden)` of zeros, float32, on the device of `beside`."""
    gate = nn.Linear(hidden_size, hidden_size, bias=False, device=next(beside.parameters()).device, dtype=torch.float32)
    nn.init.zeros_(gate.weight)
    return gate
