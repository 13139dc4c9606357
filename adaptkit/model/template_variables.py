"""Variables of a chat template, such as `enable_thinking` or `tools`, set in the template's own text.

So that a template with its variables is a template like others: whatever is remembered of it holds for these values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from transformers.utils import get_json_schema

from adaptkit.errors import ArgumentError


def names_variable(template: str, name: str) -> bool:
    """Whether a template can depend on a variable."""
    return re.search(rf"\b{re.escape(name)}\b", template) is not None


def with_variables(template: str, variables: Mapping[str, Any]) -> str:
    """A template that begins by setting variables.

    Raises:
        ArgumentError: The template knows no such variable, or a value cannot be written in a template.
    """
    for name in variables:
        if not names_variable(template, name):
            raise ArgumentError(f"{name}: the chat template does not use a variable of that name.")
    sets = "".join(f"{{% set {name} = {_literal(name, value)} %}}" for name, value in variables.items())
    return f"{sets}\n{template}" if sets else template  # transformers drops the newline after a block


def _literal(name: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(name, str(k))}: {_literal(name, v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(name, one) for one in value) + "]"
    if name == "tools" and callable(value):
        return _literal(name, get_json_schema(value))
    raise ArgumentError(
        f"{name}: a {type(value).__name__} cannot be a template's variable; give text, numbers or lists."
    )
