"""Code blocks of the documentation, and what it takes to run each kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL)
SKIPPED = re.compile(r'\{ *\.(?P<language>\w+) +data-skip="(?P<reason>[^"]+)" *\}')
TITLED = re.compile(r'(?P<language>\w+) +title="(?P<title>[^"]+)"')
RUN_HERE = {"python", "bash", "yaml", "json", "diff"}
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
        title: The file that it is, or, for a `diff`, that it changes; empty for code to run.
    """

    page: Path
    line: int
    language: str
    code: str
    skip: str = ""
    title: str = ""

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
        skipped, titled = SKIPPED.fullmatch(info), TITLED.fullmatch(info)
        language = (skipped or titled or {"language": info})["language"]
        reason, title = skipped["reason"] if skipped else "", titled["title"] if titled else ""
        yield Block(page, line, language, match["body"], reason, title)


def changed(text: str, diff: str) -> str:
    """Text after a diff without line numbers: each hunk, parted from the next by `...`, must fit exactly one place."""
    for hunk in re.split(r"^ *\.\.\.\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] or "\n" for line in lines if not line.startswith("+"))
        after = "".join(line[1:] or "\n" for line in lines if not line.startswith("-"))
        assert text.count(before) == 1, f"{text.count(before)} places for the lines\n{before}"
        text = text.replace(before, after)
    return text
