"""ScienceQA: letters in three ways, and accuracy by subject, context, grade and topic."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.files.folder import FileFolder, check

_LETTERS = "ABCDE"
_SENTENCE = re.compile(r"The answer is ([A-Z]).")  # any character must follow
_MEDIA_TAG = "<image>"
FAILED = -1
Problem = Mapping[str, Any]
_CONTEXTS: dict[str, Callable[[Problem], bool]] = {
    "natural": lambda problem: problem["subject"] == "natural science",
    "social": lambda problem: problem["subject"] == "social science",
    "language": lambda problem: problem["subject"] == "language science",
    "has_text": lambda problem: bool(problem["hint"]),
    "has_image": lambda problem: bool(problem["image"]),
    "no_context": lambda problem: not problem["hint"] and not problem["image"],
    "grade_1_6": lambda problem: problem["grade"] in {f"grade{grade}" for grade in range(1, 7)},
    "grade_7_12": lambda problem: problem["grade"] in {f"grade{grade}" for grade in range(7, 13)},
    "average": lambda problem: True,
}


def score(folder: FileFolder) -> dict[str, Any]:
    """By LLaVA's script, by the release's script on LLaVA's results, and LaVIN's parsing. No answer is wrong."""
    problems = _problems(folder)
    test = _test_ids(folder, problems)
    rows = folder.rows("predictions.jsonl", question_id=(str, int), text=str)
    located = ((where, str(row["question_id"]), row) for where, row in rows)
    answers = folder.by_key(located, problems, "question_id", asked=test)
    answers = {key: answers[key] for key in test if key in answers}
    results = {
        key: llava_index(answers[key]["text"], problems[key]["choices"]) if key in answers else FAILED for key in test
    }
    right = {key: index == problems[key]["answer"] for key, index in results.items()}
    with_media = [key for key in answers if _MEDIA_TAG in str(answers[key].get("prompt", ""))]
    return {
        "llava_eval_science_qa": {
            "acc": sum(right.values()) / len(right) * 100,
            "correct": sum(right.values()),
            "count": len(right),
            "img_accuracy_2dp": _percent([right[key] for key in with_media]) if with_media else None,
            "results": results,
        },
        "scienceqa_evaluate_acc_on_those_results": by_context(problems, right),
        "lavin_first_match_index_or_null": {
            key: lavin_index(row["text"], problems[key]["choices"]) for key, row in answers.items()
        },
    }


def llava_index(text: str, choices: Sequence[str]) -> int:
    """Index of the choice that an answer names, as LLaVA reads it; -1 without one."""
    found = _SENTENCE.findall(text)
    if text in tuple(_LETTERS) or (text[:1] in tuple(_LETTERS) and text[1:3] == ". "):
        letter = text[0]
    else:
        letter = found[0] if len(found) == 1 else ""
    index = _index(letter, choices)
    return FAILED if index is None else index


def lavin_index(text: str, choices: Sequence[str]) -> int | None:
    """Index of the choice in the first `The answer is X.`; None where LaVIN would draw one at random."""
    found = _SENTENCE.search(text)
    return None if found is None else _index(found[1], choices)


def _index(letter: str, choices: Sequence[str]) -> int | None:
    return _LETTERS.index(letter) if letter and letter in _LETTERS[: len(choices)] else None


def _problems(folder: FileFolder) -> dict[str, Problem]:
    problems = folder.json("problems.json", dict)
    for key, problem in problems.items():
        where = f"{folder.path / 'problems.json'}, {key}"
        check(problem, where, choices=list, answer=int, hint=str, image=(str, type(None)))
        check(problem, where, grade=str, subject=str, topic=str)
    return problems


def _test_ids(folder: FileFolder, problems: Mapping[str, Problem]) -> list[str]:
    place = folder.path / "pid_splits.json"
    splits = folder.json("pid_splits.json", dict)
    check(splits, str(place), test=list)
    test = list(dict.fromkeys(map(str, splits["test"])))
    if not test:
        raise DataError(f"{place}: 'test' lists no problem")
    missing = [key for key in test if key not in problems]
    if missing:
        raise DataError(f"{place}: 'test' lists {missing[0]!r}, which problems.json lacks")
    return test


def by_context(problems: Mapping[Any, Problem], right: Mapping[Any, bool]) -> dict[str, str]:
    """Accuracy by subject, context, grade and topic; groups without a problem are omitted."""
    topics = dict.fromkeys(problems[key]["topic"] for key in right)
    in_topic = {topic: lambda problem, topic=topic: problem["topic"] == topic for topic in topics}
    groups = {
        name: [ok for key, ok in right.items() if belongs(problems[key])]
        for name, belongs in {**in_topic, **_CONTEXTS}.items()
    }
    return {f"acc_{name}": _percent(groups[name]) for name in (*_CONTEXTS, *topics) if groups[name]}


def _percent(right: Sequence[bool]) -> str:
    return f"{sum(right) / len(right) * 100:.2f}"
