"""Small random changes of a recording."""

from __future__ import annotations

import math

import numpy as np

from adaptkit_audio.clip import AudioClip

SPEEDS = (0.87, 1.15)
MAX_GAIN_DB = 6.0
MAX_DELAY_S = 0.1
NOISE_DB = (-50.0, -20.0)


def vary(clip: AudioClip, rng: np.random.Generator) -> AudioClip:
    """Change speed (and with it pitch), loudness and start at random, and add white noise."""
    speed = math.exp(rng.uniform(math.log(SPEEDS[0]), math.log(SPEEDS[1])))
    samples = clip.resampled(max(1, round(clip.sampling_rate / speed))).samples
    gain = 10 ** (rng.uniform(-MAX_GAIN_DB, MAX_GAIN_DB) / 20)
    delay = np.zeros(int(rng.uniform(0, MAX_DELAY_S) * clip.sampling_rate), dtype=np.float32)
    varied = np.concatenate([delay, samples * gain])
    loudness = float(np.sqrt(np.square(varied).mean()))
    noise = rng.standard_normal(len(varied), dtype=np.float32)
    varied = varied + loudness * 10 ** (rng.uniform(*NOISE_DB) / 20) * noise
    return AudioClip(np.clip(varied, -1.0, 1.0).astype(np.float32), clip.sampling_rate)
