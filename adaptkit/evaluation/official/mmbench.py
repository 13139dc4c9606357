"""MMBench and CCBench: a question counts only if it is right with its options in every order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from string import ascii_uppercase
from typing import Any

from adaptkit.errors import DataError
from adaptkit.evaluation.official.letters import harness_letter, vlmevalkit_letter
from adaptkit.files.folder import FileFolder, mean

SETS = ("mmbench_en", "mmbench_cn", "ccbench")
ROTATION = 10**6
"""Rows of a question with rotated options have its index plus a multiple of this."""

_ABBREVIATIONS = {
    "coarse_perception": "CP",
    "finegrained_perception (instance-level)": "FP-S",
    "finegrained_perception (cross-instance)": "FP-C",
    "logic_reasoning": "LR",
    "relation_reasoning": "RR",
    "attribute_reasoning": "AR",
}


@dataclass(frozen=True)
class Question:
    """One row of the file: a question with its options in one order."""

    index: int
    options: Mapping[str, str]
    gold: str
    category: str
    ability: str


def score(folder: FileFolder) -> dict[str, Any]:
    """Every set that is in the folder, by its name."""
    present = [name for name in SETS if folder.has(f"{name}.tsv")]
    if not present:
        raise DataError(f"{folder.path} has none of {', '.join(f'{name}.tsv' for name in SETS)}. {folder.needs()}")
    return {name: score_set(name, folder) for name in present}


def score_set(name: str, folder: FileFolder) -> dict[str, Any]:
    """By VLMEvalKit without a judge, and by lmms-eval's evaluator with `eval_method=static`."""
    rows = folder.table(f"{name}.tsv", "index", "question", "answer", "category", delimiter="\t")
    questions = [question for where, row in rows if (question := as_question(row, where)).gold]
    if len(questions) < len(rows):
        folder.notes.append(f"{len(rows) - len(questions)} rows of {name}.tsv have no answer, and are omitted")
    if not any(question.index < ROTATION for question in questions):
        raise DataError(f"{folder.path / name}.tsv has no question with an answer and an index below {ROTATION:,}")
    known = {int_index(row["index"], where) for where, row in rows}
    predictions = folder.rows(f"{name}_predictions.jsonl", index=(int, str), prediction=(str, int, float, type(None)))
    answers = folder.by_key(
        ((where, int_index(row["index"], where), _text(row["prediction"])) for where, row in predictions),
        known,
        "index",
    )
    return score_questions(questions, answers)


def score_questions(questions: list[Question], answers: Mapping[int, str]) -> dict[str, Any]:
    """As `score_set`, of answers by the index of their question; what is missing is wrong."""
    letters = {q.index: vlmevalkit_letter(answers.get(q.index, ""), q.options) for q in questions}
    static = {q.index: harness_letter(answers.get(q.index, "").strip(), q.options) for q in questions}
    return {
        "vlmevalkit_exact_matching": _vlmevalkit(questions, letters),
        "lmms_eval_static": _lmms_eval(questions, static),
    }


score_mmbench_en, score_mmbench_cn, score_ccbench = (partial(score_set, name) for name in SETS)


def int_index(value: Any, where: str) -> int:
    """An index as a number, also where it is written as text."""
    try:
        return int(value)
    except ValueError:
        raise DataError(f"{where}: the index must be a whole number, not {value!r:.40}") from None


def _text(prediction: Any) -> str:
    return "" if prediction is None else str(prediction)


def as_question(row: Mapping[str, Any], where: str) -> Question:
    """A row of the file, checked."""
    options: dict[str, str] = {}
    for letter in ascii_uppercase:
        if not row.get(letter):
            break  # an empty option ends the list
        options[letter] = row[letter]
    gold = row["answer"].strip()
    if gold and gold not in options:
        raise DataError(f"{where}: the answer is {gold!r:.40}, but the options are {', '.join(options) or 'none'}")
    return Question(int_index(row["index"], where), options, gold, row["category"], row.get("l2-category", ""))


def _hits(questions: Iterable[Question], letters: Mapping[int, str | None]) -> dict[int, int]:
    """Whether all rows of a question are right, by its index."""
    right: dict[int, list[bool]] = defaultdict(list)
    for question in questions:
        right[question.index % ROTATION].append(letters[question.index] == question.gold)
    return {index: int(all(rows)) for index, rows in right.items()}


def _vlmevalkit(questions: list[Question], letters: Mapping[int, str | None]) -> dict[str, Any]:
    first = [question for question in questions if question.index < ROTATION]
    circular, one_pass = _hits(questions, letters), _hits(first, letters)
    return {
        "extracted": {str(index): letter for index, letter in letters.items()},
        "circular_hit": {str(question.index): circular[question.index] for question in first},
        "circular": _report(first, circular),
        "first_pass_only": _report(first, one_pass),
    }


def _report(first: list[Question], hits: Mapping[int, int]) -> dict[str, float]:
    """Overall, by ability and by category, under VLMEvalKit's names."""
    abilities = _means(first, hits, lambda question: _ABBREVIATIONS.get(question.ability, question.ability))
    return {"Overall": mean(hits[q.index] for q in first), **abilities, **_means(first, hits, lambda q: q.category)}


def _lmms_eval(questions: list[Question], letters: Mapping[int, str | None]) -> dict[str, Any]:
    first = [question for question in questions if question.index < ROTATION]
    hits = _hits(questions, letters)
    return {
        "circular_overall": mean(hits[question.index] for question in first),
        "first_pass_overall": mean(_hits(first, letters).values()),
        "category": _means(first, hits, lambda question: question.category),
        "l2_category": _means(first, hits, lambda question: question.ability),
    }


def _means(first: list[Question], hits: Mapping[int, int], name_of: Callable[[Question], str]) -> dict[str, float]:
    groups: dict[str, list[int]] = defaultdict(list)
    for question in first:
        groups[name_of(question)].append(hits[question.index])
    return {name: mean(groups[name]) for name in sorted(groups) if name}
