"""The Inner-Adaptor Architecture's scheme (a)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from adaptkit.interfaces import Encoder
from adaptkit.policies.gated_inner_adapter import zero_gate
from adaptkit.surgery import (
    AdapterContext,
    ContextLayer,
    Decoder,
    InsertionPolicy,
    extend_module,
    first_output,
    with_first_output,
)


class ControlNet(InsertionPolicy):
    """IAA scheme (a), equation 1 with figure 3a, in the manner of ControlNet (arXiv 2302.05543).

    A side stream `s` runs through the insertion layers alone. It starts as the input of the first chosen layer; at each
    chosen layer `s ← insertion(s)` and `x_out = frozen(x) + gate(s)`, with a gate that starts at zero.
    """

    uses_context = True
    exports_as_stock = False
    supports_compile = False

    def apply(self, decoder: Decoder, encoders: Mapping[str, Encoder], layers: list[int]) -> None:
        """Insert copies that the side stream runs through."""
        inserted = decoder.insert_copies_after(layers)
        extend_module(decoder.layers[layers[0]], _StreamSource)
        for number, layer in enumerate(inserted):
            extend_module(layer, _StreamLayer, gate=zero_gate(decoder.hidden_size, layer), number=number)


class _StreamSource(ContextLayer):
    """The first chosen layer, whose input starts the side stream."""

    def adapted_forward(self, hidden_states: Tensor, context: AdapterContext, *args: Any, **kwargs: Any) -> Any:
        context.put("stream 0", hidden_states)
        return self.stock_forward(hidden_states, *args, **kwargs)


class _StreamLayer(ContextLayer):
    """An insertion layer of the side stream, which adds it to the main one."""

    gate: nn.Linear
    number: int

    def adapted_forward(self, hidden_states: Tensor, context: AdapterContext, *args: Any, **kwargs: Any) -> Any:
        output = self.stock_forward(context.get(f"stream {self.number}"), *args, **kwargs)
        side = first_output(output)
        context.put(f"stream {self.number + 1}", side)
        return with_first_output(output, hidden_states + self.gate(side))
