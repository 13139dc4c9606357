"""The memory that tensors take while code runs."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor

from adaptkit.prediction.fake import WithoutValues

ALLOCATION = 512
"""Bytes to which CUDA's allocator rounds up."""


class MemoryTracker(WithoutValues):  # type: ignore[no-untyped-call]
    """Counts the storages of tensors that operations return, for as long as they are alive.

    `torch.distributed._tools.mem_tracker.MemTracker` counts the same, but cannot be used here: it registers a gradient
    hook on every parameter, which PyTorch refuses for frozen ones.

    Attributes:
        live: Bytes at the moment.
        peak: The most so far.
    """

    def __init__(self) -> None:
        super().__init__(makes_fakes=True)
        self.live = 0
        self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = super().__torch_dispatch__(func, types, args, kwargs)
        for tensor in output if isinstance(output, list | tuple) else (output,):
            if isinstance(tensor, Tensor):
                self.add(tensor)
        return output

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
