"""Media that a row holds and nothing reads: a conversation about them would be learned without them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adaptkit.data.media import Media, shown
from adaptkit.data.media_types import NUM_BYTES, begins_a_medium, kind_of
from adaptkit.errors import DataError
from adaptkit.interfaces import Message

_MAX_NAME = 1024


def refuse_unread_media(row: Mapping[str, Any], messages: Sequence[Message], media: Media) -> None:
    """Make sure that a row which was read as text alone has no media.

    Content counts where it begins like a picture, a recording or a film; a name with the ending of one where there is
    such a file, or a text speaks of `<key>`.

    Raises:
        DataError: It has some.
    """
    texts = [part for message in messages for part in message["content"]]
    if any(part["type"] != "text" for part in texts):
        return
    for key, value in row.items():
        tag = f"<{str(key).removesuffix('s')}>"
        spoken_of = any(tag in part["text"] for part in texts)
        if any(_is_medium(one, media, spoken_of) for one in _values(value)):
            raise DataError(
                f"nothing reads {str(key)!r:.80}, which holds media, {shown(value)}: the row would be learned as text "
                "alone. Conversations have media under the name of a modality of the recipe, with a tag each in the "
                "text; a table may name the column of each modality (columns)",
                kind="unread_media",
            )
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
    if isinstance(value, Mapping) and depth:
        for child in value.values():
            yield from _values(child, depth - 1)
    elif isinstance(value, list) and depth:
        for child in value:
            yield from _values(child, depth - 1)
    else:
        yield value


def _is_medium(value: Any, media: Media, spoken_of: bool) -> bool:
    if isinstance(value, bytes):
        return begins_a_medium(value[:NUM_BYTES])
    if hasattr(value, "read"):
        return begins_a_medium(value.read(NUM_BYTES))
    if not isinstance(value, str) or len(value) > _MAX_NAME or kind_of(value) is None:
        return False
    return spoken_of or media.has(value)
