"""What the `config.json` of a workflow may say: checked as it is read, so that nothing wrong in it fails later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from adaptkit.errors import ModelError
from adaptkit.files.generation_config import check_kinds
from adaptkit.files.loading import is_plain_name

_Text = Annotated[str, Field(max_length=10_000)]


class _Saved(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Encoder(_Saved):
    name: _Text | None = None
    options: dict[str, Any] | None = None
    object: _Text | None = None
    adopted_by: _Text | None = None
    content_hash: _Text | None = None


class _Projector(_Saved):
    name: _Text | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    object: _Text | None = None


class Modality(_Saved):
    """How a modality is recorded, in `config.json` as in the processor's configuration."""

    encoder: _Encoder
    projector: _Projector
    placeholder_id: int = Field(ge=0, lt=1 << 31)
    placeholder: _Text | None = None
    start: _Text | None = None
    end: _Text | None = None
    type: _Text | None = None
    options: dict[str, Any] | None = None
    feature_mode: _Text | None = None


class _Base(_Saved):
    name_or_path: _Text = ""
    revision: _Text | None = None
    architecture: _Text | None = None
    dtype: Literal["float16", "bfloat16", "float32", "float64", "auto"]
    content_hash: _Text | None = None
    quantization: _Text | None = None


class _Config(_Saved):
    text_config: dict[str, Any]
    base: _Base
    modalities: dict[str, Modality] = Field(default_factory=dict)
    insertion: dict[str, Any] = Field(default_factory=dict)
    replace_ends: bool = False
    layer_map: list[Annotated[list[str | int | None], Field(min_length=2, max_length=2)]] = Field(default_factory=list)
    packages: dict[str, _Text] = Field(default_factory=dict)


def check_saved_config(values: Mapping[str, Any], path: Path) -> None:
    """Check what a workflow's configuration says, by key.

    Raises:
        ModelError: Something is missing or of a wrong kind; all of it is named.
    """
    check_kinds(_Config, values, path)
    for name in values.get("modalities") or ():
        _check_name(name, path)


def check_saved_modality(values: Any, path: Path, name: str) -> None:
    """Check what a processor's configuration says of one modality; see `check_saved_config`."""
    _check_name(name, path)
    check_kinds(Modality, values, path, f"modalities.{name}.")


def _check_name(name: str, path: Path) -> None:
    """A modality's name is that of a folder in `encoders/`, too."""
    if not is_plain_name(name):
        raise ModelError(f"{path}: {name!r} is no name of a modality.")
