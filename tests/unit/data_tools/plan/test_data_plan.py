"""What a recipe needs, what of it is here, and the commands for the rest."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from adaptkit.cli import cli
from adaptkit.data_tools.plan import load_registry, plan_data
from adaptkit.errors import DataError
from adaptkit.recipe import find_recipes, load_recipe
from tests import releases
from tests.docs.blocks import REPOSITORY

RECIPES = REPOSITORY / "recipes"
PAPER = RECIPES / "iaa_vision_llama3.yaml"


def plan(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["data", "plan", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_an_empty_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ADAPTKIT_DATA", str(tmp_path))
    found = plan(PAPER)
    assert len(found["missing"]["datasets"]) == len(found["datasets"]) == 11
    assert found["missing"]["models"] == ["meta-llama/Meta-Llama-3-8B-Instruct", "openai/clip-vit-large-patch14-336"]
    assert all(dataset["known"]["home"].startswith("https://") for dataset in found["datasets"])
    assert all(dataset["state"] == "missing" and dataset["problem"] for dataset in found["datasets"])
    text = CliRunner().invoke(cli, ["data", "plan", str(PAPER)]).stdout
    for words in ("docvqa_50k: instruct  [missing]", "licence", "rrc.cvc.uab.es", "2 of 2 models, 11 of 11 datasets"):
        assert words in text


def test_without_the_variable_paths_are_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAPTKIT_DATA", raising=False)
    found = plan(PAPER)
    assert "ADAPTKIT_DATA" in found["root_problem"]
    assert {dataset["state"] for dataset in found["datasets"]} == {"unknown"}
    (vsr,) = [dataset for dataset in found["datasets"] if dataset["name"] == "vsr_10k"]
    assert vsr["commands"][-1].endswith("--prefix images --output ${ADAPTKIT_DATA}/VSR/vsr_10k.json")


def test_what_its_commands_write_is_present(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The commands of the plan, on small releases, make the files that the recipe reads."""
    root, downloads = tmp_path / "data", tmp_path / "downloads"
    monkeypatch.setenv("ADAPTKIT_DATA", str(root))
    releases.write_docvqa(downloads)
    releases.write_docvqa(downloads / "val").rename(downloads / "val_v1.0_withQT.json")
    releases.write_vsr(downloads).rename(downloads / "all_vsr_validated_data.jsonl")
    releases.write_scienceqa(root / "ScienceQA")
    for name in ("DocVQA/documents/a_1.png", "VSR/images/000000000009.jpg", "VSR/images/000000000025.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), "red").save(root / name)
    monkeypatch.chdir(downloads)
    wanted = {"docvqa_50k": 4, "vsr_10k": 2, "scienceqa_21k": 3}
    for dataset in plan(PAPER)["datasets"]:
        for command in dataset["commands"] if dataset["name"] in wanted else ():
            if not command.startswith("#"):
                arguments = shlex.split(command.replace("${ADAPTKIT_DATA}", str(root)))
                result = CliRunner().invoke(cli, arguments[1:])
                assert result.exit_code == 0, result.output
    found = {dataset["name"]: dataset for dataset in plan(PAPER)["datasets"] if dataset["state"] == "present"}
    assert {name: dataset["rows"] for name, dataset in found.items()} == wanted
    (root / "VSR" / "vsr_10k.json").write_text("[{")
    damaged = {dataset["name"]: dataset for dataset in plan(PAPER)["datasets"]}["vsr_10k"]
    assert damaged["state"] == "damaged"
    assert "JSON" in damaged["problem"]


def test_every_shipped_recipe_names_sources_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAPTKIT_DATA", raising=False)
    registry = load_registry()
    used = set()
    for summary in find_recipes([RECIPES]):
        if "encoders" not in summary.path.parts:
            used |= {dataset.source for dataset in plan_data(load_recipe(summary.path), registry).datasets}
    assert used >= {"llava_pretrain", "docvqa", "scienceqa_lavin", "librispeech", "nlvr", "fsdd"}


def test_every_command_of_the_registry_exists() -> None:
    for name, dataset in load_registry().datasets.items():
        for command in dataset.prepare:
            words = command.split()
            if words[:2] == ["adaptkit", "data"]:
                asked = CliRunner().invoke(cli, [*words[1 : 4 if words[2] == "convert" else 3], "--help"])
                assert asked.exit_code == 0, name
                options = [word for word in words if word.startswith("--")]
                assert not [option for option in options if option not in asked.output], name


def test_a_recipe_of_the_built_in_world_needs_nothing() -> None:
    result = CliRunner().invoke(cli, ["data", "plan", "iaa_vision_tiny"])
    assert result.exit_code == 0
    assert "Nothing is missing." in result.stdout


def test_further_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTKIT_DATA", str(tmp_path))
    more = tmp_path / "ours.yaml"
    more.write_text(
        "datasets:\n  ours: {title: Our pages, home: intranet, prepare: ['fetch {root} {limit} > {path}']}\n"
    )
    setting = "data.docvqa_50k.source=ours"
    found = {d["name"]: d for d in plan(PAPER, setting, "data.docvqa_50k.limit=7", "--sources", more)["datasets"]}
    place = "${ADAPTKIT_DATA}"
    assert found["docvqa_50k"]["commands"] == [f"fetch {place} --limit 7 > {place}/DocVQA/docvqa_50k.json"]
    result = CliRunner().invoke(cli, ["data", "plan", str(PAPER), "data.docvqa_50k.source=docvq"])
    assert result.exit_code == 2
    assert "'docvqa'" in result.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("datasets: {a: {title: b}}", ["datasets.a.home"]),
        ("dataset: {}", ["dataset"]),
        ("[1", ["ours.yaml"]),
        ("datasets: {a: {title: b, home: c, licence: d}}", ["datasets.a.licence"]),
    ],
)
def test_a_registry_of_another_layout(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "ours.yaml").write_text(text)
    with pytest.raises(DataError) as error:
        load_registry([tmp_path / "ours.yaml"])
    assert not [word for word in words if word not in str(error.value)], str(error.value)
