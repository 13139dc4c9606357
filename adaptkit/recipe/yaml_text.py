"""YAML text to a tree with lines: what `yaml.safe_load` reads, without duplicate keys, with `1e-3` a number."""

from __future__ import annotations

import re
from typing import Any

import yaml

from adaptkit.recipe.tree import Node, Origin, Problem, recipe_error

MAX_NODES = 20_000
"""Aliases can make a small file expand without bound."""

_PREFIX = "tag:yaml.org,2002:"
_SCALAR_TAGS = {_PREFIX + name for name in ("str", "int", "float", "bool", "null")}
_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    """`SafeLoader` that reads `1e-3` as a number, as YAML 1.2 does, and leaves dates as text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != _PREFIX + "timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_PREFIX + "float", _EXPONENT, list("-+0123456789"))


class _Dumper(yaml.SafeDumper):
    """`SafeDumper` that quotes what `_Loader` would not read as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver(_PREFIX + "float", _EXPONENT, list("-+0123456789"))


def dump_yaml(values: Any) -> str:
    """YAML text of ordinary dicts, lists and scalars that `parse_yaml` reads back as they were."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def parse_yaml(text: str, source: str, *, with_lines: bool = True) -> tuple[Node, list[Problem]]:
    """Parse one YAML document.

    Args:
        source: Where it comes from, for error messages.
        with_lines: Whether lines mean something there.

    Returns:
        The tree, and what is wrong without hindering the rest (duplicate keys).

    Raises:
        RecipeError: The text is not YAML, or uses more of it than recipes may.
    """
    reader = _Reader(text, source, with_lines)
    try:
        return reader.read(), reader.problems
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.context, error.problem) if part)
        line = mark.line + 1 if mark else None
        raise recipe_error([Problem(reader.at(line), "", f"not valid YAML: {message}")]) from None
    except yaml.reader.ReaderError as error:
        message = f"not valid YAML: a character that is not allowed at position {error.position}: {error.reason}"
        raise recipe_error([Problem(Origin(source), "", message)]) from None
    except RecursionError:
        raise recipe_error([Problem(Origin(source), "", "not a recipe: nested too deeply")]) from None


class _Reader:
    def __init__(self, text: str, source: str, with_lines: bool) -> None:
        self.text = text
        self.source = source
        self.with_lines = with_lines
        self.problems: list[Problem] = []
        self.count = 0
        self._checked: set[int] = set()

    def at(self, line: int | None) -> Origin:
        return Origin(self.source, line if self.with_lines else None)

    def read(self) -> Node:
        self.loader = _Loader(self.text)
        try:
            root = self.loader.get_single_node()
            if root is None:
                return Node(None, self.at(None))
            self._check_keys(root, "", ())
            return self._build(root, self.at(None))
        finally:
            self.loader.dispose()

    def _check_keys(self, node: yaml.Node, path: str, above: tuple[int, ...]) -> None:
        """Find duplicate keys before merge keys (`<<`) are expanded, which makes legitimate ones."""
        if id(node) in above:
            raise yaml.MarkedYAMLError(problem="an alias refers to itself", problem_mark=node.start_mark)
        if id(node) in self._checked:
            return
        self._checked.add(id(node))
        children: list[tuple[str, yaml.Node]] = []
        if isinstance(node, yaml.MappingNode):
            self._check_mapping(node, path)
            children = [(key.value, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            children = [(str(index), item) for index, item in enumerate(node.value)]
        for step, child in children:
            self._check_keys(child, f"{path}.{step}" if path else step, (*above, id(node)))

    def _check_mapping(self, node: yaml.MappingNode, path: str) -> None:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (_PREFIX + "str", _PREFIX + "merge"):
                shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "that is a list or mapping"
                message = f"the key {shown} is not text; put it in quotes"
                raise yaml.MarkedYAMLError(problem=message, problem_mark=key.start_mark)
            line = key.start_mark.line + 1
            if key.value in lines:
                message = f"duplicate key {key.value!r}, first on line {lines[key.value]}; keep one of them"
                self.problems.append(Problem(self.at(line), path, message))
            lines.setdefault(key.value, line)

    def _build(self, node: yaml.Node, origin: Origin) -> Node:
        self.count += 1
        if self.count > MAX_NODES:
            message = f"more than {MAX_NODES} values once aliases are expanded"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark)
        if isinstance(node, yaml.MappingNode) and node.tag == _PREFIX + "map":
            self.loader.flatten_mapping(node)
            entries = {k.value: self._build(v, self.at(k.start_mark.line + 1)) for k, v in node.value}
            return Node(entries, origin)
        if isinstance(node, yaml.SequenceNode) and node.tag == _PREFIX + "seq":
            return Node([self._build(v, self.at(v.start_mark.line + 1)) for v in node.value], origin)
        return Node(self._scalar(node), origin)

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag not in _SCALAR_TAGS:
            message = f"the tag {node.tag!r} is not allowed; recipes are text, numbers, lists and mappings"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark)
        try:
            return self.loader.construct_object(node)
        except ValueError as error:
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from None
