"""Environment variables in a recipe's text: `${NAME}`, `${NAME:-default}`, and `$${` for a literal `${`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace

from adaptkit.recipe.tree import Node, Problem

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")

DATA_ROOT: tuple[str, ...] = ("data_root",)


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
        return values.get(name, default or "")

    return _REFERENCE.sub(value_of, text)


def escape(text: str) -> str:
    """The text that `expand` turns into `text`."""
    return text.replace("${", "$${")


def expand_tree(node: Node, problems: list[Problem], unused: set[tuple[str, ...]], path: tuple[str, ...] = ()) -> Node:
    """Expand all text of a recipe but its `data_root`, which is expanded where data is read.

    Args:
        node: The recipe.
        problems: Receives variables that are not set.
        unused: Paths below which variables may stay unset, and are then left as written.
        path: Keys that lead to the node.
    """
    if path == DATA_ROOT:
        return node
    if isinstance(node.value, dict):
        return node.with_entries(
            {key: expand_tree(child, problems, unused, (*path, key)) for key, child in node.value.items()}
        )
    if isinstance(node.value, list):
        return replace(node, value=[expand_tree(child, problems, unused, (*path, "")) for child in node.value])
    if isinstance(node.value, str) and "${" in node.value:
        try:
            return replace(node, value=expand(node.value))
        except ValueError as error:
            if path[:2] not in unused:
                problems.append(Problem(node.origin, node.key, str(error)))
    return node
