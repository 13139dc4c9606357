"""What is said about scenes: descriptions, captions, questions and their answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit.chat.boxes import Box, format_box
from adaptkit.world.facts import DIGITS
from adaptkit.world.scenes import CELLS, COLORS, SHAPES, SIZES, Scene, SceneObject

Message = dict[str, str]

CAPTION_REQUEST = "describe the scene ."
IMAGE_TAG = "<image>"


@dataclass(frozen=True)
class Question:
    """A question about one scene.

    Attributes:
        kind: A name in `QUESTION_KINDS`.
        text: The question.
        answer: One word, or a box.
        box: The answer as numbers, for kind `box`.
        candidates: Every answer the kind can have; empty for kind `box`.
    """

    kind: str
    text: str
    answer: str
    box: Box | None = None
    candidates: tuple[str, ...] = ()


def describe(scene: Scene, order: Sequence[int] | None = None) -> str:
    """`scene : circle red small top-left [x1,y1,x2,y2] ; ... .`

    Args:
        order: Positions in `scene.objects`; reading order where it is None.
    """
    objects = scene.objects if order is None else [scene.objects[i] for i in order]
    return "scene : " + " ; ".join(_describe_object(item) for item in objects) + " ."


def caption(scene: Scene) -> str:
    """`a small red circle at top-left and a large blue star at center .`, in reading order."""
    return " and ".join(f"a {o.size} {o.color} {o.shape} at {o.cell}" for o in scene.objects) + " ."


def ask(scene: Scene, kind: str, rng: np.random.Generator) -> Question:
    """One question of a kind, about an object drawn by `rng`."""
    return QUESTION_KINDS[kind](scene, scene.objects[int(rng.integers(len(scene.objects)))], rng)


def iter_questions(scene: Scene, rng: np.random.Generator, kinds: Sequence[str] | None = None) -> Iterator[Question]:
    """An endless stream of questions of all (or the given) kinds in turn, in random order."""
    names = tuple(kinds or QUESTION_KINDS)
    while True:
        for i in rng.permutation(len(names)):
            yield ask(scene, names[i], rng)


def list_questions(
    scene: Scene, rng: np.random.Generator, num: int, kinds: Sequence[str] | None = None
) -> list[Question]:
    """Up to `num` different questions about a scene; fewer where there are no more."""
    found: dict[str, Question] = {}
    for attempt, question in enumerate(iter_questions(scene, rng, kinds)):
        found.setdefault(question.text, question)
        if len(found) == num or attempt > 10 * num:
            break
    return list(found.values())


def conversation(opening: str, questions: Sequence[Question]) -> list[Message]:
    """Questions and answers as chat messages.

    Args:
        opening: What stands right before the first question: a description and a space, or `<image>` and a
            new line.
    """
    messages = []
    for number, question in enumerate(questions):
        text = f"{opening}{question.text}" if number == 0 else question.text
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": question.answer}]
    return messages


def _describe_object(item: SceneObject) -> str:
    return f"{item.shape} {item.color} {item.size} {item.cell} {format_box(item.box)}"


def maybe_absent(scene: Scene, item: SceneObject, rng: np.random.Generator) -> tuple[str, str, str]:
    """A colour and a shape, and whether one object has both: half of the time `item`'s, and `yes`.

    Most of what is absent is made of colours and shapes that are there.
    """
    if rng.random() < 0.5:
        return item.color, item.shape, "yes"
    others = [o for o in scene.objects if o is not item]
    if others and rng.random() < 0.7:
        return others[int(rng.integers(len(others)))].color, item.shape, "no"
    if rng.random() < 0.5:
        return _another(COLORS, item.color, rng), item.shape, "no"
    return item.color, _another(SHAPES, item.shape, rng), "no"


def _either(item: SceneObject, rng: np.random.Generator) -> str:
    return item.shape if rng.random() < 0.5 else f"{item.color} object"


def _another(values: Sequence[str], value: str, rng: np.random.Generator) -> str:
    others = [v for v in values if v != value]
    return others[int(rng.integers(len(others)))]


def _exist(scene: Scene, item: SceneObject, rng: np.random.Generator) -> Question:
    color, shape, answer = maybe_absent(scene, item, rng)
    return Question("exist", f"is there a {color} {shape} ?", answer, candidates=("yes", "no"))


QUESTION_KINDS: dict[str, Callable[[Scene, SceneObject, np.random.Generator], Question]] = {
    "color": lambda _, o, rng: Question("color", f"what color is the {o.shape} ?", o.color, None, COLORS),
    "shape": lambda _, o, rng: Question("shape", f"what shape is {o.color} ?", o.shape, None, SHAPES),
    "shape_at": lambda _, o, rng: Question("shape_at", f"what shape is at {o.cell} ?", o.shape, None, SHAPES),
    "size": lambda _, o, rng: Question("size", f"what size is the {_either(o, rng)} ?", o.size, None, SIZES),
    "cell": lambda _, o, rng: Question("cell", f"which cell is the {_either(o, rng)} in ?", o.cell, None, CELLS),
    "count": lambda scene, o, rng: Question(
        "count", "how many objects are there ?", DIGITS[len(scene.objects)], None, DIGITS[1:4]
    ),
    "exist": _exist,
    "box": lambda _, o, rng: Question("box", f"where is the {o.color} {o.shape} ?", format_box(o.box), o.box),
}
