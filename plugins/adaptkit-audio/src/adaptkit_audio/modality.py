"""Reading, hashing and showing recordings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from adaptkit.errors import DataError
from adaptkit.files.media import SourceReader
from adaptkit.interfaces import Modality
from adaptkit_audio.clip import AudioClip
from adaptkit_audio.decoding import check_length, check_samples, decode, from_array
from adaptkit_audio.options import AudioOptions
from adaptkit_audio.showing import render

ACCEPTED = (
    "a path, bytes, a binary file object, a data URI, (array, sampling_rate), or {'array': ..., 'sampling_rate': ...}"
)


class AudioModality(Modality):
    """Recordings as `AudioClip`: float32 samples at their own rate, channels averaged to one."""

    name = "audio"
    tag = "<audio>"
    plural = "audio"  # as processors of transformers call it

    def __init__(self, options: AudioOptions | None = None) -> None:
        self.options = options or AudioOptions()
        hint = f"Cut it; more than {self.options.max_seconds:g} seconds (max_seconds) are refused in any case."
        self._reader = SourceReader("recording", ACCEPTED, self.options.max_bytes, hint=hint)

    def load(self, source: Any) -> AudioClip:
        """Read one recording.

        Args:
            source: A path, bytes, a binary file object, a base64 data URI, an `AudioClip`, `(array, sampling_rate)`,
                or a mapping as `datasets` gives: with `array` and `sampling_rate`, or with `bytes` or `path`.

        Raises:
            DataError: It is missing, no recording, damaged, empty, silent, or beyond the limits.
        """
        clip, where = self._read(_unwrapped(source))
        check_samples(clip, where, self.options.allow_silence)
        return clip

    def content_key(self, source: Any) -> str:
        """SHA-256 of the file's bytes, or of the samples and rate of what is in memory."""
        source = _unwrapped(source)
        if isinstance(source, AudioClip | tuple | np.ndarray):
            clip = self.load(source)
            return hashlib.sha256(f"{clip.sampling_rate} ".encode() + clip.samples.tobytes()).hexdigest()
        return hashlib.sha256(self._reader.read(source)[0]).hexdigest()

    def to_html(self, item: AudioClip) -> str:
        """A player and the waveform."""
        return render(item)

    def doubts(self, item: AudioClip) -> list[str]:
        """A recording that holds no sound."""
        return ["all its samples have one value"] if bool((item.samples == item.samples[0]).all()) else []

    def augment(self, item: AudioClip, rng: np.random.Generator) -> AudioClip:
        """A little faster or slower, louder or softer, later, and with some noise."""
        from adaptkit_audio.augmentation import vary

        return vary(item, rng)

    def _read(self, source: Any) -> tuple[AudioClip, str]:
        if isinstance(source, np.ndarray):
            raise DataError(
                f"an array of shape {source.shape} says nothing of its sampling rate: give (array, sampling_rate), or "
                "{'array': ..., 'sampling_rate': ...}."
            )
        if not isinstance(source, AudioClip | tuple):
            raw, where = self._reader.read(source)
            return decode(raw, where, self.options.max_seconds, self.options.max_samples), where
        clip = source if isinstance(source, AudioClip) else from_array(*source)
        where = f"the recording of {len(clip.samples):,} samples"
        check_length(len(clip.samples), clip.sampling_rate, where, self.options.max_seconds, self.options.max_samples)
        return clip, where


def _unwrapped(source: Any) -> Any:
    """Arrays with their rate as a pair, however they were written; paths and bytes out of a mapping."""
    if isinstance(source, Mapping):
        if source.get("array") is not None and source.get("sampling_rate") is not None:
            return source["array"], source["sampling_rate"]
        given = [source[key] for key in ("bytes", "path") if source.get(key) is not None]
        if given and "array" not in source:
            return given[0]
        raise DataError(
            f"a recording given as a mapping needs 'array' and 'sampling_rate', or 'bytes' or 'path'; this one has "
            f"{sorted(map(str, source))}."
        )
    if isinstance(source, list | tuple):
        if len(source) == 2 and isinstance(source[1], int | float | np.number):
            return tuple(source)
        raise DataError(f"a {type(source).__name__} of {len(source)} is not a recording: give {ACCEPTED}.")
    return source
