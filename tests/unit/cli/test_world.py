"""`adaptkit world`: its files, its arguments, and what it says when something is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from adaptkit.cli import cli

REPOSITORY = Path(__file__).parents[3]


def test_data_is_written_in_the_llava_format(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["world", "data", str(tmp_path), "--kind", "caption", "--num-samples", "3"])
    assert result.exit_code == 0, result.output
    (path,) = tmp_path.glob("*.json")
    samples = json.loads(path.read_text())
    assert len(samples) == 3
    assert all((tmp_path / sample["image"]).is_file() for sample in samples)
    assert str(path) in result.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["build", "decoder", "--recipe", "no.yaml"], "no recipe at no.yaml"),
        (["build", "--output", "x"], "name decoder or encoder"),
        (["score", "--path", "x"], "name decoder or encoder"),
        (["score", "decoder", "--path", "nowhere"], "no decoder at nowhere"),
        (["data"], "Missing argument 'DIR'"),
        (["data", "x", "--kind", "captoin"], "'captoin' is not one of"),
    ],
)
def test_mistakes_are_named(args: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["world", *args])
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize("model", ["decoder", "encoder"])
def test_the_recorded_recipes_are_valid(model: str) -> None:
    from adaptkit.world.build_decoder import DecoderOptions
    from adaptkit.world.build_encoder import EncoderOptions
    from adaptkit.world.storage import load_options

    options = {"decoder": DecoderOptions, "encoder": EncoderOptions}[model]
    assert load_options(REPOSITORY / "recipes" / "world" / f"{model}.yaml", options)


def test_the_shipped_encoder_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(cli, ["world", "score", "encoder", "--num-items", "100", "--json"])
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)["encoder"]
    assert min(scores["shape"], scores["color"]) >= 0.95
