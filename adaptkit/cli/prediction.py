"""What the stages of a recipe will need: models built from configs alone, one step of each stage on them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from adaptkit.build import built_parts
from adaptkit.errors import ModelError, RecipeError, join_lines
from adaptkit.files.loading import load_stock, reading
from adaptkit.files.paths import missing_model, resolve_model_path
from adaptkit.interfaces import EncodedFeatures, Encoder
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.processor import ModalityInputs, modality_inputs
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.prediction.batches import BatchShape, Medium, build_batch
from adaptkit.prediction.building import pack_base, turn_into_shadows, without_weights
from adaptkit.prediction.memory import StepMemory, check_devices, largest_unit, predict_step, spread
from adaptkit.prediction.shadows import shadow_of
from adaptkit.recipe import BaseConfig, Recipe, StageConfig
from adaptkit.run.loaded import LoadedModels, load_encoders
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
        supervised: Share of the words that are learned.
        rate: Operations per second that a device achieves; without it no time is predicted.
    """

    num_devices: int | None = None
    strategy: str | None = None
    batch_size: int | None = None
    length: int | None = None
    supervised: float = 1.0
    rate: float | None = None

    def devices(self, recipe: Recipe) -> tuple[str, int]:
        """Strategy and number of devices.

        Raises:
            RecipeError: They do not fit each other.
        """
        number = (recipe.accelerator.num_processes or 1) if self.num_devices is None else self.num_devices
        strategy = self.strategy or recipe.accelerator.strategy
        if self.strategy is None and number == 1:
            strategy = "none"
        check_devices(strategy, number)
        return strategy, number

    def shape(self, stage: StageConfig) -> BatchShape:
        """The batch of a device."""
        return BatchShape(
            stage.per_device_train_batch_size if self.batch_size is None else self.batch_size,
            stage.max_length if self.length is None else self.length,
            stage.packing,
            self.supervised,
        )


@dataclass(frozen=True)
class StagePrediction:
    """What a stage will need.

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


def load_skeletons(recipe: Recipe) -> LoadedModels:
    """The models of a recipe without weights and without a tokenizer: their configs are enough.

    Raises:
        RecipeError: The base's config is not on this machine.
    """
    missing = missing_model(recipe.base.path, recipe.base.revision)
    if missing:
        raise RecipeError(
            join_lines(
                [
                    f"recipe {recipe.name!r} names what is not on this machine:",
                    f"  base.path: {missing}.",
                    "Of models, their config.json is enough to predict what a run needs.",
                ]
            )
        )
    base = skeleton_base(recipe.base)
    with without_weights():
        return load_encoders(recipe, base)


def skeleton_base(config: BaseConfig) -> PreTrainedModel:
    """The base as its config describes it, without weights and not packed.

    Raises:
        ModelError: No model can be built from the config.
    """
    source = resolve_model_path(config.path)
    with reading(source):
        loaded = load_stock(AutoConfig, source, revision=config.revision, trust_remote_code=config.trust_remote_code)
        # Flash attention and PyTorch's own keep the same tensors, and only the latter runs without a GPU
        eager = config.attn_implementation == "eager"
        dtype = getattr(loaded, "dtype", None) or torch.float32
        with without_weights():
            base: PreTrainedModel = AutoModelForCausalLM.from_config(
                loaded,
                dtype=dtype if config.dtype == "auto" else getattr(torch, config.dtype),
                attn_implementation="eager" if eager else None,
                trust_remote_code=config.trust_remote_code,
            )
    return base.eval()


def skeleton_model(models: LoadedModels, stage: StageConfig) -> AdaptkitForConditionalGeneration:
    """A stage's workflow without weights, its base packed as the recipe says."""
    quantization = models.recipe.base.quantization or _packed_on_disk(models.base)
    if quantization is not None:  # packing changes the base that workflows share
        models = replace(models, base=skeleton_base(models.recipe.base))
    with without_weights():
        model = models.build_stage_model(stage)
    turn_into_shadows(model, model.base, *model.source_encoders.values())
    if quantization is not None:
        pack_base(model, quantization)
    return model


class Predictor:
    """Predicts stages one by one; those that differ in nothing that takes memory are computed once.

    Args:
        models: From `load_skeletons`.
        options: What the predictions are for.

    Raises:
        RecipeError: An option is out of range, or strategy and devices do not fit each other.
    """

    def __init__(self, models: LoadedModels, options: PredictionOptions) -> None:
        options.devices(models.recipe)
        for stage in models.recipe.stages:
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
        """What a stage will need."""
        key = _what_matters(self._loaded.recipe, stage)
        if key not in self._known:
            self._known[key] = predict_stage(self._loaded, stage, self.model(stage), self._options)
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


def _packed_on_disk(base: PreTrainedModel) -> str | None:
    """How a base's own checkpoint is packed.

    Raises:
        ModelError: By something else than bitsandbytes.
    """
    config = getattr(base.config, "quantization_config", None)
    if config is None:
        return None
    values = config if isinstance(config, dict) else config.to_dict()
    if values.get("load_in_8bit"):
        return "int8"
    if values.get("load_in_4bit"):
        return str(values.get("bnb_4bit_quant_type", "fp4"))
    raise ModelError(f"the base is quantised by {values.get('quant_method')}, which adaptkit cannot train on.")


def predict_stage(
    models: LoadedModels, stage: StageConfig, model: AdaptkitForConditionalGeneration, options: PredictionOptions
) -> StagePrediction:
    """Memory of each device, and operations of a step.

    Raises:
        RecipeError: An option is out of range.
        ModelError: What the model allocates depends on values that it computes.
    """
    strategy, num_devices = options.devices(models.recipe)
    shape = _within(max_positions(models.base), options.shape(stage), given=options.length is not None)
    specs = models.specs(stage.workflow)
    inputs = {name: modality_inputs(name, spec) for name, spec in specs.items()}
    with tempfile.TemporaryDirectory() as folder:
        media = {
            name: _medium(models.recipe, name, one, model, Path(folder), shape.num_conversations)
            for name, one in inputs.items()
        }
    batch, num_supervised = build_batch(shape, media)
    step = predict_step(model, batch, stage)
    memory = spread(step, strategy, num_devices, largest_unit(decoder_layers(model.language_model)))
    flops = stage.gradient_accumulation_steps * _flops(model, shape, media, num_supervised, models.recipe)
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
    make = get_plugin_manager().get("modality", recipe.modalities[name].type).stand_in
    if make is None:
        raise RecipeError(
            f"modalities.{name}: {recipe.modalities[name].type!r} offers no stand-in, by which memory is predicted."
        )
    item = inputs.load(make(folder, 0))
    raw = inputs.preprocessor.collate([item] * number)
    given: Any = [shadow_of(one) for one in raw] if isinstance(raw, list) else shadow_of(raw)
    if _is_cached(recipe, name, model):
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
