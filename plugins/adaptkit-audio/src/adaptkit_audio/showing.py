"""A recording in a report: a player and its waveform, with nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import io
import wave

import numpy as np

from adaptkit_audio.clip import AudioClip

_PLAYED_S = 10.0
_PLAYED_RATE = 16_000
_WIDTH, _HEIGHT = 320, 48


def render(clip: AudioClip) -> str:
    """An `<audio>` player over the first ten seconds, and the whole waveform as inline SVG."""
    label = f"recording, {clip.seconds:.2f} s at {clip.sampling_rate:,} Hz"
    if clip.seconds > _PLAYED_S:
        label += f"; the first {_PLAYED_S:g} s play"
    data = base64.b64encode(_wav(clip)).decode()
    player = f'<audio controls src="data:audio/wav;base64,{data}"></audio>'
    return f"<figure>{_waveform(clip)}{player}<figcaption>{html.escape(label)}</figcaption></figure>"


def _wav(clip: AudioClip) -> bytes:
    """The beginning as 16-bit wav, at 16 kHz where it has more."""
    part = AudioClip(clip.samples[: int(_PLAYED_S * clip.sampling_rate)], clip.sampling_rate)
    if part.sampling_rate > _PLAYED_RATE:
        part = part.resampled(_PLAYED_RATE)
    samples = np.rint(np.clip(part.samples, -1, 1) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(part.sampling_rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def _waveform(clip: AudioClip) -> str:
    """The largest amplitude in each of at most 160 slices, mirrored, scaled to the loudest."""
    slices = np.array_split(np.abs(clip.samples), min(_WIDTH // 2, len(clip.samples)))
    peaks = np.array([part.max() for part in slices])
    heights = np.maximum(peaks / max(float(peaks.max()), 1e-12) * (_HEIGHT / 2 - 1), 0.5)
    step, middle = _WIDTH / len(heights), _HEIGHT / 2
    bars = "".join(f"M{(i + 0.5) * step:.1f} {middle - h:.1f}V{middle + h:.1f}" for i, h in enumerate(heights))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img">'
        f'<path d="{bars}" stroke="currentColor" fill="none"/></svg>'
    )
