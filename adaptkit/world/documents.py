"""Training documents of the decoder: chats about a scene in words, with a weight for every token.

A small decoder asked only plain questions settles for a guess among the objects present. What unlocks each
lookup (of a cell by shape, of a shape by cell, ...) is dense exercise in it, which three tasks give beside
questions: repeating the scene with its objects shuffled, listing it with its attributes in an order that the
request names, and recalling single attributes in a terse notation.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit.chat.boxes import format_box
from adaptkit.world import language
from adaptkit.world.dataset import FACT_KIND
from adaptkit.world.facts import Fact
from adaptkit.world.scenes import Scene, SceneObject

SYSTEM_MESSAGE = "you are a helpful assistant ."
ATTRIBUTES = ("shape", "color", "size", "cell", "box")
_KEYS = ("shape", "color", "cell")
_RECALLS_PER_TURN = 8

# A piece of text, and whether its tokens are answers that the decoder can know.
Piece = tuple[str, bool]


@dataclass(frozen=True)
class Turn:
    """One request and the pieces of its answer."""

    request: str
    answer: tuple[Piece, ...]


Task = Callable[[Scene, np.random.Generator], Turn]


def repeat_turn(scene: Scene, rng: np.random.Generator) -> Turn:
    """All objects again, in another order."""
    return _list_turn("repeat the scene .", scene, ATTRIBUTES, rng)


def list_turn(scene: Scene, rng: np.random.Generator) -> Turn:
    """All objects again, each from an attribute on that the request names: `list by cell .`"""
    key = _KEYS[int(rng.integers(len(_KEYS)))]
    return _list_turn(f"list by {key} .", scene, [key, *(name for name in ATTRIBUTES if name != key)], rng)


def recall_turn(scene: Scene, rng: np.random.Generator, others: tuple[str, ...] = ()) -> Turn:
    """Single lookups in a row: `color circle red ; shape top-left circle ; ...`.

    Args:
        others: What is asked for beside attributes: `there`, as in `there red star no ;`.
    """
    pieces: list[Piece] = []
    for _ in range(_RECALLS_PER_TURN):
        item = scene.objects[int(rng.integers(len(scene.objects)))]
        key = _KEYS[int(rng.integers(len(_KEYS)))]
        values = [name for name in (*ATTRIBUTES, *others) if name != key]
        name = values[int(rng.integers(len(values)))]
        if name == "there":
            color, shape, answer = language.maybe_absent(scene, item, rng)
            pieces += [(f"there {color} {shape}", False), (answer, True), (";", False)]
        else:
            pieces += [(f"{name} {_value(item, key)}", False), (_value(item, name), True), (";", False)]
    return Turn("recall .", tuple(pieces))


def caption_turn(scene: Scene, rng: np.random.Generator) -> Turn:
    """The caption."""
    return Turn(language.CAPTION_REQUEST, ((language.caption(scene), True),))


def question_turn(scene: Scene, rng: np.random.Generator, kind: str | None = None) -> Turn:
    """A question of the given kind, or of any."""
    names = tuple(language.QUESTION_KINDS)
    question = language.ask(scene, kind or names[int(rng.integers(len(names)))], rng)
    return Turn(question.text, ((question.answer, True),))


SCENE_TASKS: dict[str, Task] = {
    "repeat": repeat_turn,
    "list": list_turn,
    "recall": recall_turn,
    "recall_and_check": functools.partial(recall_turn, others=("there",)),
    "caption": caption_turn,
    "question": question_turn,
    **{kind: functools.partial(question_turn, kind=kind) for kind in language.QUESTION_KINDS},
}


def document(
    scene: Scene, facts: Sequence[Fact], shares: Mapping[str, float], rng: np.random.Generator, num_tokens: int
) -> list[Piece]:
    """A chat about a scene, as its chat template renders it, of at least `num_tokens` tokens.

    Facts may come first and in between, and a system message before all, so that the scene stands at no
    fixed place.

    Args:
        shares: Relative frequency of each name in `SCENE_TASKS`, and of `fact`.
        num_tokens: Turns are added until there are so many.
    """
    names = list(shares)
    limits = np.cumsum([shares[name] for name in names])
    pieces: list[Piece] = [("<|begin|>", False)]
    if rng.random() < 0.15:
        pieces.append((f"<|system|> {SYSTEM_MESSAGE} <|end|>", False))
    described = False
    while sum(_count_tokens(text) for text, _ in pieces) < num_tokens:
        name = names[int(np.searchsorted(limits, rng.random() * limits[-1], side="right"))]
        if name == FACT_KIND:
            fact = facts[int(rng.integers(len(facts)))]
            turn = Turn(fact.question, ((fact.answer, True),))
        else:
            turn = SCENE_TASKS[name](scene, rng)
        opening = ""
        if name != FACT_KIND and not described:
            order = rng.permutation(len(scene.objects)).tolist() if rng.random() < 0.5 else None
            opening, described = language.describe(scene, order) + " ", True
        pieces += [(f"<|user|> {opening}{turn.request} <|end|> <|assistant|>", False), *turn.answer, ("<|end|>", True)]
    return pieces


def _count_tokens(text: str) -> int:
    """Of our own text, in which only the numbers of a box stand without spaces."""
    return len(text.split()) + text.count(",")


def _list_turn(request: str, scene: Scene, names: Sequence[str], rng: np.random.Generator) -> Turn:
    pieces: list[Piece] = []
    for i in rng.permutation(len(scene.objects)):
        item = scene.objects[i]
        values = [_value(item, name) for name in names]
        # Which object comes next nobody can know; all else follows from it.
        pieces += [(values[0], False), (" ".join(values[1:]), True), (";", False)]
    return Turn(request, tuple(pieces))


def _value(item: SceneObject, name: str) -> str:
    return format_box(item.box) if name == "box" else str(getattr(item, name))
