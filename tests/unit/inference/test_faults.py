"""What a caller does wrong, or what goes wrong with one request, and what becomes of the others."""

import logging
import math
import os
import signal

import pytest
import torch

from adaptkit.errors import ArgumentError, DataError
from tests.unit.inference.conftest import open_session, say

EVERY_TOKEN = list(range(259))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_new_tokens": 2.5}, "max_new_tokens"),
        ({"max_new_tokens": math.inf}, "max_new_tokens"),
        ({"logprobs": 1.5}, "logprobs"),
        ({"top_k": 1.5}, "top_k"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"typical_p": 2}, "typical_p"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"repetition_penalty": 0}, "penalty"),
        ({"bad_words_ids": "x"}, "bad_words_ids"),
        ({"eos_token_id": "x"}, "options"),
        ({"do_sample": "yes"}, "do_sample"),
        ({"seed": 2**70, "temperature": 1.0}, "seed"),
        ({"seed": -(2**63) - 1}, "seed"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused_before_it_is_queued(session, options, named):
    with pytest.raises(ArgumentError, match=named):
        session.submit(say("hello"), **options)


@pytest.mark.parametrize("options", [{"do_sample": True}, {}])
@pytest.mark.parametrize("policies", [{}, {"vision": {"policy": "mma"}}])
def test_a_request_whose_options_leave_no_token_fails_alone(policies, options):
    with open_session(policies=policies) as session:
        for workflow in session.workflows:
            beside = session.submit(say("hello"), workflow, max_new_tokens=30, do_sample=False)
            failing = session.submit(say("hello"), workflow, suppress_tokens=EVERY_TOKEN, **options)
            with pytest.raises(DataError, match="no token"):
                failing.result(10)
            assert len(beside.result(10).token_ids) == 30


def test_what_an_answer_that_failed_leaves_behind_is_no_prefix_of_the_next():
    """Its last token was never chosen, so that fewer positions are there than of one that was finished."""
    options = {"max_new_tokens": 12, "do_sample": False}
    growing_beyond_all_numbers = {"exponential_decay_length_penalty": (4, 1e300), "eos_token_id": 257}
    with open_session(policies={}) as session, open_session(policies={}, prefix_cache_bytes=0) as fresh:
        failing = session.submit(say("tell me"), **options, **growing_beyond_all_numbers)
        with pytest.raises(DataError):
            failing.result(10)
        assert len(failing.token_ids) > 2
        text = session.processor().decode_answers([failing.token_ids])[0]
        again = [*say("tell me"), {"role": "assistant", "content": text}, *say("and?")]
        options["logprobs"] = 0
        reused, computed = (one.chat(again, **options) for one in (session, fresh))
    assert reused.usage.cached_tokens
    assert reused.logprobs[0].logprob == pytest.approx(computed.logprobs[0].logprob, abs=1e-4)


def test_the_smallest_temperatures_are_greedy(session):
    greedy = session.chat(say("hello"), max_new_tokens=4, temperature=0)
    for temperature in (1e-45, 1e-6):
        assert session.chat(say("hello"), max_new_tokens=4, temperature=temperature).token_ids == greedy.token_ids


def test_a_callback_that_raises_harms_nobody(session, caplog):
    events = []

    def fail(event):
        events.append(event)
        raise SystemExit

    with caplog.at_level(logging.CRITICAL):
        beside = session.submit(say("hello"), max_new_tokens=30, do_sample=False)
        raising = session.submit(say("hello"), max_new_tokens=3, do_sample=False, on_event=fail)
        cancelled = session.submit(say("hello"), max_new_tokens=400, on_event=fail)
        cancelled.cancel()
        assert len(raising.result(10).token_ids) == 3
        assert cancelled.result(10).finish_reason == "cancelled"
        assert len(beside.result(10).token_ids) == 30
    assert raising.result() in events


def test_who_iterates_again_is_told_the_end_again(session):
    request = session.submit(say("hello"), max_new_tokens=3, do_sample=False)
    assert sum(len(piece.token_ids) for piece in request) == 3
    assert list(request) == []
    failing = session.submit(say("hello"), suppress_tokens=EVERY_TOKEN)
    for _ in range(2):
        with pytest.raises(DataError):
            list(failing)


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ("hello", "messages"),
        (5, "messages"),
        ({"role": "user", "content": "hello"}, "messages"),
        ([{"role": "user", "content": 5}], "content"),
        ([{"role": "user", "content": True}], "content"),
        ([{"role": "user", "content": {"type": "text", "text": "hello"}}], "content"),
        ([{"role": "user", "content": [[{"type": "text", "text": "hello"}]]}], "type"),
        ([{"role": "user", "content": [{"type": ["image"]}]}], "type"),
        ([{"role": "user", "content": [{}]}], "type"),
        ([{"role": "user", "content": [None]}], "type"),
        (say("hello") * 10_000, "10000 positions"),
    ],
)
def test_malformed_messages_are_refused(session, messages, named):
    with pytest.raises(DataError, match=named):
        session.submit(messages)


def test_messages_and_parts_may_come_from_iterators(session):
    expected = session.chat(say("hello"), max_new_tokens=3, do_sample=False)
    (message,) = say("hello")
    once = ({**message, "content": iter(message["content"])} for _ in range(1))
    assert session.chat(once, max_new_tokens=3, do_sample=False).token_ids == expected.token_ids
    assert len(session.batch((say("hello") for _ in range(2)), max_new_tokens=3)) == 2


@pytest.mark.parametrize("text", ["", None, 5, b"hello", ["hello"], "\ud800"])
def test_a_text_to_continue_is_text(session, text):
    with pytest.raises(DataError, match="text"):
        session.submit_text(text)


def test_spaces_at_the_ends_of_a_continued_text_are_the_answers(session):
    space = session.processor().tokenizer(" ")["input_ids"][0]
    answer = session.submit_text("hello", max_new_tokens=3, sequence_bias=[[[space], 1e6]], do_sample=False).result(10)
    assert answer.text == "   "


def test_who_waits_for_a_busy_group_is_cancelled_at_once():
    with open_session("mamba", policies={}, max_batch_size=1) as session:
        running = session.submit(say("hello"), max_new_tokens=400)
        next(iter(running))
        waiting = session.submit(say("hello"))
        waiting.cancel()
        assert waiting.result(10).finish_reason == "cancelled"
        assert not running.is_finished
        running.cancel()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_answers_by_itself():
    with open_session(policies={}) as session:
        expected = session.chat(say("hello"), max_new_tokens=3, do_sample=False).token_ids
        running = session.submit(say("something else"), max_new_tokens=400)
        next(iter(running))
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            torch.set_num_threads(1)
            os._exit(session.chat(say("hello"), max_new_tokens=3, do_sample=False).token_ids != expected)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        running.cancel()
