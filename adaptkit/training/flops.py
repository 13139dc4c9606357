"""Floating-point operations of a training step, by what is frozen: for utilisation and predictions of time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adaptkit.errors import ModelError
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.surgery import attention_of, decoder_layers

FORWARD = 2
"""Operations per weight and position: a product and a sum. A gradient of the inputs costs as many, one of the weight
as many again."""

_CAUSAL_HALF = 0.5
_ATTENTION_PRODUCTS = 2
"""Queries by keys, and their weights by values; each has two in the backward pass."""


@dataclass(frozen=True)
class FlopRates:
    """Operations of a forward and backward pass, by what they grow with.

    Attributes:
        per_token: For each token of the decoder.
        per_squared_length: For the square of each sequence's length (causal attention, half of the square counted).
        per_supervised: For each position at which logits are computed.
        per_feature: For each projected feature, by modality.
        per_encoded: For each position that an encoder computes, by modality; without its attention.
    """

    per_token: float
    per_squared_length: float
    per_supervised: float
    per_feature: Mapping[str, float] = field(default_factory=dict)
    per_encoded: Mapping[str, float] = field(default_factory=dict)

    def total(
        self,
        num_tokens: float,
        sum_of_squared_lengths: float,
        num_supervised: float,
        num_features: Mapping[str, float] | None = None,
        num_encoded: Mapping[str, float] | None = None,
    ) -> float:
        """Operations of one forward and backward pass.

        What is computed twice (checkpointed activations) counts once, and padding not at all, as model FLOP utilisation
        has it.

        Args:
            num_tokens: Tokens that the decoder reads, with placeholders and without padding.
            sum_of_squared_lengths: Of the conversations' lengths in tokens.
            num_features: Projected features by modality, where those operations are to be counted too.
            num_encoded: Positions that each encoder computes, without those that come from a cache.
        """
        total = num_tokens * self.per_token + sum_of_squared_lengths * self.per_squared_length
        total += num_supervised * self.per_supervised
        total += sum(number * self.per_feature[name] for name, number in (num_features or {}).items())
        return total + sum(number * self.per_encoded[name] for name, number in (num_encoded or {}).items())


def flop_rates(model: AdaptkitForConditionalGeneration) -> FlopRates:
    """The operations of a workflow's passes; valid as long as the same parameters are trainable (`requires_grad`)."""
    adapted = {name: any(p.requires_grad for p in encoder.parameters()) for name, encoder in model.encoders.items()}
    learns = [adapted[name] or any(p.requires_grad for p in module.parameters()) for name, module in
              model.projectors.items()]  # fmt: skip
    decoder = cast(Any, model.language_model)
    embedding, head = decoder.get_input_embeddings(), decoder.get_output_embeddings()
    flow = _Flow(any(learns) or any(p.requires_grad for p in embedding.parameters()), _expert_share(decoder.config))
    layers = decoder_layers(decoder)
    inside = {module for layer in layers for module in layer.modules()}
    per_token = per_square = 0.0
    for layer in layers:
        per_token += flow.through(layer.modules())
        per_square += _attention_flops(layer, decoder.config, flow.has_gradient)
    inside |= {embedding} | (set() if head is None else {head})
    per_token += flow.through(module for module in decoder.modules() if module not in inside)
    return FlopRates(
        per_token,
        per_square,
        0.0 if head is None else flow.through(head.modules()),
        {name: _Flow(adapted[name]).through(module.modules()) for name, module in model.projectors.items()},
        {name: _Flow(False).through(encoder.modules()) for name, encoder in model.encoders.items()},
    )


@dataclass
class _Flow:
    """Modules in the order in which they run, and whether a gradient comes back through their inputs."""

    has_gradient: bool
    expert_share: float = 1.0

    def through(self, modules: Iterable[nn.Module]) -> float:
        total = 0.0
        for module in modules:
            for weight, size in _matrices(module):
                passes = 1 + self.has_gradient + weight.requires_grad
                self.has_gradient = self.has_gradient or weight.requires_grad
                total += FORWARD * passes * size * (self.expert_share if weight.ndim == 3 else 1.0)
        return total


def _matrices(module: nn.Module) -> list[tuple[Tensor, int]]:
    """A module's own weights that multiply positions, and how many values each has, packed as it may be."""
    if isinstance(module, nn.Embedding):
        return []
    if isinstance(module, nn.Linear):
        return [(module.weight, module.in_features * module.out_features)]
    if isinstance(module, Conv1D):
        return [(module.weight, module.nx * module.nf)]
    return [(p, int(getattr(p, "ds_numel", p.numel()))) for p in module.parameters(recurse=False) if p.ndim > 1]


def _expert_share(config: Any) -> float:
    """Share of a mixture's experts that a token goes through."""
    config = config.get_text_config(decoder=True)
    sizes = [getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")]
    total = next((size for size in sizes if isinstance(size, int) and size > 0), None)
    chosen = getattr(config, "num_experts_per_tok", None)
    return min(1.0, chosen / total) if isinstance(chosen, int) and total else 1.0


def _attention_flops(layer: nn.Module, config: Any, has_gradient: bool) -> float:
    """Of causal attention, for the square of a sequence's length; none in layers without attention."""
    try:
        attention: Any = attention_of(layer)
    except ModelError:
        return 0.0
    config = config.get_text_config(decoder=True)
    heads = int(config.num_attention_heads)
    head_dim = getattr(attention, "head_dim", None) or getattr(config, "head_dim", None)
    width = heads * head_dim if isinstance(head_dim, int) else int(config.hidden_size)
    passes = 3 if has_gradient else 1
    return float(_ATTENTION_PRODUCTS * FORWARD * _CAUSAL_HALF * width * passes)
