"""Recipes of every mechanism run through all their stages on stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from adaptkit.cli import cli
from adaptkit.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize(
    "name",
    [
        "cogvlm_llama3",
        "every_format_llama3",
        "flamingo_llama3",
        "iaa_vision_mistral",
        "lavin_mma_llama",
        "llava_llama3",
        "llava_lora_llama3",
        "llava_qwen2",
        "series_llama3",
        "whisper_librispeech_llama3",
        "whisper_speech_llama3",
    ],
)
def test_rehearsal(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTKIT_CACHE", str(tmp_path / "cache"))
    path = RECIPES / f"{name}.yaml"
    result = CliRunner().invoke(cli, ["train", str(path), "--rehearse"])
    assert result.exit_code == 0, result.output
    for number, stage in enumerate(load_recipe(path).stages, start=1):
        assert f"Stage {number}/" in result.output
        assert stage.name in result.output
    assert "Every stage ran on stand-ins" in result.output
