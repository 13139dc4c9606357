"""pydantic's errors in adaptkit's words, with the nearest valid names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from adaptkit.errors import unknown_name
from adaptkit.recipe.key_lookup import keys_at, place_of

Location = tuple[int | str, ...]

OURS = "adaptkit"
"""Type of errors whose message is final."""

_WANTED = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "list_type": "a list",
    "string_type": "text",
}


def problem(location: Location, message: str, value: Any = None) -> InitErrorDetails:
    """An error of ours, to be raised together with pydantic's."""
    return InitErrorDetails(type=PydanticCustomError(OURS, _literal(message)), loc=location, input=value)


def combined(title: str, problems: Sequence[InitErrorDetails]) -> ValidationError:
    """One error that holds several."""
    return ValidationError.from_exception_data(title, list(problems))


def explained(error: ValidationError, model: type[BaseModel], also: Iterable[str] = ()) -> list[InitErrorDetails]:
    """The errors found in a model's input, in our words.

    Args:
        error: What pydantic raised.
        model: The model that the input was meant for.
        also: Keys that the input may have besides the model's.
    """
    return [
        problem(_place(details), explain(details, model, also), details["input"])
        for details in error.errors(include_url=False)
    ]


def explain(details: ErrorDetails, model: type[BaseModel], also: Iterable[str] = ()) -> str:
    """Say what is wrong, and what would be right."""
    kind, message, value, location = details["type"], details["msg"], details["input"], _place(details)
    if kind == OURS:
        return message
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        key, known = str(location[-1]), [*keys_at(model, location[:-1]), *(also if len(location) == 1 else ())]
        place = place_of(model, key) if len(location) == 1 else None
        return unknown_name("key", key, known, nearest=place)
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(details.get("ctx", {}).get("expected", "")))
        return unknown_name("choice", str(value), choices)
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind in ("too_short", "string_too_short"):
        return "is empty; give at least one" if kind == "too_short" else "is empty"
    if kind == "string_type" and isinstance(value, (int, float, bool)):
        return f"should be text, not {value!r}; put it in quotes"
    if kind in _WANTED:
        return f"should be {_WANTED[kind]}, not {_shown(value)}"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return f"should be a mapping of keys to values, not {_shown(value)}"
    return f"{message.removeprefix('Input ')}, not {_shown(value)}"


def _place(details: ErrorDetails) -> Location:
    """Without what pydantic puts in brackets: that a key is meant, or which of several types was tried."""
    return tuple(step for step in details["loc"] if not (isinstance(step, str) and step.startswith("[")))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _literal(message: str) -> str:
    """Lone surrogates cannot cross into pydantic's core."""
    return message.encode("utf-8", "replace").decode("utf-8")
