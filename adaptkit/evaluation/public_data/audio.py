"""Recordings in datasets, decoded by soundfile: `datasets` itself needs torchcodec and FFmpeg for that."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError


def with_decoded_audio(dataset: Any) -> Any:
    """The dataset, or the datasets of several splits, with recordings as arrays.

    Each becomes `{"array", "sampling_rate", "path", "type": "audio"}`; without the type, lmms-eval takes it for a
    video.
    """
    from datasets import Audio, DatasetDict

    if isinstance(dataset, DatasetDict):
        return DatasetDict({split: with_decoded_audio(one) for split, one in dataset.items()})
    features = getattr(dataset, "features", None) or {}
    columns = [name for name, feature in features.items() if isinstance(feature, Audio)]
    if not columns:
        return dataset
    for name in columns:
        dataset = dataset.cast_column(name, Audio(decode=False))
    if not hasattr(dataset, "with_transform"):
        raise DataError("recordings cannot be streamed here; load the dataset without streaming")
    return dataset.with_transform(partial(_decode_columns, columns))


def decode(sound: dict[str, Any]) -> dict[str, Any]:
    """One recording, with one channel, at its own sampling rate.

    Raises:
        DataError: It cannot be read; the message names it.
    """
    import soundfile

    path, content = sound.get("path"), sound.get("bytes")
    name = path or "a recording in the dataset"
    if not path and not content:
        raise DataError("a recording in the dataset has neither content nor a path")
    try:
        with io.BytesIO(content) if content else Path(name).open("rb") as source:
            samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise DataError(f"{name} cannot be read as a recording ({error})") from error
    return {"array": samples.mean(axis=1), "sampling_rate": rate, "path": path, "type": "audio"}


def _decode_columns(columns: list[str], batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {**batch, **{name: [one and decode(one) for one in batch[name]] for name in columns if name in batch}}
