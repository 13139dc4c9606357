"""A transformer over the patches of each channel."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adaptkit.errors import DataError, ModelError
from adaptkit.interfaces import Encoder
from adaptkit_timeseries.checkpoint import CONFIG, WEIGHTS, SeriesPatchesConfig, read_config
from adaptkit_timeseries.options import SeriesPatchesOptions
from adaptkit_timeseries.patching import INPUT_NAME, SeriesPreprocessor

_NOT_CONTENT = {"path", "max_positions"}


class SeriesPatchesModel(nn.Module):
    """Linear patch embedding, positions, transformer layers: PatchTST's backbone (arXiv 2211.14730, section 3.1).

    Channels are encoded independently of each other. Positions are sinusoids, so that a series may have any length, and
    another sinusoid tells the channels apart.
    """

    def __init__(self, config: SeriesPatchesConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Linear(config.input_size, config.hidden_size)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.hidden_size, config.num_heads, config.intermediate_size,
                dropout=0.0, activation="gelu", batch_first=True, norm_first=True,
            )
            for _ in range(config.num_layers)
        )  # fmt: skip
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, patches: Tensor) -> Tensor:
        """`(num_items, channels, patches, patch_length + 2)` to `(num_items, channels, patches, hidden_size)`."""
        num_items, channels, count, _ = patches.shape
        places = sinusoids(count, self.config.hidden_size).to(patches)
        names = sinusoids(channels, self.config.hidden_size, period=100.0).to(patches).unsqueeze(1)
        hidden_states = (self.embedding(patches) + places + names).flatten(0, 1)
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        normed: Tensor = self.norm(hidden_states)
        return normed.reshape(num_items, channels, count, -1)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write config and weights to a folder, which is made where it is not there."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(self.config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / WEIGHTS)


class SeriesEncoder(Encoder):
    """Features of a series: one for each patch, channel after channel."""

    input_name = INPUT_NAME

    def __init__(self, model: SeriesPatchesModel, options: SeriesPatchesOptions) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.options = options
        self.feature_size = model.config.hidden_size
        self.num_layers = model.config.num_layers
        self.eval()

    def forward(self, inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Encode patches; series of different lengths one by one.

        Args:
            inputs: `(num_items, channels, patches, patch_length + 2)`, or a list of `(channels, patches, ...)`.

        Returns:
            `(num_items, channels * patches, feature_size)`, or a list of `(channels * patches, feature_size)`.

        Raises:
            DataError: The inputs have another shape.
        """
        if isinstance(inputs, list):
            return [cast(Tensor, self.forward(item.unsqueeze(0)))[0] for item in inputs]
        if inputs.ndim != 4 or inputs.shape[-1] != self.model.config.input_size:
            raise DataError(
                f"{INPUT_NAME} must be (num_items, channels, patches, {self.model.config.input_size}) for this "
                f"encoder, got {tuple(inputs.shape)}. Make them with the encoder's own preprocessor."
            )
        return cast(Tensor, self.model(inputs)).flatten(1, 2)

    def example_inputs(self) -> Tensor:
        """One patch of zeros."""
        return torch.zeros(1, 1, 1, self.model.config.input_size)

    def build_preprocessor(self) -> SeriesPreprocessor:
        """The preprocessing that belongs to these weights."""
        return SeriesPreprocessor(self.model.config, self.options.max_positions)

    def fingerprint(self) -> str:
        """Hash of weights, sizes and options; where the folder lies does not matter."""
        options = json.dumps(self.options.model_dump(exclude=_NOT_CONTENT), sort_keys=True)
        parts = [super().fingerprint(), self.model.config.model_dump_json(), options]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def save_pretrained(self, directory: str | Path) -> dict[str, Any]:
        """Write the model to a folder, and return the options that build this encoder from it."""
        self.model.save_pretrained(directory)
        return {**self.options.model_dump(exclude_defaults=True), "path": str(directory)}


def sinusoids(count: int, size: int, *, period: float = 10_000.0) -> Tensor:
    """Sines and cosines of the numbers from 0, `(count, size)` (arXiv 1706.03762, section 3.5)."""
    frequencies = torch.exp(torch.arange(0, size, 2) * (-math.log(period) / size))
    angles = torch.arange(count).unsqueeze(1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def load_encoder(options: SeriesPatchesOptions) -> SeriesEncoder:
    """Load an encoder from its folder.

    Raises:
        ModelError: It is not there, is damaged, or config and weights disagree.
    """
    model = SeriesPatchesModel(read_config(options))
    file = Path(options.path).expanduser() / WEIGHTS
    try:
        weights = load_file(file)
        model.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ModelError(f"{file} does not hold the weights that config.json describes: {reason}") from error
    dtype = weights["norm.weight"].dtype if options.dtype == "auto" else getattr(torch, options.dtype)
    return SeriesEncoder(model.to(dtype), options)


def wrap_model(module: Any, options: dict[str, Any]) -> SeriesEncoder | None:
    """Adopt a model object; None where it is none of ours."""
    if not isinstance(module, SeriesPatchesModel):
        return None
    return SeriesEncoder(module, SeriesPatchesOptions.model_validate({"path": "(an object)", **options}))
