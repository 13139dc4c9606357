"""Text uses the words of the field: whatever a user reads says what a PyTorch or transformers maintainer would say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.blocks import FENCE, REPOSITORY

GLOSSARY = {
    r"\bsenses?\b(?<!make sense)(?<!makes sense)": "modality",
    r"\bhear(s|ing)?\b": "audio, listen",
    r"\bcannot be told\b|\bhow (a|the) \w+ is told\b": "cannot be determined",
    r"\bno number\b": "non-finite",
    r"\b(go|goes|going|gone|went) on from\b": "resume from",
    r"\b(share|shares|shared|cut|cuts) (it |them |\w+ )?(out|up) over\b|\bshared out\b|\bcut up\b": "shard",
    r"\bspread(s|ing)? (\w+ )?(\w+ )?over\b": "train on, shard",
    r"\bshadow": "trace, FakeTensor",
    r"\breckon": "estimate",
    r"\bhangs? on (a |the )?(value|data)": "depends on",
    r"\bblanks?\b": "whitespace",
    r"\bevening out\b|\bevens? out\b": "normalising",
    r"\bleft[- ]out\b|\bspoil(s|t|ed)?\b": "skipped, dropped, omitted",
    r"\bwhat (\w+ )?learns\b": "trainable parameters",
    r"\bknobs?\b": "settings, options",
    r"(?<!\d )\bunread media\b": "unused media",
    r"\bof it is\b": "say what is meant",
    r"\bcounts? no more\b": "no longer counts",
    r"(?<!there )\bis no (?!longer\b|more\b|less\b|\w+er\b|worse\b)": "is not a",
}
"""What not to say, and what to say instead."""

NO_PROSE = {("fresh_base.py", "blanks"), ("tokenizer.py", "hear")}
"""Words that are data: a prompt of the proof, and the vocabulary of the built-in decoder."""

GENERATED = ("decoders", "stock-llava")
"""Pages whose words are those of messages: they follow the code."""

TEXTS = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(path for path in sorted((REPOSITORY / "docs").rglob("*.md")) if path.stem not in GENERATED),
    *sorted((REPOSITORY / "plugins").glob("*/README.md")),
    REPOSITORY / "benchmarks" / "README.md",
]
RECIPES = sorted((REPOSITORY / "recipes").rglob("*.yaml"))
CODE = [path for folder in ("adaptkit", "plugins/*/src") for path in sorted(REPOSITORY.glob(f"{folder}/**/*.py"))]


def lines_of_page(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a page without code and the targets of links."""
    text = FENCE.sub(lambda block: "\n" * block[0].count("\n"), path.read_text(encoding="utf-8"))
    for number, line in enumerate(text.splitlines(), start=1):
        yield number, re.sub(r"\]\([^)]*\)|`[^`]*`", "", line)


def comments_of_recipe(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        yield number, re.sub(r"`[^`]*`|\S+/\S+", "", line.partition("#")[2])


def strings_of_module(path: Path) -> Iterator[tuple[int, str]]:
    """Every string of a module: docstrings, messages, help texts."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def found_in(path: Path, lines: Iterator[tuple[int, str]]) -> list[str]:
    """What a file says that it should not, with its place and what to say instead."""
    return [
        f"{path.relative_to(REPOSITORY)}:{number}: {match[0]!r}; say: {better}"
        for number, line in lines
        for pattern, better in GLOSSARY.items()
        for match in re.finditer(pattern, line, re.IGNORECASE)
        if (path.name, match[0]) not in NO_PROSE
    ]


def test_pages_use_the_words_of_the_field() -> None:
    found = [place for path in TEXTS for place in found_in(path, lines_of_page(path))]
    assert not found, "\n".join(found)


def test_comments_of_recipes_use_the_words_of_the_field() -> None:
    found = [place for path in RECIPES for place in found_in(path, comments_of_recipe(path))]
    assert not found, "\n".join(found)


def test_docstrings_and_messages_use_the_words_of_the_field() -> None:
    found = [place for path in CODE for place in found_in(path, strings_of_module(path))]
    assert not found, "\n".join(found)
