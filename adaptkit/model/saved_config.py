"""What the `config.json` of a workflow may say: checked as it is read, so that nothing wrong in it fails later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from adaptkit.errors import ModelError
from adaptkit.files.generation_config import check_kinds
from adaptkit.files.loading import is_plain_name
from adaptkit.model.modality import Text, WorkflowModality


class _Saved(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Base(_Saved):
    name_or_path: Text = ""
    revision: Text | None = None
    architecture: Text | None = None
    dtype: Literal["float16", "bfloat16", "float32", "float64", "auto"]
    content_hash: Text | None = None
    quantization: Text | None = None


class _Config(_Saved):
    text_config: dict[str, Any]
    base: _Base
    modalities: dict[str, WorkflowModality] = Field(default_factory=dict)
    insertion: dict[str, Any] = Field(default_factory=dict)
    replace_ends: bool = False
    layer_map: list[Annotated[list[str | int | None], Field(min_length=2, max_length=2)]] = Field(default_factory=list)
    packages: dict[str, Text] = Field(default_factory=dict)


def check_saved_config(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Check what a workflow's configuration says, by key.

    Returns:
        The values, with encoders in folders as they are found from the checkpoint.

    Raises:
        ModelError: Keys are missing or their values are of a wrong kind; the message names them.
    """
    modalities = check_kinds(_Config, values, path).modalities
    check_names(modalities, path)
    return {**values, "modalities": {name: m.resolved(path.parent).to_dict() for name, m in modalities.items()}}


def check_names(modalities: Mapping[str, WorkflowModality], path: Path) -> None:
    """Raise a `ModelError` where a modality's name cannot be that of a folder in `encoders/`, too."""
    for name in modalities:
        if not is_plain_name(name):
            raise ModelError(f"{path}: {name!r} is not a valid name of a modality.")
