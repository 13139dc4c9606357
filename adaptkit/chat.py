"""Conversations to token ids, with labels on the answers only.

The tokenizer's own chat template renders the conversation, with a marker for each medium that no text may
contain. The text is then cut at the markers and at both ends of every answer, the pieces are tokenised, and
the markers become runs of placeholder ids. Cutting where an answer begins means that it never shares a token
with its prompt: training sees exactly the prompt ids that generation will see.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

from adaptkit.chat_template import (
    Span,
    Turn,
    cached,
    find_answers,
    render_template,
    resolve_template,
)
from adaptkit.errors import DataError, unknown_name
from adaptkit.interfaces import Message

IGNORE_INDEX = -100
"""Label of a position that carries no loss."""

ROLES = ("system", "user", "assistant")

# Unicode noncharacters: unlike the private-use characters of icon fonts, they never stand in exchanged text.
_MEDIUM = "\ufdd0{}\ufdd1"
_MEDIUM_PATTERN = re.compile("\ufdd0([0-9]+)\ufdd1")
_RESERVED = re.compile("[\ufdd0-\ufdd3]")
_ANCHOR = "\ufdd1"

Brackets = tuple[Sequence[int], Sequence[int]]
"""Token ids before and after a medium."""

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

    Raises:
        DataError: The conversation is malformed, refused by the template, or holds text that would be taken
            for a placeholder.
        ModelError: There is no chat template.
    """
    turns, media = _flatten(messages, placeholder_ids)
    template = resolve_template(tokenizer, chat_template)
    text = render_template(tokenizer, turns, add_generation_prompt, template)
    markers = _find_media(text, len(media))
    spans = find_answers(tokenizer, turns, text, add_generation_prompt, template)
    pieces = _cut(text, spans, _learned(messages), markers)
    ids = iter(_tokenize_pieces(tokenizer, [piece for piece, _, medium in pieces if medium is None]))
    encoded = EncodedConversation([], [])
    for _, labelled, medium in pieces:
        if medium is None:
            piece_ids = next(ids)
            _refuse_placeholders(piece_ids, placeholder_ids)
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
    turns, media = _flatten(messages, None)
    template = resolve_template(tokenizer, chat_template)
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
            "raise max_length, or leave the sample out",
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


def _flatten(
    messages: Sequence[Message], modalities: Mapping[str, int] | None
) -> tuple[list[Turn], list[tuple[str, Any]]]:
    """Join the parts of each turn to one string, with a numbered marker for each medium."""
    if not messages:
        raise DataError("a conversation has no messages")
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
                texts.append(_part_text(part, index))
            else:
                texts.append(_MEDIUM.format(len(media)))
                media.append(_part_medium(part, index, modalities))
        turns.append({"role": role, "content": "".join(texts)})
    return turns, media


def _part_text(part: dict[str, Any], index: int) -> str:
    text = part.get("text")
    if not isinstance(text, str):
        raise DataError(f"message {index}: a text part holds {type(text).__name__}, not text")
    reserved = _RESERVED.search(text)
    if reserved:
        raise DataError(
            f"message {index}: the text contains the noncharacter U+{ord(reserved[0]):04X} at position "
            f"{reserved.start()}, which adaptkit reserves for marking media. Remove it"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"message {index}: the text is not valid Unicode: {error.reason}") from error
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


def _learned(messages: Sequence[Message]) -> list[bool]:
    """Of each answer, whether it is learned."""
    return [message.get("weight") != 0 for message in messages if message["role"] == "assistant"]


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
    before, after = brackets.get(modality, ((), ()))
    encoded.input_ids.extend([*before, *[placeholder_ids[modality]] * count, *after])
    encoded.labels.extend([IGNORE_INDEX] * (len(encoded.input_ids) - start))
    encoded.media.append(medium)
    encoded.media_spans.append((start, len(encoded.input_ids)))


def _refuse_placeholders(ids: list[int], placeholder_ids: Mapping[str, int]) -> None:
    for modality, placeholder_id in placeholder_ids.items():
        if placeholder_id in ids:
            raise DataError(
                f"the text contains the placeholder token of modality {modality!r} (id {placeholder_id}): "
                "media are given as parts of their own, never as text. Remove the token from the text"
            )


def _tokenize_pieces(tokenizer: Any, pieces: list[str]) -> list[list[int]]:
    """Token ids of consecutive pieces of one text.

    Tokenizers of the SentencePiece kind put a blank before whatever they are given. Only the first piece
    begins the text, so for them the others are tokenised behind an anchor character, whose ids are taken off.
    """
    anchor: list[int] = cached(tokenizer, "anchor", lambda: _find_anchor(tokenizer))
    if not anchor:
        return _tokenize(tokenizer, pieces)
    ids = _tokenize(tokenizer, [piece if i == 0 else _ANCHOR + piece for i, piece in enumerate(pieces)])
    return [piece_ids if i == 0 else piece_ids[len(anchor) :] for i, piece_ids in enumerate(ids)]


def _find_anchor(tokenizer: Any) -> list[int]:
    """Ids of the anchor character where pieces must be tokenised behind it, else none."""
    probes = ["a", " a"]
    anchor, *anchored = _tokenize(tokenizer, [_ANCHOR, *(_ANCHOR + probe for probe in probes)])
    separable = all(ids[: len(anchor)] == anchor and len(ids) > len(anchor) for ids in anchored)
    same = [ids[len(anchor) :] for ids in anchored] == _tokenize(tokenizer, probes)
    return anchor if separable and not same else []


def _tokenize(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of each text. Short texts are remembered: headers and brief answers come again and again."""
    known: dict[str, list[int]] = cached(tokenizer, ("ids", len(tokenizer)), dict)
    ids: dict[str, list[int]] = {text: known[text] for text in texts if text in known}
    new = list(dict.fromkeys(text for text in texts if text not in ids))
    if new:
        encoding = tokenizer(
            new,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        ids.update(zip(new, encoding["input_ids"]))
        if len(known) < _MAX_REMEMBERED:
            known.update((text, ids[text]) for text in new if len(text) <= _SHORT)
    return [ids[text] for text in texts]
