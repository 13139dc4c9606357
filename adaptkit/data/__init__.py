"""Data sources, mixtures, and what turns their samples into batches.

This module is an entry point: it registers the data formats, and imports a reader when one is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adaptkit.data.options import FileOptions, LlavaOptions, PairOptions, PairTable, TableOptions, TemplateOptions
from adaptkit.hookspecs import Register, hookimpl

T = TypeVar("T", bound=FileOptions)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adaptkit.data.llava import LlavaSource
    from adaptkit.data.messages import MessagesSource
    from adaptkit.data.table import TableSource
    from adaptkit.interfaces import DataContext, Sample


@hookimpl
def register_data_sources(register: Register) -> None:
    """The formats that adaptkit reads itself."""
    register(
        name="llava",
        build=_build_llava,
        options=LlavaOptions,
        description="LLaVA and ALLaVA JSON: a list of conversations with media by path.",
        missing=_missing_file,
        stand_in=_stand_in_llava,
    )
    register(
        name="sharegpt",
        build=_build_sharegpt,
        options=LlavaOptions,
        description="ShareGPT: LLaVA's turns with more speakers, a system message, and media under plural names.",
        missing=_missing_file,
        stand_in=_stand_in_sharegpt,
    )
    register(
        name="messages",
        build=_build_messages,
        options=FileOptions,
        description="OpenAI's chat messages, with parts of text and media, by path or in base64.",
        missing=_missing_file,
        stand_in=_stand_in_messages,
    )
    register(
        name="table",
        build=_build_table,
        options=TableOptions,
        description="A table of labelled media, each row a question and an answer by template.",
        missing=_missing_file,
        stand_in=_stand_in_table,
    )
    register(
        name="pairs",
        build=_build_pairs,
        options=PairOptions,
        description="Pairs of rows of two tables, half of which agree in a column.",
        missing=_missing_pairs,
        stand_in=_stand_in_pairs,
    )


def _build_table(options: TableOptions, context: DataContext) -> TableSource:
    from adaptkit.data.table import TableSource, read_rows

    path, media = _locate(options, context)
    rows = read_rows(path, options.limit)
    return TableSource(rows, str(path), media=media, tags=context.tags, columns=options.columns, **_templates(options))


def _build_pairs(options: PairOptions, context: DataContext) -> TableSource:
    from adaptkit.data.table import PairSource, read_rows

    places = [_locate(table, context) for table in (options.first, options.second)]
    first, second = ((read_rows(path), media) for path, media in places)
    return PairSource(
        first,
        second,
        on=options.on,
        num_samples=options.num_samples,
        seed=options.seed,
        location=" x ".join(str(path) for path, _ in places),
        tags=context.tags,
        **_templates(options),
    )


def _templates(options: TemplateOptions) -> dict[str, Any]:
    return {"question": options.question, "answer": options.answer, "system": options.system}


def _missing_pairs(options: PairOptions, context: DataContext) -> str | None:
    return _missing_file(options.first, context) or _missing_file(options.second, context)


def _stand_in_table(
    options: TableOptions, directory: Path, samples: Sequence[Sample], tags: Mapping[str, str]
) -> TableOptions:
    from adaptkit.data.stand_in import write_table

    path = write_table(directory / "table.jsonl", samples, tags)
    templates = {"question": "{{ question }}", "answer": "{{ answer }}"}
    place: dict[str, Any] = {"path": str(path), "media": str(path.parent), "columns": {}, "limit": None}
    return options.model_copy(update={**place, **templates})


def _stand_in_pairs(
    options: PairOptions, directory: Path, samples: Sequence[Sample], tags: Mapping[str, str]
) -> PairOptions:
    from adaptkit.data.stand_in import write_table

    table = PairTable(path=str(write_table(directory / "table.jsonl", samples, tags)), media=str(directory))
    questions = "{{ first.question }} {{ second.question }}"
    update = {"first": table, "second": table, "on": "answer", "question": questions, "answer": "{{ first.answer }}"}
    return options.model_copy(update={**update, "num_samples": min(options.num_samples, len(samples))})


def _build_llava(options: LlavaOptions, context: DataContext) -> LlavaSource:
    from adaptkit.data.llava import LlavaSource

    return LlavaSource(**_conversations(options, context), move_media_to_front=options.move_media_to_front)


def _build_sharegpt(options: LlavaOptions, context: DataContext) -> LlavaSource:
    from adaptkit.data.sharegpt import ShareGptSource

    return ShareGptSource(**_conversations(options, context), move_media_to_front=options.move_media_to_front)


def _build_messages(options: FileOptions, context: DataContext) -> MessagesSource:
    from adaptkit.data.messages import MessagesSource

    return MessagesSource(**_conversations(options, context))


def _conversations(options: FileOptions, context: DataContext) -> dict[str, Any]:
    path, media = _locate(options, context)
    return {
        "path": path, "media": media, "tags": context.tags, "limit": options.limit, "system": options.system
    }  # fmt: skip


def _missing_file(options: FileOptions | TableOptions | PairTable, context: DataContext) -> str | None:
    path, media = _locate(options, context)
    for what, place, found in (("data file", path, path.is_file()), ("media folder", media, media.is_dir())):
        if not found:
            return f"no {what} {place}: put it there, or set the data's path and media, or data_root"
    return None


def _stand_in_llava(
    options: LlavaOptions, directory: Path, samples: Sequence[Sample], tags: Mapping[str, str]
) -> LlavaOptions:
    from adaptkit.data.stand_in import write_llava

    return _placed(options, write_llava(directory / "conversations.json", samples, tags))


def _stand_in_sharegpt(
    options: LlavaOptions, directory: Path, samples: Sequence[Sample], tags: Mapping[str, str]
) -> LlavaOptions:
    from adaptkit.data.stand_in import write_sharegpt

    return _placed(options, write_sharegpt(directory / "conversations.jsonl", samples, tags))


def _stand_in_messages(
    options: FileOptions, directory: Path, samples: Sequence[Sample], tags: Mapping[str, str]
) -> FileOptions:
    from adaptkit.data.stand_in import write_messages

    return _placed(options, write_messages(directory / "messages.jsonl", samples))


def _placed(options: T, path: Path) -> T:
    return options.model_copy(update={"path": str(path), "media": str(path.parent), "limit": None})


def _locate(options: FileOptions | TableOptions | PairTable, context: DataContext) -> tuple[Path, Path]:
    path = context.data_root / options.path
    return path, path.parent if options.media is None else context.data_root / options.media
