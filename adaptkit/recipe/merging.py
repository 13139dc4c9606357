"""Combining trees: a recipe over the one it extends, overrides over a recipe, a stage over the defaults.

Mappings merge key by key and lists are replaced, except that stages merge by their name. A stage's data mixture,
a placement, and a plugin's block whose name changes are replaced whole, since keys left over from the old one
would be wrong there. Null wins over everything below it and means adaptkit's default in the end; a null stage is gone.
"""

from __future__ import annotations

from dataclasses import replace

from adaptkit.errors import unknown_name
from adaptkit.recipe.tree import Node, Problem, item_label

Path = tuple[str, ...]

_MIXTURES: list[Path] = [("stages", "*", "data"), ("stage_defaults", "data")]
_PLACEMENT: Path = ("workflows", "*", "insertion", "placement")
_SELECTORS: dict[Path, str] = {
    ("modalities", "*", "encoder"): "name",
    ("modalities", "*", "projector"): "name",
    ("workflows", "*", "insertion"): "policy",
    ("data", "*"): "format",
    ("evaluation", "tasks", "*"): "name",
}


def merge(below: Node, above: Node, problems: list[Problem], path: Path = ()) -> Node:
    """Lay one tree over another.

    Args:
        below: What is extended.
        above: What wins.
        problems: Receives what cannot be merged.
        path: Keys that lead to both from the recipe's root.
    """
    below, above = _without_shorthand(below, path), _without_shorthand(above, path)
    if isinstance(above.value, dict) and isinstance(below.value, list):
        return _merge_items(below, above, problems, path)
    if isinstance(above.value, list) and isinstance(below.value, list) and path == ("stages",):
        named = {item_label(item, -1): item for item in above.value}
        if len(named) == len(above.value) and "-1" not in named:
            return _merge_items(below, above.with_entries(named), problems, path)
    if not isinstance(above.value, dict) or not isinstance(below.value, dict):
        return above
    if _is_replaced(below, above, path):
        return above
    entries = dict(below.value)
    for key, child in above.value.items():
        entries[key] = merge(entries[key], child, problems, (*path, key)) if key in entries else child
    merged = below if above.partial else above
    return merged.with_entries(entries)


def _merge_items(below: Node, above: Node, problems: list[Problem], path: Path) -> Node:
    """Lay entries over the items of a list that have their names or places."""
    written_out = [_without_shorthand(item, (*path, "*")) for item in below.items]
    items = {item_label(item, i): item for i, item in enumerate(written_out)}
    places = {str(i): label for i, label in enumerate(items)}
    for key, child in above.entries.items():
        label = key if key in items else places.get(key, key)
        if label in items and child.value is None:
            del items[label]
        elif label in items:
            items[label] = merge(items[label], child, problems, (*path, label))
        elif path == ("stages",) and child.value is not None:
            items[label] = _named(child, label)
        else:
            kind = "stage" if path == ("stages",) else "item"
            problems.append(Problem(child.origin, child.key, unknown_name(kind, key, items)))
    return replace(below, value=list(items.values()))


def _named(stage: Node, name: str) -> Node:
    if not isinstance(stage.value, dict) or "name" in stage.value:
        return stage
    return stage.with_entries({"name": Node(name, stage.origin, f"{stage.key}.name"), **stage.value})


def _without_shorthand(node: Node, path: Path) -> Node:
    """A plugin's block written as its bare name, written out."""
    selector = _selector(path)
    return node if selector is None or node.text is None else Node({selector: node}, node.origin, node.key)


def _is_replaced(below: Node, above: Node, path: Path) -> bool:
    if _matches(path, _PLACEMENT):
        return True
    if any(_matches(path, mixture) for mixture in _MIXTURES):
        return not above.partial
    selector = _selector(path)
    if selector is None or selector not in above.entries:
        return False
    chosen = below.entries.get(selector)
    return chosen is None or chosen.value != above.entries[selector].value


def _selector(path: Path) -> str | None:
    """The key that names the plugin of a block."""
    return next((selector for pattern, selector in _SELECTORS.items() if _matches(path, pattern)), None)


def _matches(path: Path, pattern: Path) -> bool:
    return len(path) == len(pattern) and all(p in ("*", step) for p, step in zip(pattern, path, strict=True))
