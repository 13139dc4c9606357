"""Environment variables in a recipe's text: `${NAME}`, `${NAME:-default}`, and `$${` for a literal `${`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from adaptkit.errors import RecipeError, keep_secret
from adaptkit.recipe.tree import Node, Problem, scalars

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")

Place = tuple[str | int, ...]

DATA_ROOT: Place = ("data_root",)

_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(API|ACCESS|PRIVATE|AUTH)_?KEY", re.IGNORECASE)
_MIN_SECRET, _MIN_VALUE = 4, 8
_IN_CHECKPOINTS = ("base", "modalities", "workflows")


def expand(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Replace references to environment variables.

    Raises:
        ValueError: A variable without a default is not set, or a `${` is not closed; the message says which.
    """
    values = os.environ if environment is None else environment

    def value_of(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name, default = match[1], match[2]
        if name is None:
            raise ValueError(
                f"'${{' in {text!r} is not followed by NAME}}; write ${{NAME}}, or $${{ for the characters"
            )
        if name not in values and default is None:
            raise ValueError(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
        value = values.get(name, default or "")
        if name in values and _is_private(name, value):
            keep_secret(value, f"${{{name}}}")
        return value

    return _REFERENCE.sub(value_of, text)


def _is_private(name: str, value: str) -> bool:
    """Whether messages name a variable instead of its value: not where it is a path, which says what is missing."""
    if _SECRET.search(name):
        return len(value) >= _MIN_SECRET
    return len(value) >= _MIN_VALUE and not Path(value).expanduser().is_absolute() and not Path(value).exists()


def data_folder(data_root: str | None) -> Path:
    """The folder against which relative data paths are read; the current one where a recipe names none.

    Raises:
        RecipeError: An environment variable that it is made of is not set.
    """
    try:
        return Path(expand(data_root or ".")).expanduser()
    except ValueError as error:
        raise RecipeError(f"data_root: {error}") from None


def with_variables(node: Node) -> dict[Place, str]:
    """Text of a recipe that refers to variables, as written, by its place; `data_root` is never anything else."""
    return {
        path: child.text for path, child in scalars(node) if child.text and "${" in child.text and path != DATA_ROOT
    }


def secrets_in_checkpoints(node: Node) -> list[Problem]:
    """Variables that are secrets by their name, where a checkpoint would hold their values."""
    problems = []
    for path, child in scalars(node):
        names = [name for name, _ in _REFERENCE.findall(child.text or "") if _SECRET.search(name)]
        if names and path[0] in _IN_CHECKPOINTS:
            message = (
                f"{names[0]} is a secret by its name, and this value is saved in checkpoints; remove it "
                "(the hub's library reads HF_TOKEN by itself), or rename the variable"
            )
            problems.append(Problem(child.origin, child.key, message))
    return problems


def escape(text: str) -> str:
    """The text that `expand` turns into `text`."""
    return text.replace("${", "$${")


def expand_tree(node: Node, problems: list[Problem], unused: set[Place], path: Place = ()) -> Node:
    """Expand all text of a recipe but its `data_root`, which is expanded where data is read.

    Args:
        problems: Receives variables that are not set.
        unused: Paths below which variables may stay unset, and are then left as written.
    """
    if path == DATA_ROOT:
        return node
    if node.text is None:
        return node.with_children(lambda child, step: expand_tree(child, problems, unused, (*path, step)))
    try:
        return replace(node, value=expand(node.text))
    except ValueError as error:
        if path[:2] not in unused:
            problems.append(Problem(node.origin, node.key, str(error)))
    return node
