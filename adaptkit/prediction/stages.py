"""What the stages of a recipe need: one step of each, on models built from configs alone."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from adaptkit.build import built_parts
from adaptkit.errors import RecipeError
from adaptkit.interfaces import EncodedFeatures, Encoder
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.modality_inputs import ModalityInputs, modality_inputs
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.prediction.batches import BatchShape, Medium, build_batch
from adaptkit.prediction.building import skeleton_model
from adaptkit.prediction.devices import check_devices, largest_unit, memory_per_device
from adaptkit.prediction.fake import WithoutValues, fake_tensors
from adaptkit.prediction.memory import StepMemory, predict_step
from adaptkit.recipe import Recipe, StageConfig
from adaptkit.run.loaded import LoadedModels
from adaptkit.surgery import decoder_layers, max_positions
from adaptkit.training.flops import flop_rates


@dataclass(frozen=True)
class PredictionOptions:
    """What a prediction is for; None takes the recipe's.

    Attributes:
        num_devices: Devices that share the work.
        strategy: How they do.
        batch_size: Conversations of each device and forward pass.
        length: Positions of a conversation.
        supervised: Share of tokens that are supervised.
        rate: Operations per second that a device achieves; without it no time is predicted.
        memory: Bytes of a device, for stages that leave the batch size to its memory.
    """

    num_devices: int | None = None
    strategy: str | None = None
    batch_size: int | None = None
    length: int | None = None
    supervised: float = 1.0
    rate: float | None = None
    memory: int | None = None

    def devices(self, recipe: Recipe) -> tuple[str, int]:
        """Strategy and number of devices.

        Raises:
            RecipeError: They do not fit each other.
        """
        number = recipe.accelerator.num_processes if self.num_devices is None else self.num_devices
        if number is None:
            number = 1 if recipe.accelerator.strategy == "none" else max(1, torch.cuda.device_count())
        strategy = self.strategy or recipe.accelerator.strategy_of(number)
        check_devices(strategy, number)
        return strategy, number

    def shape(self, stage: StageConfig) -> BatchShape:
        """The batch of a device."""
        return BatchShape(
            stage.size_per_device if self.batch_size is None else self.batch_size,
            stage.max_length if self.length is None else self.length,
            stage.packing,
            self.supervised,
        )


@dataclass(frozen=True)
class StagePrediction:
    """What a stage needs.

    Attributes:
        name: The stage.
        shape: The batch it was predicted for.
        memory: Of each device.
        flops: Operations of one optimiser step of each device.
        step_s: Seconds of one, if a rate was given.
    """

    name: str
    shape: BatchShape
    memory: StepMemory
    flops: float
    step_s: float | None


class Predictor:
    """Predicts stages one by one; those that differ in nothing that takes memory are computed once.

    Args:
        models: From `load_skeletons`.

    Raises:
        RecipeError: An option is out of range, or strategy and devices do not fit each other.
    """

    def __init__(self, models: LoadedModels, options: PredictionOptions) -> None:
        options.devices(models.recipe)
        for stage in models.recipe.stages:
            if options.batch_size is not None or stage.per_device_train_batch_size != "auto":
                options.shape(stage)
        self._loaded, self._options = models, options
        self._known: dict[str, StagePrediction] = {}
        self._models: dict[str, AdaptkitForConditionalGeneration] = {}

    def model(self, stage: StageConfig) -> AdaptkitForConditionalGeneration:
        """The stage's workflow without weights."""
        key = _what_is_built(self._loaded.recipe, stage)
        if key not in self._models:
            self._models[key] = skeleton_model(self._loaded, stage)
        return self._models[key]

    def predict(self, stage: StageConfig) -> StagePrediction:
        """What a stage needs.

        Raises:
            RecipeError: The length that the options ask for is more than the base has.
            ModelError: What the model allocates depends on values that it computes.
        """
        key = _what_matters(self._loaded.recipe, stage)
        if key not in self._known:
            self._known[key] = _predict(self._loaded, stage, self.model(stage), self._options)
        return replace(self._known[key], name=stage.name)


def _what_matters(recipe: Recipe, stage: StageConfig) -> str:
    names = (
        *("train", "per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "gradient_checkpointing"),
        *("packing", "loss", "max_length"),
    )
    optimizers = [stage.optimizer.name, *(f"{part}: {group.name}" for part, group in stage.optimizer.groups.items())]
    return repr(([getattr(stage, name) for name in names], optimizers, _what_is_built(recipe, stage)))


def _what_is_built(recipe: Recipe, stage: StageConfig) -> str:
    return repr((recipe.workflows[stage.workflow].model_dump_json(), sorted(built_parts(recipe, stage))))


def _predict(
    models: LoadedModels, stage: StageConfig, model: AdaptkitForConditionalGeneration, options: PredictionOptions
) -> StagePrediction:
    shape = _within(max_positions(models.base), options.shape(stage), given=options.length is not None)
    inputs = {name: modality_inputs(name, spec) for name, spec in models.specs(stage.workflow).items()}
    with tempfile.TemporaryDirectory() as folder:
        media = {
            name: _medium(models.recipe, name, one, model, Path(folder), shape.num_conversations)
            for name, one in inputs.items()
        }
    batch, num_supervised = build_batch(shape, media)
    step = predict_step(model, batch, stage)
    unit = largest_unit(decoder_layers(model.language_model))
    memory = memory_per_device(step, *options.devices(models.recipe), unit)
    flops = stage.num_passes * _flops(model, shape, media, num_supervised, models.recipe)
    return StagePrediction(stage.name, shape, memory, flops, None if options.rate is None else flops / options.rate)


def _within(positions: int | None, shape: BatchShape, *, given: bool) -> BatchShape:
    if positions is None or shape.length <= positions:
        return shape
    if given:
        raise RecipeError(f"--length {shape.length}: the base has {positions:,} positions, and no more.")
    return replace(shape, length=positions)


def _medium(
    recipe: Recipe,
    name: str,
    inputs: ModalityInputs,
    model: AdaptkitForConditionalGeneration,
    folder: Path,
    number: int,
) -> Medium:
    """Encoder inputs of a stand-in, or their features where the recipe has those cached, once for each conversation."""
    config = recipe.modalities[name]
    component = get_plugin_manager().get("modality", config.type)
    if component.stand_in is None:
        raise RecipeError(f"modalities.{name}: {config.type!r} offers no stand-in, by which memory is predicted.")
    item = inputs.load(component.write_stand_in(config.options, folder, 0))
    given: Any = inputs.preprocessor.collate([item] * number)  # with values: how long an item is may depend on them
    if _is_cached(recipe, name, model):
        with fake_tensors(model), WithoutValues(makes_fakes=True):
            given = EncodedFeatures(model.encode(name, given))
    return Medium(inputs.placeholder_id, inputs.num_positions(item), given)


def _is_cached(recipe: Recipe, name: str, model: AdaptkitForConditionalGeneration) -> bool:
    return recipe.modalities[name].cache_features and cast(Encoder, model.source_encoders[name]).cacheable


def _flops(
    model: AdaptkitForConditionalGeneration,
    shape: BatchShape,
    media: Mapping[str, Medium],
    num_supervised: int,
    recipe: Recipe,
) -> float:
    """Of a forward and backward pass; projectors and encoders are counted by the positions that they end in."""
    positions = {name: medium.num_positions * shape.num_conversations for name, medium in media.items()}
    encoded = {name: number for name, number in positions.items() if not _is_cached(recipe, name, model)}
    num_tokens = shape.num_conversations * shape.length
    return flop_rates(model).total(num_tokens, num_tokens * shape.length, num_supervised, positions, encoded)
