"""The command line, and lmms-eval's registry."""

import json
import shutil

import pytest
from click.testing import CliRunner
from lmms_eval.api.instance import Instance
from lmms_eval.models.registry_v2 import ModelRegistryV2

from adaptkit.cli import cli
from adaptkit.errors import ArgumentError, DataError
from adaptkit.evaluation.harnesses.asking import Asker
from adaptkit.evaluation.harnesses.asks import kind_of, medium_part, session_options
from adaptkit.evaluation.harnesses.lmms import AdaptkitChat, AdaptkitSimple, turns_of
from adaptkit.evaluation.harnesses.manifest import model_manifest


def adaptkit(*arguments):
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def run_copy(run_directory, tmp_path):
    return shutil.copytree(run_directory, tmp_path / "run")


def test_one_command_scores_keeps_and_goes_on(run_copy, tasks):
    command = ("eval", run_copy, "--tasks", "tiny_choice,tiny_pictures", "--include-path", tasks, "--limit", 2)
    code, out, err = adaptkit(*command, "--json")
    assert code == 0, err
    found = json.loads(out)["benchmarks"]
    assert set(found) == {"tiny_choice", "tiny_pictures"}
    assert set(found["tiny_choice"]["scores"]) == {"text"}
    kept = json.loads((run_copy / "results.json").read_text())["benchmarks"]
    assert kept == found
    answers = (run_copy / "eval" / "answers.jsonl").read_text()
    code, out, err = adaptkit(*command)
    assert code == 0, err
    assert "tiny_pictures" in out
    assert (run_copy / "eval" / "answers.jsonl").read_text() == answers


def test_wrong_input_is_named_before_anything_is_loaded(run_copy, tasks, tmp_path):
    include = ("--include-path", tasks)
    for arguments, words in (
        (("--tasks", "tiny_chioce", *include), ("tiny_chioce", "tiny_choice")),
        (("--tasks", "tiny_gpt", *include), ("tiny_gpt", "openai")),
        (("--tasks", "tiny_films", *include), ("tiny_films", "video")),
        (("--tasks", "tiny_choice", *include, "--workflow", "visoin"), ("visoin",)),
        (("--tasks", "mme", "--data", tmp_path), ("MME", str(tmp_path))),
    ):
        code, _, err = adaptkit("eval", run_copy, *arguments)
        assert code in (1, 2)
        assert all(word in " ".join(err.split()) for word in words), err
        assert "Traceback" not in err


def test_the_known_benchmarks_are_listed(tmp_path):
    code, out, _ = adaptkit("eval", "--list-tasks", "--data", tmp_path, "--json")
    assert code == 0
    rows = {row["task"]: row for row in json.loads(out)}
    assert rows["mme"]["where"] is None
    assert rows["mmlu"]["harness"] == "lm-eval"
    code, _, err = adaptkit("eval")
    assert code == 2
    assert "CHECKPOINT" in err


def test_the_registry_of_lmms_eval_finds_both_forms():
    registry = ModelRegistryV2()
    registry.register_manifest(model_manifest())
    assert registry.get_model_class("adaptkit") is AdaptkitChat
    assert registry.get_model_class("adaptkit", force_simple=True) is AdaptkitSimple
    with pytest.raises(ArgumentError, match="Did you mean 'workflow'"):
        AdaptkitChat.create_from_arg_string("pretrained=somewhere,worflow=vision")
    with pytest.raises(ArgumentError, match="pretrained"):
        AdaptkitChat.create_from_arg_string("")


def instance(kind, *arguments):
    metadata = {"task": "rounds", "doc_id": 0, "repeats": 1}
    return Instance(request_type=kind, arguments=(*arguments, 0, "rounds", "test"), idx=0, metadata=metadata)


def rounds(document, previous_output=None, round_idx=None, previous_round_info=None):
    """Asks once more, and is content then."""
    info = (previous_round_info or 0) + 1
    return None, f"and {round_idx}?", round_idx == 2, previous_output, info


def conversation(document, round_idx=None, previous_output=None, previous_round_info=None):
    turn = [{"role": "user", "content": [{"type": "text", "text": f"and {round_idx}?" if round_idx else "first?"}]}]
    return turn if round_idx is None else (turn, round_idx == 2, previous_output, previous_round_info)


def test_a_task_may_ask_again_after_each_answer(session):
    settings = {"max_new_tokens": 3, "until": ["\n\n"]}
    expected = [
        session.chat([{"role": "user", "content": text}], max_new_tokens=3, do_sample=False).text
        for text in ("first?", "and 1?")
    ]
    chat, simple = AdaptkitChat(asker=Asker(session)), AdaptkitSimple(asker=Asker(session))
    chat.task_dict = simple.task_dict = {"rounds": {"test": [{}]}}
    kind = "generate_until_multi_round"
    assert chat.generate_until_multi_round([instance(kind, "first?", conversation, settings)]) == [expected]
    asked = instance(kind, "first?", settings, lambda document: None, rounds)
    assert simple.generate_until_multi_round([asked]) == [expected]


def test_a_system_prompt_stands_before_each_conversation(session):
    asker = Asker(session, system_prompt="be short")
    chat = AdaptkitChat(asker=asker)
    chat.task_dict = {"rounds": {"test": [{}]}}
    chat.generate_until([instance("generate_until", "first?", conversation, {"max_new_tokens": 2})])
    assert asker.notes["rounds"].prompt.index("be short") < asker.notes["rounds"].prompt.index("first?")


def test_media_are_what_they_are():
    sound = {"array": [0.0], "sampling_rate": 16000}  # which lmms-eval takes for a video
    assert medium_part("task", sound, "video") == {"type": "audio", "audio": sound}
    assert (kind_of("a.png"), kind_of("a.wav"), kind_of("a.mp4"), kind_of(3)) == ("image", "audio", "video", "int")
    turns = turns_of(
        "task", [{"role": "user", "content": [{"type": "audio", "url": "a.wav"}, {"type": "text", "text": "?"}]}]
    )
    assert turns[0]["content"][0] == {"type": "audio", "audio": "a.wav"}
    with pytest.raises(DataError, match="task"):
        turns_of("task", None)


def test_generation_settings_are_honoured_or_named():
    given = {"max_new_tokens": 9, "temperature": 0.5, "top_p": 0, "num_beams": 1, "until": "###", "use_cache": True}
    options, ignored = session_options("task", given, default_length=4)
    assert options == {"max_new_tokens": 9, "do_sample": True, "temperature": 0.5, "stop_strings": ["###"]}
    assert ignored == {"use_cache": True}
    options, _ = session_options("task", {"do_sample": False, "temperature": 0.7, "top_k": 3}, default_length=4)
    assert options == {"max_new_tokens": 4, "do_sample": False}
    for name, value in (("num_beams", 5), ("penalty_alpha", 0.6)):
        with pytest.raises(DataError, match=f"{name}={value}"):
            session_options("task", {name: value}, default_length=4)


def test_repeated_requests_get_answers_of_their_own(session):
    asker = Asker(session, seed=3)
    chat = AdaptkitChat(asker=asker)
    chat.task_dict = {"rounds": {"test": [{}]}}
    request = instance("generate_until", "first?", conversation, {"max_new_tokens": 8, "temperature": 5.0})
    texts = chat.generate_until([request] * 3)
    assert len(set(texts)) == 3
    assert chat.generate_until([request] * 3) == texts
