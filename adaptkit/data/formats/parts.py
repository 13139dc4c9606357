"""The parts of chat messages: text, and media by path, by address, in base64, or of those that a row lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptkit.data.media import Media, media_key
from adaptkit.data.rows import parts_at_tags, tag_pattern, text_part, without_tags
from adaptkit.errors import DataError, unknown_name

AGAIN = "; or is it the same one again? Then say what that means (repeated_tags: repeat, or drop)"
"""Advice about a row with one medium and several tags."""

_TEXT = ("text", "input_text", "output_text")


class PartReader:
    """Reads the parts of one row's messages in their order.

    Args:
        row: May list media under `Xs` or `X`, which parts without content and tags stand for.
        media: Finds what is named.
        tags: By modality; parts of others are errors.
        repeated_tags: What further tags of a row with one medium mean: `error`, `repeat` it, or `drop` them.
    """

    def __init__(
        self, row: Mapping[str, Any], media: Media, tags: Mapping[str, str], repeated_tags: str = "error"
    ) -> None:
        self._repeated_tags = repeated_tags
        self._cited: set[str] = set()
        self._row = row
        self._media = media
        self._modalities = list(tags)
        self._by_tag = {tag: modality for modality, tag in tags.items()}
        self._tag_pattern = tag_pattern(tags)
        self._read: set[str] = set()
        self._listed: dict[str, list[Any]] = {}
        self._unused: dict[str, list[int]] = {}

    def read(self, part: Any, where: str) -> dict[str, Any]:
        """One part; `where` is for messages.

        Raises:
            DataError: It is malformed, or its medium is missing.
        """
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise DataError(f"{where}: a part is an object with a 'type'")
        if kind in _TEXT:
            if not isinstance(part.get("text"), str):
                raise DataError(f"{where}: a text part holds {type(part.get('text')).__name__}, not text")
            return text_part(part["text"])
        modality = kind.removesuffix("_url").removeprefix("input_")
        if modality not in self._modalities:
            known = ["text", *(name for m in self._modalities for name in (m, f"{m}_url", f"input_{m}"))]
            raise DataError(f"{where}: {unknown_name('part type', kind[:40], known)}")
        self._read.add(modality)
        value = _content_of(part, kind, modality)
        if value is None and kind == modality:
            return {"type": modality, modality: self._take(modality, where, part.get("index"))}
        return {"type": modality, modality: self._medium(value, modality, where)}

    def at_tags(self, text: str, where: str) -> list[dict[str, Any]]:
        """A user's text as parts: each tag in it is the next of the media that the row lists."""
        pieces = self._tag_pattern.split(text)
        if self._repeated_tags == "drop":
            pieces = without_tags(pieces, self._is_cited)
        return parts_at_tags(pieces, self._by_tag, lambda modality: self._take(modality, where)) or [text_part(text)]

    def _is_cited(self, tag: str) -> bool:
        """Whether a tag is of a row's one medium, which stands somewhere already; from now on it does."""
        modality = self._by_tag[tag]
        is_only_one = len(self._list(modality)) == 1
        cited = is_only_one and (tag in self._cited or not self._unused[modality])
        self._cited.add(tag)
        return cited

    def list_of(self, message: Mapping[str, Any]) -> list[tuple[str, int]]:
        """Take up the media that a message lists for itself, after those of the row."""
        added = []
        for modality in self._modalities:
            name = media_key(message, modality)
            if message.get(name) is not None:
                items = self._list(modality)
                first = len(items)
                items += self._media.find_all(message[name], name, modality)
                added += [(modality, index) for index in range(first, len(items))]
                self._unused[modality] += range(first, len(items))
        return added

    def left_of(self, listed: list[tuple[str, int]], where: str) -> list[dict[str, Any]]:
        """Parts of those of some listed media that nothing stands for so far."""
        left = [(modality, index) for modality, index in listed if index in self._unused[modality]]
        return [{"type": modality, modality: self._take(modality, where, index)} for modality, index in left]

    def check_all_used(self) -> None:
        """Media that the row lists beside its messages must have their parts or tags.

        Raises:
            DataError: Some have none.
        """
        for modality in self._modalities:
            if modality not in self._read:
                self._list(modality)
        for modality, unused in self._unused.items():
            if unused:
                raise DataError(
                    f"the row lists more {modality!r} than its messages have parts or tags of that kind",
                    kind="tag_count",
                )

    def _list(self, modality: str) -> list[Any]:
        if modality not in self._listed:
            name = media_key(self._row, modality)
            self._listed[modality] = list(self._media.find_all(self._row.get(name), name, modality))
            self._unused[modality] = list(range(len(self._listed[modality])))
        return self._listed[modality]

    def _take(self, modality: str, where: str, index: Any = None) -> Any:
        """The next of the listed media, or the one that a part names by its number."""
        items, unused = self._list(modality), self._unused[modality]
        if index is None and unused:
            index = unused[0]
        if index is None and len(items) == 1 and self._repeated_tags == "repeat":
            return items[0]
        if index is None:
            raise DataError(
                f"{where}: no {modality} in it, and none left under '{modality}s' or {modality!r} of the row"
                + (AGAIN if len(items) == 1 else ""),
                kind="tag_count",
            )
        if index not in range(len(items)):
            message = f"{where}: no {modality} of index {index!r:.40}: the row lists {len(items)}"
            raise DataError(message, kind="tag_count")
        self._unused[modality] = [other for other in unused if other != index]
        return items[int(index)]

    def _medium(self, value: Any, modality: str, where: str) -> Any:
        if isinstance(value, dict) and isinstance(value.get("data"), str):
            return f"data:{_media_type(value, modality)};base64,{value['data']}"
        if isinstance(value, dict) and "url" in value:
            value = value["url"]
        if value in (None, "", {}):
            raise DataError(f"{where}: {modality} holds neither 'url' nor 'data'", kind="missing_media")
        try:
            return self._media.find(value, modality)
        except DataError as error:
            raise DataError(f"{where}: {error}", kind=error.kind) from error


def _content_of(part: Mapping[str, Any], kind: str, modality: str) -> Any:
    """What a part holds: under its type, or as transformers, OpenAI's responses and Anthropic's messages write it."""
    if part.get("base64") is not None:
        return {"data": part["base64"]}
    keys = (kind, modality, f"{modality}_url", "url", "path", "source")
    return next((part[key] for key in keys if part.get(key) is not None), None)


def _media_type(value: Mapping[str, Any], modality: str) -> str:
    for given in (value.get("media_type"), value.get("format")):
        if isinstance(given, str) and given:
            return given if "/" in given else f"{modality}/{given}"
    return f"{modality}/x-unknown"
