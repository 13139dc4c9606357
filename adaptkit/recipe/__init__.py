"""Recipes: the YAML files that name everything a run depends on.

`load_recipe` reads one, with what it extends and with overrides, and reports all that is wrong at once, by
file, line and dotted key. Nothing here imports torch.
"""

from __future__ import annotations

from adaptkit.recipe.batch_splitting import for_processes, split_batches
from adaptkit.recipe.components import (
    DataConfig,
    EncoderConfig,
    InsertionConfig,
    ModalityConfig,
    PluginConfig,
    ProjectorConfig,
    TaskConfig,
)
from adaptkit.recipe.dumping import components_of, dump_recipe, without_variables, written_description
from adaptkit.recipe.encoder import EncoderRecipe, load_encoder_recipe
from adaptkit.recipe.finding import find_recipe, reference, shipped_folder
from adaptkit.recipe.json_schema import recipe_json_schema
from adaptkit.recipe.key_lookup import place_of
from adaptkit.recipe.listing import RecipeSummary, find_recipes, load_any_recipe, opening_comment
from adaptkit.recipe.loading import load_recipe, load_values, recipe_from_values
from adaptkit.recipe.schema import (
    AcceleratorConfig,
    BaseConfig,
    EvaluationConfig,
    LoggingConfig,
    Recipe,
    WorkflowConfig,
)
from adaptkit.recipe.trained import trained_as
from adaptkit.stage import (
    Draw,
    EncoderTrainingConfig,
    OptimizerConfig,
    OptimizerGroup,
    StageConfig,
    ValidationConfig,
)

__all__ = [
    "AcceleratorConfig",
    "BaseConfig",
    "DataConfig",
    "Draw",
    "EncoderConfig",
    "EncoderRecipe",
    "EncoderTrainingConfig",
    "EvaluationConfig",
    "InsertionConfig",
    "LoggingConfig",
    "ModalityConfig",
    "OptimizerConfig",
    "OptimizerGroup",
    "PluginConfig",
    "ProjectorConfig",
    "Recipe",
    "RecipeSummary",
    "StageConfig",
    "TaskConfig",
    "ValidationConfig",
    "WorkflowConfig",
    "components_of",
    "dump_recipe",
    "find_recipe",
    "find_recipes",
    "for_processes",
    "load_any_recipe",
    "load_encoder_recipe",
    "load_recipe",
    "load_values",
    "opening_comment",
    "place_of",
    "recipe_from_values",
    "recipe_json_schema",
    "reference",
    "shipped_folder",
    "split_batches",
    "trained_as",
    "without_variables",
    "written_description",
]
