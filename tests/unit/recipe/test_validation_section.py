"""What a recipe may ask of validation, and what it is told where that is wrong."""

from __future__ import annotations

import pytest

from .conftest import SMALL_RECIPE, Workplace

DEV = SMALL_RECIPE.replace("stages:\n", "  dev: {format: json, path: dev.json}\nstages:\n")


def with_validation(validation: str, holdout: str = "") -> str:
    text = DEV.replace("data: {pairs: 1.0}", f"data: {{pairs: 1.0}}\n    validation: {validation}")
    return text.replace("path: pairs.json", f"path: pairs.json{holdout}")


def test_rows_are_all_or_counted_and_a_list_takes_all(workplace: Workplace) -> None:
    listed = workplace.load(with_validation("{data: [dev]}")).stages[0]
    mapped = workplace.load(with_validation("{data: {dev: all}}")).stages[0]
    assert listed.validation == mapped.validation
    assert listed.validate_every == listed.save_steps
    counted = workplace.load(with_validation("{data: {dev: {count: 5}}, every: 3}")).stages[0]
    assert counted.validation is not None
    assert counted.validation.model_dump(mode="json")["data"] == {"dev": {"count": 5}}
    assert counted.validate_every == 3


def test_a_dataset_with_held_out_rows_may_be_trained_and_validated_on(workplace: Workplace) -> None:
    recipe = workplace.load(with_validation("{data: [pairs]}", holdout=", holdout: 0.1"))
    assert recipe.data["pairs"].holdout == 0.1
    assert workplace.load(with_validation("{data: [pairs], allow_trained: true}"))


@pytest.mark.parametrize(
    ("validation", "key", "words"),
    [
        ("{data: {devv: all}}", "stages.align.validation.data.devv", "'dev'?"),
        ("{data: [devv]}", "stages.align.validation.data.devv", "'dev'?"),
        ("{data: {}}", "stages.align.validation.data", "empty"),
        ("{every: 2}", "stages.align.validation.data", "required"),
        ("{data: [dev], every: 0}", "stages.align.validation.every", "1"),
        ("{data: {dev: 0.5}}", "stages.align.validation.data.dev", "all"),
        ("{data: {dev: {count: 0}}}", "stages.align.validation.data.dev.count", "1"),
        ("{data: [dev], patience: 0}", "stages.align.validation.patience", "1"),
        ("{data: [dev], pateince: 1}", "stages.align.validation.pateince", "'patience'?"),
        ("{data: [dev], save_best: devv}", "stages.align.validation", "save_best 'dev'?"),
        ("{data: [dev], save_best: false, load_best: true}", "stages.align.validation", "load_best save_best"),
    ],
)
def test_what_is_wrong_is_named(workplace: Workplace, validation: str, key: str, words: str) -> None:
    error = "\n".join(workplace.errors(with_validation(validation)))
    assert f"{key}: " in error
    assert all(word in error for word in words.split()), error


def test_patience_needs_validations_to_count(workplace: Workplace) -> None:
    error = workplace.errors(with_validation("{data: [dev], patience: 1}\n    save_steps: 0"))
    assert "validation.patience" in error[0]
    assert "validation.every" in error[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{data: [pairs]}", ("stages.align.validation.data.pairs", "data.pairs.holdout", "allow_trained")),
        ("{data: [dev]}", ("stages.align.validation.data.dev", "'pairs'")),
    ],
)
def test_rows_that_are_trained_on_are_refused_under_any_name(
    workplace: Workplace, data: str, words: tuple[str, ...]
) -> None:
    text = with_validation(data).replace("dev.json", "pairs.json")
    error = "\n".join(workplace.errors(text))
    assert all(word in error for word in words), error


def test_rows_of_an_earlier_stage_are_known_too(workplace: Workplace) -> None:
    text = DEV.replace("answers: 1.0}", "answers: 1.0}\n    validation: {data: [pairs]}").replace(
        "{pairs: 0.5, a", "{a"
    )
    assert "stages.instruct.validation.data.pairs" in workplace.errors(text)[0]
    apart = text.replace("    start_from: align\n", "")
    assert workplace.load(apart).stages[1].validation is not None


@pytest.mark.parametrize("share", ["0", "1", "-0.1", "all"])
def test_a_holdout_is_a_share(workplace: Workplace, share: str) -> None:
    assert "data.pairs.holdout: " in workplace.errors(with_validation("null", holdout=f", holdout: {share}"))[0]
