"""Code blocks of the documentation, and what it takes to run each kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL)
SKIPPED = re.compile(r'\{ *\.(?P<language>\w+) +data-skip="(?P<reason>[^"]+)" *\}')
RUN_HERE = {"python", "bash", "yaml", "json"}
NOT_CODE = {"text"}


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: The file it stands in.
        line: Of its first line of code.
        language: As its fence says.
        code: Its text.
        skip: Why it does not run here; empty if it does.
    """

    page: Path
    line: int
    language: str
    code: str
    skip: str = ""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def pages() -> list[Path]:
    """Every page with code that a reader may run."""
    return [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        info = match["info"].strip()
        line = text[: match.start("body")].count("\n") + 1
        skipped = SKIPPED.fullmatch(info)
        language, reason = (skipped["language"], skipped["reason"]) if skipped else (info, "")
        yield Block(page, line, language, match["body"], reason)
