"""The datasets of a recipe's mixtures, to be checked as its stages read them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch

from adaptkit.build import build_tokenizer, data_context, modality_specs
from adaptkit.chat.shipped import FAMILY_TEMPLATES, load_chat_template
from adaptkit.chat.vocabulary import num_token_ids
from adaptkit.data_tools.check.findings import Problem
from adaptkit.data_tools.check.plan import (
    CONTENT,
    LENGTHS,
    WORDS,
    CheckedDataset,
    CheckedMedia,
    OnlyRead,
    Plan,
    embedding_rows,
    open_tokenizer,
)
from adaptkit.errors import AdaptkitError, DataError, RecipeError
from adaptkit.files.paths import missing_model, resolve_model_path
from adaptkit.interfaces import DataContext, DataSource
from adaptkit.model.modality import WorkflowModality
from adaptkit.model.modality_inputs import ModalityInputs, modality_inputs
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.recipe import Recipe
from adaptkit.run.rehearsal import family_of, stand_in_tokenizer


def plan_recipe(
    recipe: Recipe,
    *,
    tokenizer: str | None = None,
    max_length: int | None = None,
    max_bad_fraction: float | None = None,
    reads_media: bool = True,
) -> Plan:
    """What to check of a recipe: each dataset of its stages, once for every set of modalities it is trained with.

    No weights are loaded. Where the base or an encoder is not on this machine, lengths are not those of training; the
    plan's notes say so.

    Args:
        recipe: The recipe.
        tokenizer: Folder of a tokenizer to use instead of the base's.
        max_length: Instead of the stages'.
        max_bad_fraction: Instead of the recipe's.
        reads_media: Whether media are decoded.

    Raises:
        RecipeError: A placeholder is not a token of the tokenizer, or a variable in `data_root` is not set.
        ModelError: The folder has no tokenizer.
    """
    plan = Plan(max_bad_fraction=recipe.max_bad_fraction if max_bad_fraction is None else max_bad_fraction)
    found, in_tokens = _tokenizer(recipe, tokenizer, plan)
    if not reads_media:
        plan.note_unchecked(CONTENT)
    if in_tokens:
        plan.note_end_of_turn(found)
    processors = _Processors(recipe, found, plan)
    context = data_context(recipe)
    sources: dict[str, DataSource | None] = {}
    datasets: dict[tuple[str, tuple[str, ...]], CheckedDataset] = {}
    for stage in recipe.stages:
        processor, measured = processors.of(stage.workflow)
        mixture = plan.mixtures.setdefault(f"stage {stage.name}", [])
        for name in stage.data:
            if name not in sources:
                sources[name] = _open(recipe, name, context, plan)
            source = sources[name]
            if source is None:
                continue
            key = (name, tuple(processor.modalities))
            if key not in datasets:
                others = any(known == name for known, _ in datasets)
                dataset = CheckedDataset(
                    f"{name} ({stage.workflow})" if others else name,
                    source,
                    CheckedMedia(processor),
                    in_tokens=in_tokens and measured,
                    knows_words=in_tokens,
                    reads_media=reads_media,
                )
                datasets[key] = dataset
            if datasets[key].in_tokens:  # the least limit of the stages
                limits = [stage.max_length if max_length is None else max_length, datasets[key].max_length]
                least = min(limit for limit in limits if limit is not None)
                datasets[key] = replace(datasets[key], max_length=least)
            mixture.append(datasets[key].name)
    plan.datasets = list(datasets.values())
    return plan


def _open(recipe: Recipe, name: str, context: DataContext, plan: Plan) -> DataSource | None:
    config = recipe.data[name]
    component = get_plugin_manager().get("data source", config.format)
    missing = component.missing(config.options, context)
    if missing is None:
        try:
            source: DataSource = component.build(config.options, context)
            return source
        except DataError as error:
            missing = str(error)
    plan.unopened.append(Problem("unreadable_file", name, 0, None, f"data.{name}: {missing}"))
    return None


def _tokenizer(recipe: Recipe, path: str | None, plan: Plan) -> tuple[Any, bool]:
    """A tokenizer, and whether its lengths are to be believed."""
    template = recipe.base.chat_template
    if path is not None:
        tokenizer = open_tokenizer(path)
        if template is not None:
            tokenizer.chat_template = load_chat_template(template)
        return tokenizer, True
    missing = missing_model(recipe.base.path, recipe.base.revision)
    if missing is None:
        return build_tokenizer(recipe.base), True
    plan.note_unchecked(LENGTHS, WORDS)
    plan.notes.append(
        f"Lengths in tokens and unknown words are not checked: {missing}. --tokenizer DIR takes another tokenizer than "
        "the base's."
    )
    try:
        template = template or FAMILY_TEMPLATES.get(family_of(recipe.base), "chatml")
    except RecipeError:  # an unknown family has no template either
        template = "chatml"
    placeholders = [m.placeholder for m in recipe.modalities.values() if m.placeholder]
    return stand_in_tokenizer(load_chat_template(template), placeholders), False


class _Processors:
    """The processor of each workflow, and whether it tells how many positions media take."""

    def __init__(self, recipe: Recipe, tokenizer: Any, plan: Plan) -> None:
        self._recipe = recipe
        self._tokenizer = tokenizer
        self._plan = plan
        self._found: dict[str, tuple[AdaptkitProcessor, bool]] = {}
        base = recipe.base
        is_here = missing_model(base.path, base.revision) is None
        self._num_rows = embedding_rows(resolve_model_path(base.path), base.revision) if is_here else None

    def of(self, workflow: str) -> tuple[AdaptkitProcessor, bool]:
        if workflow not in self._found:
            # The ids of placeholders outside the vocabulary are all that the base would be asked for
            weight = torch.empty(self._num_rows or num_token_ids(self._tokenizer), 0)
            base: Any = SimpleNamespace(get_input_embeddings=lambda: SimpleNamespace(weight=weight))
            specs = modality_specs(self._recipe, workflow, self._tokenizer, base)
            inputs = {name: self._inputs(name, spec) for name, spec in specs.items()}
            modalities = {name: one for name, (one, _) in inputs.items()}
            measured = all(known for _, known in inputs.values())
            as_tokens = self._recipe.base.special_tokens_in_text
            processor = AdaptkitProcessor(self._tokenizer, modalities, special_tokens_in_text=as_tokens)
            self._found[workflow] = processor, measured
        return self._found[workflow]

    def _inputs(self, name: str, spec: WorkflowModality) -> tuple[ModalityInputs, bool]:
        encoder = self._recipe.modalities[name].encoder
        missing = get_plugin_manager().get("encoder", encoder.name).missing(encoder.options)
        if missing is None:
            try:
                return modality_inputs(name, spec), True
            except AdaptkitError as error:
                missing = str(error)
        self._plan.note_unchecked(LENGTHS, f"whether the encoder of {name!r} takes the media")
        note = f"{name}: media are read, but not prepared for the encoder, and not counted: {missing.rstrip('.')}."
        if note not in self._plan.notes:
            self._plan.notes.append(note)
        modality = get_plugin_manager().build("modality", spec.type or name, spec.options or {})
        texts = (spec.placeholder, spec.start, spec.end)
        return ModalityInputs(name, modality, OnlyRead(), spec.placeholder_id, *texts), False
