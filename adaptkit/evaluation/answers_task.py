"""The evaluation task `answers`: what held-out conversations answer, a model should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.chat.boxes import parse_box, unpad_box
from adaptkit.chat.encoding import split_reasoning
from adaptkit.errors import DataError, unknown_name
from adaptkit.evaluation.harness import Progress, QuestionCounter, WorkflowsTask, describe_harness, unwatched
from adaptkit.evaluation.options import AnswersTaskOptions
from adaptkit.evaluation.questions import Question, normalize_answer
from adaptkit.evaluation.scores import by_kind, evaluate_grounding, evaluate_questions, merge
from adaptkit.interfaces import REASONING_KEYS, DataSource, Evaluation, Message, Sample, more_of

MAX_KINDS = 20
"""Scores are broken down by right answer where there are no more different ones."""


class AnswersTask(WorkflowsTask):
    """Asks the last question of each conversation of some datasets.

    An answer is right where it equals the dataset's after lower-casing and normalizing whitespace; where the dataset
    answers with a box, where a box of the model's has an IoU of 0.5 or more with it.
    """

    def __init__(self, options: AnswersTaskOptions) -> None:
        self.options = options

    def evaluate_workflows(  # type: ignore[override]  # it needs sources
        self,
        workflows: Mapping[str, tuple[Any, Any]],
        *,
        sources: Mapping[str, DataSource | None],
        limit: int | None = None,
        seed: int = 0,
        data: Path | None = None,
        progress: Progress = unwatched,
    ) -> Evaluation:
        """Score a run's workflows.

        Args:
            sources: The datasets that the options name; None for one of `training` that is not available.
            limit: Conversations of each dataset; all where not given.
            seed: Draws them, where there are more.
            data: Not used: the caller has opened the sources.

        Returns:
            A section for each dataset: `accuracy`, or `acc@0.5` for boxes, beside `blind` and `majority`.

        Raises:
            DataError: A workflow or dataset is unknown, or a dataset has no usable conversation.
        """
        evaluations = []
        for name in self.options.datasets:
            workflow = _workflow(self.options.workflows.get(name), workflows)
            model, processor = workflows[workflow]
            source = _source(name, sources)
            if source is None:
                raise DataError(f"the dataset {name!r} is not on this machine")
            questions, unusable = read_questions(source, processor, limit, seed)
            training, asked = self._majority_of(name, questions, sources, processor)
            advance = QuestionCounter(progress, 2 * len(questions)).on(name)
            batch_size = self.options.batch_size
            if all(question.box for question in questions):
                evaluation = evaluate_grounding(
                    model, processor, questions, section=name, batch_size=batch_size, advance=advance
                )
            else:
                evaluation = evaluate_questions(
                    model, processor, questions, asked, section=name, batch_size=batch_size, advance=advance
                )
                evaluation = _by_answer(evaluation, name)
            evaluation.results[name] |= {"unusable": unusable, "workflow": workflow}
            evaluation.results[name]["harness"] = describe_harness(
                model, task="answers", dataset=name, majority_of=training, seed=seed, limit=limit
            )
            evaluations.append(evaluation)
        return merge(evaluations)

    def _majority_of(
        self, name: str, questions: list[Question], sources: Mapping[str, DataSource | None], processor: Any
    ) -> tuple[str, list[Question]]:
        """The dataset whose most frequent answer is the baseline of another, and its questions."""
        training = self.options.training.get(name)
        source = None if training is None else _source(training, sources)
        if training is not None and source is not None:
            with suppress(DataError):  # nothing in it can be used, and it is not what is asked about
                return training, read_questions(source, processor)[0]
        return name, questions


def read_questions(
    source: DataSource, processor: Any, limit: int | None = None, seed: int = 0
) -> tuple[list[Question], int]:
    """The last question of each conversation, and how many conversations could not be read.

    Args:
        limit: Conversations to read; all where not given.
        seed: Draws them, where there are more.

    Raises:
        DataError: None can be used; the message is that of the first.
    """
    indices: Sequence[int] = range(len(source))
    if limit is not None and limit < len(source):
        indices = sorted(np.random.default_rng(seed).permutation(len(source))[:limit].tolist())
    questions, problems = [], []
    for index in indices:
        try:
            questions.append(_question(source[index], processor))
        except DataError as error:
            problems.append(str(error))
    if not questions:
        raise DataError(f"no usable conversation among {len(problems)}: {problems[0] if problems else 'it is empty'}")
    return questions, len(problems)


def _question(sample: Sample, processor: Any) -> Question:
    *turns, last = sample.messages
    if last["role"] != "assistant" or not turns:
        raise DataError(f"{sample.location}: a conversation to ask must end with the assistant's answer")
    expected = _text(last)
    media = tuple(
        (part["type"], part[part["type"]]) for turn in turns for part in turn["content"] if part["type"] != "text"
    )
    more = more_of(last)
    if not more.keys() & {*REASONING_KEYS}:
        inline, expected = split_reasoning(expected, processor.chat_template or "")
        more |= inline
    reasoning = next((str(more[key]) for key in REASONING_KEYS if key in more), "")
    question = Question("", _text(turns[-1]), expected, media=media, conversation=tuple(turns), reasoning=reasoning)
    box = parse_box(expected)
    size = _size(media, processor) if box is not None else None
    return question if box is None or size is None else replace(question, box=unpad_box(box, *size), size=size)


def _size(media: Sequence[tuple[str, Any]], processor: Any) -> tuple[int, int] | None:
    """Pixels of the first medium that boxes can lie in."""
    for name, source in media:
        if name in processor.modalities:
            modality = processor.modalities[name].modality
            size: tuple[int, int] | None = modality.box_size(modality.load(source))
            if size is not None:
                return size
    return None


def _text(turn: Message) -> str:
    return "".join(part["text"] for part in turn["content"] if part["type"] == "text").strip()


def _by_answer(evaluation: Evaluation, section: str) -> Evaluation:
    """Break scores down by right answer, where there are few of them."""
    scores = {
        key: value for key, value in evaluation.results[section].items() if not key.endswith(("by_type", "_answers"))
    }
    majority = next(iter(evaluation.results[section]["majority_answers"].values()), "")
    scores["majority_answer"] = majority
    questions = [replace(a.question, kind=normalize_answer(a.question.expected)) for a in evaluation.answers]
    counts = Counter(sorted(question.kind for question in questions))
    answers = evaluation.answers
    if 1 < len(counts) <= MAX_KINDS:
        blind = [normalize_answer(a.blind or "") == question.kind for a, question in zip(answers, questions)]
        scores["by_type"] = dict(sorted(by_kind(questions, [a.right for a in answers]).items()))
        scores["blind_by_type"] = by_kind(questions, blind)
        scores["n_by_type"] = dict(counts)
        answers = [replace(answer, question=question) for answer, question in zip(answers, questions)]
    else:
        answers = [replace(a, question=replace(a.question, kind=section)) for a in answers]
    return Evaluation({section: scores}, answers)


def _workflow(name: str | None, workflows: Mapping[str, tuple[Any, Any]]) -> str:
    """The name of the workflow that is asked."""
    if name is None or list(workflows) == [""]:
        return next(iter(workflows))
    if name not in workflows:
        raise DataError(unknown_name("workflow", name, workflows))
    return name


def _source(name: str, sources: Mapping[str, DataSource | None]) -> DataSource | None:
    if name not in sources:
        raise DataError(unknown_name("dataset", name, sources))
    return sources[name]
