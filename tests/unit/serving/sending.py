"""What clients send."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

import numpy as np
from PIL import Image


def say(text: str, *media: dict[str, Any]) -> list[dict[str, Any]]:
    """One user turn."""
    return [{"role": "user", "content": [*media, {"type": "text", "text": text}]}]


def picture(seed: int = 0, size: tuple[int, int] = (32, 32)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def recording(seed: int = 0, seconds: float = 0.3) -> bytes:
    samples = np.random.default_rng(seed).integers(-9000, 9000, int(16000 * seconds), dtype=np.int16)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def image_part(raw: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded(raw)}"}}


def audio_part(raw: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": encoded(raw), "format": "wav"}}


def series_part(raw: bytes) -> dict[str, Any]:
    return {"type": "series", "series": {"data": encoded(raw)}}
