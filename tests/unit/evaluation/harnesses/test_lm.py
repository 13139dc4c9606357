"""lm-eval's class: what lm-eval's own class for transformers gives, and what a workflow gives instead."""

import copy

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from PIL import Image

from adaptkit.errors import DataError
from adaptkit.evaluation.harnesses.asking import Asker
from adaptkit.evaluation.harnesses.lm import AdaptkitLM
from adaptkit.evaluation.harnesses.quiet import quiet_harness
from adaptkit.testing import tiny_tokenizer
from tests.unit.inference.conftest import INNER, open_session

TOLERANCE = 1e-3  # float32 sums of up to a hundred terms, in another order
LONG = "a long way to go, " * 40  # more than the decoder's positions
PAIRS = [
    ("The colour is", " red"),
    ("The colour is", " green and blue"),
    ("The colour is ", "red"),
    ("", "without a context"),
    ("The colour is", " reddish"),
    (LONG, " and over"),
    ("<|im_end|>begins with a special token", " here"),
]


def requests(kind, arguments):
    metadata = ("tiny", 0, 1)
    return [Instance(request_type=kind, doc={}, arguments=given, idx=0, metadata=metadata) for given in arguments]


def stock(session, model="text", **options):
    """lm-eval's own class over the same model."""
    with quiet_harness():
        tokenizer = tiny_tokenizer()
        return HFLM(pretrained=session.workflows[model], backend="causal", tokenizer=tokenizer, batch_size=2, **options)


def check_scores(found, expected):
    for (logprob, is_greedy), (stock_logprob, stock_greedy) in zip(found, expected, strict=True):
        assert logprob == pytest.approx(stock_logprob, abs=TOLERANCE)
        assert is_greedy == stock_greedy


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_likelihoods_equal_those_of_the_stock_class(family):
    with open_session(family, {"vision": INNER}) as session, quiet_harness():
        for workflow in ("text", "vision"):
            for options in ({}, {"add_bos_token": True, "prefix_token_id": 5}, {"max_length": 20}):
                lm = AdaptkitLM(session, workflow=workflow, **options)
                other = stock(session, workflow, **options)
                assert lm.max_length == other.max_length
                asked = PAIRS if "max_length" not in options else PAIRS[:3]
                check_scores(
                    lm.loglikelihood(requests("loglikelihood", asked)),
                    other.loglikelihood(requests("loglikelihood", asked)),
                )
        texts = [(LONG,), ("short",)]
        rolling = AdaptkitLM(session).loglikelihood_rolling(requests("loglikelihood_rolling", texts))
        expected = stock(session).loglikelihood_rolling(requests("loglikelihood_rolling", texts))
        assert rolling == pytest.approx(expected, rel=1e-5)


def test_texts_equal_those_of_the_stock_class(session):
    settings = [
        {"until": ["e", "\n"], "max_gen_toks": 12, "do_sample": False},
        {"until": [], "max_gen_toks": 5, "temperature": 0.0},
        {"until": "q", "max_new_tokens": 8, "repetition_penalty": 1.3},
    ]
    asked = [(context, given) for given in settings for context in ("The colour is", LONG, "what")]
    with quiet_harness():
        lm = AdaptkitLM(session)
        found = lm.generate_until(requests("generate_until", copy.deepcopy(asked)))
        assert found == stock(session).generate_until(requests("generate_until", copy.deepcopy(asked)))
    assert any(found)


def test_conversations_are_those_of_the_checkpoint(session):
    lm = AdaptkitLM(session)
    turns = [{"role": "system", "content": "short"}, {"role": "user", "content": "what is it?"}]
    assert lm.apply_chat_template(turns) == session.processor().apply_chat_template(turns, add_generation_prompt=True)
    assert lm.chat_template(True) == session.processor().chat_template
    assert lm.tokenizer is not session.processor().tokenizer


def test_media_go_to_a_workflow(session):
    pictures = [Image.effect_noise((32, 32), 30 + 60 * n).convert("RGB") for n in range(2)]
    media = {"visual": pictures}
    lm = AdaptkitLM(session)
    turns = [{"role": "user", "content": "first <image> then <image> which?"}]
    for context in (lm.apply_chat_template(turns), turns[0]["content"]):
        [text] = lm.generate_until(requests("generate_until", [(context, {"max_gen_toks": 4}, media)]))
        parts = [
            ("text", "first "),
            ("image", pictures[0]),
            ("text", " then "),
            ("image", pictures[1]),
            ("text", " which?"),
        ]
        messages = [{"role": "user", "content": [{"type": kind, kind: value} for kind, value in parts]}]
        assert text == session.chat(messages, max_new_tokens=4, do_sample=False).text
    assert lm.asker.notes["tiny"].workflows == {"vision": 2}
    [(logprob, _)] = lm.loglikelihood(requests("loglikelihood", [("what is it?", " noise", media)]))
    assert logprob < 0


def test_answers_are_kept(session):
    asker = Asker(session)
    lm = AdaptkitLM(asker)
    first = lm.loglikelihood(requests("loglikelihood", PAIRS[:3]))
    count = session.status()["requests"]
    assert lm.loglikelihood(requests("loglikelihood", PAIRS[:3])) == first
    assert session.status()["requests"] == count


def test_what_does_not_fit_is_refused(session):
    lm = AdaptkitLM(session, max_length=8)
    with pytest.raises(DataError, match="8 positions"):
        lm.loglikelihood(requests("loglikelihood", [("a", " b" * 20)]))
    with pytest.raises(DataError, match="8 positions"):
        lm.generate_until(requests("generate_until", [("a", {"max_gen_toks": 9})]))
    with pytest.raises(DataError, match="num_beams=3"):
        lm.generate_until(requests("generate_until", [("a", {"max_gen_toks": 2, "num_beams": 3})]))
