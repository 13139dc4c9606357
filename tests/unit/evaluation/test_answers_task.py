"""The benchmark `answers` on a small table of pictures, in Python and on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import adaptkit
from adaptkit.build import build_sources
from adaptkit.cli import cli
from adaptkit.errors import DataError
from adaptkit.evaluation import AnswersTaskOptions, TextTaskOptions, scores
from adaptkit.evaluation.answers_task import AnswersTask, read_questions
from adaptkit.evaluation.text_task import TextTask
from adaptkit.interfaces import DataSource
from adaptkit.recipe import load_recipe
from adaptkit.run.scoring import mark_trained

Answering = Callable[[Callable[[Any, bool], str]], None]


@pytest.fixture
def sources(run_directory: Path) -> dict[str, DataSource]:
    return build_sources(load_recipe(run_directory / "recipe.yaml"), ["told", "placed"])


@pytest.fixture
def workflows(workflow: tuple[Any, Any]) -> dict[str, tuple[Any, Any]]:
    return {"vision": workflow, "grounding": workflow}


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Answering:
    """Let a function of the question, and of whether it is seen, answer instead of a model."""

    def replace(answer: Callable[[Any, bool], str]) -> None:
        def generate(model: Any, processor: Any, questions: Any, **_: Any) -> list[str]:
            return [answer(question, bool(question.media)) for question in questions]

        monkeypatch.setattr(scores, "generate_answers", generate)

    return replace


def score(models: Any, sources: Any, **options: Any) -> dict[str, Any]:
    task = AnswersTask(AnswersTaskOptions.model_validate({"datasets": ["told"], **options}))
    return task.evaluate_workflows(models, sources=sources).results


def test_a_model_that_sees(workflows, sources, answering) -> None:
    answering(lambda question, seen: f" {question.expected.upper()}" if seen else "green")
    scored = score(workflows, sources)["told"]
    assert (scored["accuracy"], scored["blind"], scored["majority"]) == (1.0, 0.2, 0.6)
    assert scored["majority_answer"] == "red"
    assert scored["by_type"] == {"blue": 1.0, "green": 1.0, "red": 1.0}
    assert scored["blind_by_type"] == {"red": 0.0, "blue": 0.0, "green": 1.0}
    assert scored["n_by_type"] == {"blue": 1, "green": 1, "red": 3}
    assert (scored["n"], scored["unusable"]) == (5, 1)


def test_a_model_that_always_says_the_same(workflows, sources, answering) -> None:
    answering(lambda question, seen: "red")
    scored = score(workflows, sources)["told"]
    assert scored["accuracy"] == scored["majority"] == scored["blind"] == 0.6


def test_boxes_count_by_overlap(workflows, sources, answering) -> None:
    answering(lambda question, seen: "[0.000,0.250,0.625,0.750]" if seen else "nowhere")
    scored = score(workflows, sources, datasets=["placed"])["placed"]
    # Of widths 8, 16, 24, 32, 40 pixels, 24 and more overlap 40 by half: 24/40 = 0.6
    assert scored["acc@0.5"] == 0.6
    assert (scored["blind"], scored["n"]) == (0.0, 5)


def test_the_model_itself_is_asked(workflows, sources) -> None:
    calls: list[Any] = []
    task = AnswersTask(AnswersTaskOptions(datasets=["told", "placed"], workflows={"placed": "grounding"}))
    evaluation = task.evaluate_workflows(workflows, sources=sources, limit=2, progress=lambda *call: calls.append(call))
    assert evaluation.results["told"]["n"] <= 2
    assert {call[2] for call in calls} == {"told", "placed"}
    assert {answer.question.media[0][0] for answer in evaluation.answers} == {"image"}


def test_items_follow_the_seed(sources, workflow) -> None:
    def drawn(seed: int) -> list[str]:
        return [str(q.media[0][1]) for q in read_questions(sources["told"], workflow[1], 3, seed)[0]]

    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"datasets": ["tld"]}, "Did you mean 'told'"), ({"workflows": {"told": "vison"}}, "Did you mean 'vision'")],
)
def test_wrong_names(workflows, sources, options, message) -> None:
    with pytest.raises(DataError, match=message):
        score(workflows, sources, **options)


def test_the_command_reads_another_root(run_directory: Path, tmp_path: Path, answering: Answering) -> None:
    answering(lambda question, seen: "red")
    shutil.copytree(run_directory.parent / "data", tmp_path / "data")
    labels = (tmp_path / "data" / "labels.jsonl").read_text().splitlines()
    (tmp_path / "data" / "labels.jsonl").write_text("\n".join(labels[:2]))
    arguments = ["eval", str(run_directory), "--tasks", "answers", "--json"]
    found = [
        json.loads(CliRunner().invoke(cli, [*arguments, *more]).stdout)
        for more in ([], ["--data", str(tmp_path / "data")])
    ]
    assert [results["told"]["accuracy"] for results in found] == [0.6, 1.0]


@pytest.mark.parametrize("training", ["absent", "bad", "good"])
def test_the_command_needs_only_what_it_asks(
    run_directory: Path, tmp_path: Path, answering: Answering, training: str
) -> None:
    answering(lambda question, seen: "blue")
    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(run_directory, run)
    text = (run / "recipe.yaml").read_text().replace("labels.jsonl", "held_out.jsonl").replace("../data", "nowhere")
    text = text.replace(
        "datasets: [told, placed], workflows: {placed: grounding}", "datasets: [told], training: {told: all}"
    )
    learned = "  all: {format: table, path: learned.jsonl, question: 'what ?', answer: '{{ color }}'}\nstages:"
    text = text.replace("stages:", learned).replace("data: {told: 1}", "data: {all: 1}")
    (run / "recipe.yaml").write_text(text.replace(str(run_directory.parent / "data"), str(tmp_path / "gone")))
    shutil.copytree(run_directory.parent / "data", data)
    (data / "labels.jsonl").rename(data / "held_out.jsonl")
    rows = {"bad": {"image": "gone.png", "color": "blue"}, "good": {"image": "0.png", "color": "blue"}}
    if training in rows:
        (data / "learned.jsonl").write_text((json.dumps(rows[training]) + "\n") * 9)
    result = CliRunner().invoke(cli, ["eval", str(run), "--tasks", "answers", "--json", "--data", str(data)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["told"]
    assert found["harness"]["majority_of"] == ("all" if training == "good" else "told")
    assert (found["majority_answer"], found["n"]) == ("blue" if training == "good" else "red", 5)


def test_a_folder_that_changes_nothing_is_refused(run_directory: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_directory, run)
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("path: labels", f"path: {run_directory.parent}/data/labels"))
    result = CliRunner().invoke(cli, ["eval", str(run), "--tasks", "answers", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert "told, placed" in result.output


def test_the_command_needs_the_run(run_directory: Path, tmp_path: Path) -> None:
    shutil.copytree(run_directory / "final" / "vision", tmp_path / "alone")
    result = CliRunner().invoke(cli, ["eval", str(tmp_path / "alone"), "--tasks", "world,answers"])
    assert result.exit_code == 2


def test_text_alone(workflow, monkeypatch) -> None:
    monkeypatch.setattr(workflow[0].base, "name_or_path", "")  # a fresh process could not load it
    found = TextTask(TextTaskOptions()).evaluate(*workflow)["text"]
    assert found["logits_identical"] is None
    assert found["workflow_accuracy"] is None
    assert found["n"] == 0
    asked = TextTask(TextTaskOptions(num_per_kind=1)).evaluate(*workflow)["text"]
    assert asked["n"] > 0
    with pytest.raises(DataError, match="reads no data folder"):
        TextTask(TextTaskOptions()).evaluate(*workflow, data=Path())


def test_a_recipe_names_its_datasets(run_directory: Path, tmp_path: Path) -> None:
    text = (run_directory / "recipe.yaml").read_text().replace("datasets: [told", "datasets: [tld")
    (tmp_path / "recipe.yaml").write_text(text.replace("placed: grounding", "placed: grouding"))
    with pytest.raises(adaptkit.errors.RecipeError) as caught:
        load_recipe(tmp_path / "recipe.yaml")
    assert "Did you mean 'told'" in str(caught.value)
    assert "Did you mean 'grounding'" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"told", "placed"}),
        ({"answer": "another", "question": "another ?"}, {"told", "placed"}),
        ({"path": "others.csv"}, set()),
    ],
)
def test_rows_that_a_stage_trains_on_are_told(run_directory: Path, changes, expected) -> None:
    recipe = load_recipe(run_directory / "recipe.yaml")
    trained = recipe.data["told"]
    trained = trained.model_copy(update={"options": trained.options.model_copy(update=changes)})
    stages = [stage.model_copy(update={"data": {"trained": 1.0}}) for stage in recipe.stages]
    recipe = recipe.model_copy(update={"data": {**recipe.data, "trained": trained}, "stages": stages})
    results = {"told": {}, "placed": {}, "text": {}}
    mark_trained(results, recipe, recipe.evaluation.tasks)
    assert {name for name, scores in results.items() if scores.get("trained_on")} == expected


def test_a_template_that_fits_no_row_is_told_at_once(run_directory: Path, tmp_path: Path) -> None:
    text = (run_directory / "recipe.yaml").read_text().replace("{{ color }}", "{{ colour }}")
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(DataError, match=r"data\.told: the first 6 .*'colour'"):
        build_sources(recipe, ["told"])
    assert len(build_sources(recipe, ["placed"])["placed"]) == 6
