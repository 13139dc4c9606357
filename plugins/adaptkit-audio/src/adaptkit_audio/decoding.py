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
_BLOCK = 1 << 16
_UNKNOWN_FRAMES = 1 << 40
_UNKNOWN_BYTES = 0x7FFFF000


def decode(raw: bytes, where: str, max_seconds: float, max_samples: int) -> AudioClip:
    """Decode a file of any format that libsndfile knows: wav, flac, mp3, ogg and others.

    Its length is checked by its header before anything is decoded, and while decoding where the header has none.
    Channels are averaged block by block.

    Raises:
        DataError: It is not a recording, is damaged, cut short, too long, or has too many channels.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(raw)) as file:
            rate, frames = _checked_rate(file.samplerate, where), int(file.frames)
            known = 0 < frames < _UNKNOWN_FRAMES
            if file.channels > MAX_CHANNELS:
                raise DataError(f"{where} has {file.channels:,} channels, more than the limit of {MAX_CHANNELS}.")
            if known:
                check_length(frames, rate, where, max_seconds, max_samples)
            _check_whole(raw, where)
            limit = frames if known else min(math.ceil(max_seconds * rate), max_samples) + 1
            samples = _read_mono(file, limit)
            check_length(len(samples), rate, where, max_seconds, max_samples)
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = str(error).rpartition(": ")[2].strip().rstrip(".")
        raise DataError(
            f"{where} is not a readable recording (wav, flac, mp3 and what else libsndfile knows), or it is "
            f"damaged or cut short: {reason}."
        ) from error
    if known and len(samples) < frames:
        raise DataError(f"{where} is cut short: its header promises {frames:,} samples, {len(samples):,} are there.")
    return AudioClip(samples, rate)


def _read_mono(file: soundfile.SoundFile, limit: int) -> NDArray[np.float32]:
    """At most so many samples, as the mean of all channels."""
    blocks, num_read = [], 0
    while num_read < limit and len(block := file.read(min(_BLOCK, limit - num_read), "float32", always_2d=True)):
        num_read += len(block)
        blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def check_length(num_samples: int, rate: int, where: str, max_seconds: float, max_samples: int) -> None:
    """Raise a `DataError` for what lasts too long, or has too many samples."""
    check_seconds(num_samples / rate, where, max_seconds)
    if num_samples > max_samples:
        raise DataError(
            f"{where} has {num_samples:,} samples at {rate:,} a second, more than the limit of {max_samples:,} "
            "(max_samples). Cut it into parts, or resample it to a lower rate."
        )


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
            f"{where} is not a recording: give (num_samples,), (channels, num_samples) or (num_samples, channels)."
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
