"""Writing the built-in models to disk."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from pydantic import ValidationError
from torch import nn
from transformers import PreTrainedModel

from adaptkit.errors import RecipeError, join_lines
from adaptkit.files.writing import staged_folder
from adaptkit.hookspecs import Options
from adaptkit.training.optimizers import Muon, muon_groups

OptionsType = TypeVar("OptionsType", bound=Options)
Progress = Callable[[str], None]


def load_options(path: Path, options_type: type[OptionsType]) -> OptionsType:
    """Reads the recipe of a built-in model, such as `recipes/world/decoder.yaml`.

    Raises:
        RecipeError: The file cannot be read, or says something that `options_type` does not take.
    """
    try:
        return options_type.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise RecipeError(join_lines(lines)) from error


def build_optimizer(named: Iterable[tuple[str, nn.Parameter]], options: Any) -> Muon:
    """Muon for matrices and AdamW for the rest, at the rates that the options of a built-in model give."""
    rates = {"matrix_lr": options.muon_learning_rate, "other_lr": options.adamw_learning_rate}
    return Muon(muon_groups(named, **rates, weight_decay=options.weight_decay))


def save_model(model: PreTrainedModel, output: Path, save_rest: Callable[[Path], object]) -> None:
    """Writes a model and what `save_rest` adds, as one rename.

    Weights are float16 on disk, to be small; the config says float32, so that is what they load as.
    """
    state = {name: value.to(torch.float16) for name, value in model.state_dict().items()}
    with staged_folder(output) as folder:
        model.save_pretrained(folder, state_dict=state)
        save_rest(folder)
