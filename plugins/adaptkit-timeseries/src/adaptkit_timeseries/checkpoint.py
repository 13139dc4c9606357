"""The folder that holds an encoder: its config, and what to say when it is not there. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adaptkit.errors import ModelError
from adaptkit.files.loading import read_json
from adaptkit_timeseries.options import SeriesPatchesOptions

CONFIG, WEIGHTS = "config.json", "model.safetensors"
NUM_STATISTICS = 2
"""Numbers that follow the values of a patch: mean and scale of its channel."""

_PROVIDE = (
    "Set the encoder's `path` to a folder with config.json and model.safetensors of a series_patches encoder; `create` "
    "in the plugin's README writes one. To try the recipe without it, use `--rehearse`."
)


class SeriesPatchesConfig(BaseModel):
    """Sizes of an encoder, as config.json holds them.

    Attributes:
        model_type: Tells the folder from others.
        patch_length: Values of one patch.
        stride: Values from the start of one patch to the start of the next.
        hidden_size: Width of the features.
        num_layers: Transformer layers.
        num_heads: Heads of their attention.
        intermediate_size: Width of their feed-forward networks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_type: Literal["series_patches"] = "series_patches"
    patch_length: int = Field(default=16, ge=1)
    stride: int = Field(default=8, ge=1)
    hidden_size: int = Field(default=128, ge=2)
    num_layers: int = Field(default=3, ge=0)
    num_heads: int = Field(default=4, ge=1)
    intermediate_size: int = Field(default=256, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of twice num_heads {self.num_heads}")
        if self.stride > self.patch_length:
            raise ValueError(f"stride {self.stride} leaves values out between patches of {self.patch_length}")
        return self

    @property
    def input_size(self) -> int:
        """Numbers of one patch: its values, mean and scale."""
        return self.patch_length + NUM_STATISTICS


def parse_config(values: dict[str, Any], where: str) -> SeriesPatchesConfig:
    """Check the sizes of an encoder.

    Raises:
        ModelError: A key is unknown, or a value impossible.
    """
    try:
        return SeriesPatchesConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ModelError(f"{where}: {f'{key}: ' if key else ''}{first['msg']}.") from error


def read_config(options: SeriesPatchesOptions) -> SeriesPatchesConfig:
    """The config of the encoder in a folder.

    Raises:
        ModelError: It is not there, or is that of something else.
    """
    problem = missing(options)
    if problem is not None:
        raise ModelError(problem)
    file = Path(options.path).expanduser() / CONFIG
    return parse_config(read_json(file), str(file))


def missing(options: SeriesPatchesOptions) -> str | None:
    """What a build would not find; None where all is here."""
    folder = Path(options.path).expanduser()
    if not folder.is_dir():
        return f"no folder at {options.path}. {_PROVIDE}"
    absent = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    return f"{options.path} holds no {absent[0]}. {_PROVIDE}" if absent else None
