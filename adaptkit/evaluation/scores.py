"""Scores of a workflow's and a base's answers, each beside its baselines.

Every function takes questions from anywhere, and returns an `Evaluation` of one or more sections of
`results.json`; `merge` joins those of several workflows.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from adaptkit.evaluation.boxes import IOU_THRESHOLD, BoxVerdict, precision, score_boxes
from adaptkit.evaluation.questions import (
    Advance,
    Question,
    decode_answers,
    evaluation_mode,
    generate_answers,
    generate_ids,
    generation_settings,
    is_right,
    make_prompts,
    normalize_answer,
    require_modalities,
)
from adaptkit.evaluation.text_identity import TextProof, saved_prompts
from adaptkit.interfaces import Evaluation

BATCH_SIZE = 64

MAX_ANSWER_TOKENS = 64
"""Where a free answer to a saved prompt is cut off when its length is measured."""


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        question: What it was asked.
        text: Its answer.
        right: Whether that counts as right.
        verdict: How the boxes of a grounding answer fared.
        blind: The answer of the same workflow to the question without its media.
    """

    question: Question
    text: str
    right: bool
    verdict: BoxVerdict | None = None
    blind: str | None = None


def evaluate_questions(
    model: Any,
    processor: Any,
    questions: Sequence[Question],
    training_questions: Sequence[Question],
    *,
    section: str,
    batch_size: int = BATCH_SIZE,
    advance: Advance = lambda num: None,
) -> Evaluation:
    """Exact-match accuracy by kind, beside two baselines.

    Args:
        training_questions: Questions of the training split, whose most frequent answer of each kind is the
            majority baseline.
        advance: Called with the number of answered questions; twice the number of questions in all.

    Returns:
        `accuracy`, `blind` (the same workflow without media) and `majority`, each over all questions and by
        kind.
    """
    started = time.monotonic()
    texts, blind = _answer_twice(model, processor, questions, batch_size, advance)
    answers = [Answer(q, text, is_right(text, q), blind=b) for q, text, b in zip(questions, texts, blind)]
    majority = majority_answers(training_questions)
    columns = {
        "accuracy": [answer.right for answer in answers],
        "blind": [is_right(text, question) for text, question in zip(blind, questions)],
        "majority": [is_right(majority.get(q.kind, ""), q) for q in questions],
    }
    scores: dict[str, Any] = {name: mean(hits) for name, hits in columns.items()}
    scores |= {
        "by_type": by_kind(questions, columns["accuracy"]),
        "blind_by_type": by_kind(questions, columns["blind"]),
        "majority_by_type": by_kind(questions, columns["majority"]),
        "majority_answers": majority,
        "n": len(questions),
        "n_by_type": dict(Counter(question.kind for question in questions)),
        "seconds": round(time.monotonic() - started, 2),
    }
    return Evaluation({section: scores}, answers)


def evaluate_grounding(
    model: Any,
    processor: Any,
    questions: Sequence[Question],
    *,
    section: str = "grounding",
    batch_size: int = BATCH_SIZE,
    advance: Advance = lambda num: None,
) -> Evaluation:
    """Share of answers with a box of IoU 0.5 or more by the official RefCOCO rule, beside the blind baseline.

    Args:
        advance: Called with the number of answered questions; twice the number of questions in all.
    """
    started = time.monotonic()
    texts, blind = _answer_twice(model, processor, questions, batch_size, advance)
    verdicts = [score_question_boxes(question, text) for question, text in zip(questions, texts)]
    scores = {
        f"acc@{IOU_THRESHOLD}": round(precision(verdicts), 4),
        "blind": round(precision(score_question_boxes(q, text) for q, text in zip(questions, blind)), 4),
        "mean_iou": mean([max(verdict.ious, default=0.0) for verdict in verdicts]),
        "unreadable": mean([not verdict.boxes for verdict in verdicts]),
        "n": len(questions),
        "seconds": round(time.monotonic() - started, 2),
    }
    answers = [Answer(q, text, v.hit, v, b) for q, text, v, b in zip(questions, texts, verdicts, blind)]
    return Evaluation({section: scores}, answers)


def _answer_twice(
    model: Any, processor: Any, questions: Sequence[Question], batch_size: int, advance: Advance
) -> tuple[list[str], list[str]]:
    """Answers to questions with their media, and without."""
    require_modalities(processor, questions)
    both = [*questions, *(question.without_media() for question in questions)]
    texts = generate_answers(model, processor, both, batch_size=batch_size, advance=advance)
    return texts[: len(questions)], texts[len(questions) :]


class TextEvaluation:
    """Text accuracy and identity of a text workflow, against its base in a fresh process.

    Text is also sent through the adapted decoder, where no prompt needs to go: what is lost there is what
    training the decoder itself would have cost. How long answers are, there and from the base, is measured on the
    saved prompts (the paper's figure 4).

    The process starts with the object, so that other scoring can go on meanwhile; use it as a context manager
    and call `finish` inside. Where the base was never loaded from anywhere, what needs the process is None in
    the results, and `note` says why.

    Args:
        model: A workflow; its `base` is the text workflow.
        questions: Held-out questions without media.
    """

    def __init__(
        self, model: Any, processor: Any, questions: Sequence[Question], *, batch_size: int = BATCH_SIZE
    ) -> None:
        self._model, self._processor = model, processor
        self._base, self._questions = model.base, questions
        starts = range(0, len(questions), batch_size)
        self._batches = [make_prompts(processor, questions[i : i + batch_size]) for i in starts]
        self._settings = generation_settings(self._base, processor, questions)
        self._proof = TextProof(self._base, processor.tokenizer, batches=self._batches, generation=self._settings)

    def __enter__(self) -> TextEvaluation:
        return self

    def __exit__(self, *error: Any) -> None:
        self._proof.__exit__(*error)

    def finish(self, advance: Advance = lambda num: None) -> Evaluation:
        """Run the text workflow and the adapted decoder here, wait for the fresh process, and compare.

        Args:
            advance: Called with the number of answered questions; twice the number of questions in all.

        Raises:
            RunError: The fresh process failed.
        """
        started = time.monotonic()
        answers, adapted_answers = (self._answer(decoder, advance) for decoder in (self._base, self._model))
        right, adapted = self._score(answers), self._score(adapted_answers)
        scores: dict[str, Any] = {
            "base_accuracy": None,
            "workflow_accuracy": mean(right) if right else None,
            "adapted_accuracy": mean(adapted) if right else None,
            "logits_identical": None,
            "by_type": by_kind(self._questions, right),
            "adapted_by_type": by_kind(self._questions, adapted),
            "answer_words": {
                "base": answer_words(self._base, self._processor),
                "adapted": answer_words(self._model, self._processor),
            },
            "n": len(right),
        }
        proof, fresh = self._proof.result(answers)
        scores |= proof
        if fresh is not None:
            alone = self._score(fresh)
            scores |= {"base_accuracy": mean(alone) if alone else None, "base_by_type": by_kind(self._questions, alone)}
        scores["seconds"] = round(time.monotonic() - started, 2)
        return Evaluation({"text": scores}, proves_text=True)

    def _answer(self, decoder: Any, advance: Advance) -> list[list[int]]:
        """New ids of a decoder, the base or the adapted one, for each question."""
        config = GenerationConfig(**self._settings)
        answers: list[list[int]] = []
        with evaluation_mode(decoder), torch.no_grad():
            for batch in self._batches:
                answers += generate_ids(decoder, batch, config).tolist()
                advance(len(batch.input_ids))
        return answers

    def _score(self, answers: Sequence[Sequence[int]]) -> list[bool]:
        """Which questions are answered correctly."""
        texts = decode_answers(self._processor, answers) if answers else []
        return [is_right(text, question) for text, question in zip(texts, self._questions)]


def answer_words(decoder: Any, processor: Any) -> float:
    """Mean number of words of a decoder's answers to the saved text prompts, each asked as a user's turn."""
    questions = [Question("", prompt, "") for prompt in saved_prompts()]
    asked = make_prompts(processor, questions)
    positions = getattr(decoder.config.get_text_config(decoder=True), "max_position_embeddings", None)
    room = MAX_ANSWER_TOKENS if positions is None else max(1, int(positions) - asked.input_ids.shape[1])
    settings = generation_settings(decoder, processor, questions)
    settings |= {"max_new_tokens": min(MAX_ANSWER_TOKENS, room)}
    with evaluation_mode(decoder), torch.no_grad():
        answers = decode_answers(processor, generate_ids(decoder, asked, GenerationConfig(**settings)))
    return mean([len(answer.split()) for answer in answers])


def merge(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Join the sections of several evaluations; a section that several have is an error of the caller."""
    results: dict[str, Any] = {}
    answers: list[Answer] = []
    for evaluation in evaluations:
        twice = set(results) & set(evaluation.results)
        if twice:
            raise ValueError(f"sections evaluated twice: {', '.join(sorted(twice))}")
        results |= evaluation.results
        answers += evaluation.answers
    return Evaluation(results, answers, any(evaluation.proves_text for evaluation in evaluations))


def score_question_boxes(question: Question, text: str) -> BoxVerdict:
    """Score a grounding answer."""
    assert question.box is not None, "a grounding question has a gold box"
    return score_boxes(text, question.box, *question.size)


def majority_answers(questions: Iterable[Question]) -> dict[str, str]:
    """The most frequent answer of each kind; of equally frequent ones the first in the alphabet."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        counts[question.kind][normalize_answer(question.expected)] += 1
    return {kind: min(c, key=lambda answer: (-c[answer], answer)) for kind, c in counts.items()}


def by_kind(questions: Sequence[Question], hits: Sequence[bool]) -> dict[str, float]:
    """Share of hits of each kind, in the order in which the kinds appear."""
    groups: Mapping[str, list[bool]] = defaultdict(list)
    for question, hit in zip(questions, hits):
        groups[question.kind].append(hit)
    return {kind: mean(group) for kind, group in groups.items()}


def mean(values: Sequence[float]) -> float:
    """Mean, rounded to 4 places; 0 of nothing."""
    return round(sum(values) / len(values), 4) if values else 0.0
