"""Conversations to token ids, with labels on the answers only.

The tokenizer's own chat template renders the conversation, with a marker for each medium that no text may
contain. The text is then cut at the markers and at both ends of every answer, the pieces are tokenised, and
the markers become runs of placeholder ids. Cutting where an answer begins means that it never shares a token
with its prompt: training sees exactly the prompt ids that generation will see.

What messages say is text: where it holds the words of a special token, those words are tokenised (see
`adaptkit.chat.markup`).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

from adaptkit.chat.markup import BREAK, Markup, cached, token_ids
from adaptkit.chat.placeholders import Brackets, expand_placeholder, refuse_placeholders
from adaptkit.chat.template import Rendered, Span, Turn, locate, markup_of, names_key, render_template, resolve_template
from adaptkit.errors import DataError, unknown_name
from adaptkit.interfaces import REASONING_KEYS, Message, more_of

IGNORE_INDEX = -100
"""Label of a position that carries no loss."""

ROLES = ("system", "user", "assistant")

# Unicode noncharacters: unlike the private-use characters of icon fonts, they never stand in exchanged text.
_MEDIUM = "\ufdd0{}\ufdd1"
_MEDIUM_PATTERN = re.compile("\ufdd0([0-9]+)\ufdd1")
_RESERVED = re.compile("[\ufdd0-\ufdd5]")
_ANCHOR = "\ufdd1"
_REASONING = re.compile(r"\s*<think>\n*(.*?)\n*</think>\n*", re.DOTALL)

_MAX_REMEMBERED = 20_000
_SHORT = 200  # characters


@dataclass(frozen=True)
class EncodedConversation:
    """A conversation as token ids.

    Attributes:
        input_ids: Token ids; a medium is a run of its modality's placeholder id.
        labels: As `input_ids` where an assistant speaks (its end-of-turn token included), else -100; also where the
            turn's `weight` is 0.
        media: `(modality, source)` in reading order.
        media_spans: `(start, stop)` of each medium's run in `input_ids`, the tokens around it included.
    """

    input_ids: list[int]
    labels: list[int]
    media: list[tuple[str, Any]] = field(default_factory=list)
    media_spans: list[Span] = field(default_factory=list)


def encode_conversation(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    placeholder_ids: Mapping[str, int],
    num_positions: Callable[[str, Any], int],
    brackets: Mapping[str, Brackets] | None = None,
    add_generation_prompt: bool = False,
    chat_template: str | None = None,
    special_tokens_in_text: bool = False,
) -> EncodedConversation:
    """Tokenise a conversation with its tokenizer's chat template.

    Args:
        tokenizer: A transformers tokenizer.
        messages: Turns in order.
        placeholder_ids: Placeholder id of each modality; ids outside the vocabulary are fine.
        num_positions: Decoder positions of one medium, from its modality and source; at least 1.
        brackets: Token ids that stand before and after each medium of a modality.
        add_generation_prompt: End with the header of an assistant turn, for generation.
        chat_template: Template text to use instead of the tokenizer's.
        special_tokens_in_text: Whether a special token's words in a message become that token, instead of text.

    Raises:
        DataError: The conversation is malformed, refused by the template, has a key that the template does not
            render, or holds text that would be taken for a placeholder.
        ModelError: There is no chat template.
    """
    template = resolve_template(tokenizer, chat_template)
    markup = None if special_tokens_in_text else markup_of(tokenizer, template, frozenset(placeholder_ids.values()))
    turns, media = _flatten(messages, placeholder_ids, template, markup)
    text = render_template(tokenizer, turns, add_generation_prompt, template)
    rendered = locate(tokenizer, turns, text, add_generation_prompt, template)
    _check_rendered(tokenizer, messages, turns, text, rendered, add_generation_prompt, template)
    spans = rendered.answers
    if markup is not None and rendered.texts is not None:
        text, spans = _break_across(text, spans, rendered.texts, markup)
    markers = _find_media(text, len(media))
    learned = [message.get("weight") != 0 for message in messages if message["role"] == "assistant"]
    pieces = _cut(text, spans, learned, markers)
    ids = iter(_tokenize_pieces(tokenizer, [piece for piece, _, medium in pieces if medium is None], markup))
    encoded = EncodedConversation([], [])
    for _, labelled, medium in pieces:
        if medium is None:
            piece_ids = next(ids)
            if special_tokens_in_text:
                refuse_placeholders(piece_ids, placeholder_ids)
            encoded.input_ids.extend(piece_ids)
            encoded.labels.extend(piece_ids if labelled else [IGNORE_INDEX] * len(piece_ids))
        else:
            _append_medium(encoded, media[medium], placeholder_ids, num_positions, brackets or {})
    return encoded


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    chat_template: str | None = None,
    markers: Mapping[str, str] | None = None,
) -> str:
    """Text of a conversation as its template renders it, with one marker a medium (`<name>` by default)."""
    template = resolve_template(tokenizer, chat_template)
    turns, media = _flatten(messages, None, template)
    text = render_template(tokenizer, turns, add_generation_prompt, template)

    def marker(match: re.Match[str]) -> str:
        modality = media[int(match[1])][0]
        return (markers or {}).get(modality, f"<{modality}>")

    return _MEDIUM_PATTERN.sub(marker, text)


def truncate(encoded: EncodedConversation, max_length: int) -> EncodedConversation:
    """Keep the first `max_length` positions, or fewer where a placeholder run would be cut in half.

    A medium whose run does not fit is dropped, and with it everything after.

    Raises:
        DataError: No labelled position is left.
    """
    if len(encoded.input_ids) <= max_length:
        return encoded
    kept = [span for span in encoded.media_spans if span[1] <= max_length]
    stop = max_length
    if len(kept) < len(encoded.media_spans):
        stop = min(stop, encoded.media_spans[len(kept)][0])
    labels = encoded.labels[:stop]
    if all(label == IGNORE_INDEX for label in labels):
        raise DataError(
            f"{len(encoded.input_ids)} positions, and no part of an answer within the first {max_length}: "
            "raise max_length, or remove the sample",
            kind="too_long",
        )
    return EncodedConversation(encoded.input_ids[:stop], labels, encoded.media[: len(kept)], kept)


def label_segments(tokenizer: Any, encoded: EncodedConversation) -> list[tuple[str, bool]]:
    """Decode into runs of text and whether they are labelled; a medium reads `<name x positions>`."""
    segments: list[tuple[str, bool]] = []
    media = {start: (stop, name) for (start, stop), (name, _) in zip(encoded.media_spans, encoded.media)}
    flags = [label != IGNORE_INDEX for label in encoded.labels]
    position = 0
    while position < len(flags):
        start = position
        if start in media:
            position, name = media[start]
            segments.append((f"<{name} x {position - start}>", False))
            continue
        while position < len(flags) and flags[position] == flags[start] and position not in media:
            position += 1
        ids = encoded.input_ids[start:position]
        segments.append((tokenizer.decode(ids, clean_up_tokenization_spaces=False), flags[start]))
    return segments


def special_tokens_in(
    tokenizer: Any,
    messages: Sequence[Message],
    placeholder_ids: Mapping[str, int] | None = None,
    chat_template: str | None = None,
) -> list[str]:
    """Tokens that structure a conversation, and whose words stand in the text of messages; each once."""
    template = resolve_template(tokenizer, chat_template)
    markup = markup_of(tokenizer, template, frozenset((placeholder_ids or {}).values()))
    turns, _ = _flatten(messages, None, template)
    texts = [text for turn in turns for text in _strings({**turn, "role": None})]
    return list(dict.fromkeys(match[0] for text in texts for match in markup.find(text)))


def _flatten(
    messages: Sequence[Message], modalities: Mapping[str, int] | None, template: str, markup: Markup | None = None
) -> tuple[list[Turn], list[tuple[str, Any]]]:
    """Join the parts of each turn to one string, with a numbered marker for each medium."""
    if not messages:
        raise DataError("a conversation has no messages")
    escape: Callable[[str], str] = str if markup is None else markup.escape
    turns: list[Turn] = []
    media: list[tuple[str, Any]] = []
    for index, message in enumerate(messages):
        role: Any = message.get("role")
        content: Any = message.get("content")
        if role not in ROLES:
            raise DataError(f"message {index}: {unknown_name('role', str(role), ROLES)}")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list):
            raise DataError(f"message {index}: content is {type(content).__name__}, not text or a list of parts")
        texts = []
        for part in parts:
            if isinstance(part, dict) and part.get("type") == "text":
                texts.append(_check_text(part.get("text"), f"message {index}"))
            else:
                texts.append(_MEDIUM.format(len(media)))
                media.append(_part_medium(part, index, modalities))
        more = {_key_of(key, template): value for key, value in more_of(message).items()}
        text = "".join(texts)
        if role == "assistant" and not more.keys() & {*REASONING_KEYS}:
            reasoning, text = split_reasoning(text, template)
            more |= reasoning
        for value in _strings(more):
            _check_text(value, f"message {index}")
        turns.append({"role": role, "content": escape(text), **_map_strings(more, escape)})
    return turns, media


def _key_of(key: str, template: str) -> str:
    """The name by which a template knows a key of a message."""
    if key not in REASONING_KEYS or names_key(template, key):
        return key
    return next((other for other in REASONING_KEYS if names_key(template, other)), key)


def split_reasoning(text: str, template: str) -> tuple[dict[str, str], str]:
    """Take reasoning that an answer opens with, in the tags of the template, as the reasoning it is."""
    key = next((key for key in REASONING_KEYS if key in template), None)
    match = _REASONING.match(text) if key is not None and "<think>" in template else None
    return ({}, text) if key is None or match is None else ({key: match[1]}, text[match.end() :])


def _strings(value: Any) -> list[str]:
    """All texts in nested lists and objects."""
    if isinstance(value, str):
        return [value]
    children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for child in children for text in _strings(child)]


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_strings(child, change) for key, child in value.items()}
    return [_map_strings(child, change) for child in value] if isinstance(value, list | tuple) else value


def _check_rendered(
    tokenizer: Any,
    messages: Sequence[Message],
    turns: list[Turn],
    text: str,
    rendered: Rendered,
    add_generation_prompt: bool,
    template: str,
) -> None:
    """Refuse keys that the template does not render: they would be neither read nor learned.

    Templates skip the reasoning of earlier answers on purpose; that is fine where those are not learned.
    """
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=-1)
    for index, turn in enumerate(turns):
        for key in turn.keys() - {"role", "content"}:
            if rendered.texts is not None:
                left_out = (index, key) in rendered.missing
            else:
                without = [dict(t) for t in turns]
                del without[index][key]
                left_out = render_template(tokenizer, without, add_generation_prompt, template) == text
            if not left_out:
                continue
            history = add_generation_prompt or messages[index].get("weight") == 0
            if key in REASONING_KEYS and names_key(template, key) and history:
                continue
            advice = "Use a template that renders it (base.chat_template), move it into the content, or remove it"
            if key in REASONING_KEYS and names_key(template, key) and index < last:
                advice = (
                    "The template renders the reasoning of the last answer alone: make a sample of each answer, or "
                    "give this one the weight 0"
                )
            raise DataError(
                f"message {index} has {key!r}, which the chat template does not render, so that it would not be "
                f"learned. {advice}",
                kind="not_rendered",
            )


def _check_text(text: Any, where: str) -> str:
    if not isinstance(text, str):
        raise DataError(f"{where}: a text part holds {type(text).__name__}, not text")
    reserved = _RESERVED.search(text)
    if reserved:
        raise DataError(
            f"{where}: the text contains the noncharacter U+{ord(reserved[0]):04X} at position "
            f"{reserved.start()}, which adaptkit reserves for marking media. Remove it"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: the text is not valid Unicode: {error.reason}") from error
    return text


def _part_medium(part: Any, index: int, modalities: Mapping[str, int] | None) -> tuple[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise DataError(f"message {index}: a part needs a 'type' that is text or a modality: {part!r:.80}")
    if modalities is not None and kind not in modalities:
        raise DataError(f"message {index}: {unknown_name('part type', kind, ['text', *modalities])}")
    if part.get(kind) is None:
        raise DataError(f"message {index}: a part of type {kind!r} holds no {kind!r}")
    return kind, part[kind]


def _find_media(text: str, count: int) -> dict[int, tuple[int, int]]:
    """Start of each marker in the text, to its end and the medium's number."""
    markers = {match.start(): (match.end(), int(match[1])) for match in _MEDIUM_PATTERN.finditer(text)}
    found = [number for _, number in markers.values()]
    if found != list(range(count)):
        raise DataError(
            f"the conversation has {count} media, and the chat template rendered {len(found)} of them in the "
            f"order {found}: it must render the content of every message once, in order"
        )
    return markers


def _cut(
    text: str, spans: Sequence[Span], learned: Sequence[bool], markers: Mapping[int, tuple[int, int]]
) -> list[tuple[str, bool, int | None]]:
    """Pieces of the text: what they say, whether they are labelled, and which medium they stand for."""
    marker_ends = [end for end, _ in markers.values()]
    cuts = sorted({0, len(text), *chain.from_iterable(spans), *markers, *marker_ends})
    starts = [start for start, _ in spans]
    pieces: list[tuple[str, bool, int | None]] = []
    for start, stop in pairwise(cuts):
        span = bisect_right(starts, start) - 1
        labelled = span >= 0 and start < spans[span][1] and learned[span]
        medium = markers[start][1] if start in markers else None
        pieces.append((text[start:stop], labelled, medium))
    return pieces


def _break_across(text: str, answers: list[Span], texts: Sequence[Span], markup: Markup) -> tuple[str, list[Span]]:
    """Break tokens that a text of a message and the template's own words next to it would make together."""
    bounds = sorted(bound for span in texts for bound in span if span[0] < span[1])
    bounds.append(len(text))
    across = [m for m in markup.find(text) if bounds[bisect_right(bounds, m.start())] < m.end()]
    if not across:
        return text, answers
    places = [match.start() + 1 for match in across]
    pieces = [text[start:stop] for start, stop in pairwise([0, *places, len(text)])]
    moved = [tuple(position + bisect_left(places, position) for position in span) for span in answers]
    return BREAK.join(pieces), [(start, stop) for start, stop in moved]


def _append_medium(
    encoded: EncodedConversation,
    medium: tuple[str, Any],
    placeholder_ids: Mapping[str, int],
    num_positions: Callable[[str, Any], int],
    brackets: Mapping[str, Brackets],
) -> None:
    modality, source = medium
    count = num_positions(modality, source)
    if count < 1:
        raise DataError(f"a medium of modality {modality!r} takes {count} positions; at least 1 is needed: {source!r}")
    start = len(encoded.input_ids)
    encoded.input_ids.extend(expand_placeholder(placeholder_ids[modality], count, brackets.get(modality)))
    encoded.labels.extend([IGNORE_INDEX] * (len(encoded.input_ids) - start))
    encoded.media.append(medium)
    encoded.media_spans.append((start, len(encoded.input_ids)))


def _tokenize_pieces(tokenizer: Any, pieces: list[str], markup: Markup | None = None) -> list[list[int]]:
    """Token ids of consecutive pieces of one text, whose broken tokens are text.

    Tokenizers of the SentencePiece kind put a space before their input. Only the first piece
    begins the text, so for them the others are tokenised behind an anchor character, whose ids are taken off.
    """
    anchor = _anchor_ids(tokenizer)
    texts = [piece if i == 0 or not anchor else _ANCHOR + piece for i, piece in enumerate(pieces)]
    whole = iter(_tokenize(tokenizer, [text for text in texts if BREAK not in text]))
    found: list[list[int]] = []
    for i, text in enumerate(texts):
        ids = next(whole) if BREAK not in text else None
        if markup is not None and (ids is None or markup.surplus(text, ids)):
            ids = _tokenize_as_text(tokenizer, text, ids, markup, anchor)
        assert ids is not None, "only markup breaks tokens"
        found.append(ids if i == 0 else ids[len(anchor) :])
    return found


def _tokenize_as_text(
    tokenizer: Any, text: str, plain: list[int] | None, markup: Markup, anchor: list[int]
) -> list[int]:
    """Ids of a text in which broken tokens are text; `plain` are those without any precaution.

    Raises:
        DataError: The tokenizer has no way to write them as text.
    """
    split = markup.encode(text)
    if split is not None and not markup.surplus(text, split):
        return split
    first, *rest = text.split(BREAK)
    parts = _tokenize(tokenizer, [first, *((_ANCHOR if anchor else "") + part for part in rest)])
    cut = [*parts[0], *chain.from_iterable(ids[len(anchor) :] for ids in parts[1:])]
    surplus = markup.surplus(text, cut)
    if not surplus:
        return cut
    if plain is not None and not surplus & markup.placeholder_ids:
        return plain  # no message's doing: the template's own words
    names = ", ".join(repr(token) for token, token_id in markup.tokens.items() if token_id in surplus)
    raise DataError(
        f"the text contains {names}, which the tokenizer cannot read as text. Remove it from the text",
        kind="conversation",
    )


@cached
def _anchor_ids(tokenizer: Any) -> list[int]:
    """Ids of the anchor character where pieces must be tokenised behind it, else none."""
    probes = ["a", " a"]
    anchor, *anchored = _tokenize(tokenizer, [_ANCHOR, *(_ANCHOR + probe for probe in probes)])
    separable = all(ids[: len(anchor)] == anchor and len(ids) > len(anchor) for ids in anchored)
    same = [ids[len(anchor) :] for ids in anchored] == _tokenize(tokenizer, probes)
    return anchor if separable and not same else []


def _tokenize(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of each text. Short texts are remembered: headers and brief answers come again and again."""
    known = _known_ids(tokenizer)
    ids = {text: known[text] for text in texts if text in known}
    new = list(dict.fromkeys(text for text in texts if text not in ids))
    if new:
        ids.update(zip(new, token_ids(tokenizer, new)))
        if len(known) < _MAX_REMEMBERED:
            known.update((text, ids[text]) for text in new if len(text) <= _SHORT)
    return [ids[text] for text in texts]


@cached
def _known_ids(tokenizer: Any) -> dict[str, list[int]]:
    return {}
