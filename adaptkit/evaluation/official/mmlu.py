"""MMLU: the most likely of four letters."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.files.folder import FileFolder, check, mean

LETTERS = "ABCD"
_CATEGORIES = {
    "STEM": """abstract_algebra astronomy college_biology college_chemistry college_computer_science
        college_mathematics college_physics computer_security conceptual_physics electrical_engineering
        elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science
        high_school_mathematics high_school_physics high_school_statistics machine_learning""",
    "humanities": """formal_logic high_school_european_history high_school_us_history high_school_world_history
        international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory
        professional_law world_religions""",
    "social sciences": """econometrics high_school_geography high_school_government_and_politics
        high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality
        professional_psychology public_relations security_studies sociology us_foreign_policy""",
    "other (business, health, misc.)": """anatomy business_ethics clinical_knowledge college_medicine global_facts
        human_aging management marketing medical_genetics miscellaneous nutrition professional_accounting
        professional_medicine virology""",
}
CATEGORY_OF = {subject: category for category, subjects in _CATEGORIES.items() for subject in subjects.split()}
SUFFIX = "_test.csv"


def score(folder: FileFolder) -> dict[str, Any]:
    """Averages weigh by question, as in the authors' script; subjects that nobody answered are omitted."""
    rows = folder.rows("logprobs.jsonl", subject=str, row=int, logprobs=dict)
    gold = dict(_gold(folder))
    answers = folder.by_key(
        ((where, (row["subject"], row["row"]), _likeliest(where, row["logprobs"])) for where, row in rows),
        gold,
        "subject and row",
    )
    answered = {subject for subject, _ in answers}
    right: dict[str, list[int]] = defaultdict(list)
    for (subject, row), letter in gold.items():
        if subject in answered:
            right[subject].append(int(answers.get((subject, row)) == letter))
    if any(subject not in CATEGORY_OF for subject in right):
        folder.notes.append("subjects that are not MMLU's are in no category")
    return by_subject(right)


def by_subject(subjects: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Averages of the right answers, 1, and wrong ones, 0, to each subject's questions."""
    by_category: dict[str, list[int]] = {category: [] for category in _CATEGORIES}
    for subject, right in subjects.items():
        if subject in CATEGORY_OF:
            by_category[CATEGORY_OF[subject]] += right
    return {
        "per_subject": {subject: mean(right) for subject, right in subjects.items()},
        "average": mean(one for right in subjects.values() for one in right),
        "mean_of_subjects": mean(mean(right) for right in subjects.values()),
        "by_category": {category: mean(right) for category, right in by_category.items() if right},
    }


def _gold(folder: FileFolder) -> Iterator[tuple[tuple[str, int], str]]:
    names = folder.names("data/test", SUFFIX)
    if not names:
        raise DataError(f"{folder.path / 'data/test'} has no file SUBJECT{SUFFIX}. {folder.needs()}")
    for name in names:
        for number, (where, cells) in enumerate(folder.cells(f"data/test/{name}")):
            if len(cells) != 6 or cells[-1].strip() not in LETTERS or not cells[-1].strip():
                raise DataError(f"{where}: six cells are needed: question, four choices, and a letter of {LETTERS}")
            yield (name.removesuffix(SUFFIX), number), cells[-1].strip()


def _likeliest(where: str, logprobs: dict[str, Any]) -> str:
    """Of equal ones the first."""
    check(logprobs, f"{where}, logprobs", **dict.fromkeys(LETTERS, (int, float)))
    if any(math.isnan(logprobs[letter]) for letter in LETTERS):
        raise DataError(f"{where}: a log-probability is not a number")
    return max(LETTERS, key=lambda letter: logprobs[letter])
