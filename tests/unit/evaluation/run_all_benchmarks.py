"""Run every named benchmark through both harnesses on made-up releases: a tiny workflow is asked, known answers count.

Run as `python -m tests.unit.evaluation.run_all_benchmarks DATA_DIR RESULTS`: a harness changes the process it is in.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from adaptkit.chat.boxes import format_box, pad_box
from adaptkit.evaluation.harnesses.asks import Ask
from adaptkit.evaluation.public_data import BENCHMARKS, find_tasks, local_datasets
from adaptkit.reporting import Reporter
from tests.unit.evaluation import benchmark_files
from tests.unit.inference.conftest import INNER, open_session

ANSWERS = {
    "mme": "Yes",
    "scienceqa": "The answer is A.",
    "docvqa": "1 May",
    "vqav2": "a cat",
    "textvqa": "stop",
    "pope": "Yes.",
    "vsr": "True",
}


def answer(task: str, doc: dict[str, Any]) -> str:
    """An answer whose scores can be computed by hand."""
    if "refcoco" in task:
        size = doc["image_width"], doc["image_height"]
        pixels = [value * side for value, side in zip(doc["bbox"], (*size, *size), strict=True)]
        return format_box(pad_box(pixels, *size), decimals=6)
    if task.startswith(("mmbench", "ccbench")):
        return f"It is {doc[doc['answer']]}"
    if task.startswith("mmmu"):
        return "B" if doc["question_type"] == "multiple-choice" else "3"
    return next(text for name, text in ANSWERS.items() if task.startswith(name))


def run_with_workflow(tasks: list[str], folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of tasks that a tiny workflow is asked through our classes, though known answers are scored."""
    from adaptkit.evaluation.harnesses import lmms
    from adaptkit.evaluation.harnesses.loading import load_task
    from adaptkit.evaluation.harnesses.running import HarnessSettings
    from adaptkit.evaluation.harnesses.store import AnswerStore
    from adaptkit.run.benchmarks import find_benchmarks, run_benchmarks

    class Known(lmms.AdaptkitChat):
        def _ask(self, *args: Any, **options: Any) -> Any:
            ask = super()._ask(*args, **options)
            return Ask(ask.task, ask.prompt, {**ask.options, "max_new_tokens": 1}, repeat=ask.repeat)

        def _as_scored(self, request: Any, text: str) -> str:
            return super()._as_scored(request, answer(request.task_name, self._document(request)))

    lmms.AdaptkitChat = Known  # type: ignore[misc]
    found = find_benchmarks(tasks, (), Reporter())
    loaded = [load_task(task) for task in found]
    with open_session("llama", {"vision": INNER}) as session:
        sections = run_benchmarks(
            loaded, session, ["auto"], HarnessSettings(output_dir=folder), AnswerStore(), Reporter()
        )
    scores = {name: next(iter(section["scores"].values())) for name, section in sections.items()}
    official = {name: score["official"] for name, score in scores.items() if "official" in score}
    return {name: score["metrics"] for name, score in scores.items()}, official


def run_recordings(tasks: list[str], folder: Path) -> dict[str, Any]:
    """Scores of tasks with recordings, which the tiny workflow does not take, with known answers."""
    from lmms_eval.api.model import lmms
    from lmms_eval.evaluator import simple_evaluate

    class Answering(lmms):  # type: ignore[misc]
        is_simple = True

        def generate_until(self, requests: list[Any]) -> list[str]:
            for request in requests:
                _, _, doc_to_visual, doc_id, task, split = request.args
                (sound,) = doc_to_visual(self.task_dict[task][split][doc_id])
                assert (sound["type"], len(sound["array"])) == ("audio", 8_000)
            return ["he began"] * len(requests)

        def loglikelihood(self, requests: list[Any]) -> Any:
            raise NotImplementedError

        def generate_until_multi_round(self, requests: list[Any]) -> Any:
            raise NotImplementedError

    options = SimpleNamespace(output_path=str(folder), process_with_media=False)
    results = simple_evaluate(Answering(), tasks=tasks, cli_args=options, bootstrap_iters=0)["results"]
    return {name: {"wer": results[name]["wer,none"]} for name in tasks}


def refuse(*_: Any, **__: Any) -> Any:
    """No benchmark asks a network."""
    raise AssertionError("something asked the network")


def main(data_dir: Path, output: Path) -> None:
    """Write a JSON file with the harnesses' results and the official scores."""
    socket.socket.connect = socket.getaddrinfo = refuse  # type: ignore[method-assign, assignment]
    subjects = [task.config or "" for task in find_tasks("ceval-valid")]
    benchmark_files.write_all(data_dir, ceval_subjects=subjects)
    names = [name for benchmark in BENCHMARKS for name in benchmark.tasks]
    sounds = [name for name in names if name.startswith("librispeech")]
    with local_datasets(names, data_dir):
        harness, official = run_with_workflow([name for name in names if name not in sounds], output.parent)
        harness |= run_recordings(sounds, output.parent)
    output.write_text(json.dumps({"harness": harness, "official": official}, default=str), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
