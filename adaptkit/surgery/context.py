"""What modules of a policy know of a forward pass beside the hidden states: the adapter context.

A family's forward hands its layers what the family needs, and some drop every keyword they do not know. So the
composite publishes one `AdapterContext` around its call of the decoder, and a layer that a policy extended
with `ContextLayer` takes it up when it is called, as a keyword argument of its own forward. From there on it is an
argument like any other: gradient checkpointing keeps it for the recomputation, which may run in another thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor, nn

from adaptkit.errors import ModelError


@dataclass
class AdapterContext:
    """Per-token and per-row facts of one forward pass.

    Attributes:
        media_mask: True where a feature was spliced in, `(batch, seq)`.
        media_set: Which modalities each row holds anywhere, also in what a cache holds already: bit `m` stands for the
            workflow's modality number `m`, `(batch,)`.
        media: With context features, projected features of each row's items,
            `(batch, max_items, positions, hidden)`; padded with zeros.
        media_counts: How many items each row has in `media`, `(batch,)`.
        text_time: With context features, the number of items that came before or at each token, `(batch, seq)`.
        media_values: What modules computed from `media` alone, by module; it goes on beside the cache as long as no
            media join.
    """

    media_mask: Tensor
    media_set: Tensor
    media: Tensor | None = None
    media_counts: Tensor | None = None
    text_time: Tensor | None = None
    media_values: dict[nn.Module, Any] = field(default_factory=dict)
    _values: dict[str, Any] = field(default_factory=dict)

    def put(self, name: str, value: Any) -> None:
        """Hand a value on to later modules. The first value stays, since recomputed layers put theirs again."""
        self._values.setdefault(name, value)

    def has(self, name: str) -> bool:
        """Whether a module of this pass, or of the pass that filled the cache, has put that value."""
        return name in self._values

    def get(self, name: str) -> Any:
        """A value that an earlier module put.

        Raises:
            ModelError: No module did.
        """
        if name not in self._values:
            raise ModelError(f"no module of this pass has put {name!r} into the adapter context.")
        return self._values[name]


_current: ContextVar[AdapterContext | None] = ContextVar("adapter_context", default=None)


@contextmanager
def provide_context(context: AdapterContext) -> Iterator[None]:
    """Make `context` the one that layers called in this thread take up."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def current_context() -> AdapterContext:
    """The context of the extended layer that is running: for submodules, which get no keyword arguments.

    Raises:
        ModelError: No extended layer of a workflow is running.
    """
    context = _current.get()
    if context is None:
        raise ModelError("adapted layers run only inside a workflow: call the model, not its language_model.")
    return context


class _Sealed:
    """A context as an argument that nobody looks into: FSDP copies dataclasses, and layers share the one they have."""

    def __init__(self, context: AdapterContext) -> None:
        self.context = context


class ContextLayer(nn.Module):
    """Mixin for `extend_module`: a decoder layer whose forward, and whose submodules, know the adapter context.

    Override `adapted_forward`.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take up the context, so that checkpointing keeps it."""
        kwargs.setdefault("adapter_context", _Sealed(current_context()))
        return super().__call__(*args, **kwargs)

    def forward(self, hidden_states: Tensor, *args: Any, adapter_context: _Sealed, **kwargs: Any) -> Any:
        """Run `adapted_forward` with the context in reach of the layer's submodules."""
        context = adapter_context.context
        with provide_context(context):
            return self.adapted_forward(hidden_states, context, *args, **kwargs)

    def adapted_forward(self, hidden_states: Tensor, context: AdapterContext, *args: Any, **kwargs: Any) -> Any:
        """The layer's own forward, unchanged."""
        return self.stock_forward(hidden_states, *args, **kwargs)

    def stock_forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What the layer computed before it was extended."""
        return super().forward(hidden_states, *args, **kwargs)


Module = TypeVar("Module", bound=nn.Module)


def extend_module(module: Module, mixin: type[nn.Module], **attributes: Any) -> Module:
    """Make a module an instance of `mixin` too, in place: the mixin's methods come first.

    The module stays an instance of its family's class and keeps its parameter names, so that recorders of hidden
    states, checkpointing and sharding by class treat it as before.

    Args:
        module: A module of a structural copy (its class changes, its tensors do not).
        mixin: Methods to put before the module's own.
        attributes: What the methods need: submodules, parameters, plain values.
    """
    module.__class__ = _extended_class(mixin, type(module))
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


_extended_classes: dict[tuple[type[nn.Module], type[nn.Module]], Any] = {}


def _extended_class(mixin: type[nn.Module], stock: type[nn.Module]) -> Any:
    """One class for each pair, so that equal layers stay of equal class."""
    if (mixin, stock) not in _extended_classes:
        names = {"__module__": stock.__module__, "__doc__": mixin.__doc__}
        methods = {"__reduce_ex__": _reduce_extended, "_extended_from": (mixin, stock)}
        _extended_classes[mixin, stock] = type(stock.__name__, (mixin, stock), {**names, **methods})
    return _extended_classes[mixin, stock]


def _reduce_extended(module: Any, protocol: Any) -> tuple[Any, ...]:
    """How pickle finds classes that stand in no file."""
    mixins, stock = [], type(module)
    while "_extended_from" in vars(stock):
        mixin, stock = stock._extended_from
        mixins.append(mixin)
    return _empty_extended, (stock, *reversed(mixins)), module.__getstate__()


def _empty_extended(stock: Any, *mixins: type[nn.Module]) -> Any:
    for mixin in mixins:
        stock = _extended_class(mixin, stock)
    return stock.__new__(stock)


def first_output(output: Any) -> Tensor:
    """Hidden states of a layer's output, which some families wrap in a tuple or a list."""
    hidden_states: Tensor = output[0] if isinstance(output, tuple | list) else output
    return hidden_states


def with_first_output(output: Any, hidden_states: Tensor) -> Any:
    """The same output with other hidden states."""
    if not isinstance(output, tuple | list):
        return hidden_states
    changed = (hidden_states, *output[1:])
    if isinstance(output, list):
        return list(changed)
    return type(output)(*changed) if hasattr(output, "_fields") else changed
