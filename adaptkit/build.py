"""The one place where the names of a recipe become objects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from adaptkit.chat.encoding import EncodedConversation
from adaptkit.chat.shipped import load_chat_template
from adaptkit.chat.template import check_template, refuse_random, resolve_template
from adaptkit.chat.vocabulary import check_vocabulary, num_token_ids
from adaptkit.data.bad_samples import BadSamples
from adaptkit.data.collator import Collator, PackedCollator
from adaptkit.data.dataset import ConversationDataset
from adaptkit.data.holdout import Progress, Rows, held_out_rows, some_rows, split
from adaptkit.data.lengths import kept_in
from adaptkit.data.mixture import Mixture
from adaptkit.data.packing import PackedDataset, PackSampler
from adaptkit.data.sampler import EpochSampler
from adaptkit.data.validation import ValidationData
from adaptkit.errors import AdaptkitError, DataError, ModelError, RecipeError
from adaptkit.files.loading import load_stock
from adaptkit.files.paths import cache_dir, missing_model, resolve_model_path
from adaptkit.interfaces import (
    DataContext,
    DataSource,
    EncodedFeatures,
    Encoder,
    Media,
    Modality,
    Sample,
    box_size_of,
    is_stream,
)
from adaptkit.model.assembly import ModalityParts, assemble
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.encoders import build_encoder
from adaptkit.model.modality import WorkflowModality
from adaptkit.model.modality_inputs import modality_inputs
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.model.reference import remember_origin, settled
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.recipe import BaseConfig, Draw, Recipe, StageConfig, TaskConfig, trained_as
from adaptkit.recipe.components import ModalityConfig
from adaptkit.surgery.quantization import bitsandbytes_config, prepare_quantized

FLASH = "flash_attention_2"
NUM_FIRST_SAMPLES = 8
PROJECTOR_ONLY = {"policy": "projector_only"}


def missing_resources(recipe: Recipe) -> list[str]:
    """Say which models and datasets of a recipe are not on this machine, and how to provide each."""
    manager = get_plugin_manager()
    problems: list[str] = []
    missing = missing_model(recipe.base.path, recipe.base.revision)
    if missing:
        problems.append(f"base.path: {missing}.")
    for name, modality in recipe.modalities.items():
        missing = manager.get("encoder", modality.encoder.name).missing(modality.encoder.options)
        if missing:
            problems.append(f"modalities.{name}.encoder: {missing}")
    used = {dataset for stage in recipe.stages for dataset in stage_datasets(stage)}
    used.update(name for task in recipe.evaluation.tasks for name in task_datasets(task))
    try:
        context = data_context(recipe)
    except RecipeError as error:
        below = [f"{name} ({getattr(recipe.data[name].options, 'path', None) or '-'})" for name in sorted(used)]
        return [*problems, str(error), f"data: the datasets of that folder: {', '.join(below)}"]
    for name in sorted(used):
        dataset = recipe.data[name]
        missing = manager.get("data source", dataset.format).missing(dataset.options, context)
        if missing:
            problems.append(f"data.{name}: {missing}")
    return problems


def stage_datasets(stage: StageConfig) -> list[str]:
    """Names of the recipe's datasets that a stage trains on or is validated on."""
    return list(dict.fromkeys([*stage.data, *(stage.validation.data if stage.validation else ())]))


def task_datasets(task: TaskConfig) -> list[str]:
    """Names of the recipe's datasets that a benchmark asks about."""
    return get_plugin_manager().get("evaluation task", task.name).datasets(task.options)


def task_baselines(task: TaskConfig) -> list[str]:
    """Those of a benchmark's datasets that it does without where they are not available."""
    return get_plugin_manager().get("evaluation task", task.name).baselines(task.options)


def trained_datasets(recipe: Recipe, task: TaskConfig) -> list[str]:
    """Those of a benchmark's datasets whose rows a stage trains on, be it under another name or question."""
    return [name for name in task_datasets(task) if trained_as(recipe.data, name, recipe.stages) is not None]


def data_context(recipe: Recipe) -> DataContext:
    """What the recipe's data sources need besides their own options."""
    modalities = _modalities(recipe)
    needs_root = any("path" in dataset.values() for dataset in recipe.data.values())
    root = recipe.data_folder() if needs_root else Path()
    return context_of(modalities, root)


def _modalities(recipe: Recipe) -> dict[str, Modality]:
    manager = get_plugin_manager()
    return {n: manager.build("modality", m.type, m.options.model_dump()) for n, m in recipe.modalities.items()}


def context_of(modalities: Mapping[str, Modality], root: Path) -> DataContext:
    """The context of data sources, given the modalities in use."""
    tags = {name: modality.tag for name, modality in modalities.items()}
    return DataContext(root, tags, cache_dir(), {n: partial(box_size_of, m) for n, m in modalities.items()})


def build_base(config: BaseConfig, device: str | torch.device | None = None) -> PreTrainedModel:
    """Load the frozen decoder.

    Raises:
        ModelError: It is not there, is of another family than the recipe says, or cannot be quantised.
    """
    missing = missing_model(config.path, config.revision)
    if missing:
        raise ModelError(f"base.path: {missing}.")
    source = resolve_model_path(config.path)
    common: dict[str, Any] = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    loaded = load_stock(AutoConfig, source, **common)
    if config.model_type and loaded.model_type != config.model_type:
        raise ModelError(
            f"base.path: {config.path!r} is a {loaded.model_type}, but base.model_type says {config.model_type}."
        )
    if config.quantization is not None:
        dtype = getattr(torch, config.dtype) if config.dtype != "auto" else loaded.dtype or torch.float32
        common["quantization_config"] = bitsandbytes_config(config.quantization, dtype)
    base: PreTrainedModel = load_stock(
        AutoModelForCausalLM,
        source,
        dtype=config.dtype,
        attn_implementation=_attention(config.attn_implementation, loaded),
        device_map=device,
        **common,
    )
    prepare_quantized(base)
    remember_origin(base, config.revision)
    return base.eval()


def _attention(wanted: str | None, config: Any) -> str | None:
    """Flash attention where it was asked for or is usable; else the library's own choice."""
    if wanted not in (None, "auto"):
        return wanted
    from transformers.utils import is_flash_attn_2_available

    if not (torch.cuda.is_available() and is_flash_attn_2_available()):
        return None
    model_class = AutoModelForCausalLM._model_mapping[type(config)]
    return FLASH if getattr(model_class, "_supports_flash_attn", False) else None


def build_tokenizer(config: BaseConfig) -> Any:
    """Load the base's tokenizer, with the recipe's chat template where it names one.

    Raises:
        ModelError: There is no tokenizer, or its template is random.
    """
    source = resolve_model_path(config.path)
    advice = "It should hold the tokenizer of base.path."
    tokenizer = load_stock(
        AutoTokenizer, source, advice=advice, revision=config.revision, trust_remote_code=config.trust_remote_code
    )
    if config.chat_template is not None:
        tokenizer.chat_template = load_chat_template(config.chat_template)
    check_template(tokenizer, None, config.chat_template or source)
    if tokenizer.chat_template:
        refuse_random(resolve_template(tokenizer, None))
    return tokenizer


def modality_specs(recipe: Recipe, workflow: str, tokenizer: Any, base: PreTrainedModel) -> dict[str, WorkflowModality]:
    """The description of each modality of a workflow.

    Without a tokenizer, all placeholders are ids outside the vocabulary.

    Raises:
        RecipeError: A placeholder is not a single token of the tokenizer.
    """
    first_free = rows = int(base.get_input_embeddings().weight.shape[0])
    if tokenizer is not None:
        check_vocabulary(tokenizer, rows, f"base.path: {recipe.base.path!r}: ")
        first_free = max(rows, num_token_ids(tokenizer))
    insertion = recipe.workflows[workflow].insertion
    policy = get_plugin_manager().get("insertion policy", insertion.policy)
    specs: dict[str, WorkflowModality] = {}
    names = recipe.workflows[workflow].modalities or list(recipe.modalities)
    for index, name in enumerate(names):
        modality = recipe.modalities[name]
        placeholder_id = first_free + index
        if modality.placeholder is not None and tokenizer is not None:
            placeholder_id = _token_id(modality.placeholder, f"modalities.{name}.placeholder", tokenizer, recipe)
        specs[name] = WorkflowModality(
            type=modality.type,
            options=modality.values(),
            encoder=settled({"name": modality.encoder.name, "options": modality.encoder.values()}),
            projector={"name": modality.projector.name, "options": modality.projector.values()},
            placeholder_id=placeholder_id,
            placeholder=modality.placeholder,
            start=modality.start,
            end=modality.end,
            feature_mode=policy.feature_mode(insertion.options) or "splice",
        )
    return specs


def _token_id(text: str, key: str, tokenizer: Any, recipe: Recipe) -> int:
    token_id: int | None = tokenizer.convert_tokens_to_ids(text)
    if token_id is None or token_id == tokenizer.unk_token_id:
        raise RecipeError(
            f"{key}: {text!r} is not a token of the tokenizer of {recipe.base.path!r}. Name one of its reserved "
            "tokens, or null for an id outside the vocabulary."
        )
    return token_id


def build_processor(
    specs: Mapping[str, WorkflowModality | Mapping[str, Any]], tokenizer: Any, *, special_tokens_in_text: bool = False
) -> AdaptkitProcessor:
    """Make the processor of a workflow."""
    modalities = {name: modality_inputs(name, spec) for name, spec in specs.items()}
    return AdaptkitProcessor(tokenizer, modalities, special_tokens_in_text=special_tokens_in_text)


def build_encoders(specs: Mapping[str, WorkflowModality]) -> dict[str, Encoder]:
    """Load the frozen encoders, which all workflows of a run share."""
    return {name: build_encoder({"name": spec.encoder_name, **spec.encoder_options})[0] for name, spec in specs.items()}


def built_parts(recipe: Recipe, stage: StageConfig) -> set[str]:
    """Parts that exist in a stage: those that it or a stage it starts from trains."""
    parts: set[str] = set(stage.train)
    while stage.start_from is not None:
        stage = recipe.stage(stage.start_from)
        parts |= set(stage.train)
    return parts


def build_workflow(
    recipe: Recipe,
    workflow: str,
    parts: Collection[str],
    base: PreTrainedModel,
    encoders: Mapping[str, Encoder],
    specs: Mapping[str, WorkflowModality],
) -> AdaptkitForConditionalGeneration:
    """Build a workflow as far as a stage needs it.

    Args:
        parts: Parts that exist. Without `insertion` nothing is inserted; without `ends` they stay the base's, as in the
            paper's first stage, which trains the projector alone.
        specs: What `modality_specs` says.
    """
    config = recipe.workflows[workflow]
    insertion = config.insertion.model_dump(mode="json", exclude_none=True) if "insertion" in parts else PROJECTOR_ONLY
    if "encoder" in parts:
        specs = {name: _trained(spec, recipe.modalities[name]) for name, spec in specs.items()}
    modalities = {name: ModalityParts.of(name, spec, encoders[name], base) for name, spec in specs.items()}
    return assemble(base, modalities, insertion, config.replace_ends and "ends" in parts)


def _trained(spec: WorkflowModality, modality: ModalityConfig) -> WorkflowModality:
    lora = None if modality.encoder_lora is None else modality.encoder_lora.model_dump(exclude_none=True)
    return replace(spec, train_encoder=True, encoder_lora=lora)


def build_sources(recipe: Recipe, names: Collection[str]) -> dict[str, DataSource]:
    """Open datasets of a recipe by name.

    Raises:
        DataError: One is missing, malformed or empty.
    """
    context = data_context(recipe)
    sources: dict[str, DataSource] = {}
    for name in names:
        sources[name] = open_source(recipe, name, context)
        _check_first_samples(name, sources[name])
    return sources


def open_source(recipe: Recipe, name: str, context: DataContext) -> DataSource:
    """Open one dataset of a recipe.

    Raises:
        DataError: It is missing, malformed or empty; the message names it.
    """
    dataset = recipe.data[name]
    component = get_plugin_manager().get("data source", dataset.format)
    missing = component.missing(dataset.options, context)
    if missing is not None:
        raise DataError(f"data.{name}: {missing}", kind="unreadable_file")
    source: DataSource = component.build(dataset.options, context)
    if not len(source):
        raise DataError(f"data.{name}: the dataset is empty.")
    return source


def find_held_out(
    recipe: Recipe, sources: Mapping[str, DataSource], progress: Progress = lambda done, total: None
) -> dict[str, list[int]]:
    """The rows of each dataset that its `holdout` keeps from training; datasets without one are skipped.

    Raises:
        DataError: A dataset is so small that none of its rows are held out, or all.
    """
    keys = {name: modality.content_key for name, modality in _modalities(recipe).items()}
    found: dict[str, list[int]] = {}
    for name, source in sources.items():
        share = recipe.data[name].holdout
        if share is None:
            continue
        rows = found[name] = held_out_rows(source, share, keys, progress)
        if not 0 < len(rows) < len(source):
            raise DataError(
                f"data.{name}.holdout: {share:g} holds out {len(rows)} of the {len(source):,} samples, where equal "
                "ones count as one. Choose another share, or give the validation rows as a dataset of their own."
            )
    return found


@dataclass(frozen=True)
class Sources:
    """Opened datasets.

    Attributes:
        trained: What stages read.
        measured: What validation and benchmarks read: the held-out rows of a dataset that has any, else the same.
    """

    trained: dict[str, DataSource]
    measured: dict[str, DataSource]


def split_sources(sources: Mapping[str, DataSource], held_out: Mapping[str, list[int]]) -> Sources:
    """Split opened datasets by what `find_held_out` found."""
    sides = {n: split(source, held_out[n]) if n in held_out else (source, source) for n, source in sources.items()}
    return Sources({n: side[0] for n, side in sides.items()}, {n: side[1] for n, side in sides.items()})


def task_sources(recipe: Recipe, task: TaskConfig, known: Sources | None = None) -> dict[str, dict[str, DataSource]]:
    """The datasets that a task asks about, as its keyword `sources`; nothing for tasks that have none.

    Args:
        known: Datasets that are open already.
    """
    datasets, baselines = task_datasets(task), task_baselines(task)
    if not datasets:
        return {}
    known = known or Sources({}, {})
    opened = build_sources(recipe, [name for name in datasets if name not in known.trained])
    new = split_sources(opened, find_held_out(recipe, opened))
    trained, measured = known.trained | new.trained, known.measured | new.measured
    return {"sources": {name: (trained if name in baselines else measured)[name] for name in datasets}}


def asked_sources(
    recipe: Recipe, task: TaskConfig, folder: Path | None = None
) -> dict[str, dict[str, DataSource | None]]:
    """As `task_sources`, where nothing is trained: what only a baseline needs may be missing, and is then None.

    Args:
        folder: Where the files of its datasets are; the recipe's `data_root` where not given. What a baseline needs and
            is not there is taken from `data_root`.

    Raises:
        DataError: A dataset that is asked about is missing, malformed or empty.
    """
    moved = recipe if folder is None else recipe.model_copy(update={"data_root": str(folder)})
    baselines, context = task_baselines(task), data_context(moved)
    sources: dict[str, DataSource | None] = {}
    for name in task_datasets(task):
        if name not in baselines:
            sources[name] = _side(recipe, name, open_source(recipe, name, context)).measured[name]
            continue
        sources[name] = None
        for place in dict.fromkeys((moved.data_root, recipe.data_root)):
            with suppress(AdaptkitError):
                there = data_context(recipe.model_copy(update={"data_root": place}))
                sources[name] = _side(recipe, name, open_source(recipe, name, there)).trained[name]
                break
    return {"sources": sources} if sources else {}


def _side(recipe: Recipe, name: str, source: DataSource) -> Sources:
    return split_sources({name: source}, find_held_out(recipe, {name: source}))


def _check_first_samples(name: str, source: DataSource) -> None:
    """A dataset whose first samples are all bad is read in a wrong way; better known now than after other stages.

    Raises:
        DataError: What is wrong with the first one.
    """
    problems = []
    for index in range(min(NUM_FIRST_SAMPLES, len(source))):
        try:
            source[index]
            return
        except DataError as error:
            problems.append(str(error))
    raise DataError(
        f"data.{name}: the first {len(problems)} sample(s) are all bad, so nothing is trained. The first: {problems[0]}"
    )


class MediaStore:
    """Media of training samples, read from their sources or from cached features.

    Args:
        processor: Reads and measures media.
        cached: For modalities whose features are cached: features of several sources, and positions of one.
    """

    def __init__(self, processor: AdaptkitProcessor, cached: Mapping[str, CachedFeatures] | None = None) -> None:
        self.processor = processor
        self.cached = dict(cached or {})

    def num_positions(self, modality: str, source: Any) -> int:
        """Decoder positions of one medium."""
        inputs = self.processor.modalities[modality]
        if inputs.fixed_positions is not None:
            return inputs.fixed_positions
        return inputs.num_positions(inputs.load(source))

    def prepare(self, modality: str, source: Any) -> Any:
        """One medium of a dataset item: its key in the cache, or its encoder inputs."""
        if modality in self.cached:
            return self.cached[modality].key(source)
        return self.processor.modalities[modality].load(source)

    def collate(self, modality: str, prepared: list[Any]) -> Media:
        """The batch of prepared media: cached features or encoder inputs."""
        if modality in self.cached:
            return EncodedFeatures(self.cached[modality].get(prepared))
        return self.processor.modalities[modality].preprocessor.collate(prepared)

    def encode(self, sample: Sample) -> EncodedConversation:
        """Token ids and labels of one sample."""
        return self.processor.encode(sample.messages, num_positions=self.num_positions)

    def identity(self) -> str | None:
        """All that the length of an encoded sample depends on besides the sample; None where that is not known."""
        processor = self.processor
        tokenizer = getattr(processor.tokenizer, "backend_tokenizer", None)
        if tokenizer is None:  # written in Python
            return None
        try:
            modalities = [
                (name, inputs.start, inputs.end, inputs.fixed_positions or inputs.preprocessor.settings())
                for name, inputs in processor.modalities.items()
            ]
        except NotImplementedError:
            return None
        how = processor.chat_template, processor.special_tokens_in_text, processor.placeholder_ids
        return repr((tokenizer.to_str(), *how, modalities))


@dataclass(frozen=True)
class CachedFeatures:
    """Features of one modality that were encoded beforehand.

    Attributes:
        key: Cache key of a source; raises `DataError` where the source is unusable.
        get: Features of several keys, `(num_items, positions, feature_size)`, or a list where positions differ.
        example: Features like those of an item, `(positions, feature_size)`; None where there is no item.
    """

    key: Callable[[Any], str]
    get: Callable[[list[str]], Tensor | list[Tensor]]
    example: Tensor | None = None


@dataclass(frozen=True)
class StageData:
    """What a stage trains on.

    Attributes:
        conversations: Encoded conversations, one by one.
        dataset: What the sampler's indices read: the same, or packs of them.
        sampler: The order of each epoch.
        collator: Makes a batch.
    """

    conversations: ConversationDataset
    dataset: Dataset[Any]
    sampler: EpochSampler | PackSampler
    collator: Collator


def stage_mixture(stage: StageConfig, sources: Mapping[str, DataSource]) -> Mixture:
    """The datasets of a stage as one."""
    weights = {n: s.count / len(sources[n]) if isinstance(s, Draw) else s for n, s in stage.data.items()}
    return Mixture({name: sources[name] for name in stage.data}, weights, seed=stage.seed)


def build_stage_data(
    recipe: Recipe,
    stage: StageConfig,
    sources: Mapping[str, DataSource],
    media: MediaStore,
    bad_samples_path: Path | None,
    num_processes: int = 1,
) -> StageData:
    """Dataset, order and collation of one stage.

    Args:
        bad_samples_path: Where bad samples are recorded, up to the recipe's limit; without it they raise.
        num_processes: Processes that share the batches.
    """
    mixture = stage_mixture(stage, sources)
    bad = None
    if bad_samples_path is not None:
        bad = BadSamples(bad_samples_path, len(mixture), recipe.max_bad_fraction, stage.name)
    dataset = ConversationDataset(mixture, media.encode, stage.max_length, bad, prepare=media.prepare)
    pad = media.processor.pad_token_id
    if stage.packing:
        packs = PackSampler(
            mixture.order,
            lengths=_lengths(dataset, media),
            row_length=stage.row_length,
            num_epochs=stage.num_train_epochs if stage.max_steps < 0 else None,
            num_draws=stage.max_steps * stage.step_size(num_processes),
            seed=stage.seed,
        )
        return StageData(dataset, PackedDataset(dataset), packs, PackedCollator(pad, media.collate))
    sampler = EpochSampler(
        mixture.order,
        seed=stage.seed,
        lengths=_lengths(dataset, media) if stage.group_by_length else None,
        batch_size=stage.step_size(num_processes),
        group_by_length=stage.group_by_length,
    )
    return StageData(dataset, dataset, sampler, Collator(pad, media.collate))


def build_validation(
    recipe: Recipe,
    stage: StageConfig,
    sources: Mapping[str, DataSource],
    media: MediaStore,
    bad_samples_path: Path | None,
) -> ValidationData | None:
    """The rows that a stage is validated on, long ones first so that too large a batch shows at once.

    Args:
        sources: Of `Sources.measured`.
        bad_samples_path: As in `build_stage_data`.

    Raises:
        DataError: A dataset has fewer rows than are asked for.
    """
    if stage.validation is None:
        return None
    rows = {name: _amount(stage, name, sources[name]) for name in stage.validation.data}
    mixture = Mixture(rows, dict.fromkeys(rows, 1.0))
    bad = None
    if bad_samples_path is not None:
        bad = BadSamples(bad_samples_path, len(mixture), recipe.max_bad_fraction, f"{stage.name}, validation")
    dataset = ConversationDataset(mixture, media.encode, stage.max_length, bad, prepare=media.prepare)
    order = list(range(len(mixture)))
    if not any(map(is_stream, rows.values())):
        lengths = _lengths(dataset, media)
        order.sort(key=lambda index: -lengths[index])
    collator = Collator(media.processor.pad_token_id, media.collate)
    return ValidationData(dataset, [mixture.locate(index)[0] for index in range(len(mixture))], order, collator)


def check_validation(recipe: Recipe, sources: Mapping[str, DataSource]) -> None:
    """Make sure that there are as many rows as every stage is validated on.

    Args:
        sources: Of `Sources.measured`.

    Raises:
        DataError: There are not.
    """
    for stage in recipe.stages:
        for name in stage.validation.data if stage.validation else ():
            _amount(stage, name, sources[name])


def _amount(stage: StageConfig, name: str, source: DataSource) -> DataSource:
    assert stage.validation is not None
    amount = stage.validation.data[name]
    if not isinstance(amount, Draw):
        return source
    if amount.count > len(source):
        raise DataError(
            f"stages.{stage.name}.validation.data.{name}.count: {amount.count:,} rows are asked for, and there are "
            f"{len(source):,}{' held out' if isinstance(source, Rows) else ''}. Give a smaller count, or all"
            f"{', or a larger holdout' if isinstance(source, Rows) else ''}."
        )
    return some_rows(source, amount.count)


def _lengths(dataset: ConversationDataset, media: MediaStore) -> NDArray[np.int64]:
    return dataset.lengths(kept_in(cache_dir() / "lengths", media.identity()))
