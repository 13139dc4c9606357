"""DocVQA, TextVQA, VQA v2, VSR and ScienceQA: questions about pictures as conversations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from adaptkit.data_tools.convert.turns import (
    LETTER_ANSWER,
    SHORT_ANSWER,
    Turn,
    TurnOptions,
    TurnSummary,
    write_turns,
)
from adaptkit.errors import DataError
from adaptkit.files.json_stream import Progress
from adaptkit.releases.entries import Skipped
from adaptkit.releases.questions import VisualQuestion, read_docvqa, read_textvqa, read_vqa
from adaptkit.releases.scienceqa import (
    ALL_SPLITS,
    Problem,
    check_prompt_format,
    lavin_prompt,
    letter_prompt,
    read_captions,
    read_scienceqa,
)
from adaptkit.releases.vsr import TRUE_FALSE, YES_NO, read_vsr

T = TypeVar("T")

DEFAULT = TurnOptions()
PER_PICTURE = TurnOptions(group="picture")
LETTER = "letter"
_VSR_FORMS = {"yes-no": (YES_NO, "Yes", "No"), "true-false": (TRUE_FALSE, "True", "False")}


def convert_docvqa(
    files: Sequence[Path], output: Path, options: TurnOptions = DEFAULT, progress: Progress | None = None
) -> TurnSummary:
    """Write DocVQA's questions, with the first of their answers, as conversations.

    Args:
        files: `train_v1.0_withQT.json`, `val_v1.0_withQT.json`, or some of them.
        output: The JSON file to write.
        options: How conversations are made.
        progress: Called with the progress.

    Raises:
        DataError: A file is missing or malformed, or holds nothing to write.
    """
    skipped = Skipped()
    questions = (question for file in files for question in read_docvqa(file, skipped, progress))
    return write_turns(_turns("docvqa", questions), output, options, skipped, SHORT_ANSWER)


def convert_textvqa(
    files: Sequence[Path], output: Path, options: TurnOptions = DEFAULT, progress: Progress | None = None
) -> TurnSummary:
    """Write TextVQA's questions, with the most frequent of their answers; as `convert_docvqa`.

    Args:
        files: `TextVQA_0.5.1_train.json`, `TextVQA_0.5.1_val.json`, or both.
        output: The JSON file to write.
        options: How conversations are made.
        progress: Called with the progress.
    """
    skipped = Skipped()
    questions = (question for file in files for question in read_textvqa(file, skipped, progress))
    return write_turns(_turns("textvqa", questions), output, options, skipped, SHORT_ANSWER)


def convert_vqav2(
    questions: Path,
    annotations: Path,
    output: Path,
    options: TurnOptions = PER_PICTURE,
    progress: Progress | None = None,
) -> TurnSummary:
    """Write VQA v2's questions, with the answer that the release chose, as conversations.

    Args:
        questions: `v2_OpenEnded_mscoco_train2014_questions.json`, or another split's.
        annotations: `v2_mscoco_train2014_annotations.json`, of the same split.
        output: The JSON file to write.
        options: How conversations are made; by default one a picture, as in LLaVA-1.5's data.
        progress: Called with the progress.

    Raises:
        DataError: A file is missing or malformed, or holds nothing to write.
    """
    skipped = Skipped()
    found = read_vqa(questions, annotations, skipped, progress)
    return write_turns(_turns("vqav2", found), output, options, skipped, SHORT_ANSWER)


def _turns(name: str, questions: Iterable[VisualQuestion]) -> Iterator[Turn]:
    for question in questions:
        yield Turn(f"{name}_{question.id}", question.file, question.question, question.answer)


def convert_vsr(
    files: Sequence[Path],
    output: Path,
    options: TurnOptions = DEFAULT,
    progress: Progress | None = None,
    *,
    form: Literal["yes-no", "true-false"] = "yes-no",
) -> TurnSummary:
    """Write VSR's sentences as questions whether they are true.

    Args:
        files: `train.jsonl`, `dev.jsonl`, `test.jsonl`, or some of them.
        output: The JSON file to write.
        options: How conversations are made.
        progress: Called with the files read.
        form: Words of question and answer.

    Raises:
        DataError: A file is missing or malformed, holds nothing to write, or two have the same name.
    """
    if len({file.stem for file in files}) < len(files):
        raise DataError(f"two files have one name, which ids begin with: {', '.join(map(str, files))}. Rename one.")
    skipped = Skipped()
    prompt, yes, no = _VSR_FORMS[form]
    turns = (
        Turn(f"vsr_{found.id}", found.file, prompt.format(found.text.strip()), yes if found.is_true else no)
        for file in _followed(files, progress)
        for found in read_vsr(file, skipped)
        if _says_something(found.text, skipped)
    )
    return write_turns(turns, output, options, skipped, SHORT_ANSWER)


def _followed(items: Sequence[T], progress: Progress | None) -> Iterator[T]:
    """Items, with how many of them are done."""
    for number, item in enumerate(items, start=1):
        yield item
        if progress is not None:
            progress(number, len(items), "reading")


def _says_something(text: str, skipped: Skipped) -> bool:
    if not text.strip():
        skipped["empty sentences"] += 1
    return bool(text.strip())


def convert_scienceqa(
    folder: Path,
    output: Path,
    options: TurnOptions = DEFAULT,
    progress: Progress | None = None,
    *,
    splits: Sequence[str] = ("train",),
    prompt_format: str = LETTER,
    captions: Path | None = None,
) -> TurnSummary:
    """Write ScienceQA's problems as conversations; those without a picture are about text alone.

    Args:
        folder: Holds `problems.json`, `pid_splits.json` and `images`.
        output: The JSON file to write.
        options: How conversations are made.
        progress: Called with the splits read.
        splits: Which are written; `all` is `train`, `val` and `test`.
        prompt_format: `letter` asks for the letter, as LLaVA does; `QCM-ALE` and the like are LaVIN's.
        captions: `captions.json`, whose captions LaVIN's prompts have in their context.

    Raises:
        DataError: A file is missing or malformed, a split or format does not exist, or there is nothing to write.
    """
    skipped = Skipped()
    names = ALL_SPLITS if "all" in splits else splits
    problems = (one for split in _followed(names, progress) for one in read_scienceqa(folder, [split], skipped))
    if prompt_format == LETTER:
        if captions is not None:
            raise DataError(f"captions stand in LaVIN's prompts, not in the format {LETTER}: choose QCM-ALE or another")
        return write_turns(map(_letter_turn, problems), output, options, skipped, LETTER_ANSWER)
    check_prompt_format(prompt_format)
    known = {} if captions is None else read_captions(captions)
    turns = (_lavin_turn(problem, prompt_format, known.get(problem.id, "")) for problem in problems)
    return write_turns(turns, output, options, skipped, place_tag=_as_lavin_does)


def _letter_turn(problem: Problem) -> Turn:
    return Turn(f"scienceqa_{problem.id}", problem.file, letter_prompt(problem), problem.letter)


def _lavin_turn(problem: Problem, prompt_format: str, caption: str) -> Turn:
    return Turn(f"scienceqa_{problem.id}", problem.file, *lavin_prompt(problem, prompt_format, caption))


def _as_lavin_does(tag: str, text: str) -> str:
    return f"Image: {tag or 'N/A'}{text}"
