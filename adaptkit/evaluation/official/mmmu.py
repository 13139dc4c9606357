"""MMMU: letters, and short answers that are compared as numbers or by what they contain."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.files.folder import FileFolder, check, mean

_DOMAINS = {
    "Art and Design": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Health and Medicine": "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy "
    "Public_Health",
    "Humanities and Social Science": "History Literature Sociology Psychology",
    "Tech and Engineering": "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power "
    "Materials Mechanical_Engineering",
}
MULTIPLE_CHOICE = "multiple-choice"
_MARKERS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = tuple(":,.!?;'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # with thousands
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),  # scientific
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
_MAX_LIST_CHARS = 10_000
Value = str | float


def score(folder: FileFolder) -> dict[str, Any]:
    """By the release's `main_eval_only.py`, which only counts questions that are answered; raw responses, if any."""
    scores: dict[str, Any] = {"model": folder.path.resolve().name, "official_main_eval_only": _official(folder)}
    if folder.has("responses.jsonl"):
        scores["responses"] = _responses(folder)
    return scores


def parse_choice(response: str, letters: Sequence[str], options: Mapping[str, str]) -> str | None:
    """The letter that a response chooses; None where the official parser would draw one at random."""
    for character in ",.!?;:'":
        response = response.strip(character)
    response = f" {response} "
    forms = {letter: f"({letter})" for letter in letters}
    if not any(form in response for form in forms.values()):
        forms = {letter: f" {letter} " for letter in letters}
    if not any(form in response for form in forms.values()) and len(response.split()) > 5:
        response, forms = response.lower(), {letter: text.lower() for letter, text in options.items()}
    found = [letter for letter, form in forms.items() if form in response]
    return max(found, key=lambda letter: response.rfind(forms[letter]), default=None)


def parse_open(response: str) -> list[Value]:
    """What a response may mean: its key phrases and the numbers in them, normalised."""
    phrases = list(_key_phrases(response))
    numbers = [number for phrase in phrases for pattern in _NUMBERS for number in pattern.findall(phrase)]
    return list(dict.fromkeys(value for text in (*phrases, *numbers) for value in normalise(text)))


def normalise(text: str) -> list[Value]:
    """A number with two decimals, or text in small letters; a single letter only counts as a word's end or start."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def is_right_open(gold: str | Sequence[str], values: Sequence[Value]) -> bool:
    """Whether a number equals a right one, or a text contains a right one."""
    right = [value for answer in ([gold] if isinstance(gold, str) else gold) for value in normalise(answer)]
    texts = [value for value in right if isinstance(value, str)]
    return any(any(text in value for text in texts) if isinstance(value, str) else value in right for value in values)


def _key_phrases(response: str) -> Iterator[str]:
    response = response.strip().strip(".").lower()
    parts = response.split("\n")
    found = False
    for number, part in enumerate(parts, start=1):
        markers = (*_MARKERS, "=") if number == len(parts) else _MARKERS
        tails = [part.split(marker)[-1].strip() for marker in markers if marker in part]
        shortest = _shortest(tails)
        if shortest and shortest not in _TRIVIAL:
            found = True
            yield shortest
    if not found:
        yield response


def _shortest(tails: Sequence[str]) -> str:
    """As the official parser keeps it: an empty tail is replaced by whatever comes next."""
    shortest = ""
    for tail in tails:
        if not shortest or len(tail) < len(shortest):
            shortest = tail
    return shortest


def _official(folder: FileFolder) -> dict[str, Any]:
    questions = folder.json("answer_dict_val.json", dict)
    place = folder.path / "total_val_output.json"
    outputs = folder.json("total_val_output.json", dict)
    answers = folder.by_key(((str(place), key, value) for key, value in outputs.items()), questions, "id")
    right: dict[str, list[bool]] = {}
    for key, answer in answers.items():
        where = f"{folder.path / 'answer_dict_val.json'}, {key}"
        check(questions[key], where, question_type=str, ground_truth=(str, list))
        check(outputs, str(place), **{key: str})
        gold = read_gold(questions[key]["ground_truth"], where)
        is_choice = questions[key]["question_type"] == MULTIPLE_CHOICE
        verdict = answer in _as_list(gold) if is_choice else is_right_open(gold, parse_open(answer))
        right.setdefault(subject_of(key), []).append(verdict)
    unknown = set(right) - {subject for subjects in _DOMAINS.values() for subject in subjects.split()}
    if unknown:
        folder.notes.append(f"subjects that are not MMMU's are omitted: {', '.join(sorted(unknown))}")
    return by_subject(right)


def by_subject(right: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    """Accuracy by domain and subject, and overall, as rounded accuracies weighed by their number of questions."""
    table: dict[str, Any] = {}
    overall: list[Sequence[bool]] = []
    for domain, names in _DOMAINS.items():
        subjects = {name: right[name] for name in names.split() if name in right}
        table[f"Overall-{domain}"] = _weighed(list(subjects.values()))
        table |= {name: _weighed([answers]) for name, answers in subjects.items()}
        overall += subjects.values()
    return {**table, "Overall": _weighed(overall)}


def _weighed(groups: Sequence[Sequence[bool]]) -> dict[str, float]:
    number = sum(map(len, groups))
    accuracy = sum(mean(group) * len(group) for group in groups) / number if number else 0
    return {"num": number, "acc": round(accuracy, 3)}


def _responses(folder: FileFolder) -> dict[str, int]:
    rows = folder.rows("responses.jsonl", question_type=str, answer=(str, list), response=str)
    num_random = num_right = 0
    for where, row in rows:
        gold = read_gold(row["answer"], where)
        if row["question_type"] != MULTIPLE_CHOICE:
            num_right += is_right_open(gold, parse_open(row["response"]))
            continue
        check(row, where, all_choices=list, index2ans=dict)
        check(
            row["index2ans"],
            f"{where}, index2ans",
            **dict.fromkeys(map(str, (*row["all_choices"], *row["index2ans"])), str),
        )
        letter = parse_choice(row["response"], row["all_choices"], row["index2ans"])
        num_random += letter is None
        num_right += letter is not None and letter in _as_list(gold)
    return {"n": len(rows), "random_fallback": num_random, "correct_without_fallback": num_right}


def subject_of(key: str) -> str:
    """The subject in the id of a question, `validation_Art_Theory_1`."""
    return "_".join(key.split("_")[1:-1])


def _as_list(gold: str | Sequence[str]) -> Sequence[str]:
    return [gold] if isinstance(gold, str) else gold


def read_gold(gold: Any, where: str) -> str | list[str]:
    """A right answer or several, which may be written as a Python list."""
    if isinstance(gold, str) and gold.startswith("[") and gold.endswith("]") and len(gold) <= _MAX_LIST_CHARS:
        try:
            read = ast.literal_eval(gold)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return gold
        gold = read if isinstance(read, list) and all(isinstance(one, str) for one in read) else gold
    if isinstance(gold, list) and not all(isinstance(one, str) for one in gold):
        raise DataError(f"{where}: the right answers must be text")
    return gold  # type: ignore[no-any-return]
