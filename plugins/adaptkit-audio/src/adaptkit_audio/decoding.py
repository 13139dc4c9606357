"""From bytes or arrays to samples of one channel."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from adaptkit.errors import DataError
from adaptkit_audio.clip import AudioClip

MAX_CHANNELS = 32
MAX_RATE = 1_000_000
_LOUDEST = 32.0
_UNKNOWN_FRAMES = 1 << 40
_UNKNOWN_BYTES = 0x7FFFF000


def decode(raw: bytes, where: str, max_seconds: float) -> AudioClip:
    """Decode a file of any format that libsndfile knows: wav, flac, mp3, ogg and others.

    Its length is checked by its header before anything is decoded, and while decoding where the header has none.

    Raises:
        DataError: It is no recording, damaged, cut short, or too long.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(raw)) as file:
            rate, frames = _checked_rate(file.samplerate, where), int(file.frames)
            known = 0 < frames < _UNKNOWN_FRAMES
            if known:
                check_seconds(frames / rate, where, max_seconds)
            _check_whole(raw, where)
            samples = file.read(frames=frames if known else math.ceil(max_seconds * rate) + 1, dtype="float32")
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = str(error).rpartition(": ")[2].strip().rstrip(".")
        raise DataError(
            f"{where} is no recording that can be read (wav, flac, mp3 and what else libsndfile knows), or it is "
            f"damaged or cut short: {reason}."
        ) from error
    if known and len(samples) < frames:
        raise DataError(f"{where} is cut short: its header promises {frames:,} samples, {len(samples):,} are there.")
    return AudioClip(samples if samples.ndim == 1 else samples.mean(axis=1), rate)


def from_array(array: Any, rate: Any) -> AudioClip:
    """Samples given as an array, `(num_samples,)` or with an axis of channels, which are averaged.

    Raises:
        DataError: Its shape, type or values are no sound, or the rate is none.
    """
    try:
        values = np.asarray(array)
    except Exception as error:  # ragged lists, tensors on a device: whatever numpy refuses
        raise DataError(f"cannot make an array of samples of {type(array).__name__}: {error}.") from error
    where = f"the array of shape {values.shape}"
    if values.size == 0:
        raise DataError(f"{where} is empty.")
    samples = _one_channel(_as_floats(values, where), where)
    return AudioClip(np.ascontiguousarray(samples, dtype=np.float32), _checked_rate(rate, where))


def check_seconds(seconds: float, where: str, max_seconds: float) -> None:
    """Raise a `DataError` for what lasts too long."""
    if seconds > max_seconds:
        hours = f" ({seconds / 3600:.1f} hours)" if seconds >= 3600 else ""
        raise DataError(
            f"{where} lasts {seconds:,.1f} seconds{hours}, more than the limit of {max_seconds:g} (max_seconds). Cut "
            "it into parts."
        )


def check_samples(clip: AudioClip, where: str, allow_silence: bool) -> None:
    """Raise a `DataError` for a recording that holds nothing to learn from."""
    if not clip.samples.size:
        raise DataError(f"{where} is empty: it holds no samples.")
    if not bool(np.isfinite(clip.samples).all()):
        at = int(np.flatnonzero(~np.isfinite(clip.samples))[0])
        raise DataError(f"{where} holds NaN or infinite samples, the first of them at sample {at:,}.")
    loudest = float(np.abs(clip.samples).max())
    if loudest > _LOUDEST:
        raise DataError(
            f"{where} holds samples up to {loudest:.3g}; floats must be about -1..1. Divide what was 16-bit by 32768."
        )
    if loudest == 0 and not allow_silence:
        raise DataError(f"{where} is silent: every sample is zero. Leave it out, or set allow_silence: true.")


def _as_floats(values: NDArray[Any], where: str) -> NDArray[Any]:
    if np.issubdtype(values.dtype, np.floating):
        return values
    if values.dtype in (np.dtype(np.int16), np.dtype(np.int32)):
        return values / float(np.iinfo(values.dtype).max + 1)
    raise DataError(f"{where} holds {values.dtype}: give int16, int32, or floats in -1..1.")


def _one_channel(values: NDArray[Any], where: str) -> NDArray[Any]:
    if values.ndim == 1:
        return values
    if values.ndim != 2 or min(values.shape) > MAX_CHANNELS or values.shape[0] == values.shape[1] != 1:
        raise DataError(
            f"{where} is no recording: give (num_samples,), (channels, num_samples) or (num_samples, channels)."
        )
    return values.mean(axis=int(np.argmin(values.shape)))  # type: ignore[no-any-return]


def _checked_rate(rate: Any, where: str) -> int:
    valid = isinstance(rate, int | float | np.integer | np.floating) and not isinstance(rate, bool)
    if not valid or not 1 <= rate <= MAX_RATE or rate != int(rate):
        raise DataError(f"{where}: a sampling rate of {rate!r} is none; it must be 1..{MAX_RATE:,} samples a second.")
    return int(rate)


def _check_whole(raw: bytes, where: str) -> None:
    """Refuse a wav or aiff file that ends before its header says, which libsndfile reads without a word."""
    for name, size, start in _chunks(raw):
        if name in (b"data", b"SSND") and size < _UNKNOWN_BYTES and start + size > len(raw):
            raise DataError(
                f"{where} is cut short: its header promises {size:,} bytes of sound, {len(raw) - start:,} are there."
            )


def _chunks(raw: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, size in bytes and start of each chunk of a RIFF or AIFF file."""
    order = {b"RIFF": "little", b"FORM": "big"}.get(raw[:4])
    if order is None:
        return
    position = 12
    while position + 8 <= len(raw):
        size = int.from_bytes(raw[position + 4 : position + 8], order)  # type: ignore[arg-type]
        yield raw[position : position + 4], size, position + 8
        position += 8 + size + size % 2
