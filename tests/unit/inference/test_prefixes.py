"""Keys and values that are there already."""

import pytest

from tests.unit.inference.conftest import GATED, INNER, alone, open_session, say

POLICIES = {"vision": INNER, "other": GATED}
LENGTH = 5


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mistral"])
def test_further_questions_and_turns_answer_as_without_prefixes(family, pictures):
    """Gemma 3 and Mistral forget what lies outside of a sliding window."""
    settings = {"max_new_tokens": LENGTH, "do_sample": False}
    with open_session(family, POLICIES) as session:
        assert session.chat(say("first?", pictures[0]), **settings).usage.cached_tokens == 0
        for question in ("second, and a longer one?", "third?"):
            answer = session.chat(say(question, pictures[0]), **settings)
            assert answer.usage.cached_tokens >= 16
            assert answer.token_ids == alone(session, say(question, pictures[0]), "vision", LENGTH)
        other = session.chat(say("second, and a longer one?", pictures[1]), **settings)
        assert other.usage.cached_tokens < 40
        assert other.token_ids == alone(session, say("second, and a longer one?", pictures[1]), "vision", LENGTH)
        turns = [
            *say("first?", pictures[0]),
            {"role": "assistant", "content": answer.text},
            {"role": "user", "content": "go on"},
        ]
        again = session.chat(turns, **settings)
        assert again.token_ids == alone(session, turns, "vision", LENGTH)
        elsewhere = session.chat(say("first?", pictures[0]), "other", **settings)
        assert elsewhere.usage.cached_tokens == 0


def test_questions_about_one_picture_that_come_together_compute_it_once(pictures):
    with open_session(max_batch_size=8) as session:
        questions = [
            say(text, pictures[0]) for text in ("what?", "where is it?", "how many of them are there?", "who?")
        ]
        answers = session.batch(questions, max_new_tokens=LENGTH, do_sample=False)
        assert [a.token_ids for a in answers] == [alone(session, q, "vision", LENGTH) for q in questions]
        assert sum(answer.usage.cached_tokens >= 16 for answer in answers) == 3


def test_prefixes_keep_within_their_bytes(pictures):
    with open_session(prefix_cache_bytes=60_000) as session:
        for number, picture in enumerate(pictures * 2):
            session.chat(say(f"number {number}", picture), max_new_tokens=2, do_sample=False)
        [group] = session.status()["groups"]
        assert 0 < group["prefixes"]["bytes"] <= 60_000
    with open_session(prefix_cache_bytes=0) as session:
        session.chat(say("what?", pictures[0]), max_new_tokens=2, do_sample=False)
        assert session.chat(say("what?", pictures[0]), max_new_tokens=2, do_sample=False).usage.cached_tokens == 0
