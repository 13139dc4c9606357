"""How likely given continuations are."""

import time

import pytest
import torch

from adaptkit.errors import DataError
from adaptkit.inference import Session
from adaptkit.testing import tiny_decoder
from tests.unit.inference.conftest import GATED, INNER, build, open_session, say

CONTEXT = [
    5,
    9,
    11,
    7,
    30,
    31,
    32,
    33,
    12,
    14,
    5,
    5,
    9,
    8,
    7,
    6,
    20,
    21,
    22,
    23,
    24,
    25,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
]
TOLERANCE = 1e-4  # a prefix and another padding change the order in which float32 is summed


def expected(model, context, continuation, **media):
    """Log-likelihood and whether greedy decoding writes it, of one plain pass."""
    ids = torch.tensor([[*context, *continuation]])
    with torch.no_grad():
        logits = model(input_ids=ids, **media).logits[0, -len(continuation) - 1 : -1]
    found = logits.log_softmax(-1).gather(1, torch.tensor([continuation]).T).sum()
    return float(found), logits.argmax(-1).tolist() == list(continuation)


def likeliest(model, context, num_tokens):
    with torch.no_grad():
        ids = model.generate(torch.tensor([context]), max_new_tokens=num_tokens, do_sample=False, pad_token_id=0)
    return ids[0, len(context) :].tolist()


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "bloom"])
def test_scores_equal_those_of_plain_passes(family):
    """Bloom is in no shared pass; the short sliding window of Gemma 3 forgets the start of contexts."""
    with open_session(family, {"vision": INNER}) as session:
        for name in ("text", "vision"):
            model = session.workflows[name]
            greedy = likeliest(model, CONTEXT, 3)
            pairs = [
                (CONTEXT, [7]),
                (CONTEXT[:3], [4, 5, 6]),
                (CONTEXT, greedy),
                (CONTEXT, [8]),
                (CONTEXT[:-2], [*CONTEXT[-2:], 9]),
                (CONTEXT, [3, 4]),
            ]
            scores = session.score_ids(pairs, name)
            for (context, continuation), score in zip(pairs, scores, strict=True):
                logprob, is_greedy = expected(model, context, continuation)
                assert score.logprob == pytest.approx(logprob, abs=TOLERANCE)
                assert (score.is_greedy, score.num_tokens) == (is_greedy, len(continuation))
            assert scores[2].is_greedy


def test_continuations_of_one_context_compute_it_once():
    with open_session("llama", {}) as session:
        session.score_ids([(CONTEXT, [token]) for token in range(3, 9)])
        assert eventually(lambda: session.status()["prompt_tokens"] == len(CONTEXT))
        session.score_ids([([*CONTEXT[:-1], 3], [token, 5]) for token in range(3, 9)])
        num_prompts = 1 + 6
        assert eventually(lambda: session.status()["prompt_tokens"] >= num_prompts * len(CONTEXT))
        assert eventually(lambda: _num_computed(session.status()) <= len(CONTEXT) + 2 * 6 + 2)


def _num_computed(status):
    return status["prompt_tokens"] - status["cached_tokens"]


def eventually(condition):
    """Whether it holds soon: the engine's thread counts what it has done after it has answered."""
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_turns_about_media_are_scored_with_what_ends_them(pictures):
    base = tiny_decoder("llama")
    model, processor = build(base, INNER)
    with Session(base, {"vision": (model, processor)}) as session:
        turns = [
            [*say("what?", p), {"role": "assistant", "content": text}]
            for p in pictures
            for text in ("yes", "no it is not")
        ]
        scores = session.score(turns)
        for messages, score in zip(turns, scores, strict=True):
            batch = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
            prompt = processor.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=True)
            ids = batch["input_ids"][0].tolist()
            length = len(prompt[0])
            media = {k: v for k, v in batch.items() if k not in ("input_ids", "attention_mask")}
            logprob, is_greedy = expected(model, ids[:length], ids[length:], **media)
            assert score.logprob == pytest.approx(logprob, abs=TOLERANCE)
            assert score.is_greedy == is_greedy
        assert session.score([[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]])


def test_prompts_continue_as_stock_generation_does():
    with open_session("llama", {"vision": INNER, "other": GATED}) as session:
        prompts = [CONTEXT, CONTEXT[:20], [*CONTEXT[:-1], 40]]
        for name in ("text", "vision"):
            answers = session.continue_ids(prompts, name, max_new_tokens=4, do_sample=False)
            assert [a.token_ids for a in answers] == [likeliest(session.workflows[name], p, 4) for p in prompts]


def test_what_cannot_be_scored_is_refused():
    with open_session("llama", {}) as session:
        for pair in (([], [3]), ([3], [])):
            with pytest.raises(DataError, match="empty"):
                session.score_ids([pair])
        with pytest.raises(DataError, match="positions"):
            session.score_ids([(CONTEXT * 200, [3])])
        with pytest.raises(DataError, match="last turn"):
            session.score([say("only a question")])
        with pytest.raises(DataError, match="vision"):
            session.score_ids([(CONTEXT, [3])], "vision")
