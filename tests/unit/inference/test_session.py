"""One base, every workflow, one batch."""

import gc
import threading
import time
import weakref

import pytest
import torch

import adaptkit
from adaptkit.errors import ArgumentError, DataError, ModelError, RunError
from adaptkit.inference import QueueFullError
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer
from tests.unit.inference.conftest import GATED, INNER, alone, build, open_session, say

LENGTH = 6


def mixed(pictures):
    """Conversations and the workflow of each: some without media, one of several turns, one with two media."""
    answered = [*say("one", pictures[0]), {"role": "assistant", "content": "yes"}, *say("and now?", pictures[2])]
    return [
        (say("hello there"), "text"),
        (say("what is it?", pictures[0]), "vision"),
        (say("a much longer question about it, " * 4, pictures[1]), "other"),
        (say("both", pictures[1], pictures[0]), "vision"),
        (answered, "other"),
        (say("words alone"), "vision"),
        (say("short"), "text"),
    ]


def test_rows_of_any_workflows_together_answer_as_each_alone(session, pictures):
    asked = mixed(pictures)
    requests = [session.submit(messages, name, max_new_tokens=LENGTH, do_sample=False) for messages, name in asked]
    answers = [request.result(60) for request in requests]
    assert [answer.token_ids for answer in answers] == [alone(session, m, name, LENGTH) for m, name in asked]
    assert [answer.workflow for answer in answers] == [name for _, name in asked]
    [group] = session.status()["groups"]
    assert group["workflows"] == ["text", "vision", "other"]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_half_precision_base_answers_text_as_alone_beside_float32_workflows(family, pictures):
    base = tiny_decoder(family).to(torch.bfloat16)
    workflows = {name: build(base, policy, seed=2) for name, policy in {"vision": INNER, "other": GATED}.items()}
    with adaptkit.Session(base, workflows) as session:
        asked = [(messages, name) for messages, name in mixed(pictures)]
        requests = [session.submit(messages, name, max_new_tokens=LENGTH, do_sample=False) for messages, name in asked]
        answers = [request.result(60) for request in requests]
        for (messages, name), answer in zip(asked, answers, strict=True):
            assert name != "text" or answer.token_ids == alone(session, messages, name, LENGTH)


@pytest.mark.parametrize(
    ("family", "policies", "shared"),
    [
        ("mamba", {"vision": INNER}, []),
        ("llama", {"vision": {"policy": "mma"}, "other": GATED}, ["text", "other"]),
        ("llama", {"vision": {"policy": "gated_cross_attention", "placement": {"layers": [1]}}}, ["text"]),
    ],
)
def test_what_cannot_share_a_pass_is_answered_in_batches_of_its_own(family, policies, shared, pictures):
    with open_session(family, policies) as session:
        asked = [(m, name) for m, name in mixed(pictures) if name in session.workflows]
        requests = [session.submit(messages, name, max_new_tokens=LENGTH, do_sample=False) for messages, name in asked]
        found = [request.result(60).token_ids for request in requests]
        assert found == [alone(session, m, name, LENGTH) for m, name in asked]
        groups = session.status()["groups"]
    apart = {name: group["reason"] for group in groups for name in group["workflows"] if name not in shared}
    assert apart
    assert all(apart.values())


def test_messages_decide_on_the_workflow(session, pictures):
    assert session.route(say("hello")) == "text"
    assert session.route(say("hello", pictures[0])) == session.default == "vision"
    assert session.route(say("hello"), "other") == "other"


@pytest.mark.parametrize(
    ("messages", "workflow", "named"),
    [
        (["hello"], "auto", "role"),
        ([], "auto", "no message"),
        ("picture", "text", "vision or other"),
        ("audio", "auto", "audio"),
        ("picture", "visoin", "'vision'"),
    ],
)
def test_what_no_workflow_can_answer_is_refused(session, pictures, messages, workflow, named):
    given = {
        "picture": say("what?", pictures[0]),
        "audio": [{"role": "user", "content": [{"type": "audio", "audio": "a.wav"}]}],
    }.get(str(messages), messages)
    with pytest.raises(DataError, match=named):
        session.submit(given, workflow)


def test_a_prompt_longer_than_the_positions_is_refused_and_an_answer_ends_there(session):
    with pytest.raises(DataError, match="512"):
        session.submit(say("x" * 600))
    answer = session.chat(say("x" * 450), max_new_tokens=400, do_sample=False, stop_strings=[])
    assert answer.usage.total_tokens <= 512


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temprature": 1}, "'temperature'"),
        ({"num_beams": 4}, "num_beams"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 7}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_length": 9}, "max_new_tokens"),
        ({"seed": "x"}, "seed"),
        ({"stop_strings": "x"}, "stop_strings"),
    ],
)
def test_options_are_checked(session, options, named):
    with pytest.raises(ArgumentError, match=named):
        session.submit(say("hello"), **options)


def test_pieces_make_the_answer(session, pictures):
    request = session.submit(say("what?", pictures[0]), max_new_tokens=12, do_sample=False, logprobs=2)
    pieces = list(request)
    answer = request.result()
    assert "".join(piece.text for piece in pieces) == answer.text
    assert [i for piece in pieces for i in piece.token_ids] == answer.token_ids
    assert [p.token_id for p in answer.logprobs] == answer.token_ids
    assert all(p.top[0][0] == p.token_id and p.logprob == pytest.approx(p.top[0][2]) for p in answer.logprobs)
    assert [p for piece in pieces for p in piece.logprobs] == answer.logprobs
    assert "".join(session.stream(say("what?", pictures[0]), max_new_tokens=12, do_sample=False)) == answer.text


def test_an_answer_ends_before_a_stop_string_which_is_never_streamed(session):
    whole = session.chat(say("tell me"), max_new_tokens=20, do_sample=False)
    text = next(whole.text[i : i + 2] for i in range(4, 18) if whole.text.find(whole.text[i : i + 2]) == i)
    request = session.submit(say("tell me"), max_new_tokens=20, do_sample=False, stop_strings=[text])
    streamed = "".join(piece.text for piece in request)
    answer = request.result()
    assert answer.finish_reason == "stop"
    assert streamed == answer.text == whole.text[: whole.text.find(text)]


def test_a_seed_gives_the_same_sample_whatever_runs_beside_it(session, pictures):
    options = {"max_new_tokens": LENGTH, "temperature": 1.5, "seed": 7}
    first = session.chat(say("hello"), **options)
    others = [session.submit(say("what?", picture), max_new_tokens=9) for picture in pictures]
    again = session.chat(say("hello"), **options)
    different = session.chat(say("hello"), **{**options, "seed": 8})
    assert first.token_ids == again.token_ids != different.token_ids
    assert all(len(request.result().token_ids) == 9 for request in others)


def test_options_of_transformers_reach_the_tokens(session):
    options = {"max_new_tokens": 12, "do_sample": False}
    plain = session.chat(say("hello"), **options).token_ids
    penalised = session.chat(say("hello"), **options, no_repeat_ngram_size=1).token_ids
    assert len(set(penalised)) == len(penalised)
    assert session.chat(say("hello"), **options, suppress_tokens=[plain[0]]).token_ids[0] != plain[0]
    assert session.chat(say("hello"), temperature=0, max_new_tokens=12).token_ids == plain
    assert session.chat(say("hello"), temperature=3.0, top_k=1, max_new_tokens=12).token_ids == plain


def test_a_text_is_continued_without_a_template(session):
    request = session.submit_text("once upon", max_new_tokens=4, do_sample=False)
    ids = torch.tensor([session.processor().tokenizer("once upon")["input_ids"]])
    expected = session.base.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
    assert request.result().token_ids == expected[0, ids.shape[1] :].tolist()


def test_what_is_cancelled_frees_its_place():
    with open_session(policies={}, max_batch_size=1) as session:
        endless = session.submit(say("hello"), max_new_tokens=400, do_sample=False)
        for _ in zip(range(3), endless):
            pass
        waiting = session.submit(say("and me"), max_new_tokens=400)
        waiting.cancel()
        endless.cancel()
        assert session.chat(say("me"), max_new_tokens=2, do_sample=False).usage.completion_tokens == 2
        assert endless.result(5).finish_reason == "cancelled"
        assert waiting.result(5).token_ids == []
        assert session.status()["running"] == session.status()["waiting"] == 0


def test_as_many_wait_as_may():
    with open_session(policies={}, max_batch_size=1, max_waiting=1) as session:
        running = session.submit(say("hello"), max_new_tokens=400)
        next(iter(running))
        waiting = session.submit(say("hello"), max_new_tokens=1)
        with pytest.raises(QueueFullError) as full:
            session.submit(say("hello"))
        assert full.value.retry_after_s >= 1
        running.cancel()
        assert waiting.result(10).finish_reason == "length"


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_what_fails_fails_alone(family, pictures):
    """Gemma 3 runs media before the question, since its sliding window would forget them."""
    with open_session(family, {"vision": INNER}) as session:
        running = session.submit(say("hello"), max_new_tokens=40, do_sample=False)
        session.workflows["vision"].projectors["image"].register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.chat(say("what?", pictures[2], pictures[2]))
        assert len(running.result(10).token_ids) == 40


@pytest.mark.parametrize("family", ["llama", "mamba"])
def test_a_closed_session_answers_nothing_more(family):
    session = open_session(family, policies={})
    request = session.submit(say("hello"), max_new_tokens=400)
    next(iter(request))
    session.close()
    with pytest.raises(RunError):
        request.result(5)
    with pytest.raises(RunError):
        session.submit(say("hello"))


def test_many_threads_ask_at_once(session, pictures):
    expected = alone(session, say("what?", pictures[1]), "vision", 4)
    found = []

    def ask():
        found.append(session.chat(say("what?", pictures[1]), max_new_tokens=4, do_sample=False).token_ids)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [expected] * 12


def test_an_idle_session_has_no_thread_and_is_collected(monkeypatch):
    monkeypatch.setattr("adaptkit.inference.engine.LINGER_S", 0.05)
    session = open_session(policies={})
    session.chat(say("hello"), max_new_tokens=1)
    deadline = time.monotonic() + 5
    while any(thread.name == "adaptkit-engine" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.02)
    reference = weakref.ref(session)
    del session
    gc.collect()
    assert reference() is None


def save_workflow(folder, base, insertion, encoder):
    modality = {"encoder": {"name": "clip", "path": str(encoder)}, "projector": "linear", "placeholder_id": 400}
    model = adaptkit.adapt(base, {"image": modality}, insertion)
    model.save_pretrained(folder)
    adaptkit.AdaptkitProcessor.from_model(model, tiny_tokenizer()).save_pretrained(folder)
    return model


def test_workflows_come_from_folders_and_share_base_and_encoder(tmp_path, pictures):
    tiny_decoder("llama").save_pretrained(tmp_path / "base")
    tiny_clip_vision().save_pretrained(tmp_path / "encoder")
    base = type(tiny_decoder("llama")).from_pretrained(tmp_path / "base")
    run = tmp_path / "run"
    for name, insertion in {"vision": INNER, "other": GATED}.items():
        save_workflow(run / "final" / name, base, insertion, tmp_path / "encoder")
    with adaptkit.Session.open(run) as session:
        assert list(session.workflows) == ["text", "other", "vision"]
        vision, other = session.workflows["vision"], session.workflows["other"]
        assert other.base is vision.base is session.base
        tensors = {t.untyped_storage().data_ptr(): t.nbytes for m in (vision, other) for t in m.state_dict().values()}
        own = sum(t.nbytes for m in (vision, other) for t in m.trainable_state_dict().values())
        frozen = sum(t.nbytes for m in (session.base, vision.source_encoders["image"]) for t in m.state_dict().values())
        assert sum(tensors.values()) <= own + frozen
        assert session.chat(say("what?", pictures[0]), "other", max_new_tokens=4).workflow == "other"
    with adaptkit.Session.open([run / "final" / "vision", run]) as session:
        assert list(session.workflows) == ["text", "vision", "other", "vision-2"]


def test_workflows_of_another_base_are_refused():
    first, second = open_session(), open_session()
    vision = (second.workflows["vision"], second.processor("vision"))
    with pytest.raises(ModelError, match="'vision'"):
        adaptkit.Session(first.base, {"vision": vision})
    with pytest.raises(ModelError, match="'text'"):
        adaptkit.Session(second.base, {"text": vision})
    with pytest.raises(ModelError, match="tokenizer"):
        adaptkit.Session(first.base)


def test_a_batch_begins_together_and_is_prepared_once(pictures, monkeypatch):
    prepared = []
    with open_session() as session:
        prepare = session.base._prepare_generation_config
        monkeypatch.setattr(
            session.base, "_prepare_generation_config", lambda *a, **k: prepared.append(1) or prepare(*a, **k)
        )
        asked = [say(f"question {number}") for number in range(5)]
        answers = session.batch(asked, max_new_tokens=LENGTH, do_sample=False)
        assert [a.token_ids for a in answers] == [alone(session, m, "text", LENGTH) for m in asked]
        assert session.status()["steps"] == LENGTH - 1  # the first token is that of the prompts' pass
        assert answers[0].text == session.chat(asked[0], max_new_tokens=LENGTH, do_sample=False).text
    assert len(prepared) == 1 + len(asked) + 1  # the batch, `alone`, and `chat`


def test_a_placeholder_that_is_a_token_is_never_generated(pictures, monkeypatch):
    with open_session() as session:
        (likeliest,) = session.chat(say("hello"), "vision", max_new_tokens=1).token_ids
    monkeypatch.setattr("tests.unit.inference.conftest.PLACEHOLDER_ID", likeliest)
    with open_session() as session:
        answer = session.chat(say("hello"), "vision", max_new_tokens=LENGTH, do_sample=False)
        assert likeliest not in answer.token_ids
        assert answer.token_ids == alone(session, say("hello"), "vision", LENGTH)


def test_a_session_warns_of_beams_that_it_does_not_search():
    base = tiny_decoder("llama")
    base.generation_config.num_beams = 4
    with pytest.warns(UserWarning, match="'text'"):
        session = adaptkit.Session(base, tokenizer=tiny_tokenizer())
    assert session.chat(say("hello"), max_new_tokens=2, do_sample=False).usage.completion_tokens == 2
