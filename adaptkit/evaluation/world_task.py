"""The evaluation task `world`: held-out questions about images, boxes, and text of the built-in world."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from adaptkit.chat.encoding import render
from adaptkit.errors import DataError
from adaptkit.evaluation.harness import Progress, QuestionCounter, WorkflowsTask, describe_harness, unwatched
from adaptkit.evaluation.options import WorldTaskOptions
from adaptkit.evaluation.questions import Question
from adaptkit.evaluation.scores import TextEvaluation, evaluate_grounding, evaluate_questions, merge
from adaptkit.interfaces import Evaluation
from adaptkit.world.dataset import EvaluationItem, evaluation_items
from adaptkit.world.language import QUESTION_KINDS
from adaptkit.world.scenes import IMAGE_SIZE

MODALITY = "image"
BOX_KIND = "box"
IMAGE_KINDS = tuple(kind for kind in QUESTION_KINDS if kind != BOX_KIND)
NUM_MAJORITY_ITEMS = 200
"""Training questions of each kind that the majority baseline counts."""


class WorldTask(WorkflowsTask):
    """Scores workflows on scenes that no training split contains."""

    def __init__(self, options: WorldTaskOptions | None = None) -> None:
        self.options = options or WorldTaskOptions()

    def evaluate_workflows(
        self,
        workflows: Mapping[str, tuple[Any, Any]],
        *,
        limit: int | None = None,
        seed: int = 0,
        data: Path | None = None,
        progress: Progress = unwatched,
    ) -> Evaluation:
        """Score a run's workflows: boxes by the grounding workflow where there is one, the rest by the first.

        Args:
            limit: Questions of each kind, instead of the option's number.
            seed: Draws the held-out items; the same seed draws the same ones.

        Raises:
            DataError: `data` is given, or a workflow does not see images.
        """
        if data is not None:
            raise DataError("the task 'world' generates its items: remove the data folder, and choose by seed.")
        started = time.monotonic()
        num = limit or self.options.num_per_kind
        names = {"questions": next(iter(workflows)), "grounding": next(iter(workflows))}
        if self.options.grounding_workflow in workflows:
            names["grounding"] = self.options.grounding_workflow
        model, processor = workflows[names["questions"]]
        texts, images, boxes = text_questions(seed, num), image_questions(seed, num), box_questions(seed, num)
        counter = QuestionCounter(progress, 2 * len(texts) + 2 * len(images) + 2 * len(boxes))
        batch = self.options.batch_size
        with ExitStack() as stack:
            text = stack.enter_context(TextEvaluation(model, processor, texts, batch_size=batch))
            seen = evaluate_questions(
                model,
                processor,
                images,
                training_questions(seed, NUM_MAJORITY_ITEMS),
                section="image_questions",
                batch_size=batch,
                advance=counter.on("questions about images"),
            )
            grounded = evaluate_grounding(
                *workflows[names["grounding"]], boxes, batch_size=batch, advance=counter.on("boxes")
            )
            merged = merge([text.finish(counter.on("text")), seen, grounded])
        for section, asked in (("image_questions", "questions"), ("grounding", "grounding")):
            merged.results[section]["workflow"] = names[asked]
        results = merged.results | {"seconds": round(time.monotonic() - started, 2)}
        results["harness"] = describe_harness(
            model, task="world", split="test", seed=seed, num_per_kind=num, workflows=names
        ) | {"prompts": _example_prompts(processor, {"text": texts, "image_questions": images, "grounding": boxes})}
        return Evaluation(results, merged.answers, merged.proves_text)


def problems(options: WorldTaskOptions, workflows: Mapping[str, Collection[str]]) -> list[str]:
    """Why workflows cannot answer it, as `adaptkit.hookspecs.EvaluationTaskComponent` has it."""
    asked = dict.fromkeys([next(iter(workflows)), *({options.grounding_workflow} & set(workflows))])
    return [
        f"it asks the workflow {name!r} about media of the modality {MODALITY!r}, and that takes "
        f"{', '.join(workflows[name]) or 'none'}"
        for name in asked
        if MODALITY not in workflows[name]
    ]


def image_questions(seed: int, num_per_kind: int) -> list[Question]:
    """Questions about images, each about one of its own, answered in a word."""
    return [_about_image(item) for item in evaluation_items(seed, num_per_kind, "test", IMAGE_KINDS)]


def box_questions(seed: int, num: int) -> list[Question]:
    """Questions answered with a box in an image."""
    return [_about_image(item) for item in evaluation_items(seed, num, "test", [BOX_KIND])]


def training_questions(seed: int, num_per_kind: int) -> list[Question]:
    """What training asks about images, without the images: enough to count answers."""
    items = evaluation_items(seed, num_per_kind, "train", IMAGE_KINDS)
    return [Question(item.kind, item.question, item.answer) for item in items]


def text_questions(seed: int, num_per_kind: int) -> list[Question]:
    """Questions about scenes described in text, including boxes, and about facts."""
    items = evaluation_items(seed, num_per_kind)
    return [Question(item.kind, item.text_messages[-1]["content"], item.answer) for item in items]


def _about_image(item: EvaluationItem) -> Question:
    box = None if item.box is None else tuple(value * IMAGE_SIZE for value in item.box)
    return Question(
        item.kind,
        item.question,
        item.answer,
        media=((MODALITY, item.image),),
        box=box,  # type: ignore[arg-type]  # four numbers, as in the item
        size=(IMAGE_SIZE, IMAGE_SIZE),
    )


def _example_prompts(processor: Any, sections: Mapping[str, Sequence[Question]]) -> dict[str, str]:
    return {
        name: render(processor.tokenizer, questions[0].messages(), add_generation_prompt=True)
        for name, questions in sections.items()
        if questions
    }
