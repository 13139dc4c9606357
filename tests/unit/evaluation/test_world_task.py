"""The benchmark `world` from end to end on a random workflow, in Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import adaptkit
from adaptkit.cli.eval import evaluate
from adaptkit.errors import DataError, ModelError
from adaptkit.evaluation import WorldTaskOptions, text_identity
from adaptkit.evaluation.world_task import IMAGE_KINDS, WorldTask, image_questions, text_questions, training_questions
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.world.dataset import evaluation_items


@pytest.fixture
def without_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the process that compares text: it takes seconds, and one test here has it run."""
    monkeypatch.setattr(text_identity, "base_source", lambda base: None)


def test_it_is_registered_like_any_plugin() -> None:
    component = get_plugin_manager().get("evaluation task", "world")
    assert isinstance(component.build(component.options()), WorldTask)


def test_results_have_the_promised_shape(workflow: tuple[Any, Any]) -> None:
    model, processor = workflow
    calls: list[tuple[int, int, str]] = []
    results = WorldTask().evaluate(model, processor, limit=2, seed=3, progress=lambda *call: calls.append(call))
    json.dumps(results)
    assert results["text"]["logits_identical"] is True
    assert results["text"]["base_accuracy"] == results["text"]["workflow_accuracy"]
    assert set(results["image_questions"]["by_type"]) == set(IMAGE_KINDS)
    assert {"accuracy", "blind", "majority"} <= set(results["image_questions"])
    assert 0 <= results["grounding"]["acc@0.5"] <= 1
    assert results["seconds"] > 0
    assert results["harness"]["seed"] == 3
    assert results["harness"]["versions"]["torch"]
    assert "<image>" in results["harness"]["prompts"]["image_questions"]
    assert calls[-1][0] == calls[-1][1]
    assert [done for done, *_ in calls] == sorted(done for done, *_ in calls)


@pytest.mark.usefixtures("without_fresh_process")
def test_boxes_are_asked_of_the_grounding_workflow(workflow: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptkit.evaluation import world_task

    asked = {}
    for name in ("evaluate_questions", "evaluate_grounding"):
        original = getattr(world_task, name)

        def spy(model: Any, *args: Any, name: str = name, original: Any = original, **kwargs: Any) -> Any:
            asked[name] = model
            return original(model, *args, **kwargs)

        monkeypatch.setattr(world_task, name, spy)
    model, processor = workflow
    other = adaptkit.adapt(
        model.base,
        {"image": {"encoder": model.encoders["image"], "projector": "linear", "placeholder_id": 7}},
        {"policy": "inner_adapter", "placement": {"count": 1}},
    )
    workflows = {"vision": (model, processor), "grounding": (other, processor)}
    evaluation = WorldTask(WorldTaskOptions(num_per_kind=1)).evaluate_workflows(workflows)
    assert asked == {"evaluate_questions": model, "evaluate_grounding": other}
    assert evaluation.results["harness"]["workflows"] == {"questions": "vision", "grounding": "grounding"}
    assert len(evaluation.answers) == len(IMAGE_KINDS) + 1


def test_items_follow_the_seed_and_are_held_out() -> None:
    texts = [q.text for q in text_questions(4, 5)]
    assert texts == [q.text for q in text_questions(4, 5)]
    assert texts != [q.text for q in text_questions(5, 5)]
    held_out = {q.media[0][1].tobytes() for q in image_questions(4, 20)}
    training = {item.image.tobytes() for item in evaluation_items(4, 20, "train", IMAGE_KINDS)}
    assert not held_out & training
    assert not any(q.media for q in training_questions(4, 2))


def test_a_data_folder_is_refused(workflow: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="generates its items"):
        WorldTask().evaluate(*workflow, data=tmp_path)


@pytest.mark.usefixtures("without_fresh_process")
def test_the_command_prints_only_json_and_repeats_the_recipe(run_directory: Path) -> None:
    result = CliRunner().invoke(evaluate, [str(run_directory), "--tasks", "world", "--json"])
    assert result.exit_code == 0, result.output
    harness = json.loads(result.stdout)["harness"]
    assert harness["seed"] == 5
    assert harness["num_per_kind"] == 2
    assert harness["workflows"] == {"questions": "vision", "grounding": "grounding"}


@pytest.mark.usefixtures("without_fresh_process")
def test_the_command_shows_a_table_of_one_workflow(run_directory: Path) -> None:
    arguments = [str(run_directory), "--tasks", "world", "--limit", "1", "--seed", "1", "--workflow", "vision"]
    result = CliRunner().invoke(evaluate, arguments, env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "image questions" in result.stdout
    assert "not compared" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--tasks", "wrld"], DataError, "Did you mean world"),
        (["--tasks", "world", "--workflow", "vison"], ModelError, "Did you mean 'vision'"),
    ],
)
def test_wrong_names_are_told_before_anything_is_loaded(
    run_directory: Path, arguments: list[str], error: type[Exception], message: str
) -> None:
    result = CliRunner().invoke(evaluate, [str(run_directory), *arguments])
    assert isinstance(result.exception, error)
    assert message in str(result.exception)


def test_no_task_at_all_is_a_usage_error(run_directory: Path) -> None:
    result = CliRunner().invoke(evaluate, [str(run_directory), "--tasks", " , "])
    assert result.exit_code == 2
    assert "at least one" in result.output
