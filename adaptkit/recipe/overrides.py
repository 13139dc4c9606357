"""Settings given on the command line: `a.b.c=value`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from adaptkit.errors import RecipeError, unknown_name
from adaptkit.recipe.merging import merge
from adaptkit.recipe.tree import COMMAND_LINE, Node, Origin, Problem, labelled
from adaptkit.recipe.yaml_text import parse_yaml

ORIGIN = Origin(COMMAND_LINE)

_NAMED: dict[str, tuple[str, list[tuple[str, ...]]]] = {
    "modalities": ("modality", [("encoder", "name")]),
    "workflows": ("workflow", [("insertion", "policy"), ("like",)]),
    "data": ("data source", [("format",)]),
    "stages": ("stage", [("workflow",)]),
}
"""Sections of named entries: what one is called, and the keys of which a new one gives at least one."""


def apply_overrides(root: Node, overrides: Sequence[str], problems: list[Problem]) -> Node:
    """Lay overrides over a recipe; of several for one key the last holds.

    Args:
        root: The recipe.
        overrides: `a.b.c=value` each; the value is YAML, and an empty one takes the key back to its default.
        problems: Receives overrides that are malformed or name an entry that does not exist.
    """
    tree = Node({}, ORIGIN, partial=True)
    for override in overrides:
        tree = _add(tree, override, problems)
    tree = _without_unknown_entries(root, labelled(tree), problems)
    return merge(root, tree, problems)


def _add(tree: Node, override: str, problems: list[Problem]) -> Node:
    key, equals, text = override.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        message = f"{override!r} is not an override: write a.b.c=value, as in stages.align.max_steps=10"
        problems.append(Problem(ORIGIN, "", message))
        return tree
    try:
        value, found = parse_yaml(text, COMMAND_LINE, with_lines=False)
    except RecipeError as error:
        reason = str(error).removeprefix(f"{COMMAND_LINE}: ")
        problems.append(Problem(ORIGIN, key, f"{reason} (in the value {text!r}; quote it if it is text)"))
        return tree
    problems.extend(replace(problem, key=key) for problem in found)
    return _put(tree, steps, value)


def _put(tree: Node, steps: list[str], value: Node) -> Node:
    first, rest = steps[0], steps[1:]
    below = tree.entries.get(first)
    if rest:
        value = _put(below if below is not None else Node({}, ORIGIN, partial=True), rest, value)
    return replace(tree, value={**tree.entries, first: value})


def _without_unknown_entries(root: Node, tree: Node, problems: list[Problem]) -> Node:
    """Report `stages.algn.max_steps=1` as a misspelt name, not as a new stage that lacks everything."""
    sections = dict(tree.entries)
    for section, (kind, telling) in _NAMED.items():
        if section not in sections or section not in root.entries:
            continue
        known = _names(root.entries[section])
        kept = dict(sections[section].entries)
        for name, entry in sections[section].entries.items():
            is_place = name.isdecimal() and int(name) < len(root.entries[section].items)
            if not entry.partial or name in known or is_place:
                continue
            if not any(_gives(entry, path) for path in telling):
                problems.append(Problem(ORIGIN, entry.key, unknown_name(kind, name, known)))
                del kept[name]
        if isinstance(sections[section].value, dict):
            sections[section] = sections[section].with_entries(kept)
    return tree.with_entries(sections)


def _gives(entry: Node, path: tuple[str, ...]) -> bool:
    node, rest = entry.find(path)
    return not rest or not node.partial


def _names(section: Node) -> set[str]:
    labels: Iterable[str] = section.entries or (item.key.rsplit(".", 1)[-1] for item in section.items)
    return set(labels)
