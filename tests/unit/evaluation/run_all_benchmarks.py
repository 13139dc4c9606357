"""Run every named benchmark through both harnesses on made-up releases, with answers that are known.

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
from adaptkit.evaluation.public_data import (
    BENCHMARKS,
    find_tasks,
    local_datasets,
    official_scores,
    restore_boxes,
    task_folders,
)
from tests.unit.evaluation import benchmark_files

ANSWERS = {
    "mme": "Yes",
    "scienceqa": "The answer is A.",
    "docvqa": "1 May",
    "vqav2": "a cat",
    "textvqa": "stop",
    "pope": "Yes.",
    "vsr": "True",
    "librispeech": "he began",
}


def answer(task: str, doc: dict[str, Any]) -> str:
    """An answer whose scores can be computed by hand."""
    if "refcoco" in task:
        size = doc["image_width"], doc["image_height"]
        pixels = [value * side for value, side in zip(doc["bbox"], (*size, *size), strict=True)]
        return restore_boxes(format_box(pad_box(pixels, *size), decimals=6), size)
    if task.startswith(("mmbench", "ccbench")):
        return f"It is {doc[doc['answer']]}"
    if task.startswith("mmmu"):
        return "B" if doc["question_type"] == "multiple-choice" else "3"
    return next(text for name, text in ANSWERS.items() if task.startswith(name))


def run_lmms_eval(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results and logged samples of lmms-eval's tasks."""
    from lmms_eval.api.model import lmms
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    class Answering(lmms):  # type: ignore[misc]
        is_simple = True

        def generate_until(self, requests: list[Any]) -> list[str]:
            found = []
            for request in requests:
                _, _, doc_to_visual, doc_id, task, split = request.args
                doc = self.task_dict[task][split][doc_id]
                check_media(doc_to_visual(doc))
                found.append(answer(task, doc))
            return found

        def loglikelihood(self, requests: list[Any]) -> Any:
            raise NotImplementedError

        def generate_until_multi_round(self, requests: list[Any]) -> Any:
            raise NotImplementedError

    tasks = [name for benchmark in BENCHMARKS if benchmark.harness == "lmms-eval" for name in benchmark.tasks]
    manager = TaskManager("ERROR", include_path=str(task_folders("lmms-eval")[-1]))
    model = Answering()
    options = SimpleNamespace(output_path=str(folder), process_with_media=False)
    results = simple_evaluate(model, tasks=tasks, task_manager=manager, cli_args=options, bootstrap_iters=0)
    splits = {name: model.task_dict[name][find_tasks(name)[0].splits[0]] for name in tasks}
    return results["results"], official_scores(results["samples"], splits)


def check_media(media: list[Any]) -> None:
    """Pictures have a size, and recordings are no videos."""
    for one in media:
        assert one["type"] == "audio" and len(one["array"]) == 8_000 if isinstance(one, dict) else one.mode == "RGB"


def run_lm_eval() -> tuple[dict[str, Any], dict[str, Any]]:
    """Results and logged samples of lm-eval's groups."""
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM

    class Likely(LM):  # type: ignore[misc]
        def loglikelihood(self, requests: list[Any], **options: Any) -> list[tuple[float, bool]]:
            liked = {"A": -1.0, "B": -0.5}
            return [(liked.get(request.args[1].strip(), -2.0), False) for request in requests]

        def generate_until(self, requests: list[Any], **options: Any) -> Any:
            raise NotImplementedError

        def loglikelihood_rolling(self, requests: list[Any], **options: Any) -> Any:
            raise NotImplementedError

    tasks = [name for benchmark in BENCHMARKS if benchmark.harness == "lm-eval" for name in benchmark.tasks]
    results = simple_evaluate(Likely(), tasks=tasks, bootstrap_iters=0)
    return {name: results["results"][name] for name in tasks}, official_scores(results["samples"])


def refuse(*_: Any, **__: Any) -> Any:
    """No benchmark asks a network."""
    raise AssertionError("something asked the network")


def main(data_dir: Path, output: Path) -> None:
    """Write a JSON file with the harnesses' results and the official scores."""
    socket.socket.connect = socket.getaddrinfo = refuse  # type: ignore[method-assign, assignment]
    subjects = [task.config or "" for task in find_tasks("ceval-valid")]
    benchmark_files.write_all(data_dir, ceval_subjects=subjects)
    names = [name for benchmark in BENCHMARKS for name in benchmark.tasks]
    with local_datasets(names, data_dir):
        found = [run_lmms_eval(output.parent), run_lm_eval()]
    harness = {name: values for results, _ in found for name, values in results.items()}
    official = {name: values for _, scores in found for name, values in scores.items()}
    output.write_text(json.dumps({"harness": harness, "official": official}, default=str), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
