"""From a recording to `input_features`, without loading weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from adaptkit_audio.clip import AudioClip
from numpy.typing import NDArray
from torch import Tensor
from transformers import WhisperFeatureExtractor

from adaptkit.errors import DataError, ModelError
from adaptkit.interfaces import Preprocessor
from adaptkit_whisper.windows import Windows


class LogMel(Protocol):
    """Makes log-mel spectrograms: of transformers, or of the openai-whisper package."""

    sampling_rate: int
    hop_length: int

    def __call__(self, chunks: Sequence[NDArray[np.float32]], num_samples: int) -> Tensor:
        """Log-mel of each chunk, padded with silence to `num_samples`, `(chunks, mel_bins, frames)`."""

    def settings(self) -> dict[str, Any]:
        """Everything that changes its output."""


class WhisperPreprocessor(Preprocessor):
    """Resamples a recording, cuts it into windows, and makes a log-mel spectrogram of each.

    Args:
        windows: The model's window.
        log_mel: What makes spectrograms.

    Raises:
        ModelError: The spectrograms are not those of the model.
    """

    input_name = "input_features"

    def __init__(self, windows: Windows, log_mel: LogMel) -> None:
        self.windows = windows
        self.log_mel = log_mel
        options = windows.options
        if options.max_windows == 1 and not options.trim:
            self.fixed_positions = windows.num_features(windows.frames)

    def __call__(self, item: Any) -> Tensor:
        """`input_features` of one recording, as `Windows` describes them, float32.

        Raises:
            DataError: `item` is not a loaded recording, or longer than `max_windows`.
        """
        if not isinstance(item, AudioClip):
            raise DataError(f"the encoder 'whisper' takes loaded recordings (AudioClip), got {type(item).__name__}.")
        samples = item.resampled(self.log_mel.sampling_rate).samples
        window = self.windows.frames * self.log_mel.hop_length
        chunks = [samples[start : start + window] for start in range(0, len(samples), window)]
        limit = self.windows.options.max_windows
        if not 1 <= len(chunks) <= limit:
            seconds = window / self.log_mel.sampling_rate
            raise DataError(
                f"a recording of {item.seconds:.1f} seconds takes {len(chunks)} windows of {seconds:g} seconds, and "
                f"not 1 to {limit}. Cut it, or raise the encoder's max_windows."
            )
        mels = self.log_mel(chunks, window)
        return self.windows.join(mels, [-(-len(chunk) // self.log_mel.hop_length) for chunk in chunks])

    def num_positions(self, inputs: Tensor) -> int:
        """How many features the encoder makes of one recording."""
        return sum(self.windows.num_features(num_frames) for num_frames in self.windows.split(inputs)[1])

    def settings(self) -> str:
        """Everything that changes `input_features`, as canonical JSON."""
        return json.dumps({**self.log_mel.settings(), "frames": self.windows.frames}, sort_keys=True)


class TransformersLogMel:
    """A checkpoint's own feature extractor.

    Args:
        extractor: Its windows follow the model, whatever its `chunk_length`.
        mel_bins: Of the model.

    Raises:
        ModelError: Its spectrograms have another number of rows.
    """

    def __init__(self, extractor: WhisperFeatureExtractor, mel_bins: int) -> None:
        if extractor.feature_size != mel_bins:
            raise ModelError(
                f"the checkpoint's preprocessor_config.json makes {extractor.feature_size} mel bins (feature_size), "
                f"its model takes {mel_bins} (num_mel_bins): make them agree."
            )
        extractor.dither = 0.0  # random noise would give one recording two features
        self.extractor = extractor
        self.sampling_rate: int = extractor.sampling_rate
        self.hop_length: int = extractor.hop_length

    def __call__(self, chunks: Sequence[NDArray[np.float32]], num_samples: int) -> Tensor:
        made = self.extractor(
            list(chunks), sampling_rate=self.sampling_rate, padding="max_length", max_length=num_samples
        )
        return torch.from_numpy(np.ascontiguousarray(made["input_features"], dtype=np.float32))

    def settings(self) -> dict[str, Any]:
        names = ("feature_size", "sampling_rate", "hop_length", "n_fft", "padding_value")
        return {name: getattr(self.extractor, name) for name in names}

    def save_pretrained(self, directory: str | Path) -> None:
        """Write `preprocessor_config.json`."""
        self.extractor.save_pretrained(directory)


class OpenAILogMel:
    """`whisper.audio.log_mel_spectrogram`, whose filters, rate and hop are fixed.

    Raises:
        ModelError: The package has no filters of that many bins.
    """

    def __init__(self, mel_bins: int) -> None:
        from whisper import audio

        if mel_bins not in (80, 128):
            raise ModelError(f"openai-whisper has filters of 80 and 128 mel bins; the model takes {mel_bins}.")
        self._audio = audio
        self._mel_bins = mel_bins
        self.sampling_rate: int = audio.SAMPLE_RATE
        self.hop_length: int = audio.HOP_LENGTH

    def __call__(self, chunks: Sequence[NDArray[np.float32]], num_samples: int) -> Tensor:
        padded = [self._audio.pad_or_trim(torch.from_numpy(chunk), num_samples) for chunk in chunks]
        return torch.stack([self._audio.log_mel_spectrogram(samples, self._mel_bins) for samples in padded])

    def settings(self) -> dict[str, Any]:
        return {"feature_size": self._mel_bins, "n_fft": self._audio.N_FFT, "hop_length": self.hop_length}
