"""Features of all media of some datasets, encoded before training."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from adaptkit.build import CachedFeatures
from adaptkit.errors import DataError
from adaptkit.files.paths import cache_dir
from adaptkit.interfaces import DataSource, Encoder
from adaptkit.model.encoders import run_encoder
from adaptkit.run.feature_cache import FeatureCache


def cache_features(
    modality: str,
    inputs: Any,
    encoder: Encoder,
    sources: Iterable[DataSource],
    progress: Callable[[int, int], None] | None = None,
) -> CachedFeatures:
    """Encode every medium of a modality once; what is in the cache already is not encoded again."""
    keys = _ContentKeys(inputs.modality.content_key)
    dtype = next((p.dtype for p in encoder.parameters()), torch.float32)
    cache = FeatureCache(cache_dir() / "features", encoder.fingerprint(), dtype)

    def encode(batch: list[Tensor]) -> Tensor | list[Tensor]:
        raw = inputs.preprocessor.collate(batch)
        with torch.no_grad():
            return run_encoder(encoder, raw)

    items = [(keys(source), partial(inputs.load, source)) for source in _media_of(sources, modality, keys)]
    failed = cache.fill(items, encode, progress=progress)
    keys.failed.update(failed)
    first = next((key for key, _ in items if key not in failed), None)
    return CachedFeatures(keys, cache.get, None if first is None else torch.zeros_like(cache.get([first])[0]))


def _media_of(sources: Iterable[DataSource], modality: str, keys: _ContentKeys) -> list[Any]:
    """Distinct usable media of some datasets; unusable ones are reported when their sample is read."""
    found: dict[str, Any] = {}
    for source in sources:
        for index in range(len(source)):
            try:
                parts = [part for message in source[index].messages for part in message["content"]]
                for part in parts:
                    if part["type"] == modality:
                        found.setdefault(keys(part[modality]), part[modality])
            except DataError:
                continue
    return list(found.values())


class _ContentKeys:
    """Content keys of media, each computed once where the medium can be recognised.

    Attributes:
        failed: Why a medium could not be encoded, by key.
    """

    def __init__(self, content_key: Callable[[Any], str]) -> None:
        self._content_key = content_key
        self._known: dict[Hashable, str] = {}
        self.failed: dict[str, str] = {}

    def __call__(self, source: Any) -> str:
        recognisable = isinstance(source, Hashable) and not isinstance(source, bytes)  # whose hash takes as long
        key = self._known.get(source) if recognisable else None
        if key is None:
            key = self._content_key(source)
            if recognisable:
                self._known[source] = key
        if key in self.failed:
            raise DataError(self.failed[key])
        return key
