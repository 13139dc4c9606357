"""Building models without their weights: from configs alone, and packed as bitsandbytes would pack them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from adaptkit.files.loading import load_stock
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.prediction.shadows import Shadow, shadow_building, shadow_of

_BYTES = {"nf4": 0.5, "fp4": 0.5, "int8": 1.0}
_BLOCK, _BLOCK_OF_SCALES = 64, 256


@contextmanager
def without_weights() -> Iterator[None]:
    """Build models inside as shadows; what `from_pretrained` of transformers would load needs its config alone."""
    with warnings.catch_warnings():
        # Plugins that load a file of weights by themselves load it into shadows, which torch says tensor by tensor
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter.*")
        with shadow_building(), patch.object(PreTrainedModel, "from_pretrained", classmethod(_from_config)):
            yield


def _from_config(cls: Any, source: Any, *_: Any, **options: Any) -> Any:
    """In place of `from_pretrained`; takes the options that plugins give, and leaves those that concern weights."""
    where = {name: options[name] for name in ("revision", "cache_dir", "subfolder") if name in options}
    config = options.get("config")
    if config is None:
        config = load_stock(cls.config_class or AutoConfig, source, **where)
    dtype = options.get("dtype", options.get("torch_dtype"))
    if dtype in (None, "auto"):
        dtype = (getattr(config, "dtype", None) if dtype == "auto" else None) or torch.float32
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    model = cls._from_config(config, dtype=dtype).eval()
    return (model, {"missing_keys": [], "unexpected_keys": []}) if options.get("output_loading_info") else model


def turn_into_shadows(*modules: nn.Module) -> None:
    """Replace what was loaded all the same, in place; tensors that modules share stay shared."""
    memo: dict[int, Tensor] = {}
    kept: list[Tensor] = []  # an id is unique among what lives

    def shadow(tensor: Tensor) -> Tensor:
        if id(tensor) not in memo:
            made = shadow_of(tensor)
            if isinstance(tensor, nn.Parameter) and made is not tensor:
                made = nn.Parameter(made, requires_grad=tensor.requires_grad)
            memo[id(tensor)] = made
            kept.append(tensor)
        return memo[id(tensor)]

    for owner in chain.from_iterable(module.modules() for module in modules):
        tables: tuple[dict[str, Any], ...] = (owner._parameters, owner._buffers)
        for table in tables:
            table.update({name: shadow(tensor) for name, tensor in table.items() if tensor is not None})


def pack_base(model: AdaptkitForConditionalGeneration, quantization: str) -> None:
    """Let the base's linear maps in a workflow take the memory of packed ones, in place.

    Args:
        model: Built of shadows on an unpacked base.
        quantization: `nf4`, `fp4` or `int8`.
    """
    shared = {id(p) for p in model.base.parameters()}
    heads = {id(m.get_output_embeddings()) for m in (model.base, model.language_model)}
    weights: dict[int, nn.Parameter] = {}
    for module in {id(m): m for m in chain(model.base.modules(), model.modules())}.values():
        if not isinstance(module, nn.Linear | Conv1D) or id(module) in heads or id(module.weight) not in shared:
            continue
        weight = module.weight
        if id(weight) not in weights:
            weights[id(weight)] = _packed(weight, quantization)
        rows, columns = weight.shape if isinstance(module, nn.Linear) else reversed(weight.shape)
        module.weight = weights[id(weight)]
        vars(module)["forward"] = _PackedForward(module, int(rows), int(columns))


def _packed(weight: Tensor, quantization: str) -> nn.Parameter:
    num_values = weight.numel()
    num_bytes = int(_BYTES[quantization] * num_values)
    if quantization == "int8":
        num_bytes += 4 * weight.shape[0]
    else:
        num_blocks = math.ceil(num_values / _BLOCK)
        num_bytes += num_blocks + 4 * math.ceil(num_blocks / _BLOCK_OF_SCALES)
    packed = nn.Parameter(Shadow(torch.empty(num_bytes, dtype=torch.uint8, device="meta")), requires_grad=False)
    packed.num_packed = num_values  # type: ignore[attr-defined]
    return packed


class _PackedForward:
    """A packed map's forward: the weight is unpacked for each product, and again for its gradient."""

    def __init__(self, module: Any, rows: int, columns: int) -> None:
        self._bias, self._shape = module.bias, (rows, columns)

    def __call__(self, inputs: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else inputs.dtype
        with torch.autocast("cpu", enabled=False):
            output = _UnpackedProduct.apply(inputs.to(dtype), self._shape)
            output = output if self._bias is None else output + self._bias.to(dtype)
            return output.to(inputs.dtype)  # type: ignore[no-any-return]


class _UnpackedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.weight_shape = shape
        return F.linear(inputs, inputs.new_empty(shape))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient @ gradient.new_empty(ctx.weight_shape), None
