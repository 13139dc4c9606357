"""Data sources, mixtures, and what turns their samples into batches.

This module is an entry point: it registers the data formats, and imports what reads them when that is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from adaptkit.data.formats.options import (
    FileOptions,
    HfDatasetOptions,
    LlavaOptions,
    PairOptions,
    ParquetOptions,
    TableOptions,
    WebDatasetOptions,
)
from adaptkit.hookspecs import DataSourceComponent, Options, hookimpl

FORMATS: dict[str, tuple[type[Options], str]] = {
    "llava": (LlavaOptions, "LLaVA and ALLaVA JSON: a list of conversations with media by path."),
    "sharegpt": (
        LlavaOptions,
        "ShareGPT: LLaVA's turns with more speakers, a system message, and media under plural names.",
    ),
    "messages": (FileOptions, "OpenAI's chat messages, with parts of text and media, by path or in base64."),
    "table": (TableOptions, "A table of labelled media, each row a question and an answer by template."),
    "pairs": (PairOptions, "Pairs of rows of two tables, half of which agree in a column."),
    "parquet": (ParquetOptions, "Parquet files of conversations or labels, media embedded or by path."),
    "webdataset": (WebDatasetOptions, "Webdataset shards: tar archives with the texts and media of each sample."),
    "hf_dataset": (HfDatasetOptions, "Hugging Face datasets: saved to disk, of local files or the hub, or streamed."),
}
"""Options and description of each format; `adaptkit.data.formats.building` has what builds it."""


@hookimpl
def register_data_sources(register: type[DataSourceComponent]) -> None:
    """The formats that adaptkit reads itself."""
    for name, (options, description) in FORMATS.items():
        register(
            name=name,
            build=_deferred("build", name),
            options=options,
            description=description,
            missing=_deferred("missing", name),
            stand_in=_deferred("stand_in", name),
            is_stream=_is_stream,
            examples=_deferred("format_examples", name, "adaptkit.testing.sources"),
        )


def _deferred(what: str, name: str, module: str = "adaptkit.data.formats.building") -> Callable[..., Any]:
    """A function of a format whose module is imported when it is called."""

    def call(*arguments: Any) -> Any:
        return getattr(import_module(module), what)(name, *arguments)

    return call


def _is_stream(options: Options) -> bool:
    return bool(getattr(options, "streaming", False))
