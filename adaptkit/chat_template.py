"""A tokenizer's chat template: rendering it, and finding the assistant's words in what it wrote.

A template is rendered once for each sequence of roles with marks in place of the contents. That shows what it
writes around them, so that the answers of any conversation of those roles are found by a plain rendering and
a comparison. Templates that do more than place and trim contents are rendered turn by turn instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import jinja2

from adaptkit.errors import DataError, ModelError

Turn = dict[str, str]
Span = tuple[int, int]

_CONTENT = "\ufdd2{}\ufdd3"
_CONTENT_PATTERN = re.compile("\ufdd2([0-9]+)\ufdd3")
_TEMPLATE_ERRORS = (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError)

_caches: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def cached(tokenizer: Any, key: Any, build: Callable[[], Any]) -> Any:
    """What `build` returned the first time it was called for this tokenizer and key."""
    cache = _caches.setdefault(tokenizer, {})
    if key not in cache:
        cache[key] = build()
    return cache[key]


def resolve_template(tokenizer: Any, chat_template: str | None) -> str:
    """The template's text: the one given, else the tokenizer's.

    Raises:
        ModelError: There is neither.
    """
    if chat_template is not None:
        return chat_template
    if not getattr(tokenizer, "chat_template", None):
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise ModelError(
            f"the tokenizer {name!r} has no chat template. Give one as base.chat_template in the recipe: "
            "a shipped template's name, a file, or its text"
        )
    template = tokenizer.get_chat_template()
    assert isinstance(template, str)
    return template


def render_template(tokenizer: Any, turns: list[Turn], add_generation_prompt: bool, template: str) -> str:
    """Text of turns whose contents are plain strings.

    Raises:
        DataError: The template refuses these turns.
        ModelError: The template itself is malformed.
    """
    try:
        text = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt, chat_template=template
        )
    except jinja2.TemplateSyntaxError as error:
        raise ModelError(f"the chat template is malformed, line {error.lineno}: {error}") from error
    except _TEMPLATE_ERRORS as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise DataError(f"the chat template refuses a conversation of roles {roles}: {error}") from error
    return str(text)


@dataclass(frozen=True)
class _Slot:
    """Where a template puts one turn's content, and what it writes until the next one's.

    Attributes:
        turn: Index of the turn.
        after: Literal text from the content's end to the next content or the text's end.
        lead: Characters before the content that are the assistant's, beyond the generation prompt.
        tail: Characters after the content that end the assistant's turn.
    """

    turn: int
    after: str
    lead: int = 0
    tail: int = 0


@dataclass(frozen=True)
class _Skeleton:
    """What a template writes around the contents of turns with given roles."""

    opening: str
    slots: tuple[_Slot, ...]

    def match(self, turns: Sequence[Turn], text: str) -> list[Span] | None:
        """Spans of the answers, or None where the template did more than place and trim contents."""
        if not text.startswith(self.opening):
            return None
        position = len(self.opening)
        spans: list[Span] = []
        for slot in self.slots:
            content = turns[slot.turn]["content"]
            variants = (content, content.strip(), content.rstrip(), content.lstrip())
            fitting = (v for v in variants if text.startswith(v + slot.after, position))
            variant = next(fitting, None)
            if variant is None:
                return None
            end = position + len(variant)
            if turns[slot.turn]["role"] == "assistant":
                spans.append((position - slot.lead, end + slot.tail))
            position = end + len(slot.after)
        return spans if position == len(text) else None


def find_answers(
    tokenizer: Any, turns: list[Turn], text: str, add_generation_prompt: bool, template: str
) -> list[Span]:
    """Character spans `(start, stop)` of what the assistant says, its end-of-turn tokens included.

    Args:
        tokenizer: Whose template it is.
        turns: What was rendered.
        text: The rendering of `turns`.
        add_generation_prompt: As it was rendered.
        template: The template's text.

    Raises:
        DataError: The template changes earlier turns depending on later ones, beyond telling them apart.
    """
    roles = tuple(turn["role"] for turn in turns)
    if "assistant" not in roles:
        return []
    key = (template, roles, add_generation_prompt, len(tokenizer))
    skeleton: _Skeleton | None = cached(
        tokenizer, key, lambda: _build_skeleton(tokenizer, roles, add_generation_prompt, template)
    )
    spans = skeleton.match(turns, text) if skeleton is not None else None
    return _spans_by_prefix(tokenizer, turns, text, template) if spans is None else spans


def _build_skeleton(
    tokenizer: Any, roles: Sequence[str], add_generation_prompt: bool, template: str
) -> _Skeleton | None:
    turns = [{"role": role, "content": _CONTENT.format(i)} for i, role in enumerate(roles)]
    try:
        opening, *rest = _CONTENT_PATTERN.split(render_template(tokenizer, turns, add_generation_prompt, template))
    except DataError:
        return None
    order, literals = [int(number) for number in rest[::2]], rest[1::2]
    if sorted(order) != list(range(len(roles))):
        return None
    slots = []
    for before, turn, after in zip([opening, *literals], order, literals):
        if roles[turn] != "assistant":
            slots.append(_Slot(turn, after))
            continue
        prompt = _ending(tokenizer, turns[:turn], True, template)
        lead = len(before) - len(prompt) if prompt is not None and before.startswith(prompt) else 0
        ending = _ending(tokenizer, turns[: turn + 1], False, template)
        tail = ending if ending is not None and after.startswith(ending) else after
        slots.append(_Slot(turn, after, lead, _end_of_turn(tokenizer, tail)))
    return _Skeleton(opening, tuple(slots))


def _ending(tokenizer: Any, turns: list[Turn], add_generation_prompt: bool, template: str) -> str | None:
    """What the template writes after the last content of these turns, or None where it refuses them."""
    if not turns:
        return None
    try:
        return _CONTENT_PATTERN.split(render_template(tokenizer, turns, add_generation_prompt, template))[-1]
    except DataError:
        return None


def _end_of_turn(tokenizer: Any, tail: str) -> int:
    """Length of the part of a turn's tail that generation must produce: up to its first special token."""
    match = _special_pattern(tokenizer).search(tail)
    return match.end() if match else len(tail)


def _special_pattern(tokenizer: Any) -> re.Pattern[str]:
    # Some tokenizers list runs of blanks among the added tokens; those end nothing.
    names = {str(name) for name in (*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens)}
    longest_first = sorted((name for name in names if name.strip()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _spans_by_prefix(tokenizer: Any, turns: list[Turn], text: str, template: str) -> list[Span]:
    """Spans by rendering up to and through each answer, for templates that change what they are given."""
    pattern = _special_pattern(tokenizer)
    spans: list[Span] = []
    for index, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        prompt = render_template(tokenizer, turns[:index], True, template) if index else ""
        through = render_template(tokenizer, turns[: index + 1], False, template)
        if not text.startswith(through) or not through.startswith(prompt):
            raise DataError(
                f"the chat template rewrites message {index} depending on what surrounds it, so that its "
                "answer cannot be told from the rest. Use a template that renders every turn as given "
                "(base.chat_template)"
            )
        ends = [m.end() for m in pattern.finditer(through, len(prompt)) if not through[m.end() :].strip()]
        spans.append((len(prompt), ends[0] if ends else len(through)))
    return spans
