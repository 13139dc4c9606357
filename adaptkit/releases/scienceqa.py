"""ScienceQA: its problems, and the prompts that the release and LaVIN make of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError, unknown_name
from adaptkit.files.folder import FileFolder, check
from adaptkit.releases.entries import Skipped, read_entries

LAYOUT = {
    "problems.json": "the questions",
    "pid_splits.json": "the ids of each split",
    "images/SPLIT/ID/image.png": "the pictures",
}
ALL_SPLITS = ("train", "val", "test")
LETTERS = "ABCDE"
INPUT_FORMATS = ("CQM", "QCM", "QCML", "QCME", "QCMLE", "QCLM", "QCEM", "QCLEM")
OUTPUT_FORMATS = ("A", "AL", "AE", "ALE", "AEL", "LA", "EA", "LEA", "ELA")


@dataclass(frozen=True)
class Problem:
    """A question with choices.

    Attributes:
        id: In the release.
        question: Its text.
        choices: Two to five.
        answer: Index of the right one.
        hint: Context in words; may be empty.
        file: The picture's path in the release; None without one.
        lecture: Background; may be empty.
        solution: Why the answer is right; may be empty.
        split: `train`, `val` or `test`.
        grade: `grade1` to `grade12`.
        subject: Natural, social or language science.
        topic: Within the subject.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    hint: str = ""
    file: str | None = None
    lecture: str = ""
    solution: str = ""
    split: str = ""
    grade: str = ""
    subject: str = ""
    topic: str = ""

    @property
    def letter(self) -> str:
        """Letter of the right choice."""
        return LETTERS[self.answer]


def read_scienceqa(folder: Path, splits: Sequence[str], skipped: Skipped | None = None) -> Iterator[Problem]:
    """Problems of some splits, in the release's order.

    Args:
        folder: Holds `problems.json`, `pid_splits.json` and `images`.
        splits: Names in `pid_splits.json`.
        skipped: Counts malformed problems; None: they are errors.

    Raises:
        DataError: A file is missing or malformed, a split does not exist, or lists a problem that does not.
    """
    files = FileFolder(folder, LAYOUT)
    problems, listed = files.json("problems.json", dict), files.json("pid_splits.json", dict)
    place = folder / "problems.json"
    for split in splits:
        if split not in listed:
            raise DataError(f"{folder / 'pid_splits.json'}: {unknown_name('split', split, listed)}")
        check(listed, str(folder / "pid_splits.json"), **{split: list})
        ids = [str(key) for key in listed[split]]
        if missing := next((key for key in ids if key not in problems), None):
            raise DataError(f"{folder / 'pid_splits.json'}: {split!r} lists {missing!r}, which problems.json lacks")
        located = ((f"{place}, {key}", {**_as_dict(problems[key]), "id": key, "split": split}) for key in ids)
        yield from read_entries(located, _read_problem, "problems", skipped)


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_problem(entry: Mapping[str, Any], where: str) -> Problem:
    check(entry, where, question=str, choices=list, answer=int, hint=str, image=(str, type(None)))
    choices = tuple(entry["choices"])
    if not 2 <= len(choices) <= len(LETTERS) or not all(isinstance(choice, str) for choice in choices):
        raise DataError(f"{where}: 'choices' must be two to five texts")
    if not 0 <= entry["answer"] < len(choices):
        raise DataError(f"{where}: 'answer' is {entry['answer']}, and there are {len(choices)} choices")
    image, key, split = entry["image"], entry["id"], entry["split"]
    file = f"images/{split}/{key}/{image}" if image else None
    more = {name: str(entry.get(name) or "") for name in ("lecture", "solution", "grade", "subject", "topic")}
    return Problem(key, entry["question"], choices, entry["answer"], entry["hint"], file, split=split, **more)


def read_captions(path: Path) -> dict[str, str]:
    """Captions of pictures by problem, from `captions.json`."""
    captions = FileFolder(path.parent, {path.name: "captions of the pictures"}).json(path.name, dict).get("captions")
    if not isinstance(captions, dict) or not all(isinstance(caption, str) for caption in captions.values()):
        raise DataError(f"{path}: 'captions' must be an object of texts by problem")
    return captions


def check_prompt_format(name: str) -> None:
    """Raise `DataError` unless it is one of the release's, such as `QCM-ALE`."""
    known = [f"{given}-{asked}" for given in INPUT_FORMATS for asked in OUTPUT_FORMATS]
    if name not in known:
        raise DataError(unknown_name("prompt format", name, known))


def lavin_prompt(problem: Problem, prompt_format: str, caption: str = "") -> tuple[str, str]:
    """Question and answer in LaVIN's words, without the closing `Response:`, which its chat template adds.

    Letters of a format say what the question gives (Q question, C context, M choices, L lecture, E solution) and what
    the answer has (A the letter, L, E). As upstream, `AL` has the solution and `AE` the lecture, and an answer without
    reasons ends in `BECAUSE:`.

    Args:
        problem: What is asked.
        prompt_format: `QCM-ALE` and the like.
        caption: Of the picture, for the context.
    """
    given, asked = prompt_format.split("-")
    prompt = "\n".join(_given(problem, given, caption))
    return _collapsed(f"{prompt}\n"), _collapsed(_answer(problem, asked))


def _given(problem: Problem, letters: str, caption: str) -> Iterator[str]:
    """Lines of the question; reasons stand in one, where the first of their letters is."""
    because = " ".join(_reason(problem, letter) for letter in letters if letter in "LE")
    options = " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, problem.choices))
    lines = {
        "Q": f"Question: {problem.question}",
        "C": f"Context: {' '.join([problem.hint, caption]).strip() or 'N/A'}",
        "M": f"Options: {options}",
        "L": f"BECAUSE: {because}",
    }
    yield from (lines[letter.replace("E", "L")] for letter in letters.replace("LE", "L"))


def _answer(problem: Problem, letters: str) -> str:
    sentence = f"The answer is {problem.letter}."
    if letters in ("AL", "AE"):  # upstream has them the other way round
        letters = {"AL": "AE", "AE": "AL"}[letters]
    reasons = " ".join(_reason(problem, letter) for letter in letters if letter in "LE")
    if letters == "A":
        return sentence
    return f"{sentence} BECAUSE: {reasons}" if letters[0] == "A" else f"{reasons} {sentence}"


def _reason(problem: Problem, letter: str) -> str:
    return (problem.lecture if letter == "L" else problem.solution).replace("\n", "\\n")


def _collapsed(text: str) -> str:
    return text.replace("  ", " ").strip()


def letter_prompt(problem: Problem) -> str:
    """Hint, question and choices by letter, each on a line of its own, as LLaVA asks MMBench's questions."""
    choices = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, problem.choices)]
    return "\n".join([*([problem.hint.strip()] if problem.hint.strip() else []), problem.question.strip(), *choices])
