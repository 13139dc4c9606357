"""The maps of the code agree with the code: what imports what, and where things are."""

from __future__ import annotations

import re

import pytest

from tests.docs.blocks import REPOSITORY
from tests.docs.modules import COMMAND, drawn_imports, imports

MAPS = ("docs/explanation/architecture.md", "CONTRIBUTING.md")
PATH = re.compile(r"`((?:adaptkit|plugins|tests|docs|recipes|benchmarks)/[^`\s*]*)`")


def test_the_picture_of_the_packages_shows_their_imports() -> None:
    assert drawn_imports() == imports(), f"docs/assets/modules.svg is stale; run `{COMMAND}`"


@pytest.mark.parametrize("page", MAPS)
def test_the_paths_that_a_map_names_exist(page: str) -> None:
    named = PATH.findall((REPOSITORY / page).read_text(encoding="utf-8"))
    assert named
    assert not [path for path in named if not (REPOSITORY / path).exists()]


@pytest.mark.parametrize("walk", ["One sample,", "One recipe key,"])
def test_a_walk_names_each_file_once(walk: str) -> None:
    text = (REPOSITORY / MAPS[0]).read_text(encoding="utf-8")
    [section] = re.findall(rf"^## {walk}.*?(?=^## )", text, re.MULTILINE | re.DOTALL)
    named = PATH.findall(section)
    assert len(named) == len(set(named)) > 10


def test_the_tour_shows_every_package() -> None:
    tour = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (REPOSITORY / "adaptkit").glob("*/__init__.py")}
    assert not [name for name in sorted(packages) if f"`adaptkit/{name}/`" not in tour]
