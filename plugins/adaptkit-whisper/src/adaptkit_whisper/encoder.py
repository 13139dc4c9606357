"""States of a Whisper encoder as features."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adaptkit.errors import ModelError
from adaptkit.interfaces import PretrainedEncoder
from adaptkit_whisper.options import WhisperOptions
from adaptkit_whisper.preprocessing import WhisperPreprocessor
from adaptkit_whisper.writing import write_checkpoint


class WhisperEncoder(PretrainedEncoder[WhisperPreprocessor]):
    """The hidden states of one layer, window after window, pooled or stacked as the options say.

    Layers beyond it stay in `model`, for export, but are not run.

    Args:
        model: The encoder of transformers' Whisper, or the `AudioEncoder` of the openai-whisper package; it is frozen.

    Raises:
        ModelError: The chosen layer is none of the model's hidden states.
    """

    input_name = "input_features"
    not_content = frozenset({"path", "revision", "dtype", "max_windows"})
    options: WhisperOptions
    model: Any

    def __init__(self, model: nn.Module, options: WhisperOptions, preprocessor: WhisperPreprocessor) -> None:
        super().__init__(model, options, preprocessor)
        self.config = getattr(model, "config", None)
        self.windows = preprocessor.windows
        depth = len(self._blocks())
        self.num_layers = options.feature_layer + (depth + 1 if options.feature_layer < 0 else 0)
        if not 0 <= self.num_layers <= depth:
            raise ModelError(
                f"feature_layer: {options.feature_layer} is out of range: the model has {depth} layers, so use "
                f"{-depth - 1} to {depth}."
            )
        self._normed = self.num_layers == depth
        width: int = self.model.conv1.out_channels
        self.feature_size = width * options.stack

    def forward(self, inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Features of each recording, in the order of time; all windows of all recordings run as one batch.

        Args:
            inputs: `(num_items, mel_bins, frames)`, as the preprocessor or a stock `WhisperFeatureExtractor` makes
                them, or a list of `(mel_bins, frames)`; with `trim` a row more is accepted (see `Windows`).

        Returns:
            `(num_items, positions, feature_size)`, or a list where the number of positions differs.

        Raises:
            DataError: The inputs have another shape.
        """
        mels, num_frames = zip(*(self.windows.split(item) for item in inputs), strict=True)
        features = self._features(torch.cat(mels), [number for numbers in num_frames for number in numbers])
        items, start = [], 0
        for numbers in num_frames:
            kept = [self.windows.num_features(number) for number in numbers]
            items.append(torch.cat([features[start + i, :count] for i, count in enumerate(kept)]))
            start += len(numbers)
        return torch.stack(items) if len({len(item) for item in items}) == 1 else items

    def _features(self, mels: Tensor, num_frames: list[int]) -> Tensor:
        """Features of whole windows, `(num_windows, positions, feature_size)`."""
        hidden_states = self._embed(mels)
        mask = self._mask(hidden_states, num_frames) if self.options.hide_padding else None
        for block in islice(self._blocks(), self.num_layers):
            hidden_states = block(hidden_states, mask) if self._is_stock else block(hidden_states)
        if self.options.pool_before_norm:
            hidden_states = _pooled(hidden_states, self.options.pool)
        if self._normed:
            hidden_states = (self.model.layer_norm if self._is_stock else self.model.ln_post)(hidden_states)
        if not self.options.pool_before_norm:
            hidden_states = _pooled(hidden_states, self.options.pool)
        return hidden_states.reshape(len(mels), -1, self.feature_size)

    def _embed(self, mels: Tensor) -> Tensor:
        model = self.model
        states = functional.gelu(model.conv1(mels.to(model.conv1.weight.dtype)))
        states = functional.gelu(model.conv2(states)).transpose(1, 2)
        if self._is_stock:  # called, since sharded weights are gathered by a call alone
            positions = model.embed_positions(torch.arange(self.windows.positions, device=states.device))
        else:
            positions = model.positional_embedding
        embedded: Tensor = (states + positions).to(states.dtype)
        return embedded

    def _mask(self, hidden_states: Tensor, num_frames: list[int]) -> Tensor:
        """What keeps attention off the states after each recording's end, added to its scores."""
        states = (torch.tensor(num_frames, device=hidden_states.device) + 1) // 2
        hidden = torch.arange(hidden_states.shape[1], device=hidden_states.device) >= states.unsqueeze(1)
        scores = hidden_states.new_zeros(hidden.shape).masked_fill(hidden, torch.finfo(hidden_states.dtype).min)
        return scores[:, None, None]

    @property
    def _is_stock(self) -> bool:
        return self.config is not None

    def _blocks(self) -> nn.ModuleList:
        blocks: nn.ModuleList = self.model.layers if self._is_stock else self.model.blocks
        return blocks

    def example_inputs(self) -> Tensor:
        """One window of zeros."""
        return torch.zeros(1, self.windows.mel_bins, self.windows.frames)

    def save_pretrained(self, directory: str | Path) -> dict[str, Any]:
        """Write model and preprocessing to a folder, and return the options that build this encoder from it."""
        path = write_checkpoint(self.model, self._preprocessor, Path(directory))
        options = self.options.model_dump(exclude_defaults=True)
        options.pop("revision", None)
        return {**options, "path": str(path)}


def _pooled(hidden_states: Tensor, pool: int) -> Tensor:
    """Averages of `pool` neighbours, `(num_windows, positions / pool, width)`."""
    if pool == 1:
        return hidden_states
    num_windows, _, width = hidden_states.shape
    return hidden_states.reshape(num_windows, -1, pool, width).mean(2)
