"""Checks of a data source: reading, order, bad rows."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError
from adaptkit.hookspecs import DataSourceComponent, Options
from adaptkit.interfaces import DataContext, DataSource, Message, Sample, is_stream
from adaptkit.plugin_manager import PluginManager, get_plugin_manager
from adaptkit.testing.checks import Check, enforce
from adaptkit.testing.components import ComponentChecks
from adaptkit.testing.examples import Example
from adaptkit.testing.requirements import ContractError, brief, require, require_refused

_ROLES = ("system", "user", "assistant")


def check_data_source(
    name: str,
    options: Mapping[str, Any],
    ids: Sequence[str] = (),
    bad_options: Sequence[Mapping[str, Any]] = (),
    *,
    manager: PluginManager | None = None,
) -> None:
    """Check that a data source gives the same samples however often and in whatever order it is asked.

    Args:
        name: What recipes call it.
        options: Valid options, of a small dataset that is on this machine.
        ids: Of the samples in it, in order, where known.
        bad_options: Options of datasets that have a bad row, or cannot be read at all: a `DataError` must say so.
        manager: As in `check_component`.

    Raises:
        ContractError: It breaks its contract.
    """
    enforce(SourceChecks("data source", name, Example(options, ids, bad_options), manager).checks())


class SourceChecks(ComponentChecks[DataSourceComponent]):
    """The contract of one data source."""

    directory = Path()

    def checks(self) -> Iterator[Check]:
        with tempfile.TemporaryDirectory() as directory:
            self.directory = Path(directory)
            yield from super().checks()
            yield Check("no network", self._no_network, essential=True)
            yield from self.checks_of_reading()
            yield Check("bad rows", self._bad_rows)
            yield Check("names what is missing", self._missing)
            yield Check("stand-in", self._stand_in)

    def checks_of_reading(self) -> Iterator[Check]:
        """Those that the stand-in must pass, too."""
        yield Check("reads", self._reads, essential=True)
        yield Check("reads the same again", self._again)
        yield Check("any order, streams forwards", self._order)
        yield Check("ends", self._ends)

    @cached_property
    def context(self) -> DataContext:
        modalities = [c for c in self.manager.components("modality") if not _needs_options(c.options)]
        tags = {c.name: str(c.build(c.options()).tag) for c in modalities}
        return DataContext(Path(), tags, self.directory / "cache")

    @cached_property
    def source(self) -> DataSource:
        return self._build(self.options)

    @cached_property
    def samples(self) -> list[Sample]:
        return [self.source[index] for index in range(len(self.source))]

    def _build(self, options: Options) -> DataSource:
        built: DataSource = self.component.build(options, self.context)
        return built

    def _no_network(self) -> None:
        with self.without_network("reading"):
            source = self._build(self.options)
            for index in range(len(source)):
                source[index]

    def _reads(self) -> None:
        missing = self.component.missing(self.options, self.context)
        require(missing is None, f"missing() reports {missing!r} for a dataset that is here")
        registered, stream = self.component.is_stream(self.options), is_stream(self.source)
        words = f"the data source is_stream={stream}, and is_stream(options) gives {registered}"
        require(registered == stream, words)
        require(bool(self.samples), "the dataset has no samples")
        for sample in self.samples:
            require_sample(sample, list(self.context.tags))
        places = {sample.location for sample in self.samples}
        distinct = len(places) > 1 or len({sample.id for sample in self.samples}) == 1
        require(distinct, f"all samples have the location {next(iter(places))!r}: messages must say which one is meant")
        found = [sample.id for sample in self.samples]
        ids = list(self.example.items)
        require(not ids or found == ids, f"the samples {brief(found)} are read, not {brief(ids)}")

    def _again(self) -> None:
        for other, how in ((self.source, "read again"), (self._build(self.options), "built and read again")):
            again = [other[index] for index in range(len(other))]
            require(len(again) == len(self.samples), f"{how}, the dataset has {len(again)} samples")
            self._require_same(other, range(len(again)), f"samples change when the dataset is {how}")

    def _order(self) -> None:
        source, indices = self._build(self.options), list(range(len(self.samples)))
        if is_stream(source):
            self._require_same(source, indices[1::2], "a stream gives other samples when some are skipped")
            self._require_same(source, indices, "a stream does not start anew when an earlier sample is asked for")
            return
        random.Random(0).shuffle(indices)
        self._require_same(source, [*indices, *reversed(indices)], "samples depend on the order in which they are read")

    def _require_same(self, source: DataSource, indices: Sequence[int], message: str) -> None:
        for index in indices:
            require(source[index] == self.samples[index], f"{message}: sample {index}")

    def _ends(self) -> None:
        length = len(self.source)
        require_refused(lambda: self.source[length], IndexError, f"sample {length} of {length}")

    def _bad_rows(self) -> str | None:
        """A bad row is a `DataError` when it is read, and what comes after it is read all the same."""
        for given in self.example.bad_items:
            options = self.component.options.model_validate(dict(given))
            try:
                problems = self._problems_of(options)
            except DataError:  # it cannot be read at all
                continue
            require(bool(problems), f"the bad dataset {brief(dict(given))} is read as if it were sound")
            again = "other rows are bad when it is read again: what comes after a bad row must be read all the same"
            require(self._problems_of(options, times=2).keys() == problems.keys(), again)
            mute = [index for index, message in problems.items() if not message.strip()]
            require(not mute, f"the DataError of row {mute[:1]} says nothing")
        return None if self.example.bad_items else "its examples have no bad_items"

    def _problems_of(self, options: Options, times: int = 1) -> dict[int, str]:
        """Messages of the bad rows, the last of so many times that the dataset is read."""
        try:
            source = self._build(options)
            for _ in range(times):
                problems = dict(filter(None, (_problem(source, index) for index in range(len(source)))))
            return problems
        except (DataError, ContractError):
            raise
        except Exception as error:
            raise ContractError(f"a bad dataset raises {type(error).__name__} instead of DataError: {error}") from error

    def _missing(self) -> str | None:
        return self.missing_path(lambda absent: self._build(absent)[0], self.context)

    def _stand_in(self) -> str | None:
        """A dataset that it writes, it reads."""
        if self.component.stand_in is None:
            return "it registers no stand_in, so its recipes cannot be rehearsed"
        written = (self.options, self.directory / "stand_in", example_samples(), self.context.tags)
        options = self.component.stand_in(*written)
        twin = self.of_stand_in(options)
        twin.directory = self.directory
        enforce(twin.checks_of_reading())
        return None


def require_sample(sample: Any, modalities: Sequence[str]) -> None:
    """A sample must be a conversation with something to learn, whose parts are text or of known modalities."""
    require(isinstance(sample, Sample), f"a data source must give adaptkit.interfaces.Sample, gave {brief(sample)}")
    named = f"the sample {sample.id!r}"
    require(isinstance(sample.id, str), f"{named}: an id must be text")
    require(bool(sample.location), f"{named} has no location, by which messages name it")
    for message in sample.messages:
        require("role" in message and "content" in message, f"{named} has a message without role or content")
        parts = message["content"]
        listed = isinstance(parts, list) and all(isinstance(part, Mapping) for part in parts)
        require(listed, f"{named}: the content of a message is a list of parts, got {brief(parts)}")
    roles = [message["role"] for message in sample.messages]
    require("assistant" in roles, f"{named} has no turn of the assistant, so nothing to learn; its roles are {roles}")
    require(set(roles) <= set(_ROLES), f"{named} has the roles {roles}; known are {', '.join(_ROLES)}")
    for part in (part for message in sample.messages for part in message["content"]):
        kind = part.get("type")
        require(kind in ("text", *modalities), f"{named} has a part of type {kind!r}; installed are {modalities}")
        sound = isinstance(part.get("text"), str) if kind == "text" else part.get(kind) is not None
        require(sound, f"{named}: a part of type {kind!r} holds its content under {kind!r}")


def example_samples(number: int = 5) -> list[Sample]:
    """Conversations in words, for stand-ins and examples."""
    turns = (("user", "what is {} and {} ?"), ("assistant", "{}{}"))
    return [
        Sample(
            f"sample_{i}",
            [Message(role=role, content=[{"type": "text", "text": text.format(i, i)}]) for role, text in turns],
        )
        for i in range(number)
    ]


def format_examples(name: str, directory: Path) -> list[Example]:
    """Examples of a format of `adaptkit.data`: one whole, and of formats in JSON one with a bad row."""
    component = get_plugin_manager().get("data source", name)
    assert component.stand_in is not None
    samples = example_samples()
    table = {"question": "{{ question }}", "answer": "{{ answer }}"}
    values: dict[str, Any] = {"path": "stand-in", **(table if name == "table" else {})}
    if name == "pairs":
        first = {"path": "stand-in"}
        values = {**table, "first": first, "second": first, "on": "answer", "num_samples": 4}
    written = component.stand_in(component.options.model_validate(values), directory, samples, {})
    ids = () if name in ("pairs", "webdataset") else [sample.id for sample in samples]  # as they are paired, or sharded
    example = Example(written.model_dump(mode="json"), ids)
    if name == "hf_dataset":
        stream = {**example.options, "streaming": True, "num_samples": len(samples)}
        return [example, replace(example, options=stream)]
    path = Path(str(getattr(written, "path", "")))
    if path.suffix != ".jsonl":
        return [example]
    bad = path.with_name("bad.jsonl")
    bad.write_text(path.read_text(encoding="utf-8") + '{"id": "bad"}\n' + "not JSON\n", encoding="utf-8")
    return [replace(example, bad_items=[{**example.options, "path": str(bad)}])]


def world_examples(directory: Path) -> list[Example]:
    """Examples of the built-in world's data source."""
    return [Example({"kind": "text", "num_samples": 4})]


def _problem(source: DataSource, index: int) -> tuple[int, str] | None:
    try:
        source[index]
    except DataError as error:
        return index, str(error)
    return None


def _needs_options(options: type[Options]) -> bool:
    return any(field.is_required() for field in options.model_fields.values())
