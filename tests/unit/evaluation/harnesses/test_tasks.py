"""Tasks of both harnesses, from their names to sections of results."""

import json

import pytest

from adaptkit.errors import DataError, RunError
from adaptkit.evaluation.harnesses.asking import Asker
from adaptkit.evaluation.harnesses.catalog import find_harness_task
from adaptkit.evaluation.harnesses.loading import media_kinds, without_judge
from adaptkit.evaluation.harnesses.running import HarnessSettings, run_task
from adaptkit.evaluation.harnesses.store import AnswerStore
from adaptkit.reporting import Reporter
from adaptkit.run.benchmarks import check_media, find_benchmarks, keep_benchmarks, run_benchmarks


def run(load, session, name, *, workflow="auto", store=None, **settings):
    asker = Asker(session, workflow=workflow, store=store)
    [section] = run_task(load(name), asker, HarnessSettings(**settings)).values()
    return section


def test_names_lead_to_the_harness_that_has_them(tasks):
    found = {
        name: find_harness_task(name, (tasks,)).harness
        for name in ("mme", "mmlu", "lmms:mmlu", "chartqa", "tiny_group")
    }
    assert found == {"mme": "lmms-eval", "mmlu": "lm-eval", "lmms:mmlu": "lmms-eval", "chartqa": "lmms-eval"} | {
        "tiny_group": "lm-eval"
    }
    with pytest.raises(DataError, match="tiny_answer"):
        find_harness_task("tiny_anwser", (tasks,))
    with pytest.raises(DataError, match="world"):
        find_harness_task("wrold", (tasks,))


def test_a_group_of_text_tasks_is_scored_and_described(load, session):
    section = run(load, session, "tiny_group", limit=4, num_fewshot=2)
    how = section["harness"]
    assert how["name"].startswith("lm-eval 0.")
    assert (section["n"], how["num_fewshot"], how["limit"], how["dtype"]) == (8, 2, 4, "float32")
    assert how["prompt"].count("Question:") == 3
    score = section["scores"]["text"]
    assert score["metrics"]["acc"] == score["tasks"]["tiny_choice"]["metrics"]["acc"]
    assert score["tasks"]["tiny_choice"]["n"] == 4
    assert run(load, session, "tiny_choice")["harness"]["version"] == 1.5
    json.dumps(section)


def test_pictures_are_asked_as_conversations(load, session):
    section = run(load, session, "tiny_pictures")
    how = section["harness"]
    assert (how["form"], how["version"], section["n"]) == ("chat", 0.5, 4)
    assert how["prompt"].index("<image>") < how["prompt"].index("Is it red?")
    assert how["generation"] == {"max_new_tokens": 4, "do_sample": False}
    assert how["ignored"] == {"image_aspect_ratio": "pad"}
    assert set(section["scores"]) == {"vision"}
    assert list(section["scores"]["vision"]["content"]) == ["vision"]


def test_given_answers_are_chosen_by_their_loss(load, session):
    section = run(load, session, "tiny_chosen")
    assert section["harness"]["form"] == "simple"
    parts = [{"type": "image", "image": None}, {"type": "text", "text": "\nIs it red?"}]
    right = 0
    for document in load("tiny_chosen").content["tiny_chosen"].eval_docs:
        parts = [{"type": "image", "image": document["image"]}, {"type": "text", "text": f"\n{document['question']}"}]
        turns = [
            [{"role": "user", "content": parts}, {"role": "assistant", "content": f" {answer}"}]
            for answer in ("yes", "no")
        ]
        losses = [-score.logprob / score.num_tokens for score in session.score(turns)]
        right += ["yes", "no"][losses.index(min(losses))] == document["answer"]
    assert section["scores"]["vision"]["metrics"]["acc"] == right / 4


def test_boxes_are_brought_back_to_the_picture(load, session, monkeypatch):
    def answers(self, asks, total):
        return ["[0.25,0.25,0.75,0.75]" for _ in asks]

    monkeypatch.setattr(Asker, "answer", answers)
    loaded = load("tiny_bbox_rec")
    seen = loaded.content["tiny_bbox_rec"].config.process_results.__globals__["SEEN"]
    section = run_task(loaded, Asker(session), HarnessSettings())["tiny_bbox_rec"]
    assert set(seen) == {"[0.25,0.125,0.75,0.875]"}  # 48 by 32 pixels
    assert "padded square" in section["harness"]["answers"]


def test_an_evaluation_goes_on_where_it_ended(load, session, tmp_path):
    path = tmp_path / "eval" / "answers.jsonl"
    first = run(load, session, "tiny_pictures", store=AnswerStore(path), limit=2)
    with path.open("a") as file:
        file.write('{"key": "cut off')
    count = session.status()["requests"]
    again = run(load, session, "tiny_pictures", store=AnswerStore(path), limit=2)
    assert again["scores"] == first["scores"]
    assert session.status()["requests"] == count
    run(load, session, "tiny_pictures", store=AnswerStore(path))
    assert session.status()["requests"] == count + 2
    assert len(AnswerStore(path)) == 4
    run(load, session, "tiny_pictures", store=AnswerStore(path, fresh=True), limit=2)
    assert session.status()["requests"] == count + 4


def test_no_answer_of_another_model_or_precision_is_reused(load, session):
    store = AnswerStore()
    run(load, session, "tiny_answer", store=store)
    count = session.status()["requests"]
    run(load, session, "tiny_answer", store=store, workflow="vision")
    assert session.status()["requests"] == count + 6
    weight = session.workflows["vision"].base.get_input_embeddings().weight
    before = weight.data.clone()
    try:
        weight.data[0] += 1
        run(load, session, "tiny_answer", store=store)
    finally:
        weight.data.copy_(before)
    assert session.status()["requests"] == count + 12


def test_a_judge_is_refused_or_replaced_before_anything_is_loaded(tasks):
    include = (tasks,)
    with pytest.raises(DataError, match="judged → _ask → openai"):
        without_judge(find_harness_task("tiny_gpt", include), include)
    [found] = find_benchmarks(["tiny_judged"], include, Reporter())
    assert (found.name, found.asked) == ("tiny_judged_static", "tiny_judged")
    for name in ("mmbench_en_dev", "mmbench_cn_dev"):
        assert without_judge(find_harness_task(name)).name == f"{name}_static"
    for name in ("llava_in_the_wild", "mmvet", "hallusion_bench_image"):
        with pytest.raises(DataError, match="service"):
            without_judge(find_harness_task(name))
    for name in ("mme", "pope", "scienceqa_img", "docvqa_val", "vqav2_val", "textvqa_val", "ai2d"):
        assert without_judge(find_harness_task(name)).name == name


def test_a_call_that_no_reading_finds_stops_the_task(load, session):
    with pytest.raises(RunError, match=r"judge\.example\.org"):
        run(load, session, "tiny_sneaky", limit=1)


def test_what_cannot_be_asked_is_refused(load, session):
    films = load("tiny_films")
    assert media_kinds(films) == {"video"}
    with pytest.raises(DataError, match="tiny_films asks with video"):
        check_media([films], ["auto"], session.modalities)
    with pytest.raises(DataError, match="tiny_pictures asks with image"):
        check_media([load("tiny_pictures")], ["text"], session.modalities)
    with pytest.raises(DataError, match="tiny_films asks with video"):
        run(load, session, "tiny_films")
    with pytest.raises(DataError, match="num_beams=4"):
        run(load, session, "tiny_beams")


def test_text_before_and_after_stands_side_by_side_and_is_kept(load, session, tmp_path):
    loaded = [load("tiny_choice"), load("tiny_pictures")]
    settings = HarnessSettings(limit=2)
    found = run_benchmarks(loaded, session, ["text", "vision"], settings, AnswerStore(), Reporter())
    assert set(found["tiny_choice"]["scores"]) == {"text", "vision"}
    assert set(found["tiny_pictures"]["scores"]) == {"vision"}
    (tmp_path / "results.json").write_text('{"world": {"accuracy": 1.0}}')
    (tmp_path / "report.html").write_text("<main>before<!-- benchmarks --><!-- /benchmarks -->after</main>")
    text, vision = (
        {**found["tiny_choice"], "scores": {n: found["tiny_choice"]["scores"][n]}} for n in ("text", "vision")
    )
    for section in (text, vision):
        keep_benchmarks(tmp_path, {"tiny_choice": section})
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["world"]
    assert set(results["benchmarks"]["tiny_choice"]["scores"]) == {"text", "vision"}
    page = (tmp_path / "report.html").read_text()
    assert page.count("Public benchmarks") == 1
    assert page.index("before") < page.index("tiny_choice") < page.index("after")
