"""Mixture-of-Modality Adaptation, LaVIN's (arXiv 2305.15023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.interfaces import Encoder
from adaptkit.policies.options import MmaOptions
from adaptkit.surgery import (
    AdapterContext,
    ContextLayer,
    Decoder,
    InsertionPolicy,
    attention_blocks,
    attention_of,
    current_context,
    extend_module,
    mlp_of,
    provide_context,
)

ROUTING = "routing"
NUM_EXPERTS = 2


class Mma(InsertionPolicy):
    """Routed adapters before the attention of every layer, in decoder and encoders (LaVIN, section 3.1).

    The decoder's routing weights come from a modality token, an embedding of which modalities a row holds. In LaVIN it
    is the first token of the sequence, which attends to itself alone and which nothing attends to. So it is a sequence
    of its own of length one: `prepare` runs it through the adapted decoder, and the layers' weights for it are used on
    the rows that it stands for. The numbers are those of LaVIN's training network, without a token in the sequence or
    a change of mask, and decoding, padding and the batch's other rows cannot change them.

    In encoders every token routes itself (LaVIN's code takes the weights of the batch's first item for all).
    """

    options: MmaOptions
    uses_context = True
    carried = (ROUTING,)
    exports_as_stock = False
    supports_compile = False
    layers_are_closed = False  # `prepare` takes the routing weights out of them

    def apply(self, decoder: Decoder, encoders: Mapping[str, Encoder], layers: list[int]) -> Mapping[str, nn.Module]:
        """Put adapters before attention (and MLP) of the layers, and before attention in the encoders' blocks."""
        number = 0
        for layer in decoder.extend_layers(layers, ContextLayer):
            parts = [attention_of(layer), mlp_of(layer)] if self.options.before_ffn else [attention_of(layer)]
            for part in parts:
                adapter = RouterAdapter(decoder.hidden_size, self.options, beside=layer)
                extend_module(part, _RoutedByModality, input_adapter=adapter, adapter_number=number)
                number += 1
        if self.adapts_encoders:
            for encoder in encoders.values():
                self.adapt_encoder(encoder)
        embedding = nn.Embedding(2 ** len(encoders), decoder.hidden_size, device=_device(decoder.model))
        return {"modality_embedding": embedding}

    def adapt_encoder(self, encoder: Encoder) -> None:
        """Put adapters before the attention of the blocks that run.

        Raises:
            ModelError: The encoder has no blocks, or blocks that do not call their attention module.
        """
        for block in attention_blocks(encoder)[: encoder.num_layers]:
            if isinstance(block, nn.TransformerEncoderLayer):
                raise ModelError(
                    f"{type(encoder).__name__} is made of torch's TransformerEncoderLayer, which does not call its "
                    "attention module at inference, so adapters would be skipped. Use encoder_adapter: none."
                )
            attention = attention_of(block)
            adapter = RouterAdapter(_input_size(attention), self.options, beside=block)
            extend_module(attention, _RoutedByToken, input_adapter=adapter)

    def prepare(self, context: AdapterContext, language_model: nn.Module, modules: nn.ModuleDict) -> None:
        """Give each row the routing weights of its modality token, unless decoding goes on with them.

        Raises:
            ModelError: Reentrant gradient checkpointing would lose the routers' gradients.
        """
        if context.has(ROUTING):
            return
        embedding = cast(nn.Embedding, modules["modality_embedding"])
        tokens = embedding.weight.to(cast(Any, language_model).get_input_embeddings().weight.dtype).unsqueeze(1)
        everything = torch.arange(len(tokens), device=tokens.device)
        alone = AdapterContext(torch.zeros(tokens.shape[:2], dtype=torch.bool, device=tokens.device), everything)
        with provide_context(alone):
            mask = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
            language_model(inputs_embeds=tokens, attention_mask=mask, use_cache=False)
        adapters = [m for m in language_model.modules() if isinstance(m, _RoutedByModality)]
        weights = {m.adapter_number: alone.get(f"{ROUTING} {m.adapter_number}") for m in adapters}
        if tokens.requires_grad and torch.is_grad_enabled() and not all(w.requires_grad for w in weights.values()):
            raise ModelError(
                "reentrant gradient checkpointing loses the gradients of the routers; enable it with "
                "gradient_checkpointing_kwargs={'use_reentrant': False}."
            )
        context.put(ROUTING, {number: w[context.media_set.to(w.device)] for number, w in weights.items()})


class RouterAdapter(nn.Module):
    """Two experts over one bottleneck (LaVIN's MM-Adapter, section 3.1): `x + scale · Σ w_i (U_i · D x + b_i)`.

    `D` is shared, and so is its dropout; there is no nonlinearity. `U_i`, grouped, and `b_i` start at zero. The
    routing weights `w` are `softmax(router(token) / temperature)`.

    Args:
        beside: A module on whose device the adapter lives, as float32.

    Raises:
        ModelError: The groups do not divide the width.
    """

    def __init__(self, hidden_size: int, options: MmaOptions, *, beside: nn.Module) -> None:
        super().__init__()
        if hidden_size % options.groups:
            raise ModelError(f"groups: {options.groups} does not divide the width {hidden_size} of the adapted layers.")
        place: Any = {"device": _device(beside), "dtype": torch.float32}
        self.scale, self.temperature = options.scale, options.temperature
        self.down = nn.Linear(hidden_size, options.hidden_size, **place)
        self.dropout = nn.Dropout(options.dropout)
        self.experts = nn.ModuleList(
            GroupedLinear(options.hidden_size, hidden_size, options.groups, **place) for _ in range(NUM_EXPERTS)
        )
        self.router = nn.Linear(hidden_size, NUM_EXPERTS, **place)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def route(self, tokens: Tensor) -> Tensor:
        """Routing weights of each token, `(..., hidden)` to `(..., 2)`, float32."""
        logits: Tensor = self.router(tokens.to(self.router.weight.dtype))
        return torch.softmax(logits.float() / self.temperature, -1)

    def forward(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """Adapt tokens `(..., hidden)` by weights of the experts, `(..., 2)`, broadcast against them."""
        bottleneck = self.dropout(self.down(tokens.to(self.down.weight.dtype)))
        parts = [weights[..., i : i + 1] * expert(bottleneck) for i, expert in enumerate(self.experts)]
        difference: Tensor = self.scale * (parts[0] + parts[1])
        return tokens + difference.to(tokens.dtype)


class GroupedLinear(nn.Module):
    """A linear map in blocks, starting at zero: group `k` of the outputs reads group `k` of the inputs alone."""

    def __init__(self, in_features: int, out_features: int, groups: int, **place: Any) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.zeros(out_features, in_features // groups, **place))
        self.bias = nn.Parameter(torch.zeros(out_features, **place))

    def forward(self, inputs: Tensor) -> Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        blocks = self.weight.view(self.groups, -1, self.weight.shape[1])
        grouped = inputs.view(*inputs.shape[:-1], self.groups, -1)
        return torch.einsum("...gi,goi->...go", grouped, blocks).flatten(-2) + self.bias


class _AdaptedInput(nn.Module):
    """Mixin of an attention or MLP whose input goes through an adapter first."""

    input_adapter: RouterAdapter

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs[next(name for name in ("hidden_states", "query", "x") if name in kwargs)]
        adapted = self.input_adapter(given, self.routing_of(given))

        def replaced(value: Any) -> Any:
            return adapted if value is given else value  # torch's attention is given it three times

        return super().forward(*map(replaced, args), **{name: replaced(value) for name, value in kwargs.items()})

    def routing_of(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError("abstract: how tokens are routed is what the two kinds differ in")


class _RoutedByModality(_AdaptedInput):
    """In a decoder: weights of the row's modality token."""

    adapter_number: int

    def routing_of(self, tokens: Tensor) -> Tensor:
        context = current_context()
        if context.has(ROUTING):
            weights: Tensor = context.get(ROUTING)[self.adapter_number]
            return weights.unsqueeze(1)
        weights = self.input_adapter.route(tokens[:, 0])
        context.put(f"{ROUTING} {self.adapter_number}", weights)
        return weights.unsqueeze(1)


class _RoutedByToken(_AdaptedInput):
    """In an encoder: each token's own weights."""

    def routing_of(self, tokens: Tensor) -> Tensor:
        return self.input_adapter.route(tokens)


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _input_size(attention: nn.Module) -> int:
    return next(module for module in attention.modules() if isinstance(module, nn.Linear)).in_features
