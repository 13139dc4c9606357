import re

import numpy as np
import pytest

from adaptkit.chat.boxes import format_box
from adaptkit.world import facts, language, scenes
from adaptkit.world.language import QUESTION_KINDS
from adaptkit.world.scenes import Scene


@pytest.fixture(scope="module")
def some_scenes() -> list[Scene]:
    return scenes.sample_scenes(5, 100, "train")


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_answers_are_among_the_candidates(kind: str, some_scenes: list[Scene]) -> None:
    rng = np.random.default_rng(0)
    for scene in some_scenes:
        question = language.ask(scene, kind, rng)
        assert question.kind == kind
        if kind == "box":
            assert question.box is not None
            assert question.answer == format_box(question.box)
        else:
            assert question.box is None
            assert question.answer in question.candidates


def test_answers_agree_with_the_scene(some_scenes: list[Scene]) -> None:
    rng = np.random.default_rng(1)
    for scene in some_scenes:
        for question in language.list_questions(scene, rng, 12):
            words = set(re.findall(r"[a-z-]+", question.text))
            if question.kind == "exist":
                there = any({o.shape, o.color} <= words for o in scene.objects)
                assert question.answer == ("yes" if there else "no")
            elif question.kind != "count":
                item = next(o for o in scene.objects if {o.shape, o.color, o.cell} & words)
                attribute = {"shape_at": "shape"}.get(question.kind, question.kind)
                value = format_box(item.box) if attribute == "box" else getattr(item, attribute)
                assert question.answer == value


def test_most_absent_objects_are_made_of_what_is_there(some_scenes: list[Scene]) -> None:
    rng = np.random.default_rng(2)
    absent = [
        (scene, question.text)
        for scene in some_scenes
        if len(scene.objects) > 1
        for question in language.list_questions(scene, rng, 6, ["exist"])
        if question.answer == "no"
    ]
    hard = [
        any(o.shape in text for o in scene.objects) and any(o.color in text for o in scene.objects)
        for scene, text in absent
    ]
    assert np.mean(hard) > 0.5


def test_the_first_turn_carries_the_scene(some_scenes: list[Scene]) -> None:
    questions = language.list_questions(some_scenes[0], np.random.default_rng(0), 3)
    messages = language.conversation("<image>\n", questions)
    assert [m["role"] for m in messages] == ["user", "assistant"] * 3
    assert [m["content"].startswith("<image>\n") for m in messages[::2]] == [True, False, False]


def test_questions_of_a_conversation_differ(some_scenes: list[Scene]) -> None:
    for scene in some_scenes[:20]:
        texts = [q.text for q in language.list_questions(scene, np.random.default_rng(0), 6)]
        assert len(set(texts)) == len(texts) >= 6


def test_every_fact_is_trained_in_three_phrasings_and_held_out_in_one() -> None:
    train, test = facts.list_facts("train"), facts.list_facts("test")
    assert len(test) >= 80
    assert len(train) == 3 * len(test)
    assert not {fact.question for fact in train} & {fact.question for fact in test}
    assert all(fact.answer in facts.candidate_answers(fact.topic) for fact in train)
