"""A JSON text in pieces is read, and refused, as the whole is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adaptkit.errors import DataError
from adaptkit.files.json_scanner import JsonScanner
from adaptkit.files.text import parse_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
LISTS = st.lists(JSON, max_size=4)
CHANGES = st.lists(st.tuples(st.integers(0, 200), st.sampled_from(['"', ",", "]", "}", "x", "\\", "\n", "1", ""])))


def pieces_of(text: str, size: int) -> Any:
    return (text[i : i + size] for i in range(0, len(text), size))


def read(text: str, size: int) -> list[Any]:
    scanner = JsonScanner(pieces_of(text, size), "it")
    if scanner.peek() != "[":
        found = scanner.value(10**9)
        assert found is not None
        assert scanner.at_end(), "Extra data"
        return [found]
    rows = []
    for _ in scanner.entries():
        found = scanner.value(10**9)
        assert found is not None
        value, written = found
        assert json.dumps(json.loads(written)) == json.dumps(value)
        rows.append(value)
    assert scanner.at_end(), "Extra data"
    return rows


@settings(max_examples=150, deadline=None)
@given(LISTS, st.integers(1, 40), st.sampled_from([None, 1]), CHANGES)
@example([{"a": "b"}, {"c": 1}], 1, None, [(11, "")])
@example([1, 2], 3, None, [(5, ",")])
def test_what_json_says_of_the_whole_is_said_of_the_pieces(rows, size, indent, changes):
    text = json.dumps(rows, indent=indent)
    for place, new in changes:
        text = text[: place % len(text)] + new + text[place % len(text) + 1 :] if text else text
    if not text.lstrip(" \t\r\n").startswith("["):
        return
    expected, refused = outcome(lambda: parse_json(text, "it"))
    found, said = outcome(lambda: read(text, size))
    if "twice" in refused:
        return
    assert json.dumps(found) == json.dumps(expected)
    if "Extra data" in refused:
        assert "Extra data" in said
    elif len(text) <= size:  # of a text in one line, pieces do not tell that it is
        assert said == refused
    else:
        assert said.replace("line 1 ", "") == refused.replace("line 1 ", "")


def outcome(call: Callable[[], Any]) -> tuple[Any, str]:
    try:
        return call(), ""
    except (DataError, AssertionError) as error:
        return None, str(error)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("long", ["x" * 500 + '\\"]}', "[[" + "1," * 300, "\\u00e4" * 100])
def test_a_long_value_is_stepped_over(size, long):
    row = {"a": long, "b": [long]}
    text = json.dumps([1, row, {"c": "d"}, long])
    scanner = JsonScanner(pieces_of(text, size), "it")
    scanner.peek()
    found = [scanner.value(100) for _ in scanner.entries()]
    assert [None if one is None else one[0] for one in found] == [1, None, {"c": "d"}, None]
    assert scanner.at_end()


def test_a_long_value_without_an_end_is_an_error_of_the_file():
    scanner = JsonScanner(pieces_of('[{"a": "' + "x" * 1000, 10), "rows.json")
    scanner.peek()
    with pytest.raises(DataError, match=r"rows\.json: not valid JSON: .*does not end"):
        [scanner.value(100) for _ in scanner.entries()]


def test_a_key_that_an_object_has_twice_is_known_until_the_next_value():
    scanner = JsonScanner(iter(['[{"a": 1, "a": 2}, {"a": 3}]']), "it")
    scanner.peek()
    doubled = []
    for _ in scanner.entries():
        scanner.value(100)
        doubled.append(scanner.doubled)
    assert doubled == ["a", None]
