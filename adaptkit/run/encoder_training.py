"""From an encoder's recipe to its folder: what `adaptkit train-encoder` runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from adaptkit.errors import DataError, RecipeError
from adaptkit.files.paths import cache_dir
from adaptkit.files.writing import staged_folder
from adaptkit.hookspecs import EncoderComponent
from adaptkit.interfaces import DataContext, Encoder, Modality, Sample
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.recipe import EncoderRecipe
from adaptkit.training.encoder import EncoderResult, LabelledItem, Progress, train_encoder

SCORES_FILE = "training.json"


def run_encoder_recipe(recipe: EncoderRecipe, output: Path, progress: Progress) -> EncoderResult:
    """Make an encoder, train it, and write it with its preprocessing.

    Args:
        output: Folder that a recipe's `encoder.path` then names.

    Raises:
        RecipeError: Data is missing, or the folder exists.
        DataError: The data has no usable items.
    """
    if output.exists():
        raise RecipeError(f"{output} exists already. Name another folder with --output, or remove it.")
    manager = get_plugin_manager()
    modality: Modality = manager.build("modality", recipe.modality, recipe.modality_options)
    items = {name: _items(recipe, name, modality) for name in recipe.data}
    _check_words(items)
    component = manager.get("encoder", recipe.encoder.name)
    with staged_folder(output) as folder:
        torch.manual_seed(recipe.training.seed)
        encoder = _build(recipe, component, folder)
        result = train_encoder(encoder, items["train"], items.get("held_out", []), recipe.training, progress)
        encoder.save_pretrained(folder)  # type: ignore[operator]
        scores = {"recipe": recipe.model_dump(mode="json"), **asdict(result)}
        (folder / SCORES_FILE).write_text(json.dumps(scores, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


def _build(recipe: EncoderRecipe, component: EncoderComponent, folder: Path) -> Encoder:
    """The encoder before training: drawn at random, or an existing model.

    Raises:
        RecipeError: The model to start from is missing.
    """
    made = {"path": recipe.encoder.start_from}
    if recipe.encoder.config is not None:
        assert component.create is not None, "the recipe's validation asks for it"
        made = component.create(recipe.encoder.config, folder).model_dump()
    options = component.options.model_validate({**made, **recipe.encoder.options})
    missing = component.missing(options)
    if missing:
        raise RecipeError(f"encoder.start_from: {missing}")
    encoder: Encoder = component.build(options)
    return encoder


def _items(recipe: EncoderRecipe, name: str, modality: Modality) -> list[LabelledItem]:
    """The first medium of each conversation, and the answer to it; samples that cannot be read are skipped.

    Raises:
        RecipeError: The dataset is missing.
        DataError: No item is usable.
    """
    config = recipe.data[name]
    context = DataContext(recipe.data_folder(), {recipe.modality: modality.tag}, cache_dir())
    component = get_plugin_manager().get("data source", config.format)
    missing = component.missing(config.options, context)
    if missing:
        raise RecipeError(f"data.{name}: {missing}")
    source = component.build(config.options, context)
    items, problems = [], []
    for index in range(len(source)):
        try:
            items.append(_item(source[index], recipe.modality, modality))
        except DataError as error:
            problems.append(str(error))
    if not items:
        raise DataError(f"data.{name}: none of {len(source)} items is usable: {problems[0]}")
    return items


def _check_words(items: Mapping[str, list[LabelledItem]]) -> None:
    """Held-out answers must consist of words of training answers: others could never be predicted.

    Raises:
        DataError: They are not.
    """
    words = {name: {word for item in found for word in item.answer.split()} for name, found in items.items()}
    unseen = sorted(words.get("held_out", set()) - words["train"])
    if unseen:
        raise DataError(
            f"data.held_out: no training item has the word(s) {', '.join(map(repr, unseen[:5]))} of its answers "
            f"({len(unseen)} in all), so they could never be predicted. Compare the answers' templates and the labels."
        )


def _item(sample: Sample, name: str, modality: Modality) -> LabelledItem:
    media = [part[name] for message in sample.messages for part in message["content"] if part["type"] == name]
    if not media:
        raise DataError(f"{sample.location}: no {name}")
    loaded = modality.load(media[0])
    answer = "".join(part["text"] for part in sample.messages[-1]["content"] if part["type"] == "text")
    return LabelledItem(lambda rng: loaded if rng is None else modality.augment(loaded, rng), answer)
