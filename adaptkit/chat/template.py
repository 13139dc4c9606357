"""A tokenizer's chat template: rendering it, and finding the assistant's words in what it wrote.

A template is rendered once for each sequence of roles with marks in place of the contents. That shows what it
writes around them, so that the answers of any conversation of those roles are found by a plain rendering and
a comparison. Templates that do more than place and trim contents are rendered turn by turn instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2

from adaptkit.chat.markup import Markup, added_tokens, cached, forget
from adaptkit.errors import DataError, ModelError
from adaptkit.files.loading import reading
from adaptkit.interfaces import REASONING_KEYS

Turn = dict[str, Any]
Span = tuple[int, int]

_CONTENT = "\ufdd2{}\ufdd3"
_CONTENT_PATTERN = re.compile("\ufdd2([0-9]+)\ufdd3")
_TEMPLATE_ERRORS = (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError)

_DATE_FUNCTION = "strftime_now"
_RANDOM = re.compile(r"\|\s*(random)\b|\b(lipsum)\s*\(")
_DATE_ATTRIBUTE = "adaptkit_date"
_DIRECTIVES = "aAwdbBmyYHIpMSfzZjUWcxXGuVDFTReCgns%"


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


def fix_date(tokenizer: Any, date: datetime | None) -> None:
    """Let templates that print the date print this one, wherever this tokenizer object goes; None: today's again.

    It is an attribute of the object, so worker processes have it too, and no file of a saved tokenizer does.
    """
    setattr(tokenizer, _DATE_ATTRIBUTE, date)
    forget(tokenizer)


def prints_date(template: str) -> bool:
    """Whether a template's text depends on the day it is rendered on."""
    return _DATE_FUNCTION in template


def _with_date(template: str, date: datetime | None) -> str:
    """The template with a function of its own in place of the one that gives today's date.

    A macro, since transformers turns a function that is passed as a template's variable into text.
    """
    if date is None or not prints_date(template):
        return template
    directives = [f"%{flag}{letter}" for flag in ("-", "") for letter in _DIRECTIVES]
    filters = "".join(f" | replace({d!r}, {date.strftime(d)!r})" for d in directives)
    first_line_break = "\n" if template.startswith("\n") else ""  # the one that jinja takes away after a block
    return (
        f"{{% macro {_DATE_FUNCTION}(format) %}}{{{{ format{filters} }}}}{{% endmacro %}}{first_line_break}{template}"
    )


def refuse_random(template: str) -> None:
    """Make sure that a template renders a conversation the same way each time.

    Raises:
        ModelError: It draws at random.
    """
    found = _RANDOM.search(template)
    if found:
        raise ModelError(
            f"the chat template draws at random ({found[1] or found[2]!r}), so that no two renderings of a "
            "conversation need be the same, and no run could be repeated or resumed. Give another as base.chat_template"
        )


def check_template(tokenizer: Any, template: str | None, place: Path | str) -> None:
    """Make sure that a chat template, by default the tokenizer's, can be parsed.

    Raises:
        ModelError: It cannot; the message names `place`, where it lies.
    """
    template = template or tokenizer.chat_template
    if isinstance(template, str):
        with reading(place), suppress(DataError):  # it may refuse this conversation, though not fail on it
            render_template(tokenizer, [{"role": "user", "content": "x"}], True, template)


def render_template(tokenizer: Any, turns: list[Turn], add_generation_prompt: bool, template: str) -> str:
    """Text of turns whose contents are plain strings.

    Raises:
        DataError: The template refuses these turns.
        ModelError: The template itself is malformed.
    """
    template = _with_date(template, getattr(tokenizer, _DATE_ATTRIBUTE, None))
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


def names_key(template: str, key: str) -> bool:
    """Whether a template's text reads a key of a message: as an attribute, or by its quoted name."""
    return re.search(rf"(\.|['\"]){re.escape(key)}(?!\w)", template) is not None


@dataclass(frozen=True)
class _Slot:
    """Where a template puts a text of a message, by its key, and the literal text up to the next one or the end."""

    turn: int
    key: str
    after: str


@dataclass(frozen=True)
class _Answer:
    """First and last slot of an assistant's turn, and how many characters before and after them are its own."""

    first: int
    last: int
    lead: int
    tail: int


@dataclass(frozen=True)
class Rendered:
    """What of a rendered conversation is whose.

    Attributes:
        answers: Spans `(start, stop)` of what the assistant says, its end-of-turn tokens included.
        texts: Spans of what the messages say; None where the template does more than place and trim their texts.
        missing: `(turn, key)` of texts that the template does not render; empty where that is not known.
    """

    answers: list[Span]
    texts: list[Span] | None
    missing: frozenset[tuple[int, str]] = frozenset()


@dataclass(frozen=True)
class _Skeleton:
    """What a template writes around the texts of turns with given roles and keys."""

    opening: str
    slots: tuple[_Slot, ...]
    answers: tuple[_Answer, ...]
    missing: frozenset[tuple[int, str]]

    def match(self, turns: Sequence[Turn], text: str) -> Rendered | None:
        """Where everything is, or None where the template did more than place and trim texts."""
        if not text.startswith(self.opening):
            return None
        position = len(self.opening)
        spans: list[Span] = []
        for slot in self.slots:
            trimmed = _trimmed(turns[slot.turn][slot.key])
            variant = next((v for v in trimmed if text.startswith(v + slot.after, position)), None)
            if variant is None:
                return None
            spans.append((position, position + len(variant)))
            position += len(variant) + len(slot.after)
        if position != len(text):
            return None
        answers = [(spans[a.first][0] - a.lead, spans[a.last][1] + a.tail) for a in self.answers]
        return Rendered(answers, spans, self.missing)


def _trimmed(text: str) -> Iterator[str]:
    """A text, and what is left of it where a template trims it."""
    yield text
    for characters in (None, "\n"):
        yield from (text.strip(characters), text.rstrip(characters), text.lstrip(characters))


def locate(tokenizer: Any, turns: list[Turn], text: str, add_generation_prompt: bool, template: str) -> Rendered:
    """Find what the assistant says in a rendered conversation, and what the messages say.

    Raises:
        DataError: The template changes earlier turns depending on later ones, beyond telling them apart.
    """
    found = None
    if all(isinstance(value, str) for turn in turns for value in turn.values()):
        keys = tuple((turn["role"], *(key for key in turn if key != "role")) for turn in turns)
        skeleton = _skeleton(tokenizer, keys, add_generation_prompt, template)
        found = skeleton.match(turns, text) if skeleton is not None else None
    return found or Rendered(_spans_by_prefix(tokenizer, turns, text, template), None)


@cached
def _skeleton(
    tokenizer: Any, keys: Sequence[Sequence[str]], add_generation_prompt: bool, template: str
) -> _Skeleton | None:
    places = [(i, key) for i, (_, *names) in enumerate(keys) for key in names]
    turns: list[Turn] = [{"role": role} for role, *_ in keys]
    for number, (turn, key) in enumerate(places):
        turns[turn][key] = _CONTENT.format(number)
    try:
        opening, *rest = _CONTENT_PATTERN.split(render_template(tokenizer, turns, add_generation_prompt, template))
    except DataError:
        return None
    order = [places[int(number)] for number in rest[::2]]
    missing = set(places) - set(order)
    if len(set(order)) < len(order) or any(key == "content" for _, key in missing):
        return None
    slots = tuple(_Slot(turn, key, after) for (turn, key), after in zip(order, rest[1::2]))
    answers = []
    for turn in (i for i, (role, *_) in enumerate(keys) if role == "assistant"):
        own = [index for index, slot in enumerate(slots) if slot.turn == turn]
        first, last = own[0], own[-1]
        if own != list(range(first, last + 1)):
            return None
        before, after = slots[first - 1].after if first else opening, slots[last].after
        prompt = _ending(tokenizer, turns[:turn], True, template)
        lead = len(before) - len(prompt) if prompt is not None and before.startswith(prompt) else 0
        ending = _ending(tokenizer, turns[: turn + 1], False, template)
        answers.append(_Answer(first, last, lead, _tail(tokenizer, template, ending, after)))
    return _Skeleton(opening, slots, tuple(answers), frozenset(missing))


def _ending(tokenizer: Any, turns: list[Turn], add_generation_prompt: bool, template: str) -> str | None:
    """What the template writes after the last text of these turns, or None where it refuses them."""
    if not turns:
        return None
    try:
        return _CONTENT_PATTERN.split(render_template(tokenizer, turns, add_generation_prompt, template))[-1]
    except DataError:
        return None


def _tail(tokenizer: Any, template: str, ending: str | None, after: str) -> int:
    """Length of the part of what follows an answer that generation must produce: through the end of the turn."""
    own = ending is not None and bool(ending.strip()) and after.startswith(ending)
    written = ending if own and ending is not None else after
    for string in end_of_turn(tokenizer, template).strings:
        if string in written:
            return written.index(string) + len(string)
    token = _added_pattern(tokenizer).search(written)
    if token:
        return token.end()
    return len(ending) if ending is not None and after.startswith(ending) else 0


@cached
def _added_pattern(tokenizer: Any) -> re.Pattern[str]:
    longest_first = sorted(added_tokens(tokenizer), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _spans_by_prefix(tokenizer: Any, turns: list[Turn], text: str, template: str) -> list[Span]:
    """Spans by rendering up to and through each answer, for templates that change what they are given."""
    pattern = _added_pattern(tokenizer)
    spans: list[Span] = []
    for index, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        prompt = render_template(tokenizer, turns[:index], True, template) if index else ""
        through = render_template(tokenizer, turns[: index + 1], False, template)
        if not text.startswith(through) or not through.startswith(prompt):
            raise DataError(
                f"the chat template rewrites message {index} depending on what surrounds it, so that its "
                "answer cannot be distinguished from the rest. Use a template that renders every turn as given "
                "(base.chat_template)"
            )
        end = end_of_turn(tokenizer, template)
        places = [through.rfind(string, len(prompt)) + len(string) for string in end.strings if string in through]
        ends = [place for place in places if not pattern.sub("", through[place:]).strip()]
        ends += [m.end() for m in pattern.finditer(through, len(prompt)) if not through[m.end() :].strip()]
        spans.append((len(prompt), ends[0] if ends else len(through)))
    return spans


# -- the end of a turn -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TurnEnd:
    """What a template ends an assistant's turn with, and generation must stop at.

    Attributes:
        token_ids: Ids, each of which ends a turn.
        strings: Text that does, where the tokenizer has no single token for it.
        trailer: Text between what the assistant says and the token.
    """

    token_ids: tuple[int, ...] = ()
    strings: tuple[str, ...] = ()
    trailer: str = ""

    def cut(self, text: str) -> str:
        """A generated text, up to where its turn ends; special tokens are no longer in it."""
        for string in self.strings:
            text = text.partition(string)[0]
        return text.strip().removesuffix(self.trailer.strip()).strip()


@cached
def end_of_turn(tokenizer: Any, template: str) -> TurnEnd:
    """Determine by rendering how a template ends the assistant's turns, in the middle of a conversation and last."""
    tails = list(_tails(tokenizer, template))
    added = added_tokens(tokenizer)
    found = [match for tail in tails if (match := _added_pattern(tokenizer).search(tail))]
    before = found[0].string[: found[0].start()].strip() if found else ""
    before = before if all(tail.lstrip().startswith(before) for tail in tails) else ""
    if before and len(found) < len(tails):
        return TurnEnd(strings=(before,))  # which follows every answer, and a token only the last
    if found:
        return TurnEnd(tuple(dict.fromkeys(added[match[0]][0] for match in found)), trailer=before)
    written = tails[0].rstrip() if tails else ""
    if not written:
        return TurnEnd()
    token_id = _single_id(tokenizer, written)
    return TurnEnd(strings=(written,)) if token_id is None else TurnEnd((token_id,))


def _tails(tokenizer: Any, template: str) -> Iterator[str]:
    """What follows the last answer of a conversation, and one that another turn follows."""
    for opening in ((), ("system",)):
        roles = (*opening, "user", "assistant", "user", "assistant")
        turns: list[Turn] = [{"role": role, "content": _CONTENT.format(i)} for i, role in enumerate(roles)]
        ending = _ending(tokenizer, turns[:-2], False, template)
        if ending is None:
            continue
        yield ending
        try:
            pieces = _CONTENT_PATTERN.split(render_template(tokenizer, turns, False, template))
        except DataError:
            return
        after = {int(number): literal for number, literal in zip(pieces[1::2], pieces[2::2])}
        middle = after.get(len(turns) - 3, "")
        if not (ending.strip() and middle.startswith(ending)):
            yield middle
        return


def _single_id(tokenizer: Any, text: str) -> int | None:
    """The id of a text that is one token, by itself and behind other text."""
    alone, word, behind = tokenizer([text.strip(), "a", f"a{text}"], add_special_tokens=False)["input_ids"]
    single = len(alone) == 1 and behind == [*word, *alone] and alone[0] != tokenizer.unk_token_id
    return int(alone[0]) if single else None


def stop_settings(tokenizer: Any, template: str | None, configured: Any = None) -> dict[str, Any]:
    """What generation must stop at, by the names of `GenerationConfig`: the one list that everything uses.

    Args:
        tokenizer: Of the base; its end of text counts.
        template: The chat template's text; None where there is none.
        configured: `eos_token_id` of a generation config, which is kept.

    Returns:
        `eos_token_id`, without repetitions, or None; and `stop_strings` where an end of turn is not a single token.
    """
    end = TurnEnd() if not template else end_of_turn(tokenizer, template)
    given = configured if isinstance(configured, Iterable) else [configured]
    ids = [int(i) for i in (*given, tokenizer.eos_token_id, *end.token_ids) if i is not None]
    settings: dict[str, Any] = {"eos_token_id": list(dict.fromkeys(ids)) or None}
    return settings | ({"stop_strings": list(end.strings)} if end.strings else {})


def describe_end_of_turn(tokenizer: Any, template: str | None) -> str | None:
    """A warning where generation cannot stop at a token that was learned, else None."""
    if not template:
        return None
    end = end_of_turn(tokenizer, template)
    if end.strings:
        return (
            f"the chat template ends an answer with {end.strings[0]!r}, text and not a token of the tokenizer: "
            "`adaptkit generate` and `adaptkit eval` stop at that text, and so does generate() of a workflow; other "
            "programs must be told to (stop_strings). A template for this tokenizer's own tokens needs none "
            "(base.chat_template)."
        )
    if not end.token_ids:
        return (
            "the chat template writes nothing after an answer that ends it, so that models learn no end of a turn and "
            "run on. Use a template that writes one, such as eos_token (base.chat_template)."
        )
    return None


@dataclass(frozen=True)
class AnswerFrame:
    """What a template writes around an answer's content, and a model that learned it generates.

    Attributes:
        lead: Before the content, beyond the generation prompt.
        separator: Between the reasoning and the content; empty where the template knows no reasoning.
    """

    lead: str = ""
    separator: str = ""

    def content(self, text: str) -> str:
        """A generated text's content alone."""
        separator, lead = self.separator.strip(), self.lead.strip()
        if separator and separator in text:
            return text.partition(separator)[2].strip()
        return text.removeprefix(lead).strip() if lead else text


@cached
def answer_frame(tokenizer: Any, template: str | None) -> AnswerFrame:
    """Determine by rendering what a template writes around an answer's content."""
    if not template:
        return AnswerFrame()
    key = next((key for key in REASONING_KEYS if names_key(template, key)), None)
    asked: Turn = {"role": "user", "content": "\u00a7"}
    lead = separator = ""
    for more in ({}, {key: "\u00b6"}) if key else ({},):
        turns: list[Turn] = [asked, {"role": "assistant", **more, "content": "\u00a4"}]
        try:
            text = render_template(tokenizer, turns, False, template)
            found = locate(tokenizer, turns, text, False, template)
        except DataError:
            continue
        if found.texts is None or found.missing:
            continue
        start, content = found.answers[0][0], found.texts[-1][0]
        if more:
            separator = text[found.texts[-2][1] : content]
        else:
            lead = text[start:content]
    return AnswerFrame(lead, separator)


# -- what contents must not become -----------------------------------------------------------------------------------


@cached
def markup_of(tokenizer: Any, template: str, placeholder_ids: frozenset[int] = frozenset()) -> Markup:
    """The tokens that structure conversations of a template: special ones, what it writes, and placeholders."""
    turns = [{"role": role, "content": ""} for role in ("system", "user", "assistant", "user")]
    samples = [_ending(tokenizer, part, True, template) or "" for part in (turns, turns[1:2], turns[1:])]
    return Markup(tokenizer, "\n".join([template, *samples]), placeholder_ids)
