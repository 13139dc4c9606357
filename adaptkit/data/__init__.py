"""Data sources, mixtures, and what turns their samples into batches.

This module is an entry point: it registers the data formats, and imports a reader when one is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from adaptkit.hookspecs import Options, Register, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adaptkit.data.llava import LlavaSource
    from adaptkit.interfaces import DataContext, Sample


class LlavaOptions(Options):
    """Where a LLaVA or ALLaVA file is, and how it is read."""

    path: str = Field(description="The JSON file, absolute or below data_root.")
    media: str | None = Field(None, description="Folder of the media. The JSON file's folder where not given.")
    limit: int | None = Field(None, ge=1, description="Read the first so many rows only.")
    move_media_to_front: bool = Field(
        False, description="Put each turn's media before its text, as LLaVA's trainer does."
    )
    system: str | None = Field(None, description="System message put before every conversation.")


@hookimpl
def register_data_sources(register: Register) -> None:
    """The formats that adaptkit reads itself."""
    register(
        name="llava",
        build=_build_llava,
        options=LlavaOptions,
        description="LLaVA and ALLaVA JSON: a list of conversations with media by path.",
        missing=_missing_llava,
        stand_in=_stand_in_llava,
    )


def _build_llava(options: LlavaOptions, context: DataContext) -> LlavaSource:
    from adaptkit.data.llava import LlavaSource

    path, media = _locate_llava(options, context)
    return LlavaSource(
        path,
        media=media,
        tags=context.tags,
        limit=options.limit,
        move_media_to_front=options.move_media_to_front,
        system=options.system,
    )


def _missing_llava(options: LlavaOptions, context: DataContext) -> str | None:
    path, media = _locate_llava(options, context)
    for what, place, found in (("data file", path, path.is_file()), ("media folder", media, media.is_dir())):
        if not found:
            return f"no {what} {place}: put it there, or set the data's path and media, or data_root"
    return None


def _stand_in_llava(
    options: LlavaOptions, directory: Path, samples: Sequence[Sample], tags: Mapping[str, str]
) -> LlavaOptions:
    from adaptkit.data.llava import write_llava

    path = write_llava(directory / "conversations.json", samples, tags)
    return options.model_copy(update={"path": str(path), "media": str(path.parent), "limit": None})


def _locate_llava(options: LlavaOptions, context: DataContext) -> tuple[Path, Path]:
    path = context.data_root / options.path
    return path, path.parent if options.media is None else context.data_root / options.media
