"""MME: yes or no, two questions a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from adaptkit.errors import DataError, nearest_name
from adaptkit.files.folder import FileFolder, mean

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


class Line(NamedTuple):
    """An answer to one of the two questions about a picture."""

    media: str
    gold: str
    answer: str
    """With its line end."""


def score(folder: FileFolder) -> dict[str, Any]:
    """By the tool of MME's authors, and by lmms-eval. Tasks that are absent count as 0."""
    place = "results/" if folder.has("results") else ""
    present = [task for task in (*PERCEPTION, *COGNITION) if folder.has(f"{place}{task}.txt")]
    _check_names(folder, place, present)
    return score_lines({task: _read(folder, f"{place}{task}.txt") for task in present})


def score_lines(answers: Mapping[str, list[Line]]) -> dict[str, Any]:
    """As `score`, of the answers to each task; two lines in turn are one picture's."""
    tasks = {task: _official(lines) for task, lines in answers.items()}
    official = {task: values["score"] for task, values in tasks.items()}
    harness = {task: _harness(lines) for task, lines in answers.items()}
    sums = _sums(official)
    return {
        "official": {"tasks": tasks, **sums, "total": sums["perception"] + sums["cognition"]},
        "lmms_eval": _sums(harness),
    }


def official_label(answer: str) -> str:
    """`yes`, `no` or `other`; only the first four characters count, and a line end is one of them."""
    answer = answer.lower()
    return _label(answer if answer in ("yes", "no") else answer[:4])


def harness_label(answer: str) -> str:
    """As lmms-eval reads it: stripped, without full stops; a bare `y` or `n` counts."""
    answer = answer.lower().strip().replace(".", "")
    return {"y": "yes", "n": "no"}.get(answer) or _label(answer[:4])


def _label(beginning: str) -> str:
    return "yes" if "yes" in beginning else "no" if "no" in beginning else "other"


def _read(folder: FileFolder, name: str) -> list[Line]:
    lines = []
    for where, line in folder.lines(name):
        cells = line.split("\t")
        if len(cells) != 4:
            raise DataError(f"{where}: {len(cells)} cells where four are needed: picture, question, Yes or No, answer")
        gold = cells[2].lower().strip()
        if gold not in ("yes", "no"):
            raise DataError(f"{where}: the third cell must be Yes or No, not {cells[2]!r:.40}")
        lines.append(Line(cells[0], gold, cells[3]))
    if not lines or len(lines) % 2:
        raise DataError(f"{folder.path / name} has {len(lines)} lines: each picture has two, one after the other")
    return lines


def _official(lines: list[Line]) -> dict[str, float]:
    labels = [official_label(line.answer) for line in lines]
    right = [label == line.gold for label, line in zip(labels, lines, strict=True)]
    acc = 100 * mean(right)
    acc_plus = 100 * mean(first and second for first, second in zip(right[::2], right[1::2], strict=True))
    return {
        "acc": acc,
        "acc_plus": acc_plus,
        "score": acc + acc_plus,
        "images": len(lines) // 2,
        "other": labels.count("other"),
    }


def _harness(lines: list[Line]) -> float:
    """Pairs go by picture; where a picture has other than two lines, pairs are consecutive lines."""
    by_media: dict[str, list[bool]] = defaultdict(list)
    right = [harness_label(line.answer) == line.gold for line in lines]
    for line, is_right in zip(lines, right, strict=True):
        by_media[line.media].append(is_right)
    pairs: Iterable[Any] = by_media.values()
    if any(len(pair) != 2 for pair in by_media.values()):
        pairs = zip(right[::2], right[1::2], strict=True)
    return mean(100 * mean(pair) + 100 * all(pair) for pair in pairs)


def _sums(scores: dict[str, float]) -> dict[str, float]:
    total: Callable[[Iterable[str]], float] = lambda tasks: sum(scores.get(task, 0.0) for task in tasks)  # noqa: E731
    return {"perception": total(PERCEPTION), "cognition": total(COGNITION)}


def _check_names(folder: FileFolder, place: str, present: list[str]) -> None:
    missing = [task for task in (*PERCEPTION, *COGNITION) if task not in present]
    for name in folder.names(place, ".txt"):
        nearest = nearest_name(name.removesuffix(".txt"), missing)
        if nearest and name != f"{nearest}.txt":
            raise DataError(f"{folder.path / place / name}: no task has that name. Did you mean '{nearest}.txt'?")
    if not present:
        raise DataError(f"{folder.path / place} has no file TASK.txt of {', '.join(missing)}. {folder.needs()}")
    if missing:
        folder.notes.append(f"{len(missing)} of 14 tasks are absent and count as 0: {', '.join(missing)}")
