"""Reading a recipe: file, the files it extends, overrides, defaults, variables, validation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from adaptkit.errors import RecipeError, unknown_name
from adaptkit.plugin_manager import PluginManager, get_plugin_manager
from adaptkit.recipe.explain import explain
from adaptkit.recipe.finding import find_recipe, not_found, shipped_folder
from adaptkit.recipe.merging import merge
from adaptkit.recipe.overrides import apply_overrides
from adaptkit.recipe.schema import Recipe
from adaptkit.recipe.tree import Node, Origin, Problem, from_plain, item_label, labelled, recipe_error, without_nulls
from adaptkit.recipe.variables import Place, expand_tree, secrets_in_checkpoints, with_variables
from adaptkit.recipe.yaml_text import parse_yaml

M = TypeVar("M", bound=BaseModel)

MAX_BYTES = 1_000_000

_SECTIONS = {*Recipe.model_fields, *Recipe.shorthand, "modality", "encoder", "training"}
_ANYWHERE = {"name", "description"}


def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, plugins: PluginManager | None = None) -> Recipe:
    """Read a recipe with everything it extends, and validate all of it.

    Args:
        path: The YAML file, or the name of a recipe below ./recipes or of one that ships with adaptkit.
        overrides: `a.b.c=value` each, laid over it in that order; stages and list items go by name.

    Raises:
        RecipeError: The file cannot be read, or something in it is wrong; the message has a line for each
            problem, `file:line: dotted.key: what is wrong`.
    """
    path = find_recipe(path)
    problems: list[Problem] = []
    root = _read(path, (), problems)
    if "encoder" in root.entries and "stages" not in root.entries:
        raise RecipeError(f"{path} trains an encoder alone: it is a recipe for `adaptkit train-encoder`.")
    return _recipe(root, path.stem, overrides, problems, plugins)


def read_validated(model: type[M], path: str | Path, overrides: Sequence[str], plugins: PluginManager) -> M:
    """Read a file that is laid out as another model says, with what it extends and with overrides.

    Raises:
        RecipeError: As `load_recipe`.
    """
    path = find_recipe(path)
    problems: list[Problem] = []
    root = _read(path, (), problems)
    if "stages" in root.entries or "workflows" in root.entries:
        raise RecipeError(f"{path} trains workflows: it is a recipe for `adaptkit train`.")
    root = without_nulls(apply_overrides(root, overrides, problems))
    root = expand_tree(_named(root, path.stem), problems, set())
    return _validated(model, root, problems, plugins)


def load_values(path: Path) -> dict[str, Any]:
    """The values of a resolved recipe that was saved, unvalidated; variables that are not set stay as they are.

    Raises:
        RecipeError: It cannot be read.
    """
    root, problems = parse_yaml(_text_of(path), str(path))
    values = expand_tree(root, problems, set()).plain()
    if not isinstance(values, dict):
        raise RecipeError(f"{path} is damaged: it is not a recipe")
    return values


def recipe_from_values(values: Mapping[str, Any], *, plugins: PluginManager | None = None) -> Recipe:
    """Validate a recipe given as a mapping, as `load_recipe` does a file's; `extends` has no meaning here.

    Raises:
        RecipeError: Something in it is wrong; the message has a line for each problem.
    """
    problems: list[Problem] = []
    return _recipe(labelled(from_plain(dict(values), Origin("recipe"))), "recipe", (), problems, plugins)


def _recipe(
    root: Node, stem: str, overrides: Sequence[str], problems: list[Problem], plugins: PluginManager | None
) -> Recipe:
    root = apply_overrides(root, overrides, problems)
    root = _named(without_nulls(_with_stage_defaults(_with_like(root, problems), problems)), stem)
    problems += secrets_in_checkpoints(root)
    expanded = expand_tree(root, problems, _unused_data(root))
    recipe = _validated(Recipe, expanded, problems, plugins or get_plugin_manager())
    recipe.remember_written(with_variables(root))
    return recipe


def _read(path: Path, below: tuple[Path, ...], problems: list[Problem]) -> Node:
    """The tree of a file, laid over those it extends."""
    source = os.path.normpath(path)
    root, found = parse_yaml(_text_of(path), source)
    if not isinstance(root.value, dict):
        what = "empty" if root.value is None else "a list" if isinstance(root.value, list) else "text or a number"
        raise RecipeError(f"{source}: a recipe is a mapping of keys to values; this file is {what}")
    if below and not _is_recipe(root):  # whatever it is, nothing of it is shown
        raise RecipeError(f"{below[-1]} extends {source}, which is not a recipe: most of its keys are not those of one")
    problems.extend(found)
    root = labelled(root)
    parent = root.entries.get("extends")
    own = root.with_entries({key: child for key, child in root.entries.items() if key != "extends"})
    if parent is None or parent.value is None:
        return own
    chain = (*below, path.resolve())
    extended = _read(_parent_path(path, parent, chain), chain, problems)
    inherited = {key: node for key, node in extended.entries.items() if key not in ("name", "description")}
    return merge(extended.with_entries(inherited), own, problems)


def _is_recipe(root: Node) -> bool:
    """Whether a file looks like a recipe, although one with faults, and not like other settings."""
    keys = root.entries.keys() - _ANYWHERE
    return len(keys & _SECTIONS) > len(keys - _SECTIONS)


def _parent_path(path: Path, parent: Node, chain: tuple[Path, ...]) -> Path:
    if parent.text is None:
        message = f"should be the path of one recipe, not {parent.plain()!r}"
        raise recipe_error([Problem(parent.origin, "extends", message)])
    found = Path(os.path.normpath(path.parent / parent.text))
    shipped = shipped_folder()
    if not found.is_file() and shipped is not None and (shipped / f"{parent.text}.yaml").is_file():
        found = shipped / f"{parent.text}.yaml"  # by its name
    if found.resolve() in chain:
        names = " extends ".join(p.name for p in (*chain, found))
        raise recipe_error([Problem(parent.origin, "extends", f"recipes extend each other in a circle: {names}")])
    if not found.is_file():
        raise recipe_error([Problem(parent.origin, "extends", not_found(found))])
    return found


def _text_of(path: Path) -> str:
    if not path.is_file():
        raise RecipeError(not_found(path))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecipeError(f"{path}: more than {MAX_BYTES // 1_000_000} MB, so not a recipe")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}), so not a recipe") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None


def _named(root: Node, name: str) -> Node:
    if "name" in root.entries:
        return root
    return root.with_entries({"name": Node(name, root.origin, "name"), **root.entries})


def _with_like(root: Node, problems: list[Problem]) -> Node:
    """Copy the settings of the workflows that others are like."""
    section = root.entries.get("workflows")
    if section is None or not isinstance(section.value, dict):
        return root
    workflows = {name: node for name, node in section.value.items() if node.value is not None}
    done = {name: _like(name, workflows, (), problems) for name in workflows}
    return root.with_entries({**root.entries, "workflows": section.with_entries(done)})


def _like(name: str, workflows: dict[str, Node], above: tuple[str, ...], problems: list[Problem]) -> Node:
    node = workflows[name]
    like = node.entries.get("like")
    if like is None or like.value is None:
        return node
    own = node.with_entries({key: child for key, child in node.entries.items() if key != "like"})
    other = str(like.value)
    if other in (*above, name):
        circle = " is like ".join([*above, name, other])
        problems.append(Problem(like.origin, like.key, f"workflows are like each other in a circle: {circle}"))
    elif other not in workflows:
        problems.append(Problem(like.origin, like.key, unknown_name("workflow", other, workflows)))
    else:
        model = _like(other, workflows, (*above, name), problems)
        return merge(model, own, problems, ("workflows", name))
    return own


def _with_stage_defaults(root: Node, problems: list[Problem]) -> Node:
    """Lay every stage over `stage_defaults` and over the recipe's own `seed` and `logging_steps`."""
    entries = dict(root.entries)
    defaults = entries.pop("stage_defaults", None)
    stages = entries.get("stages")
    if defaults is not None and defaults.value is not None and not isinstance(defaults.value, dict):
        message = "should be a mapping of what stages have in common"
        problems.append(Problem(defaults.origin, defaults.key, message))
    if stages is None or not isinstance(stages.value, list):
        return root.with_entries(entries)
    common = {}
    for path in (("seed",), ("logging", "logging_steps")):
        node, rest = root.find(path)
        if not rest and node.value is not None:
            common[path[-1]] = node
    common |= defaults.entries if defaults else {}
    laid = [
        merge(stage.with_entries(common), stage, problems, ("stages", item_label(stage, 0)))
        if isinstance(stage.value, dict)
        else stage
        for stage in stages.value
    ]
    entries["stages"] = replace(stages, value=laid)
    return root.with_entries(entries)


def _unused_data(root: Node) -> set[Place]:
    """Datasets that no stage trains on: their variables need not be set."""
    data, stages = root.entries.get("data"), root.entries.get("stages")
    mixtures = [stage.entries["data"] for stage in (stages.items if stages else []) if "data" in stage.entries]
    used = {name for mixture in mixtures for name in mixture.entries}
    return {("data", name) for name in (data.entries if data else {}) if name not in used}


def _validated(model: type[M], root: Node, problems: list[Problem], plugins: PluginManager) -> M:
    try:
        recipe = model.model_validate(root.plain(), context={"plugins": plugins})
    except ValidationError as error:
        problems += [_located(root, details["loc"], explain(details, model)) for details in error.errors()]
    if problems:
        raise recipe_error(problems)
    return recipe


def _located(root: Node, location: tuple[int | str, ...], message: str) -> Problem:
    node, rest = root.find(location)
    key = ".".join([node.key, *map(str, rest)] if node.key else map(str, rest))
    return Problem(node.origin, key, message)
