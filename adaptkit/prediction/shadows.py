"""Tensors without values: a model runs, forward and backward, in the memory of its shapes.

A `Shadow` stands for a floating-point tensor: it has shape, dtype and device, and a tensor on the meta device does its
arithmetic of shapes. Token ids, masks and counts stay real, so that what depends on their values (how many positions
are supervised, where features go) happens as in a run. Autograd, autocast and checkpointing are the real ones.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing

from adaptkit.errors import ModelError

aten = torch.ops.aten

ALLOCATION = 512
"""Bytes to which CUDA's allocator rounds up."""


class MemoryWatch:
    """Counts the storages that are alive.

    Attributes:
        live: Bytes at the moment.
        peak: The most so far.
    """

    def __init__(self) -> None:
        self.live = 0
        self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, unless it is known."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        size = -(-storage.nbytes() // ALLOCATION) * ALLOCATION
        self._known[key] = weakref.ref(storage, lambda _: self._remove(key, size))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _remove(self, key: int, size: int) -> None:
        del self._known[key]
        self.live -= size

    def restart(self) -> None:
        """Forget the peak so far."""
        self.peak = self.live


_watch: ContextVar[MemoryWatch | None] = ContextVar("memory_watch", default=None)


@contextmanager
def watch_memory() -> Iterator[MemoryWatch]:
    """Count shadows made inside."""
    watch = MemoryWatch()
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)


class Shadow(Tensor):
    """A floating-point tensor without values, or one of integers that were computed from such.

    Args:
        outline: Its shape: a tensor on the meta device.
    """

    outline: Tensor
    is_meta = True
    """So says code that looks for values."""

    @staticmethod
    def __new__(cls, outline: Tensor) -> Shadow:
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls,
            outline.size(),
            strides=outline.stride(),
            storage_offset=outline.storage_offset(),
            dtype=outline.dtype,
            device=torch.device("cpu"),
            requires_grad=False,
        )
        return cast(Shadow, made)

    def __init__(self, outline: Tensor) -> None:
        self.outline = outline
        watch = _watch.get()
        if watch is not None:
            watch.add(outline)

    @property
    def data(self) -> Tensor:
        """As of any tensor."""
        return torch.Tensor.data.__get__(self)  # type: ignore[attr-defined, no-any-return]

    @data.setter
    def data(self, value: Tensor) -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.outline = cast(Shadow, value).outline

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copied: Tensor = Shadow(torch.empty_like(self.outline))
            if isinstance(self, nn.Parameter):
                copied = nn.Parameter(copied, requires_grad=self.requires_grad)
            memo[id(self)] = copied
        return cast(Tensor, memo[id(self)])

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]
        return f"Shadow({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        kwargs = kwargs or {}
        if func in _BY_VALUE:
            return _BY_VALUE[func](*args, **kwargs)
        if func in _INDEXED and any(map(_is_mask, args[1])):
            return func(args[0], _as_numbers(args[1]), *args[2:], **kwargs)
        inner_args, inner_kwargs = _inner(args), _inner(kwargs)
        if inner_kwargs.get("device") is not None:
            inner_kwargs["device"] = torch.device("meta")
        try:
            output = _by_shape(func)(*inner_args, **inner_kwargs)
        except NotImplementedError as error:
            raise ModelError(f"memory cannot be predicted: {func} has no rule for shapes alone.") from error
        wrapped = _outer(output)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)  # type: ignore[no-untyped-call]


def _inner(value: Any) -> Any:
    """Arguments with meta tensors for all tensors."""
    if isinstance(value, Shadow):
        return value.outline
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, dict):
        return {name: _inner(one) for name, one in value.items()}
    return type(value)(map(_inner, value)) if type(value) in (list, tuple) else value


def _outer(value: Any) -> Any:
    """Results with shadows for meta tensors."""
    if isinstance(value, Tensor):
        return Shadow(value)
    return type(value)(map(_outer, value)) if type(value) in (list, tuple) else value


_GROUPED = getattr(aten, "_grouped_mm", None)


def _by_shape(func: Any) -> Callable[..., Any]:
    """An operation on meta tensors, of any dtype that a real one may have."""
    if _GROUPED is None or func is not _GROUPED.default:
        return cast(Callable[..., Any], func)

    def grouped_product(
        *args: Any, **kwargs: Any
    ) -> Any:  # whose rule for shapes takes bfloat16 alone in some versions
        halves = [one.bfloat16() if isinstance(one, Tensor) and one.is_floating_point() else one for one in args]
        return _GROUPED.default(*halves, **kwargs).to(args[0].dtype)

    return grouped_product


# -- operations whose outcome hangs on values ------------------------------------------------------------------------


def _scalar(tensor: Tensor) -> Any:
    """Comparisons hold, and differences are none."""
    return True if tensor.dtype == torch.bool else 0.0 if tensor.is_floating_point() else 1


def _refuse(*_: Any, **__: Any) -> Any:
    raise ModelError("memory cannot be predicted: how much is computed depends on what the model computes before.")


_BY_VALUE: dict[Any, Callable[..., Any]] = {
    aten._local_scalar_dense.default: _scalar,
    aten.equal.default: lambda *_: True,
    aten.nonzero.default: _refuse,
}
_INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _as_numbers(indices: Any) -> list[Any]:
    """Masks as the numbers of what they choose, whose count says how large the result is."""
    numbers: list[Any] = []
    for index in indices:
        numbers += index.nonzero(as_tuple=True) if _is_mask(index) else [index]
    return numbers


LARGE_MASK = 1 << 14
"""Elements from which a mask is made as a shadow."""

_BROADCASTING = re.compile("_*(bitwise_|logical_)?(and|or|xor|eq|ne|le|lt|ge|gt|sub|add|mul|where)_*")


class _ShadowMasks(TorchFunctionMode):
    """Lets attention see masks as shadows: the fused kernels make a floating-point one of each.

    Large ones are shadows from the beginning, as a row of positions and a column of them are compared.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
            if isinstance(mask, Tensor) and not isinstance(mask, Shadow):
                args, kwargs["attn_mask"] = args[:3] + args[4:], Shadow(mask.to("meta"))
        elif _spreads_out(func, args):
            args = tuple(Shadow(arg.to("meta")) if isinstance(arg, Tensor) else arg for arg in args)
        return func(*args, **kwargs)


def _spreads_out(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether small tensors with values become a large one."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if len(tensors) < 2 or any(isinstance(tensor, Shadow) for tensor in tensors):
        return False
    if _BROADCASTING.fullmatch(getattr(func, "__name__", "")) is None:
        return False
    shape: torch.Size = torch.broadcast_shapes(*(t.shape for t in tensors))  # type: ignore[no-untyped-call]
    return len(shape) > 2 and shape.numel() >= max(LARGE_MASK, 2 * max(tensor.numel() for tensor in tensors))


class _ShadowFactories(TorchFunctionMode):
    """Makes new floating-point tensors as shadows, so that modules are built without memory."""

    FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.empty_strided)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self.FACTORIES or str(kwargs.get("device")) == "meta":
            return func(*args, **kwargs)
        without_generator = {name: value for name, value in kwargs.items() if name != "generator"}
        made = func(*args, **{**without_generator, "device": "meta"})
        return Shadow(made) if made.is_floating_point() else func(*args, **kwargs)


@contextmanager
def shadow_building() -> Iterator[None]:
    """Build modules inside whose parameters are shadows."""
    with _ShadowFactories():
        yield


@contextmanager
def shadow_play() -> Iterator[MemoryWatch]:
    """Run models made of shadows inside, and count what they allocate."""
    with watch_memory() as watch, _ShadowMasks():
        yield watch


def shadow_of(tensor: Tensor) -> Tensor:
    """A tensor's shadow where it is of floats; others as they are."""
    if isinstance(tensor, Shadow) or not tensor.is_floating_point():
        return tensor
    return Shadow(torch.empty_like(tensor.detach(), device="meta"))


def storages_of(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Tensors that a `MemoryWatch` can count, of parameters and buffers."""
    for tensor in tensors:
        yield tensor.outline if isinstance(tensor, Shadow) else tensor
