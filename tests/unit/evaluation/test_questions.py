"""Batched answers: the same as one by one, and each medium encoded once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from adaptkit.errors import DataError
from adaptkit.evaluation.questions import (
    Question,
    evaluation_mode,
    generate_answers,
    is_right,
    pad_left,
    require_modalities,
)
from adaptkit.evaluation.world_task import box_questions, image_questions


def test_answers_are_compared_without_case_and_blanks() -> None:
    question = Question("k", "?", "Top-Left  corner")
    assert is_right(" top-left CORNER\n", question)
    assert not is_right("top-left", question)
    assert is_right("[0.031, 0.250, 0.406, 0.531]", Question("box", "?", "[0.031,0.250,0.406,0.531]"))
    assert not is_right("[0.031, 0.250, 0.406]", Question("box", "?", "[0.031,0.250,0.406,0.531]"))


def test_padding_stands_left() -> None:
    input_ids, attention_mask = pad_left([[1, 2, 3], [4]], 9)
    assert input_ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert attention_mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_media_stand_before_the_text() -> None:
    question = Question("k", "what is it ?", "a", media=(("image", "a.png"),))
    parts = question.messages()[0]["content"]
    assert parts == [{"type": "image", "image": "a.png"}, {"type": "text", "text": "\nwhat is it ?"}]
    assert question.without_media().messages()[0]["content"] == [{"type": "text", "text": "what is it ?"}]


def test_batches_answer_as_single_questions_do(workflow: tuple[Any, Any]) -> None:
    model, processor = workflow
    questions = [*image_questions(1, 1), *box_questions(1, 2)]
    together = generate_answers(model, processor, questions)
    single = generate_answers(model, processor, questions, batch_size=1)
    assert together == single
    assert len(set(together)) > 1, "a model that always says the same proves nothing"


def test_answers_depend_on_the_medium(workflow: tuple[Any, Any]) -> None:
    model, processor = workflow
    questions = image_questions(2, 2)
    blind = [question.without_media() for question in questions]
    assert generate_answers(model, processor, questions) != generate_answers(model, processor, blind)


def test_a_medium_asked_about_twice_is_encoded_once(workflow: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = workflow
    (question,) = box_questions(3, 1)
    encode, seen = model.encode, []
    monkeypatch.setattr(model, "encode", lambda name, inputs: seen.append(len(inputs)) or encode(name, inputs))
    again = replace(question, text="what is it ?")
    answers = generate_answers(model, processor, [question, again, question.without_media(), question])
    assert sum(seen) == 1
    assert answers[0] == answers[3]


def test_modes_are_restored() -> None:
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout()).train()
    module[1].eval()
    with evaluation_mode(module):
        assert not any(m.training for m in module.modules())
    assert [m.training for m in module] == [True, False]


def test_a_workflow_without_the_modality_is_refused(workflow: tuple[Any, Any]) -> None:
    _, processor = workflow
    question = Question("k", "?", "a", media=(("sound", b""),))
    with pytest.raises(DataError, match=r" sound; .* image"):
        require_modalities(processor, [question])
