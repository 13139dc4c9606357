"""The world's data: image-side files in the LLaVA format, and held-out items to evaluate on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from adaptkit.chat.boxes import Box
from adaptkit.errors import DataError, RecipeError, unknown_name
from adaptkit.files.writing import staged_together, write_text
from adaptkit.hookspecs import MAX_SEED
from adaptkit.world import language, scenes
from adaptkit.world.facts import candidate_answers, list_facts
from adaptkit.world.language import IMAGE_TAG, QUESTION_KINDS, Message, Question
from adaptkit.world.scenes import Scene, Split

FACT_KIND = "fact"
DATA_KINDS = ("caption", "questions", "boxes", "text")

DataKind = Literal["caption", "questions", "boxes", "text"]
Conversation = list[Message]


@dataclass(frozen=True)
class EvaluationItem:
    """One question that nothing was trained on.

    Attributes:
        kind: A name in `QUESTION_KINDS`, or `fact`.
        question: The question without its scene.
        answer: The right answer.
        candidates: Every answer its kind can have; empty for boxes.
        box: The answer as numbers, for kind `box`.
        scene: What it is about; None for facts.
    """

    kind: str
    question: str
    answer: str
    candidates: tuple[str, ...]
    box: Box | None = None
    scene: Scene | None = None

    @property
    def image(self) -> Image.Image | None:
        """The scene as an image, drawn now; None for facts."""
        return None if self.scene is None else scenes.render(self.scene)

    @property
    def text_messages(self) -> list[Message]:
        """The prompt with the scene in words."""
        scene = "" if self.scene is None else f"{language.describe(self.scene)} "
        return [{"role": "user", "content": f"{scene}{self.question}"}]


def evaluation_items(
    seed: int, num_per_kind: int, split: Split = "test", kinds: Sequence[str] | None = None
) -> list[EvaluationItem]:
    """Held-out questions about scenes, each about a scene of its own, and facts in held-out phrasings.

    Args:
        seed: The same seed gives the same items.
        num_per_kind: Items of each kind; of facts, at most as many as there are.
        split: Where the scenes come from. Facts know only `train` and held out.
        kinds: Names in `QUESTION_KINDS`, and `fact`; all of them where it is None.
    """
    names = (*QUESTION_KINDS, FACT_KIND) if kinds is None else tuple(kinds)
    rng = np.random.default_rng(seed)
    stream = scenes.iter_scenes(seed, split)
    items = []
    for kind in names:
        if kind == FACT_KIND:
            items += _fact_items(rng, num_per_kind, "train" if split == "train" else "test")
            continue
        for scene, _ in zip(stream, range(num_per_kind), strict=False):
            question = language.ask(scene, kind, rng)
            items.append(EvaluationItem(kind, question.text, question.answer, question.candidates, question.box, scene))
    return items


def write_world_data(
    directory: Path,
    *,
    kind: DataKind,
    num_samples: int,
    split: Split = "train",
    seed: int = 0,
    questions_per_image: int = 6,
    num_images: int | None = None,
) -> Path:
    """Writes conversations in the LLaVA format, with their images beside them.

    The kinds are `caption`; `questions` of every kind but boxes; `boxes`; and `text`: questions about
    scenes in words and facts, without images. Existing files of the same kind, split and seed are replaced
    once all is written.

    Args:
        directory: Receives `<kind>_<split>_<seed>.json` and, for images, a folder of the same name.
        seed: The same seed gives the same files.
        questions_per_image: Questions of a conversation, at most; there is one caption.
        num_images: Scenes that the conversations go round; as many as conversations where it is None. Fewer
            let encoder features be reused.

    Returns:
        The path of the json file.

    Raises:
        DataError: The kind or the split is unknown, or a number is not positive.
    """
    _check_seed(seed)
    _check_arguments(kind, split, num_samples, questions_per_image, num_images)
    name = f"{kind}_{split}_{seed}"
    rng = np.random.default_rng((seed, DATA_KINDS.index(kind)))
    shown = scenes.sample_scenes(seed, min(num_images or num_samples, num_samples), split)
    with staged_together(directory, [name, f"{name}.json"], replace=True) as folder:
        samples = []
        for number in range(num_samples):
            place = number % len(shown)
            sample: dict[str, Any] = {"id": f"{name}_{number:06d}"}
            if kind != "text":
                sample["image"] = f"{name}/{place:06d}.png"
            messages = _messages(shown[place], kind, split, questions_per_image, rng)
            samples.append(sample | {"conversations": _as_llava(messages)})
        if kind != "text":
            (folder / name).mkdir()
            for place, scene in enumerate(shown):
                scenes.render(scene).save(folder / name / f"{place:06d}.png", compress_level=1)
        write_text(folder / f"{name}.json", json.dumps(samples, indent=0))
    return directory / f"{name}.json"


def _check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise RecipeError(f"seed is {seed!r}; it should be a whole number from 0 to {MAX_SEED:,}.")


def _check_arguments(kind: str, split: str, num_samples: int, questions_per_image: int, num_images: int | None) -> None:
    if kind not in DATA_KINDS:
        raise DataError(unknown_name("kind of world data", kind, DATA_KINDS))
    if split not in ("train", "dev", "test"):
        raise DataError(unknown_name("split of the world", split, ("train", "dev", "test")))
    numbers = {"num_samples": num_samples, "questions_per_image": questions_per_image, "num_images": num_images}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise DataError(f"{name} is {value}; it must be at least 1")


def _messages(
    scene: Scene, kind: DataKind, split: Split, questions_per_image: int, rng: np.random.Generator
) -> Conversation:
    if kind == "caption":
        return [
            {"role": "user", "content": f"{IMAGE_TAG}\n{language.CAPTION_REQUEST}"},
            {"role": "assistant", "content": language.caption(scene)},
        ]
    if kind == "text" and rng.random() < 0.5:
        facts = list_facts("train" if split == "train" else "test")
        chosen = [facts[int(rng.integers(len(facts)))] for _ in range(questions_per_image)]
        return language.conversation("", [Question(FACT_KIND, fact.question, fact.answer) for fact in chosen])
    without_boxes = [name for name in QUESTION_KINDS if name != "box"]
    kinds = {"boxes": ["box"], "questions": without_boxes, "text": [*QUESTION_KINDS]}[kind]
    opening = language.describe(scene) + " " if kind == "text" else f"{IMAGE_TAG}\n"
    return language.conversation(opening, language.list_questions(scene, rng, questions_per_image, kinds))


def _as_llava(messages: Conversation) -> list[dict[str, str]]:
    speakers = {"user": "human", "assistant": "gpt"}
    return [{"from": speakers[message["role"]], "value": message["content"]} for message in messages]


def _fact_items(rng: np.random.Generator, num: int, split: Literal["train", "test"]) -> list[EvaluationItem]:
    facts = list_facts(split)
    chosen = [facts[i] for i in rng.permutation(len(facts))[:num]]
    return [EvaluationItem(FACT_KIND, f.question, f.answer, candidate_answers(f.topic)) for f in chosen]
