"""C-Eval: a letter, or the letter at the end of a chain of thought."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.files.folder import FileFolder, mean

LETTERS = "ABCD"
SUFFIX = "_val.csv"
_END = r"[.。$]?$"
_STOP = r"[。\.]?$"
# In the order in which they are tried; X stands for the letter. Some take a full stop with it, and the answer is wrong.
_PATTERNS = (
    *(rf"答案{then}X" for then in (r"是?\s?", r"是?\s?：", r"是?\s?:", r"应该?是\s?", r"应该?选\s?", r"为\s?")),
    r"选择\s?X",
    *(rf"只有选?项?\s?X{then}" for then in (r"\s?是?对", r"\s?是?错", r"\s?不?正确", r"\s?错误")),
    *(rf"说法{which}选?项?的?是\s?X" for which in ("不?对", "不?正确", "错误")),
    r"X\s?是正确的",
    r"X\s?是正确答案",
    r"选项\s?X\s?正确",
    r"所以答\s?X",
    rf"1.\s?X{_END}",
    *(rf"{opening}\s?(?P<with_end>[ABCD]{_END})" for opening in ("所以", "所有")),
    r"[\s，：:,]X[。，,\.]?$",
    rf"[\s，,：:][故即]X{_STOP}",
    rf"[\s，,：:]因此X{_STOP}",
    rf"[是为。]\s?X{_STOP}",
    *(rf"{opening}\s?X{_STOP}" for opening in ("因此", "显然")),
    r"1.\s?(.*?)$",
    *(rf"答案{verb}\s?(\S+)(?:。|$)" for verb in ("是", "应该是", "为")),
)
_COMPILED = tuple(re.compile(pattern.replace("X", "([ABCD])")) for pattern in _PATTERNS)


def score(folder: FileFolder) -> dict[str, Any]:
    """Averages weigh subjects equally, as C-Eval does; subjects that nobody answered are omitted."""
    rows = folder.rows("predictions.jsonl", subject=str, id=(int, str), prediction=str)
    questions = dict(_questions(folder))
    answers = folder.by_key(
        ((where, (row["subject"], str(row["id"])), row["prediction"]) for where, row in rows),
        questions,
        "subject and id",
    )
    answered = {subject for subject, _ in answers}
    by_subject: dict[str, list[bool]] = defaultdict(list)
    for key, question in questions.items():
        if key[0] in answered:
            by_subject[key[0]].append(key in answers and is_right(answers[key], question))
    scores = mean_of_subjects(by_subject)
    return {**scores, "by_category_mean_of_subjects": _by_category(folder, scores["per_subject"])}


def mean_of_subjects(right: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    """Percentages of right answers by subject, and their mean, in which all subjects weigh the same."""
    per_subject = {subject: 100 * sum(answers) / len(answers) for subject, answers in right.items()}
    return {"per_subject": per_subject, "average_over_subjects": mean(per_subject.values())}


def extract_letter(text: str) -> str | None:
    """What the first pattern that occurs in a chain of thought takes from it: mostly a letter."""
    found = next(filter(None, (pattern.search(text) for pattern in _COMPILED)), None)
    return None if found is None else found[1]


def is_right(answer: str, question: dict[str, str]) -> bool:
    """Whether an answer is the letter, or a chain of thought that ends in it or in the right choice's text."""
    gold = question["answer"].strip()
    taken = answer if answer in LETTERS and answer else extract_letter(answer)
    return taken in (gold, question[gold])


def _questions(folder: FileFolder) -> Iterator[tuple[tuple[str, str], dict[str, str]]]:
    names = folder.names("data/val", SUFFIX)
    if not names:
        raise DataError(f"{folder.path / 'data/val'} has no file SUBJECT{SUFFIX}. {folder.needs()}")
    for name in names:
        for where, row in folder.table(f"data/val/{name}", "id", "question", *LETTERS, "answer"):
            if row["answer"].strip() not in tuple(LETTERS):
                raise DataError(f"{where}: the answer must be a letter of {LETTERS}, not {row['answer']!r:.40}")
            yield (name.removesuffix(SUFFIX), row["id"].strip()), row


def _by_category(folder: FileFolder, per_subject: dict[str, float]) -> dict[str, float]:
    mapping = folder.json("subject_mapping.json", dict)
    groups: dict[str, list[float]] = defaultdict(list)
    for subject, accuracy in per_subject.items():
        names = mapping.get(subject)
        if not isinstance(names, list) or len(names) != 3 or not isinstance(names[2], str):
            place = folder.path / "subject_mapping.json"
            raise DataError(f"{place}: {subject!r} must map to its English name, Chinese name and category")
        groups[names[2]].append(accuracy)
    return {category: mean(accuracies) for category, accuracies in groups.items()}
