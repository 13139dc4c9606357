"""Damaged question sets and recordings are converted or refused with a `DataError`."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from adaptkit.data_tools.convert import (
    Summary,
    convert_common_voice,
    convert_docvqa,
    convert_librispeech,
    convert_scienceqa,
    convert_textvqa,
    convert_vqav2,
    convert_vsr,
)
from adaptkit.errors import DataError
from tests import releases
from tests.fuzz.damaging import try_damage
from tests.fuzz.mutations import mutate_bytes, mutate_value

KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Path, Path], Summary]]] = {
    "docvqa": (releases.write_docvqa, lambda d, o: convert_docvqa([d / "train_v1.0_withQT.json"], o)),
    "textvqa": (releases.write_textvqa, lambda d, o: convert_textvqa([d / "TextVQA_0.5.1_train.json"], o)),
    "vqav2": (releases.write_vqav2, lambda d, o: convert_vqav2(*sorted(d.glob("v2_*")), o)),
    "vsr": (releases.write_vsr, lambda d, o: convert_vsr([d / "train.jsonl"], o)),
    "scienceqa": (releases.write_scienceqa, lambda d, o: convert_scienceqa(d, o, prompt_format="QCM-ALE")),
    "librispeech": (releases.write_librispeech, lambda d, o: convert_librispeech(d, o)),
    "commonvoice": (releases.write_common_voice, lambda d, o: convert_common_voice(d, o, max_seconds=30)),
}


def damage(folder: Path, rng: random.Random) -> None:
    """Change the values of a JSON file, or the bytes of any."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".tsv", ".txt"))
    path = rng.choice(paths)
    if path.suffix == ".json" and rng.random() < 0.6:
        value = json.loads(path.read_text())
        for _ in range(rng.randrange(4)):
            value = mutate_value(value, rng)
        path.write_text(json.dumps(value))
    elif rng.random() < 0.7:
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_releases_are_data_errors_and_nothing_else(kind: str) -> None:
    write, convert = KINDS[kind]
    outcomes: Counter[str] = Counter()

    def check(rng: random.Random) -> None:
        with TemporaryDirectory() as place:
            folder, output = Path(place) / "release", Path(place) / "output.json"
            write(folder)
            damage(folder, rng)
            try:
                convert(folder, output)
            except DataError:
                outcomes["refused"] += 1
                return
            for row in json.loads(output.read_text(encoding="utf-8")):
                media = row.get("image", row.get("audio", ""))
                assert not media.startswith("/")
                assert ".." not in media.split("/")
                assert all(turn["value"].strip() for turn in row["conversations"])
            outcomes["converted"] += 1

    try_damage(check, in_suite=40)
    assert outcomes["converted"] > outcomes.total() // 20
