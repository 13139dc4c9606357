"""What kind of medium a file holds, by its ending or its first bytes."""

from __future__ import annotations

import mimetypes
from functools import cache
from pathlib import Path

_NO_MEDIA = ("application", "chemical", "font", "message", "model", "multipart", "text")
_BEGINNINGS = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cJXL"),
    *(b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"FORM", b"\x1aE\xdf\xa3"),
)
NUM_BYTES = 16
"""How many first bytes tell a medium."""


def kind_of(name: str) -> str | None:
    """First half of the media type of a file, `image`, by its ending, the same on every machine; None: no medium."""
    kind = _kinds().get(Path(name).suffix.lower())
    return None if kind in _NO_MEDIA else kind


def media_kinds() -> frozenset[str]:
    """All that `kind_of` may say."""
    return frozenset(_kinds().values()).difference(_NO_MEDIA)


def begins_a_medium(content: bytes) -> bool:
    """Whether a file that begins so is a picture, a recording or a film in one of the common formats."""
    return bool(beginning_of(content))


def beginning_of(content: bytes) -> bytes:
    """The first bytes that identify one of the common formats of media; empty for anything else."""
    if content[4:8] == b"ftyp":
        return content[4:12]
    return next((one for one in _BEGINNINGS if content.startswith(one)), b"")


@cache
def _kinds() -> dict[str, str]:
    known = mimetypes.MimeTypes()
    known.read(str(Path(__file__).with_name("media.types")))
    return {ending: kind.partition("/")[0] for table in known.types_map for ending, kind in table.items()}
