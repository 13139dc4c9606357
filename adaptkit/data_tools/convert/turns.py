"""Questions and answers about media as conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from adaptkit.data_tools.convert.writing import Row, Summary, WriteOptions, is_unicode, media_path, write_rows

SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER_ANSWER = "Answer with the option's letter from the given choices directly."
"""LLaVA-1.5's instructions."""


class Turn(NamedTuple):
    """A question about a medium, and its answer.

    Attributes:
        id: Of the question, unique in the file.
        file: The medium's path in the release; None where there is none.
        question: Without a tag.
        answer: What is learned.
    """

    id: str
    file: str | None
    question: str
    answer: str


@dataclass(frozen=True)
class TurnOptions(WriteOptions):
    """How conversations are made of questions.

    Attributes:
        group: One conversation a question, or one for all questions about a medium.
        max_turns: Questions of one conversation; a medium with more has several. None: no limit.
        instruction: Put on a line after the first question of a conversation; empty for none. None: the dataset's own.
    """

    group: Literal["question", "picture"] = "question"
    max_turns: int | None = None
    instruction: str | None = None


@dataclass
class TurnSummary(Summary):
    """What a conversion wrote and skipped.

    Attributes:
        modality: Key of media in the file.
        nouns: What a medium is called, and several.
        num_answers: In the file.
    """

    modality: str = "image"
    nouns: tuple[str, str] = ("picture", "pictures")
    num_answers: int = 0
    _files: set[str] = field(default_factory=set, repr=False)

    @property
    def num_media(self) -> int:
        """Media that have a conversation."""
        return len(self._files)

    def count(self, row: Row) -> None:
        """Take a conversation into account that was written."""
        super().count(row)
        self.num_answers += len(row["conversations"]) // 2
        files = row.get(self.modality, [])
        self._files.update([files] if isinstance(files, str) else files)

    def counts(self) -> Iterator[tuple[int, str, str]]:
        """How many of what were written, as number, singular and plural."""
        yield self.num_media, *self.nouns
        yield from super().counts()
        yield self.num_answers, "answer", "answers"


def _on_its_own_line(tag: str, text: str) -> str:
    return f"{tag}\n{text}" if tag else text


def write_turns(
    turns: Iterable[Turn],
    output: Path,
    options: TurnOptions,
    skipped: Counter[str],
    instruction: str = "",
    summary: TurnSummary | None = None,
    place_tag: Callable[[str, str], str] = _on_its_own_line,
) -> TurnSummary:
    """Write questions and answers as a LLaVA file, which appears when it is complete.

    Args:
        turns: Read one by one; where they are grouped, all at once.
        output: The JSON file; its folder is made.
        options: How conversations are made.
        skipped: Number of items skipped before and here, by reason.
        instruction: The dataset's own.
        summary: What is counted, and of which modality; by default pictures.
        place_tag: Makes the first text of a conversation of the modality's tag, which is empty without a medium, and
            the first question.

    Raises:
        DataError: There is nothing to write.
    """
    summary = summary or TurnSummary(output)
    summary.path, summary.skipped = output, skipped
    ending = instruction if options.instruction is None else options.instruction
    usable = (turn for turn in map(_cleaned(summary, options, skipped), turns) if turn is not None)
    groups: Iterable[Sequence[Turn]] = ([turn] for turn in usable)
    if options.group == "picture":
        groups = _grouped(usable, options.max_turns)
    write_rows((_row(group, ending, summary.modality, place_tag) for group in groups), options, summary)
    return summary


def _cleaned(summary: TurnSummary, options: TurnOptions, skipped: Counter[str]) -> Callable[[Turn], Turn | None]:
    """What makes a turn fit to be written; None, and counted, where it cannot be."""
    tag = f"<{summary.modality}>"

    def clean(turn: Turn) -> Turn | None:
        question, answer = turn.question.replace(tag, " ").strip(), turn.answer.strip()
        if not question or not answer:
            skipped["empty questions" if not question else "questions without an answer"] += 1
        elif not is_unicode(turn.id + question + answer):
            skipped["questions that are not Unicode"] += 1
        elif turn.file is None:
            return Turn(turn.id, None, question, answer)
        elif (path := media_path(turn.file, summary.nouns[1], options, skipped)) is not None:
            return Turn(turn.id, path, question, answer)
        return None

    return clean


def _grouped(turns: Iterable[Turn], max_turns: int | None) -> Iterator[Sequence[Turn]]:
    """Turns about the same medium, in the order in which media first occur."""
    by_file: dict[str | int, list[Turn]] = {}
    for number, turn in enumerate(turns):
        by_file.setdefault(number if turn.file is None else turn.file, []).append(turn)
    for found in by_file.values():
        size = max_turns or len(found)
        yield from (found[start : start + size] for start in range(0, len(found), size))


def _row(turns: Sequence[Turn], instruction: str, modality: str, place_tag: Callable[[str, str], str]) -> Row:
    first = turns[0]
    opening = f"{first.question}\n{instruction}" if instruction else first.question
    questions = [
        place_tag(f"<{modality}>" if first.file is not None else "", opening),
        *(turn.question for turn in turns[1:]),
    ]
    conversations = []
    for question, turn in zip(questions, turns):
        conversations += [{"from": "human", "value": question}, {"from": "gpt", "value": turn.answer}]
    media = {} if first.file is None else {modality: first.file}
    return {"id": first.id, **media, "conversations": conversations}
