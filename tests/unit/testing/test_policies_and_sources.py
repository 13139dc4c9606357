"""Each check of policies and data sources can fail: broken ones are caught by the check that names the fault."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adaptkit import Options, hookimpl
from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext, Sample
from adaptkit.plugin_manager import PluginManager
from adaptkit.testing import ContractError, Example
from adaptkit.testing.checks import Check
from adaptkit.testing.policies import PolicyChecks
from adaptkit.testing.sources import SourceChecks
from tests.unit.testing.scaffolds import NAME, Installed


def first_failure(checks: Iterable[Check]) -> str:
    for check in checks:
        try:
            check()
        except ContractError as error:
            return f"{check.title}: {error}"
    return ""


# -- policies: the scaffold, with a line of its code replaced --------------------------------------------------------

FORWARD = "scaled = first_output(output) * (1 + self.scale)"
PARAMETER = '            layer.register_parameter("scale", nn.Parameter(zeros))\n'

MEAN = "scaled = scaled + scaled.cumsum(1) / torch.arange(1, scaled.shape[1] + 1)[:, None]"
PLACED = "        needs_placement=True,\n"


def insert(*lines: str) -> tuple[str, str, str]:
    """Lines after the parameter is made."""
    return "policy.py", PARAMETER, PARAMETER + "".join(f"            {line}\n" for line in lines)


def forward(*lines: str) -> tuple[str, str, str]:
    """Lines in place of the layer's forward."""
    return "policy.py", FORWARD, "\n        ".join(lines)


POLICIES: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "a base tensor is changed": (
        "text unchanged: on llama: the base computes something else",
        [insert("layer.mlp.down_proj.weight.data.add_(1.0)")],
    ),
    "a base tensor that the text does not use is changed": (
        "text unchanged: on llama: tensors of the base differ",
        [insert("decoder.model.get_input_embeddings().weight.data[0].add_(1.0)")],
    ),
    "a parameter is idle": (
        "trains its own tensors alone: on llama: a training step does not reach language_model.model.layers.1.idle",
        [insert('layer.register_parameter("idle", nn.Parameter(zeros.clone()))')],
    ),
    "a frozen tensor is trained": (
        "trains its own tensors alone: on llama: a training step changes frozen tensors: language_model",
        [forward("next(self.mlp.parameters()).data.add_(float(self.training))", FORWARD)],
    ),
    "the mask is ignored": (
        "left = right padding: on llama: left and right padding disagree",
        [forward(FORWARD, MEAN)],
    ),
    "the cache is broken": (
        "cached = uncached: on llama: generation with a cache differs",
        [forward(f"{FORWARD} * (1 + (hidden_states.shape[1] == 1))")],
    ),
    "a layer counts its runs": (
        "gradient checkpointing: on llama: gradient checkpointing changes the gradient",
        [forward("self.runs = vars(self).get('runs', 0) + self.training", f"{FORWARD} * (1 + self.runs % 2)")],
    ),
    "a tensor is lost on saving": (
        "save and load: on llama: a saved and loaded workflow gives other logits",
        [insert("layer.lost = torch.randn(decoder.hidden_size)"), forward(f"{FORWARD} + self.lost")],
    ),
    "conversations in a row are not kept apart": (
        "packing: on llama: the loss of conversations that share a row differs",
        [forward(f"{FORWARD} * (1 + (self.training and len(hidden_states) == 1))")],
    ),
    "the placement is not stated": (
        "builds: the insertion policy 'gyro' is registered without needs_placement",
        [("__init__.py", PLACED, "")],
    ),
    "a trait is stated twice": (
        "builds: builds: raises PluginError: the insertion policy 'gyro' is registered with needs_placement=True",
        [("policy.py", "    exports_as_stock", "    needs_placement = False\n    exports_as_stock")],
    ),
    "insertion is denied": (
        "adapts decoders: it inserts parameters, and is registered with inserts=False",
        [("__init__.py", PLACED, f"{PLACED}        inserts=False,\n")],
    ),
}


@pytest.mark.parametrize("fault", POLICIES)
def test_a_broken_policy_is_caught(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, edits = POLICIES[fault]
    installed = Installed(tmp_path, monkeypatch, "policy")
    for edit in edits:
        installed.replace(*edit)
    checks = PolicyChecks("insertion policy", NAME, Example(), installed.manager())
    checks.families = ["llama"]
    assert first_failure(checks.checks()).startswith(words)


def test_a_policy_that_refuses_every_decoder_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = Installed(tmp_path, monkeypatch, "policy")
    raising = "raise __import__('adaptkit').ModelError('not this one')"
    installed.replace("policy.py", "        for layer in", f"        {raising}\n        for layer in")
    checks = PolicyChecks("insertion policy", NAME, Example(), installed.manager())
    checks.families = ["llama"]
    assert first_failure(checks.checks()).endswith("adapts no decoder: llama: not this one")


# -- data sources: lines of JSON, with a method replaced -------------------------------------------------------------


class LinesOptions(Options):
    path: str
    stream: bool = False


class Lines:
    """A sound data source of one JSON object a line; tests replace parts of it."""

    def __init__(self, options: LinesOptions, context: DataContext) -> None:
        self.is_stream, self.reads = options.stream, 0
        self._path = Path(options.path)
        try:
            self._lines = self._path.read_text().splitlines()
        except OSError as error:
            raise DataError(f"cannot read {options.path}") from error

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self._lines):
            raise IndexError(index)
        self.reads += 1
        try:
            row = json.loads(self._lines[index])
        except ValueError as error:
            raise DataError(f"{self._path}[{index}] is not JSON") from error
        turns = zip(("user", "assistant"), row["turns"], strict=True)
        messages: Any = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
        return Sample(row["id"], messages, f"{self._path}[{index}]")


def missing(options: LinesOptions, context: DataContext) -> str | None:
    return None if Path(options.path).is_file() else f"no file {options.path}"


def stand_in(
    options: LinesOptions, directory: Path, samples: Sequence[Sample], tags: Mapping[str, str]
) -> LinesOptions:
    directory.mkdir()
    return options.model_copy(update={"path": write_lines(directory / "lines", [sample.id for sample in samples])})


def write_lines(path: Path, ids: Sequence[str], more: str = "") -> str:
    rows = [json.dumps({"id": name, "turns": [f"ask {name}", f"say {name}"]}) for name in ids]
    path.write_text("\n".join(rows) + "\n" + more)
    return str(path)


IDS = ["a", "b", "c", "d"]


def check_source(folder: Path, stream: bool = False, **parts: Any) -> str:
    """The first check that a source fails some of whose parts are replaced."""
    members = {name: parts.pop(name) for name in [*parts] if name.startswith("__")}

    @hookimpl
    def register_data_sources(register: Any) -> None:
        fields = {"missing": missing, "stand_in": stand_in, "is_stream": lambda options: options.stream, **parts}
        register(name="lines", build=type("Lines", (Lines,), members), options=LinesOptions, description="Lines.",
                 **fields)  # fmt: skip

    manager = PluginManager([])
    manager.add(SimpleNamespace(register_data_sources=register_data_sources), name="lines")
    options = {"path": write_lines(folder / "good", IDS), "stream": stream}
    bad = {"path": write_lines(folder / "bad", IDS, more="not JSON\n"), "stream": stream}
    return first_failure(SourceChecks("data source", "lines", Example(options, IDS, [bad]), manager).checks())


@pytest.mark.parametrize("stream", [False, True])
def test_a_sound_data_source_passes(stream: bool, tmp_path: Path) -> None:
    assert check_source(tmp_path, stream) == ""


def read(self: Any, index: int) -> Sample:
    return Lines.__getitem__(self, index)


def changed(sample: Sample, text: str) -> Sample:
    messages: Any = [*sample.messages, {"role": "assistant", "content": [{"type": "text", "text": text}]}]
    return Sample(sample.id, messages, sample.location)


def raising_its_own(self: Any, index: int) -> Sample:
    return Lines.__getitem__(self, index) if self._lines[index].startswith("{") else json.loads(self._lines[index])


def skipping_bad_rows(self: Any, index: int) -> Sample:
    try:
        return Lines.__getitem__(self, index)
    except DataError:
        return Lines.__getitem__(self, 0)


def by_last_index(self: Any, index: int) -> Sample:
    before, self.before = vars(self).get("before", -1), index
    return changed(read(self, index), "after" if before in (index, index - 1) or index == 0 else "elsewhere")


def ending_at_a_bad_row(self: Any, index: int) -> Sample:
    try:
        return Lines.__getitem__(self, 4 if vars(self).get("ended") else index)
    except DataError:
        self.ended = True
        raise


def in_one_place(self: Any, index: int) -> Sample:
    sample = read(self, index)
    return Sample(sample.id, sample.messages, "here")


def downloading(self: Any, index: int) -> Sample:
    __import__("socket").create_connection(("rows.invalid", 80), timeout=1)
    return read(self, index)


SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "drops rows": ("reads: the samples ", {"__len__": lambda self: len(self._lines) - 1}),
    "changes on reading again": (
        "reads the same again: samples change when the dataset is read again: sample 0",
        {"__getitem__": lambda self, index: changed(read(self, index), f"read {self.reads}")},
    ),
    "depends on the order": (
        "any order, streams forwards: samples depend on the order in which they are read",
        {"__getitem__": by_last_index},
    ),
    "has no end": ("ends: sample 4 of 4 is accepted", {"__getitem__": lambda self, index: read(self, index % 4)}),
    "raises a raw error on a bad row": (
        "bad rows: a bad dataset raises JSONDecodeError instead of DataError",
        {"__getitem__": raising_its_own},
    ),
    "ends at a bad row": ("bad rows: other rows are bad when it is read again", {"__getitem__": ending_at_a_bad_row}),
    "says of all samples the same place": (
        "reads: all samples have the location 'here'",
        {"__getitem__": in_one_place},
    ),
    "gives text in place of parts": (
        "reads: the sample 'a': the content of a message is a list of parts",
        {"__getitem__": lambda self, index: Sample("a", [{"role": "user", "content": "ask"}], "here")},
    ),
    "hides a bad row": ("bad rows: the bad dataset ", {"__getitem__": skipping_bad_rows}),
    "uses the network": ("no network: reading the data source 'lines' uses the network", {"__getitem__": downloading}),
    "gives rows": (
        "reads: a data source must give adaptkit.interfaces.Sample",
        {"__getitem__": lambda self, index: json.loads(self._lines[index])},
    ),
    "gives nothing to learn": (
        "reads: the sample 'a' has no turn of the assistant",
        {"__getitem__": lambda self, index: Sample("a", read(self, index).messages[:1], "here")},
    ),
    "says nowhere where a sample is": (
        "reads: the sample 'a' has no location",
        {"__getitem__": lambda self, index: Sample("a", read(self, index).messages)},
    ),
    "is a stream unannounced": (
        "reads: the data source is_stream=False, and is_stream(options) gives True",
        {"is_stream": lambda options: True},
    ),
    "does not name what is missing": (
        "names what is missing: missing() does not name",
        {"missing": lambda options, context: None},
    ),
    "writes a stand-in of another type": (
        "stand-in: stand_in must return options",
        {"stand_in": lambda options, directory, samples, tags: {}},
    ),
}


@pytest.mark.parametrize("fault", SOURCES)
def test_a_broken_data_source_is_caught(fault: str, tmp_path: Path) -> None:
    words, parts = SOURCES[fault]
    assert check_source(tmp_path, **parts).startswith(words)


def forwards(self: Any, index: int) -> Sample:
    """A stream that cannot be read a second time."""
    self.reached = max(vars(self).get("reached", 0), index)
    return changed(read(self, index), "late" if index < self.reached else "in time")


def test_a_stream_that_does_not_start_anew_is_caught(tmp_path: Path) -> None:
    found = check_source(tmp_path, stream=True, __getitem__=forwards)
    assert found == "reads the same again: samples change when the dataset is read again: sample 0"
