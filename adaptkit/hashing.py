"""Exact fingerprints of tensors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

_CHUNK_BYTES = 1 << 24


def hash_tensors(named_tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hash names, shapes, dtypes and every bit of the values, whatever the order and the device.

    Large tensors are hashed in pieces by several threads, and on an accelerator are brought over piece by piece.

    Args:
        named_tensors: As from `model.named_parameters()`.

    Returns:
        64 hexadecimal digits.
    """
    tensors = dict(named_tensors)
    digest = hashlib.sha256()
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as executor:
        pieces = {name: [executor.submit(_hash_piece, p) for p in _pieces(tensors[name])] for name in sorted(tensors)}
        for name, futures in pieces.items():
            tensor = tensors[name]
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            for future in futures:
                digest.update(future.result())
    return digest.hexdigest()


def _pieces(tensor: Tensor) -> Sequence[Tensor]:
    flat = tensor.detach().contiguous().reshape(-1)
    size = max(1, _CHUNK_BYTES // flat.element_size())
    return [flat[start : start + size] for start in range(0, flat.numel(), size)]


def _hash_piece(piece: Tensor) -> bytes:
    return hashlib.sha256(piece.cpu().view(torch.uint8).numpy().data).digest()
