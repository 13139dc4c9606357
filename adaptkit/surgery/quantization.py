"""Bases whose linear maps are packed into 4 or 8 bits by bitsandbytes: recognised, shared, unpacked.

Nothing here imports bitsandbytes before a base is packed by it.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adaptkit.errors import ModelError, install_command
from adaptkit.surgery.arguments import require_module

Quantization = Literal["nf4", "fp4", "int8"]

PACKED_WEIGHTS = {"Params4bit": 4, "Int8Params": 8}
"""Classes of bitsandbytes' weights, and bits of a value."""


def require_bitsandbytes(what: str) -> None:
    """Raise a `ModelError` that names the extra, and what needs it, where bitsandbytes is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f"{what} needs bitsandbytes. Install it with `{install_command('bitsandbytes')}`.")


def bitsandbytes_config(quantization: str, dtype: torch.dtype) -> Any:
    """The `quantization_config` with which transformers packs a base while it loads it.

    It is `nf4`, `fp4` (4 bits, their scales packed too) or `int8`; products are computed in the dtype.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    require_bitsandbytes(f"quantization: {quantization}")
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=True,
    )


def is_packed(module: nn.Module) -> bool:
    """Whether a module is a linear map of bitsandbytes."""
    return type(getattr(module, "weight", None)).__name__ in PACKED_WEIGHTS


def quantization_of(model: nn.Module) -> str | None:
    """How a model's linear maps are packed: `nf4`, `fp4`, `int8`, or None."""
    require_module("model", model)
    for module in model.modules():
        if is_packed(module):
            weight: Any = module.weight
            return str(getattr(weight, "quant_type", "int8"))
    return None


def prepare_quantized(base: nn.Module) -> None:
    """Make packed maps safe to share and to send gradients through, as they are right after loading.

    Raises:
        ModelError: They are packed by something else than bitsandbytes, or have been repacked for inference.
    """
    method = getattr(base, "quantization_method", None)
    if method is not None and quantization_of(base) is None:
        raise ModelError(
            f"the base is quantised by {getattr(method, 'value', method)}, from which insertion layers cannot be "
            "copied. Load it as it was before, and quantise it by bitsandbytes (nf4, fp4, int8)."
        )
    for name, module in base.named_modules():
        if not is_packed(module):
            continue
        weight: Any = module.weight
        if getattr(getattr(weight, "quant_state", None), "packing_format_for_cpu", False):
            raise ModelError(
                f"{name} was repacked for inference on this CPU when the base first ran, and would lose gradients. "
                "Load the base again and adapt it before it runs."
            )
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        if getattr(weight, "CB", None) is not None:
            # A first pass would move these from the weight, which copies share, into one of them alone
            cast(Any, module).init_8bit_state()


def check_move(base: nn.Module, device: torch.device | None, dtype: torch.dtype | None) -> None:
    """Refuse what packed weights do not survive.

    Raises:
        ModelError: It is quantised, and to be cast, or, with 8 bits, to be moved.
    """
    quantization = quantization_of(base)
    if quantization is None:
        return
    if dtype is not None:
        raise ModelError(
            f"the base is quantised ({quantization}) and cannot be cast to {dtype}; load it in that dtype."
        )
    here = next(base.parameters()).device
    moved = device is not None and (device.type, device.index or 0) != (here.type, here.index or 0)
    if quantization == "int8" and moved:
        raise ModelError(
            f"an int8 base cannot be moved from {here} to {device}; load it with device_map={str(device)!r}."
        )


def packed_state(module: nn.Module) -> list[Any]:
    """What packed maps hold beside parameters and buffers, which a structural copy shares."""
    found: list[Any] = []
    for packed in filter(is_packed, module.modules()):
        state: Any = getattr(packed, "state", None)
        found += [getattr(packed, "quant_state", None), getattr(state, "CB", None), getattr(state, "SCB", None)]
    return [value for value in found if value is not None]


def unpacked(module: nn.Module) -> nn.Module:
    """A module with ordinary linear maps in place of packed ones, changed in place unless it is one itself."""
    if is_packed(module):
        return _unpack(module)
    for name in [name for name, child in module.named_modules() if is_packed(child)]:
        module.set_submodule(name, _unpack(module.get_submodule(name)))
    return module


def _unpack(packed: Any) -> nn.Module:
    integration: Any = importlib.import_module("transformers.integrations.bitsandbytes")
    weight: Tensor = integration.dequantize_bnb_weight(packed.weight, getattr(packed, "state", None)).detach()
    with torch.device("meta"):
        if getattr(packed, "source_cls", None) is Conv1D:
            plain: Any = packed.source_cls(packed.out_features, packed.in_features)
            weight = weight.T.contiguous()
        else:
            plain = nn.Linear(packed.in_features, packed.out_features, bias=packed.bias is not None)
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if packed.bias is not None:
        plain.bias = nn.Parameter(packed.bias.detach().clone(), requires_grad=False)
    return cast(nn.Module, plain.train(packed.training))


def num_values(parameter: Tensor) -> int:
    """Values that a parameter stands for, packed as they may be; a prediction says by `num_packed` how many."""
    if hasattr(parameter, "num_packed"):
        return int(parameter.num_packed)
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


def num_bytes(parameter: Tensor) -> int:
    """Memory of a parameter, with the scales of packed values."""
    parts = [parameter, getattr(parameter, "SCB", None), *_state_tensors(getattr(parameter, "quant_state", None))]
    return sum(part.nbytes for part in parts if part is not None)


def _state_tensors(state: Any) -> list[Tensor]:
    """Scales of 4-bit values; the table of values is one for all maps and not counted."""
    if state is None:
        return []
    return [state.absmax, *_state_tensors(getattr(state, "state2", None))]
