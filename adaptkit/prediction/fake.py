"""A model without values runs a training step: shapes are computed, values are not.

Models are built on the meta device and run as `FakeTensor`s on the CPU. Token ids, labels and masks stay real, so
whatever depends on them (how many positions are supervised, where features go) happens as in a run. Autograd, autocast
and checkpointing are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from adaptkit.errors import ModelError
from adaptkit.interfaces import EncodedFeatures

aten = torch.ops.aten

LARGE_MASK = 1 << 14
"""Elements from which a mask is computed without values."""

_MODE = FakeTensorMode(allow_non_fake_inputs=True)
_FACTORIES = {aten.full.default, aten.ones.default, aten.zeros.default, aten.empty.memory_format}
_GROUPED: Any = getattr(getattr(aten, "_grouped_mm", None), "default", None)
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


def fake(tensor: Tensor) -> Tensor:
    """A `FakeTensor` on the CPU, of the same shape and dtype."""
    if isinstance(tensor, FakeTensor):
        return tensor
    with _MODE:
        made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def fake_inputs(batch: Any) -> Any:
    """A batch whose tensors on the meta device are `FakeTensor`s."""

    def convert(value: Any) -> Any:
        if isinstance(value, EncodedFeatures):
            return EncodedFeatures(fake_inputs(value.items))
        return fake(value) if isinstance(value, Tensor) and value.is_meta else value

    return tree_map(convert, batch)


@contextmanager
def fake_tensors(*modules: nn.Module) -> Iterator[None]:
    """Replace tensors on the meta device by `FakeTensor`s for a while; tensors that modules share stay shared."""
    owners = {id(owner): owner for module in modules for owner in module.modules()}.values()
    tables: list[dict[str, Any]] = [table for owner in owners for table in (owner._parameters, owner._buffers)]
    before = [dict(table) for table in tables]
    fakes = {id(t): fake(t) for table in before for t in table.values() if t is not None and t.is_meta}
    try:
        for table in tables:
            table.update({name: fakes.get(id(tensor), tensor) for name, tensor in table.items()})
        yield
    finally:
        for table, tensors in zip(tables, before, strict=True):
            table.update(tensors)


class WithoutValues(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs models on the meta device, or of `FakeTensor`s, where PyTorch alone would stop or allocate memory.

    What depends on values that are not there is decided: comparisons hold. Real masks may choose among fake tensors.

    Args:
        makes_fakes: Whether new floating-point tensors are fake, and large masks that are made of small real tensors.

    Raises:
        ModelError: The shape of a result depends on values that are not there.
    """

    def __init__(self, *, makes_fakes: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._makes_fakes = makes_fakes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return func(*args)
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(isinstance(tensor, FakeTensor) or tensor.is_meta for tensor in tensors):
            return _of_real(func, tensors, args, kwargs) if self._makes_fakes else func(*args, **kwargs)
        if func in _BY_VALUE:
            return _BY_VALUE[func](args[0])
        if func in _INDEXED:
            args = (args[0], _as_numbers(args[1]), *args[2:])
        try:
            return _of_any_dtype(func)(*args, **kwargs)
        except (DynamicOutputShapeException, NotImplementedError) as error:
            raise ModelError(f"memory cannot be predicted: the shape of {func} depends on computed values.") from error


def _of_real(func: Any, tensors: list[Tensor], args: Any, kwargs: dict[str, Any]) -> Any:
    if func in _FACTORIES and kwargs.get("device") != torch.device("meta"):
        with _MODE:
            made: Tensor = func(*args, **kwargs)
        if made.is_floating_point():
            return made
    elif torch.Tag.pointwise in func.tags and _grows(tensors):
        args, kwargs = tree_map_only(Tensor, fake, (args, kwargs))
    return func(*args, **kwargs)


def _grows(tensors: list[Tensor]) -> bool:
    """Whether small tensors become a large one, as when a row of positions is compared with a column of them."""
    if len(tensors) < 2:
        return False
    shape: torch.Size = torch.broadcast_shapes(*(t.shape for t in tensors))  # type: ignore[no-untyped-call]
    return len(shape) > 2 and shape.numel() >= max(LARGE_MASK, 2 * max(tensor.numel() for tensor in tensors))


def _scalar(tensor: Tensor) -> Any:
    return True if tensor.dtype == torch.bool else 0.0 if tensor.is_floating_point() else 1


_BY_VALUE: dict[Any, Callable[[Tensor], Any]] = {
    aten._local_scalar_dense.default: _scalar,
    aten.equal.default: lambda _: True,
}


def _as_numbers(indices: Any) -> list[Any]:
    """Masks as the numbers of what they choose, whose count says how large the result is."""
    numbers: list[Any] = []
    for index in indices:
        is_mask = isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
        numbers += index.nonzero(as_tuple=True) if is_mask else [index]
    return numbers


def _of_any_dtype(func: Any) -> Any:
    """An operation that takes any dtype, as the real one does: the fake grouped product of some versions does not."""
    if func is not _GROUPED:
        return func

    def grouped(*args: Any, **kwargs: Any) -> Any:
        halves = [one.bfloat16() if isinstance(one, Tensor) and one.is_floating_point() else one for one in args]
        return func(*halves, **kwargs).to(args[0].dtype)

    return grouped
