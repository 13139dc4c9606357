"""Damaged models, runs and checkpoints of others are used, or refused with an error that names the file."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.fuzz.checkpoints import USES, World
from tests.fuzz.damaging import try_damage

IN_SUITE = {"load": 6, "load adopted": 4, "generate": 2, "inspect": 2, "resume": 3, "import lavin": 2, "import iaa": 4}
"""Numbers of examples; other uses take too long."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    before = os.environ.get("ADAPTKIT_CACHE")
    yield World(tmp_path_factory.mktemp("damage"))
    os.environ.pop("ADAPTKIT_CACHE")
    os.environ.update({} if before is None else {"ADAPTKIT_CACHE": before})


@pytest.mark.parametrize("name", USES)
def test_damaged_files_are_used_or_refused_by_name(world: World, name: str) -> None:
    if name not in IN_SUITE and settings.get_current_profile_name() == "suite":
        pytest.skip("slow: `make fuzz` tries it")

    def check(rng: random.Random) -> None:
        world.try_use(USES[name], rng)

    try_damage(check, IN_SUITE.get(name, 1), at_most=500)
