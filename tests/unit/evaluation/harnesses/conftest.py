"""Sessions over tiny models, and task files and data made here. The harnesses are slow to import: once a process."""

from __future__ import annotations

import json
import random

import pytest
from PIL import Image

from adaptkit.evaluation.harnesses.catalog import find_harness_task
from adaptkit.evaluation.harnesses.loading import load_task
from adaptkit.evaluation.harnesses.quiet import quiet_harness
from tests.unit.inference.conftest import INNER, open_session

with quiet_harness():  # their code warns, and warnings are errors here
    import lmms_eval.evaluator  # noqa: F401

CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}/questions.jsonl, train: {data}/questions.jsonl}}}}
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
metadata: {{version: 1.5}}
"""
ANSWER = """
task: tiny_answer
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}/questions.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["e"], max_gen_toks: 6, do_sample: false}}
metric_list: [{{metric: exact_match}}]
metadata: {{version: 1.0}}
"""
GROUP = """
group: tiny_group
task: [tiny_choice, tiny_answer]
aggregate_metric_list: [{{metric: acc, weight_by_size: true}}]
metadata: {{version: 1.0}}
"""
PICTURES = """
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {data}/pictures.parquet}}}}
test_split: test
doc_to_visual: !function tiny_utils.doc_to_visual
doc_to_text: !function tiny_utils.doc_to_text
doc_to_target: answer
"""
ASKED = """
output_type: generate_until
generation_kwargs: {{max_new_tokens: 4, temperature: 0, num_beams: {beams}, do_sample: false, image_aspect_ratio: pad}}
process_results: !function tiny_utils.{scorer}
metric_list: [{{metric: score, aggregation: mean, higher_is_better: true}}]
metadata: [{{version: 0.5}}]
"""
CHOSEN = """
output_type: multiple_choice
doc_to_choice: ["yes", "no"]
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
UTILS = """
import json
from pathlib import Path

SEEN = []


def doc_to_visual(doc):
    return [doc["image"].convert("RGB")]


def doc_to_text(doc):
    return doc["question"]


def doc_to_video(doc):
    return ["film.mp4"]


def right(doc, results):
    SEEN.append(results[0])
    return {"score": float(results[0] == doc["answer"])}


def _ask(text):
    import openai

    return openai.OpenAI().chat.completions.create(model="judge", messages=[{"role": "user", "content": text}])


def judged(doc, results):
    return {"score": _ask(results[0])}


def sneaky(doc, results):
    import importlib

    try:
        importlib.import_module("urllib.request").urlopen("http://judge.example.org/")
    except Exception:
        return {"score": 0.0}
"""


@pytest.fixture(scope="session")
def tasks(tmp_path_factory):
    """A folder of task files, and beside it their data."""
    import datasets

    root = tmp_path_factory.mktemp("harness")
    data, folder = root / "data", root / "tasks"
    data.mkdir()
    folder.mkdir()
    rng = random.Random(0)
    words = ["red", "green and blue", "a large one", "two of them", "none"]
    questions = [
        {"question": f"What is number {n} of the shapes?", "choices": rng.sample(words, 4), "answer": n % 4}
        for n in range(6)
    ]
    (data / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    pictures = [Image.effect_noise((48, 32), 40 + 30 * n).convert("RGB") for n in range(2)]
    rows = {"question": ["Is it red?", "Is it noise?"] * 2, "answer": ["yes", "no"] * 2}
    rows["image"] = [pictures[0], pictures[0], pictures[1], pictures[1]]
    features = datasets.Features(
        {"question": datasets.Value("string"), "answer": datasets.Value("string"), "image": datasets.Image()}
    )
    with quiet_harness():
        datasets.Dataset.from_dict(rows, features=features).to_parquet(data / "pictures.parquet")
    (folder / "tiny_utils.py").write_text(UTILS)
    about = "task: {name}\n" + PICTURES.format(data=data)
    scorers = {
        "tiny_pictures": "right",
        "tiny_bbox_rec": "right",
        "tiny_judged": "judged",
        "tiny_judged_static": "right",
    }
    scorers |= {"tiny_gpt": "judged", "tiny_sneaky": "sneaky", "tiny_beams": "right"}
    files = {"tiny_choice": CHOICE.format(data=data), "tiny_answer": ANSWER.format(data=data), "g": GROUP.format()}
    for name, scorer in scorers.items():
        files[name] = about.replace("{name}", name) + ASKED.format(scorer=scorer, beams=4 if "beams" in name else 1)
    files["tiny_chosen"] = about.replace("{name}", "tiny_chosen") + CHOSEN
    films = (
        files["tiny_pictures"].replace("doc_to_visual\ndoc", "doc_to_video\ndoc").replace("tiny_pictures", "tiny_films")
    )
    for name, text in (files | {"tiny_films": films}).items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="session")
def load(tasks):
    """Loads a task by name."""
    return lambda name: load_task(find_harness_task(name, (tasks,)), (tasks,))


@pytest.fixture(scope="module")
def session():
    with open_session("llama", {"vision": INNER}) as opened:
        yield opened
