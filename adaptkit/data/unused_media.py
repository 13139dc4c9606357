"""Media that a row holds and nothing reads: a conversation about them would be learned without them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from adaptkit.data.media import REMOTE, Media, local_name, shown, spellings
from adaptkit.data.media_types import NUM_BYTES, begins_a_medium, kind_of, media_kinds
from adaptkit.errors import DataError
from adaptkit.interfaces import Message

_MAX_NAME = 1024
_NUMBER = re.compile(r"_?[0-9]+$")


def refuse_unread_media(row: Mapping[str, Any], messages: Sequence[Message], media: Media, tags: Iterable[str]) -> None:
    """Make sure that a row has no media that were not read.

    Content counts where it begins like a picture, a recording or a film; a name with the ending of one where there is
    such a file, or a text speaks of `<key>`. Beside media that were read only those count that stand under the name of
    a modality or a kind of media, such as `video` or a second `image_2`, be the file there or not.

    Raises:
        DataError: It has some.
    """
    parts = [part for message in messages for part in message["content"]]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    read = [part[part["type"]] for part in parts if part["type"] != "text"]
    names = {*tags, *media_kinds()}
    for key, value in row.items():
        tag = f"<{str(key).removesuffix('s')}>"
        spoken_of = any(tag in text for text in texts)
        name = _NUMBER.sub("", str(key)).removesuffix("s")
        named = name in names
        if read and not (spoken_of or named):
            continue
        unknown = named and name not in tags  # such as a film, which no modality of the recipe takes
        found = [
            one for one in _values(value) if _is_medium(one, media, spoken_of or unknown or (named and bool(read)))
        ]
        if any(not _was_read(one, read, media) for one in found):
            alone = "as text alone" if not read else "without them"
            reason = f", as the recipe has no modality {name!r}" if unknown else ""
            raise DataError(
                f"nothing reads {str(key)!r:.80}, which holds media, {shown(value)}: the row would be learned "
                f"{alone}{reason}. Conversations have media under the name of a modality of the recipe, all in one "
                "list, with a tag each in the text; a table may name the column of each modality (columns)",
                kind="unread_media",
            )
    if read:
        return
    if media.members is not None:
        for name, member in media.members.others():
            if begins_a_medium(member.read(NUM_BYTES)):
                raise DataError(
                    f"nothing reads the member {name!r:.80}, which holds media: the sample would be learned as text "
                    "alone. Say of which modality its ending is (endings)",
                    kind="unread_media",
                )


def _values(value: Any, depth: int = 2) -> Iterator[Any]:
    """What may be a medium in a value of a row."""
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        yield value["bytes"]  # beside the path that it had once
    elif isinstance(value, Mapping) and depth:
        for child in value.values():
            yield from _values(child, depth - 1)
    elif isinstance(value, list) and depth:
        for child in value:
            yield from _values(child, depth - 1)
    else:
        yield value


def _was_read(value: Any, read: Sequence[Any], media: Media) -> bool:
    """Whether a value of a row names one of the media that were read, or is one."""
    if isinstance(value, str):
        member = None if media.members is None else media.members.named(value)
        names = [value, member, *(media.folder / spelling for spelling in spellings(local_name(value)))]
        return any(one in names for one in read)
    return any(one is value or one == value for one in read)


def _is_medium(value: Any, media: Media, spoken_of: bool) -> bool:
    if isinstance(value, bytes):
        return begins_a_medium(value[:NUM_BYTES])
    if hasattr(value, "read"):
        return begins_a_medium(value.read(NUM_BYTES))
    if not isinstance(value, str) or len(value) > _MAX_NAME or kind_of(value) is None:
        return False
    if value.lower().startswith(REMOTE) and not spoken_of:
        return False
    return spoken_of or media.has(value)
