"""Recipes that train an encoder from nothing, for data that no pretrained one knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, ValidationInfo, model_validator

from adaptkit.errors import PluginError
from adaptkit.hookspecs import Options
from adaptkit.plugin_manager import PluginManager, get_plugin_manager
from adaptkit.recipe.components import DataConfig, plugins_of
from adaptkit.recipe.explain import explain
from adaptkit.recipe.loading import read_validated
from adaptkit.recipe.variables import data_folder
from adaptkit.stage import EncoderTrainingConfig, Section

WHERE_IT_WILL_BE = "created"


def _check_options(model: type[Options], values: dict[str, Any], key: str, **known: Any) -> None:
    """Raise a `ValueError` that names each wrong value below a key of the recipe."""
    try:
        model.model_validate({**values, **known})
    except ValidationError as error:
        found = [(".".join(map(str, d["loc"])), explain(d, model)) for d in error.errors()]
        raise ValueError("; ".join(f"{key}{'.' * bool(place)}{place}: {what}" for place, what in found)) from error


class NewEncoderConfig(Section):
    """An encoder to train.

    Attributes:
        name: The plugin's encoder.
        config: Sizes of a model to make, as the encoder's library calls them.
        start_from: Folder or hub id of a model to start from instead.
        options: The encoder's options but `path`: which features are trained, and later read.
    """

    name: str
    config: dict[str, Any] | None = None
    start_from: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        try:
            component = plugins_of(info).get("encoder", self.name)
        except PluginError as error:
            raise ValueError(str(error)) from error
        if (self.config is None) == (self.start_from is None):
            raise ValueError("give either config, the sizes of a new model, or start_from, an existing model")
        if self.config is not None and component.create is None:
            raise ValueError(f"the encoder {self.name!r} cannot be made from a config: its plugin has no create")
        _check_options(component.options, self.options, "options", path=WHERE_IT_WILL_BE)
        return self


class EncoderRecipe(Section):
    """An encoder and its training: it predicts the words of the answers from the media alone.

    Attributes:
        modality: What it perceives.
        modality_options: The modality's own options, as in the recipe that will read the encoder.
        data: `train`, and `held_out`, which is only scored.
        output_dir: Where the encoder is written; `encoders/<name>` where not given.
    """

    name: str
    description: str = ""
    modality: str
    modality_options: dict[str, Any] = Field(default_factory=dict)
    encoder: NewEncoderConfig
    data_root: str | None = None
    data: dict[str, DataConfig]
    training: EncoderTrainingConfig = EncoderTrainingConfig()
    output_dir: str | None = None

    @model_validator(mode="after")
    def _check_modality(self, info: ValidationInfo) -> Self:
        try:
            component = plugins_of(info).get("modality", self.modality)
        except PluginError as error:
            raise ValueError(str(error)) from error
        _check_options(component.options, self.modality_options, "modality_options")
        return self

    @model_validator(mode="after")
    def _check_data(self) -> Self:
        if set(self.data) not in ({"train"}, {"train", "held_out"}):
            raise ValueError(f"data has 'train', and perhaps 'held_out'; found {', '.join(self.data) or 'nothing'}")
        return self

    def data_folder(self) -> Path:
        """The folder against which relative data paths are read."""
        return data_folder(self.data_root)


def load_encoder_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, plugins: PluginManager | None = None
) -> EncoderRecipe:
    """Read a recipe of `adaptkit train-encoder`; see `load_recipe`.

    Raises:
        RecipeError: The file cannot be read, or something in it is wrong; the message has a line for each problem.
    """
    return read_validated(EncoderRecipe, path, overrides, plugins or get_plugin_manager())
