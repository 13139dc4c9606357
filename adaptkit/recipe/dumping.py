"""Writing a resolved recipe, as it is saved with a run's weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import adaptkit
from adaptkit.errors import DISTRIBUTION
from adaptkit.plugin_manager import PluginManager, get_plugin_manager
from adaptkit.recipe.components import ComponentConfig
from adaptkit.recipe.schema import Recipe, value_at
from adaptkit.recipe.variables import escape
from adaptkit.recipe.yaml_text import dump_yaml


def dump_recipe(recipe: Recipe, *, plugins: PluginManager | None = None) -> str:
    """YAML text that loads as the same recipe, with nothing left to extend or to default.

    Environment variables stay as they were written: what they hold is not saved.

    It opens with the versions of adaptkit and of the packages whose components the recipe names.
    """
    values = _as_written(recipe.model_dump(mode="json"))
    for place, text in recipe.written().items():
        value_at(values, place[:-1])[place[-1]] = text
    if recipe.data_root is not None:
        values["data_root"] = recipe.data_root
    versions = ", ".join(f"{name} {version}" for name, version in package_versions(recipe, plugins).items())
    return f"# Resolved recipe; made with {versions}.\n{dump_yaml(values)}"


def without_variables(recipe: Recipe) -> dict[str, Any]:
    """The recipe's values, to be saved and compared: text of environment variables by its hash."""
    from adaptkit.files.hashing import hash_of_text

    values = recipe.model_dump(mode="json")
    for place, text in recipe.written().items():
        if isinstance(value := value_at(values, place), str):
            value_at(values, place[:-1])[place[-1]] = f"{text} (sha256 {hash_of_text(value)})"
    return values


def written_description(recipe: Recipe) -> str:
    """What the recipe says it is, with environment variables as they were written."""
    return recipe.written().get(("description",), recipe.description)


def package_versions(recipe: Recipe, plugins: PluginManager | None = None) -> dict[str, str]:
    """Versions of adaptkit and of every package that a component of the recipe comes from, by distribution."""
    manager = plugins or get_plugin_manager()
    versions = {DISTRIBUTION: adaptkit.__version__}
    for config in components_of(recipe):
        package, _, version = manager.get(config.kind, config.component).package.partition(" ")
        versions.setdefault(package, version)
    return versions


def components_of(recipe: Recipe) -> Iterator[ComponentConfig]:
    """Every section of a recipe that names a plugin's component."""
    for modality in recipe.modalities.values():
        yield from (modality, modality.encoder, modality.projector)
    yield from (workflow.insertion for workflow in recipe.workflows.values())
    yield from recipe.data.values()
    yield from recipe.evaluation.tasks


def _as_written(value: Any) -> Any:
    """Without nulls, which stand for defaults, and with `${` protected from being read as a variable."""
    if isinstance(value, dict):
        return {key: _as_written(child) for key, child in value.items() if child is not None}
    if isinstance(value, list):
        return [_as_written(child) for child in value]
    return escape(value) if isinstance(value, str) else value
