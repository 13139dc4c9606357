"""Official rules of public benchmarks, applied to answers that any system wrote.

One module a benchmark; each reads the benchmark's own files from a folder. Nothing here runs a model, and what a model
wrote is only parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError, unknown_name
from adaptkit.files.folder import FileFolder


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that can be scored.

    Attributes:
        rule: Whose rule it is, in a few words.
        score: The module and function that score a folder.
        layout: Its files, and what each holds.
    """

    rule: str
    score: str
    layout: Mapping[str, str]


def _mmbench(name: str) -> Benchmark:
    files = {f"{name}.tsv": "questions", f"{name}_predictions.jsonl": "index, prediction"}
    return Benchmark("VLMEvalKit without a judge; lmms-eval, static", f"mmbench:score_{name}", files)


BENCHMARKS: dict[str, Benchmark] = {
    "mme": Benchmark(
        "MME's calculation.py; lmms-eval",
        "mme:score",
        {"results/TASK.txt": "one a task: picture, question, Yes or No, answer, separated by tabs"},
    ),
    "mmbench": Benchmark(
        "VLMEvalKit without a judge; lmms-eval, static",
        "mmbench:score",
        {"SET.tsv": "mmbench_en, mmbench_cn or ccbench", "SET_predictions.jsonl": "index, prediction"},
    ),
    "mmbench_en": _mmbench("mmbench_en"),
    "mmbench_cn": _mmbench("mmbench_cn"),
    "ccbench": _mmbench("ccbench"),
    "mmmu": Benchmark(
        "MMMU's main_eval_only.py, and its parsing of answers",
        "mmmu:score",
        {
            "answer_dict_val.json": "question_type and ground_truth by id",
            "total_val_output.json": "parsed answers by id",
            "responses.jsonl": "may be absent: id, question_type, answer, response, all_choices, index2ans",
        },
    ),
    "refcoco": Benchmark(
        "compute_precision.py of Inner-Adaptor-Architecture; lmms-eval",
        "refcoco:score",
        {
            "gt.jsonl": "sent_id, bbox as x1, y1, x2, y2 in pixels, width, height",
            "pred.jsonl": "question_id, text",
            "lmms_eval_pred.jsonl": "may be absent: bbox_xywh, image_width, image_height, prediction",
        },
    ),
    "scienceqa": Benchmark(
        "LLaVA's eval_science_qa.py; ScienceQA's evaluate_acc.py; LaVIN's parsing",
        "scienceqa:score",
        {
            "problems.json": "the release's",
            "pid_splits.json": "the release's",
            "predictions.jsonl": "question_id, text, prompt",
        },
    ),
    "vqa": Benchmark(
        "vqaEval.py; LLaVA's m4c_evaluator.py for TextVQA",
        "vqa:score",
        {
            "questions.json": "the release's",
            "annotations.json": "the release's",
            "predictions.json": "list of question_id, answer",
        },
    ),
    "docvqa": Benchmark(
        "ANLS of lmms-eval and Qwen-VL; of ST-VQA",
        "docvqa:score",
        {"items.jsonl": "questionId, answers, prediction"},
    ),
    "vsr": Benchmark(
        "VSR's eval_compute_acc_by_rel scripts",
        "vsr:score",
        {
            "test.jsonl": "the release's",
            "preds.txt": "0 or 1, a line a row",
            "rel_meta_category_dict.txt": "the release's",
        },
    ),
    "mmlu": Benchmark(
        "evaluate.py of hendrycks/test",
        "mmlu:score",
        {"data/test/SUBJECT_test.csv": "the release's", "logprobs.jsonl": "subject, row, logprobs of A to D"},
    ),
    "ceval": Benchmark(
        "C-Eval's evaluators/llama.py",
        "ceval:score",
        {
            "data/val/SUBJECT_val.csv": "the release's",
            "subject_mapping.json": "the release's",
            "predictions.jsonl": "subject, id, prediction: a letter, or a chain of thought",
        },
    ),
}
"""Name of each benchmark that `score_folder` knows."""


def score_folder(name: str, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Score the answers in a folder by a benchmark's official rules.

    Args:
        name: One of `BENCHMARKS`.
        path: The folder that holds the benchmark's files and the answers.

    Returns:
        The scores, and notes on answers that are missing or given twice.

    Raises:
        DataError: There is no such benchmark or folder, a file is missing, or a row is malformed; the message names it.
    """
    if name not in BENCHMARKS:
        raise DataError(unknown_name("benchmark", name, BENCHMARKS))
    benchmark = BENCHMARKS[name]
    folder = FileFolder(path, benchmark.layout)
    if not path.is_dir():
        raise DataError(f"{path} is not a folder. {folder.needs()}")
    if not folder.names():
        raise DataError(f"the folder {path} is empty. {folder.needs()}")
    module, function = benchmark.score.split(":")
    score: Callable[[FileFolder], dict[str, Any]] = getattr(import_module(f"{__name__}.{module}"), function)
    return score(folder), folder.notes


__all__ = ["BENCHMARKS", "Benchmark", "score_folder"]
