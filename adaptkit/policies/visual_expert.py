"""CogVLM's visual expert."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adaptkit.errors import ModelError
from adaptkit.interfaces import Encoder
from adaptkit.policies.options import VisualExpertOptions
from adaptkit.surgery import (
    AdapterContext,
    ContextLayer,
    Decoder,
    InsertionPolicy,
    current_context,
    extend_module,
    trainable_copy,
)
from adaptkit.surgery.layers import attention_of, mlp_of

OUTPUT_NAMES = ("o_proj", "out_proj", "dense", "c_proj", "wo", "Wo")
"""What transformers' families call the map from attention heads back to hidden states."""

CACHED_NAMES = ("kv_b_proj",)
"""Maps that some families apply to what their cache holds, hence to other tokens than those of a pass."""

ROWS = "expert rows"


class VisualExpert(InsertionPolicy):
    """CogVLM (arXiv 2311.03079, section 2.1, equations 1 to 3): weights of their own for media, in every layer.

    Queries, keys and values, and the feed-forward network, are computed by trainable copies at media positions and by
    the frozen weights at all others; all positions attend to each other as before. The copies start as the frozen
    weights, so that the workflow starts as the base.
    """

    options: VisualExpertOptions
    uses_context = True
    exports_as_stock = False
    supports_compile = False

    def apply(self, decoder: Decoder, encoders: Mapping[str, Encoder], layers: list[int]) -> None:
        """Give the layers their experts."""
        for index, layer in zip(layers, decoder.extend_layers(layers, ContextLayer), strict=True):
            try:
                modules = self._modules_with_experts(layer, decoder.hidden_size)
            except ModelError as error:
                raise ModelError(f"visual_expert: {type(decoder.model).__name__}, layer {index}: {error}") from error
            for module in modules:
                extend_module(module, RoutedModule, expert=trainable_copy(module, configs_of=decoder.model))

    def prepare(self, context: AdapterContext, language_model: nn.Module, modules: nn.ModuleDict) -> None:
        """Say once for all layers which tokens the experts compute."""
        context.put(ROWS, split_rows(context.media_mask))

    def _modules_with_experts(self, layer: nn.Module, width: int) -> list[nn.Module]:
        inputs, outputs = _projections(attention_of(layer))
        return [*inputs, *(outputs if self.options.output_projection else []), *_feed_forward(layer, width)]


class RoutedModule(nn.Module):
    """Mixin of a position-wise module that leaves media positions to its expert.

    Each side computes its own positions alone.
    """

    expert: nn.Module

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the module returns, of `(..., width)` inputs."""
        context = current_context()
        shape = _first_tensor(args, kwargs).shape[:-1]
        if shape.numel() != context.media_mask.numel():
            raise ModelError(
                f"visual_expert: {type(self).__name__} was called on {shape.numel()} positions in a pass over "
                f"{context.media_mask.numel()}; which of them are media cannot be determined."
            )
        rows = context.get(ROWS)
        if rows is None:
            output: Tensor = super().forward(*args, **kwargs)
            return output + self._nothing(shape, args, kwargs) if self.training and torch.is_grad_enabled() else output
        media, text, order = rows
        outputs = [_call_at(media, self.expert, shape, args, kwargs)]
        if text.numel():
            outputs.insert(0, _call_at(text, super().forward, shape, args, kwargs))
        merged = torch.cat([output.to(outputs[0].dtype) for output in outputs]).index_select(0, order)
        return merged.reshape(*shape, merged.shape[-1])

    def _nothing(self, shape: torch.Size, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Zero, by way of the expert: every process of a run must have a gradient for it, also without media."""

        def blank(value: Any) -> Any:
            return value.new_zeros(1, 1, value.shape[-1]) if _is_aligned(value, shape) else value

        output: Tensor = self.expert(*map(blank, args), **{name: blank(value) for name, value in kwargs.items()})
        return output.sum() * 0


def split_rows(media_mask: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Positions of a flattened batch: those of media, all others, and how to restore the order of both together.

    Args:
        media_mask: `(batch, seq)`.

    Returns:
        Indices into `batch * seq` of media and of text, and for each position its place in text followed by media; None
        where there are no media.
    """
    flat = media_mask.flatten()
    media, text = flat.nonzero().squeeze(1), (~flat).nonzero().squeeze(1)
    if not media.numel():
        return None
    return media, text, torch.cat([text, media]).argsort()


def _call_at(
    rows: Tensor, call: Callable[..., Tensor], shape: torch.Size, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor:
    """Call on some positions alone, as one sequence; `(len(rows), width)`."""

    def pick(value: Any) -> Any:
        return value.flatten(0, -2).index_select(0, rows).unsqueeze(0) if _is_aligned(value, shape) else value

    return call(*map(pick, args), **{name: pick(value) for name, value in kwargs.items()}).flatten(0, -2)


def _is_aligned(value: Any, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.shape[:-1] == shape


def _first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


def _linear_maps(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    return {name: module for name, module in modules.items() if isinstance(module, nn.Linear | Conv1D)}


def _projections(attention: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """An attention's linear maps from hidden states (also through a bottleneck) and those back to them."""
    maps = _linear_maps(dict(attention.named_modules()))
    outputs = [module for name, module in maps.items() if name.rpartition(".")[2] in OUTPUT_NAMES]
    others = (*OUTPUT_NAMES, *CACHED_NAMES)
    inputs = [module for name, module in maps.items() if name.rpartition(".")[2] not in others]
    if not inputs or not outputs:
        raise ModelError(
            f"in {type(attention).__name__} the query, key, value and output projections cannot be determined; its "
            f"linear maps are {', '.join(maps) or 'none'}."
        )
    return inputs, outputs


def _feed_forward(layer: nn.Module, width: int) -> list[nn.Module]:
    """The layer's MLP, or the linear maps that some families call from the layer itself."""
    try:
        mlp = mlp_of(layer)
    except ModelError:
        maps = list(_linear_maps(dict(layer.named_children())).values())
        if not maps:
            raise
        return maps
    _check_returns_tensor(mlp, width)
    return [mlp]


@torch.no_grad()
def _check_returns_tensor(mlp: nn.Module, width: int) -> None:
    """Try one position: what an MLP returns beside hidden states (router scores) could not be divided."""
    parameters = inspect.signature(mlp.forward).parameters.values()
    required = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    like = next((p for p in mlp.parameters() if p.is_floating_point()), None)
    device, dtype = next(mlp.parameters()).device, None if like is None else like.dtype  # none is left where packed
    output: Any = mlp(*[torch.zeros(1, 1, width, device=device, dtype=dtype)] * len(required))
    if not isinstance(output, Tensor):
        raise ModelError(
            f"{type(mlp).__name__} returns a {type(output).__name__} instead of hidden states alone, which cannot be "
            "divided between two sets of weights."
        )
