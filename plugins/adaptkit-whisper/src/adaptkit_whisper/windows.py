"""How recordings are cut into windows, and how many features come of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adaptkit.errors import DataError, ModelError
from adaptkit_whisper.options import WhisperOptions


@dataclass(frozen=True)
class Windows:
    """The window of a Whisper encoder, and which of its states the options keep.

    The input of one recording is the log-mel of its windows, one after the other in time, `(mel_bins, frames)`; with
    `trim` a row more, which is 1 where the recording is and 0 in the padding after its end.

    Attributes:
        mel_bins: Rows of a log-mel.
        positions: States that the encoder makes of one window, one for two frames.
        options: The encoder's.
    """

    mel_bins: int
    positions: int
    options: WhisperOptions

    def __post_init__(self) -> None:
        share = self.options.states_per_feature
        if self.positions % share:
            key = "pool" if self.options.pool > 1 else "stack"
            raise ModelError(f"{key}: {share} does not divide the {self.positions} states of the model's window.")

    @property
    def frames(self) -> int:
        """Frames of one window."""
        return 2 * self.positions

    def join(self, mels: Tensor, num_frames: list[int]) -> Tensor:
        """The input of one recording.

        Args:
            mels: Log-mel of its windows, `(num_windows, mel_bins, frames)`.
            num_frames: How many frames of each window it fills.
        """
        joined = mels.transpose(0, 1).reshape(self.mel_bins, -1)
        if not self.options.trim:
            return joined
        filled = torch.arange(self.frames) < torch.tensor(num_frames).unsqueeze(1)
        return torch.cat([joined, filled.reshape(1, -1).to(joined.dtype)])

    def split(self, inputs: Tensor) -> tuple[Tensor, list[int]]:
        """The log-mels of a recording's windows, and how many frames of each it fills; the inverse of `join`.

        Raises:
            DataError: The shape is another.
        """
        rows, columns = inputs.shape if inputs.ndim == 2 else (0, 0)
        marked = self.options.trim and rows == self.mel_bins + 1
        if not (marked or rows == self.mel_bins) or columns == 0 or columns % self.frames:
            raise DataError(
                f"input_features of one recording must be ({self.mel_bins}, {self.frames}), or a multiple of "
                f"{self.frames} frames for several windows; got {tuple(inputs.shape)}. Make them with the encoder's "
                "own preprocessor."
            )
        mels = inputs[: self.mel_bins].reshape(self.mel_bins, -1, self.frames).transpose(0, 1)
        if not marked:
            return mels, [self.frames] * len(mels)
        return mels, (inputs[-1].reshape(-1, self.frames) > 0.5).sum(1).tolist()

    def num_features(self, num_frames: int) -> int:
        """Features of a window of which a recording fills so many frames.

        States filled in part count, and so do features of which only some states are filled; but not with
        `hide_padding`, where Qwen2-Audio drops them.
        """
        share = self.options.states_per_feature
        if not self.options.trim:
            return self.positions // share
        states = -(-num_frames // 2)
        features = states // share if self.options.hide_padding else -(-states // share)
        return max(features, min(states, 1))
