"""A recipe's text as a tree of values that remember where they were written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adaptkit.errors import RecipeError, join_lines

COMMAND_LINE = "command line"

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Origin:
    """Where a value was written.

    Attributes:
        source: The file, or `command line`.
        line: Line in that file, counted from 1.
    """

    source: str
    line: int | None = None


@dataclass(frozen=True)
class Node:
    """One value of a recipe.

    Attributes:
        value: A scalar, or the children by key or in order.
        origin: Where it was written; for a mapping's entry, the line of its key.
        key: Dotted key at the place where it was written.
        partial: A mapping that only leads to an overridden value inside it, as in `a.b.c=value`.
    """

    value: Scalar | dict[str, Node] | list[Node]
    origin: Origin
    key: str = ""
    partial: bool = False

    @property
    def entries(self) -> dict[str, Node]:
        """Children by key; empty where this is not a mapping."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """Children in order; empty where this is not a list."""
        return self.value if isinstance(self.value, list) else []

    @property
    def text(self) -> str | None:
        """The value where it is a string."""
        return self.value if isinstance(self.value, str) else None

    def plain(self) -> Any:
        """The value as ordinary dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def with_entries(self, entries: dict[str, Node]) -> Node:
        """This mapping with other children."""
        return replace(self, value=entries)

    def with_children(self, change: Callable[[Node, str | int], Node]) -> Node:
        """This node with other children: what `change` makes of each, given its key or its place."""
        if isinstance(self.value, dict):
            return replace(self, value={key: change(child, key) for key, child in self.value.items()})
        if isinstance(self.value, list):
            return replace(self, value=[change(child, index) for index, child in enumerate(self.value)])
        return self

    def find(self, path: Sequence[str | int]) -> tuple[Node, Sequence[str | int]]:
        """The deepest node on a path, and the rest of the path where it ends early."""
        node = self
        for depth, step in enumerate(path):
            child = node._child(step)
            if child is None:
                return node, path[depth:]
            node = child
        return node, ()

    def _child(self, step: str | int) -> Node | None:
        if isinstance(step, int):
            return self.items[step] if step < len(self.items) else None
        return self.entries.get(step)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a recipe."""

    origin: Origin
    key: str
    message: str

    def __str__(self) -> str:
        line = f":{self.origin.line}" if self.origin.line is not None else ""
        key = f"{self.key}: " if self.key else ""
        return f"{self.origin.source}{line}: {key}{self.message}"


def recipe_error(problems: Sequence[Problem]) -> RecipeError:
    """One error that shows all problems, a line each, by file and line, the command line's last."""
    unique = dict.fromkeys(problems)
    ordered = sorted(unique, key=lambda p: (p.origin.source == COMMAND_LINE, p.origin.source, p.origin.line or 0))
    return RecipeError(join_lines(ordered))


def labelled(node: Node, key: str = "") -> Node:
    """The same tree with every node's dotted key filled in; list items go by name where they have one."""

    def labelled_child(child: Node, step: str | int) -> Node:
        name = step if isinstance(step, str) else item_label(child, step)
        return labelled(child, f"{key}.{name}" if key else name)

    return replace(node.with_children(labelled_child), key=key)


def item_label(node: Node, index: int) -> str:
    """How a list's item is addressed: by its name, else by its place."""
    name = node.entries.get("name")
    return name.text if name is not None and name.text else str(index)


def without_nulls(node: Node) -> Node:
    """The same tree without the keys whose value is null: null means the default."""
    if isinstance(node.value, dict):
        node = node.with_entries({key: child for key, child in node.value.items() if child.value is not None})
    return node.with_children(lambda child, _: without_nulls(child))


def scalars(node: Node, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Node]]:
    """All scalar nodes with their paths."""
    if not isinstance(node.value, dict | list):
        yield path, node
    children: list[tuple[str | int, Node]] = [*node.entries.items(), *enumerate(node.items)]
    for step, child in children:
        yield from scalars(child, (*path, step))


def from_plain(value: Any, origin: Origin) -> Node:
    """A tree over ordinary dicts, lists and scalars, as if all were written at one place."""
    if isinstance(value, dict):
        return Node({str(key): from_plain(child, origin) for key, child in value.items()}, origin)
    if isinstance(value, (list, tuple)):
        return Node([from_plain(child, origin) for child in value], origin)
    return Node(value, origin)
