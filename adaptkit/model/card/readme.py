"""`README.md`: what is generated stands between two marks, and everything else belongs to whoever wrote it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from adaptkit.errors import ModelError, first_line

BEGIN = "<!-- adaptkit: generated from here on; write above, or below the end -->"
END = "<!-- adaptkit: end of what is generated -->"

_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LISTS = ("tags", "datasets")
SCORES = "model-index"


@dataclass(frozen=True)
class Readme:
    """A model card in parts.

    Attributes:
        metadata: For the hub.
        before: Text before what is generated.
        generated: What adaptkit wrote, without the marks; None where nothing is.
        after: Text behind it.
    """

    metadata: Mapping[str, Any] = field(default_factory=dict)
    before: str = ""
    generated: str | None = None
    after: str = ""

    def __str__(self) -> str:
        block = "" if self.generated is None else f"{BEGIN}\n\n{self.generated.strip()}\n\n{END}"
        text = "\n\n".join(part.strip("\n") for part in (self.before, block, self.after) if part.strip())
        front = yaml.safe_dump(dict(self.metadata), sort_keys=False, allow_unicode=True, width=120)
        return f"---\n{front}---\n\n{text}\n"


def parse_readme(text: str, place: object) -> Readme:
    """Take a README apart.

    Raises:
        ModelError: Its metadata is not a YAML mapping, or it has one mark without the other.
    """
    found = _FRONT.match(text)
    body = text[found.end() :] if found else text
    try:
        metadata = (yaml.safe_load(found[1]) if found else None) or {}
    except yaml.YAMLError as error:
        raise ModelError(f"{place}: the metadata between the lines --- is not YAML ({first_line(error)}).") from error
    if not isinstance(metadata, dict):
        raise ModelError(f"{place}: the metadata between the lines --- must be keys and values.")
    marks = [body.count(BEGIN), body.count(END)]
    if marks == [0, 0]:
        return Readme(metadata, before=body)
    if marks != [1, 1] or body.index(END) < body.index(BEGIN):
        raise ModelError(
            f"{place}: what is generated must stand between the lines {BEGIN} and {END}, each there once. Restore "
            "them, or delete both and what is between them."
        )
    before, rest = body.split(BEGIN)
    generated, after = rest.split(END)
    return Readme(metadata, before, generated.strip(), after)


def written_by_hand(readme: Readme, generated: Mapping[str, Any]) -> Readme:
    """What of a README a person wrote.

    Args:
        generated: Metadata that adaptkit wrote when the README was made.
    """
    metadata = {}
    for key, value in readme.metadata.items():
        if key in _LISTS:
            items = value if isinstance(value, list) else [value]
            value = [item for item in items if item not in generated.get(key, [])]
        if key != SCORES and value and value != generated.get(key):
            metadata[key] = value
    return Readme(metadata, readme.before, None, readme.after)


def hash_of_generated(readme: Readme) -> str:
    """Hash of what adaptkit wrote, whatever version of it."""
    return hashlib.sha256((readme.generated or "").strip().encode("utf-8", "surrogatepass")).hexdigest()


def joined(generated: Readme, by_hand: Readme | None) -> Readme:
    """A README of what is generated and of what a person wrote, who does not overrule facts."""
    ours = dict(generated.metadata)
    theirs = dict(by_hand.metadata) if by_hand else {}
    lists = {key: [*ours.get(key, []), *theirs[key]] for key in _LISTS if isinstance(theirs.get(key), list)}
    lists = {key: list(dict.fromkeys(values)) for key, values in lists.items()}
    before, after = (by_hand.before, by_hand.after) if by_hand else ("", "")
    return Readme({**theirs, **ours, **lists}, before, generated.generated, after)
