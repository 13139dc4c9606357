"""What all stages of a recipe share: its frozen models and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from adaptkit.build import (
    build_base,
    build_encoders,
    build_processor,
    build_tokenizer,
    build_workflow,
    built_parts,
    modality_specs,
)
from adaptkit.chat.template import fix_date
from adaptkit.interfaces import Encoder
from adaptkit.model.checkpoint import load_tensors
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.modality import WorkflowModality
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.recipe import Recipe, StageConfig


@dataclass(frozen=True)
class LoadedModels:
    """The frozen models of a recipe, from which the workflow of each stage is built.

    Attributes:
        recipe: What they are for.
        base: The frozen decoder.
        tokenizer: Its tokenizer; None where only shapes matter, as for predictions.
        encoders: Frozen encoders of the workflows that are trained, by modality.
    """

    recipe: Recipe
    base: PreTrainedModel
    tokenizer: Any
    encoders: Mapping[str, Encoder]

    def specs(self, workflow: str) -> dict[str, WorkflowModality]:
        """What `build.modality_specs` says of a workflow."""
        return modality_specs(self.recipe, workflow, self.tokenizer, self.base)

    def processor(self, workflow: str) -> AdaptkitProcessor:
        """The processor of a workflow, also before it is trained."""
        return build_processor(
            self.specs(workflow), self.tokenizer, special_tokens_in_text=self.recipe.base.special_tokens_in_text
        )

    def build_stage_model(self, stage: StageConfig, start_from: Path | None = None) -> AdaptkitForConditionalGeneration:
        """Build the workflow of a stage as the stage begins with it.

        Args:
            start_from: Checkpoint of the stage that it starts from; without one, all weights are new.
        """
        torch.manual_seed(self.recipe.seed)
        parts, specs = built_parts(self.recipe, stage), self.specs(stage.workflow)
        model = build_workflow(self.recipe, stage.workflow, parts, self.base, self.encoders, specs)
        if start_from is not None:
            model.load_own_tensors(load_tensors(start_from), partial=True)
        model.to(self.base.device)
        return model


def load_models(recipe: Recipe, device: str | None = None) -> LoadedModels:
    """Load the base, its tokenizer and the encoders of a recipe.

    Args:
        device: Where the base goes; the encoders follow it.

    Raises:
        ModelError: One of them is missing or of another kind than the recipe says.
    """
    base = build_base(recipe.base, device)
    tokenizer = build_tokenizer(recipe.base)
    fix_date(tokenizer, recipe.date)
    return load_encoders(recipe, base, tokenizer)


def load_encoders(recipe: Recipe, base: PreTrainedModel, tokenizer: Any = None) -> LoadedModels:
    """Load the encoders of the workflows that some stage trains, for a base that is already loaded."""
    models = LoadedModels(recipe, base, tokenizer, {})
    specs: dict[str, WorkflowModality] = {}
    for stage in recipe.stages:
        specs |= models.specs(stage.workflow)
    return replace(models, encoders={n: encoder.to(base.device) for n, encoder in build_encoders(specs).items()})
