"""Scores and baselines of known answers."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

import adaptkit
from adaptkit.evaluation import scores
from adaptkit.evaluation.questions import Question, generate_answers
from adaptkit.evaluation.scores import (
    evaluate_grounding,
    evaluate_questions,
    majority_answers,
    mean,
    merge,
)
from adaptkit.interfaces import Evaluation
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from adaptkit.world.tokenizer import build_tokenizer

from .conftest import evaluate_text

PROCESSOR = SimpleNamespace(modalities={"image": None})


def say(monkeypatch: pytest.MonkeyPatch, seen: Sequence[str], blind: Sequence[str]) -> None:
    def answers(*args: Any, **kwargs: Any) -> list[str]:
        return [*seen, *blind]

    monkeypatch.setattr(scores, "generate_answers", answers)


def test_accuracy_by_kind_beside_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [Question("color", "?", "red"), Question("color", "?", "blue"), Question("count", "?", "two")]
    training = [Question("color", "?", a) for a in ("Blue", "blue", "red")] + [Question("count", "?", "one")]
    say(monkeypatch, ["RED", "red", "two"], ["red", "red", "one"])
    evaluation = evaluate_questions(None, PROCESSOR, questions, training, section="image_questions")
    result = evaluation.results["image_questions"]
    assert result["accuracy"] == 0.6667
    assert result["by_type"] == {"color": 0.5, "count": 1.0}
    assert result["blind"] == 0.3333
    assert result["majority_by_type"] == {"color": 0.5, "count": 0.0}
    assert result["majority_answers"] == {"color": "blue", "count": "one"}
    assert (result["n"], result["n_by_type"]) == (3, {"color": 2, "count": 1})
    assert [answer.right for answer in evaluation.answers] == [True, False, True]
    assert evaluation.answers[2].blind == "one"


def test_grounding_counts_hits_and_unreadable_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [Question("box", "?", "[0,0,1,1]", box=(0, 0, 64, 64), size=(64, 64))] * 4
    say(monkeypatch, ["[0, 0, 1, 1]", "[0,0,0.1,0.1]", "here", "[0,0,1,0.6]"], ["", "", "", "[0,0,1,1]"])
    result = evaluate_grounding(None, PROCESSOR, questions).results["grounding"]
    assert (result["acc@0.5"], result["blind"], result["unreadable"], result["n"]) == (0.5, 0.25, 0.25, 4)
    assert result["mean_iou"] == pytest.approx((1 + 0.01 + 0 + 0.6) / 4, abs=1e-4)  # rounded to four places


def test_majority_ties_go_by_the_alphabet() -> None:
    assert majority_answers([Question("k", "?", "b"), Question("k", "?", "a")]) == {"k": "a"}


def adapted(policy: dict[str, Any], replace_ends: bool) -> Any:
    """A workflow on a base that was made in memory, so that no fresh process runs."""
    base = tiny_decoder("llama", vocab_size=len(build_tokenizer()))
    # Its placeholder lies outside the vocabulary: one within is never generated, which a random base might do
    image = {"encoder": tiny_clip_vision(image_size=64, patch_size=16), "projector": "linear"}
    return adaptkit.adapt(base, {"image": image}, policy, replace_ends)


@pytest.fixture
def exact_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers as long as the right ones: a random decoder would ramble on."""
    monkeypatch.setattr("adaptkit.evaluation.questions.SPARE_TOKENS", 0)


def what_the_base_says(model: Any, processor: Any) -> list[Question]:
    asked = [Question("fact", text, "x x x x") for text in ("what is two plus two ?", "which day comes after monday ?")]
    answers = generate_answers(model.base, processor, asked)
    return [Question(q.kind, q.text, answer) for q, answer in zip(asked, answers)]


@pytest.mark.usefixtures("exact_length")
def test_text_of_a_base_made_in_memory_says_that_it_was_not_compared(workflow: tuple[Any, Any]) -> None:
    model = adapted({"policy": "projector_only"}, False)
    result = evaluate_text(model, workflow[1], what_the_base_says(model, workflow[1])).results["text"]
    assert result["logits_identical"] is None
    assert result["base_accuracy"] is None
    assert result["workflow_accuracy"] == 1.0
    assert "in memory" in result["note"]


@pytest.mark.usefixtures("exact_length")
def test_text_through_an_unchanged_decoder_is_the_base_s(workflow: tuple[Any, Any]) -> None:
    model = adapted({"policy": "projector_only"}, False)
    result = evaluate_text(model, workflow[1], what_the_base_says(model, workflow[1])).results["text"]
    assert result["adapted_accuracy"] == result["workflow_accuracy"] == 1.0
    assert result["adapted_by_type"] == result["by_type"]
    assert result["answer_words"]["adapted"] == result["answer_words"]["base"] > 0


@pytest.mark.usefixtures("exact_length")
def test_what_the_adapted_decoder_forgets_shows_there_and_not_in_the_text_workflow(workflow: tuple[Any, Any]) -> None:
    model = adapted({"policy": "inner_adapter", "placement": {"every": 1}}, True)
    questions = what_the_base_says(model, workflow[1])
    model.get_output_embeddings().weight.data.zero_()  # from now on it says token 0, padding, and nothing else
    result = evaluate_text(model, workflow[1], questions).results["text"]
    assert (result["workflow_accuracy"], result["adapted_accuracy"]) == (1.0, 0.0)
    assert result["answer_words"]["adapted"] == 0.0 < result["answer_words"]["base"]


def test_merging_joins_sections_and_refuses_doubles() -> None:
    merged = merge([Evaluation({"a": {}}), Evaluation({"b": {}})])
    assert set(merged.results) == {"a", "b"}
    with pytest.raises(ValueError, match="twice: a"):
        merge([Evaluation({"a": {}}), Evaluation({"a": {}})])


def test_mean_of_nothing_is_zero() -> None:
    assert mean([]) == 0.0
