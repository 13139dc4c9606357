"""The scaffold passes all checks; each sentence of it that is broken is caught, with the right words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from adaptkit.testing import CheckResult, check_plugin, plugins
from adaptkit.testing.checks import collect
from tests.unit.testing.scaffolds import PLUGIN, Installed


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    return Installed(tmp_path, monkeypatch)


def run(installed: Installed, *, fresh_processes: bool = False) -> list[CheckResult]:
    return check_plugin(PLUGIN, manager=installed.manager(), fresh_processes=fresh_processes)


def failures(results: list[CheckResult]) -> list[CheckResult]:
    return [result for result in results if result.outcome == "failed"]


def test_the_scaffold_passes_all_of_them(installed: Installed) -> None:
    results = run(installed)
    assert {result.outcome for result in results} == {"passed"}, results
    checked = {result.check for result in results if result.kind == "encoder"}
    assert {"no network", "batch = single", "gradient, save and load", "fingerprint follows options"} <= checked


class Mutation(NamedTuple):
    """Edits of the scaffold: file, old and new text of each; the check that must fail, and its words."""

    edits: list[tuple[str, str, str]]
    check: str
    words: str


def encoder(old: str, new: str, check: str, words: str) -> Mutation:
    return Mutation([("encoder.py", old, new)], check, words)


def modality(old: str, new: str, check: str, words: str) -> Mutation:
    return Mutation([("modality.py", old, new)], check, words)


def hooks(old: str, new: str, check: str, words: str) -> Mutation:
    return Mutation([("__init__.py", old, new)], check, words)


FORWARD = "features: Tensor = self.layers(inputs.flatten(-2))"
LISTED = "[self.layers(item.flatten(-2)) for item in inputs]"
CONNECT = "__import__('socket').create_connection(('weights.invalid', 80), timeout=1)"
READ = "raw, where = self._reader.read(source)"
KEY = "return hashlib.sha256(self._reader.read(source)[0])"
IMPORT = "from adaptkit import hookimpl\n"
NO_TABLE = ' as error:\n            raise DataError(f"{where} is no table'
EXAMPLES = '        examples="adaptkit_gyro.examples:encoder_examples",\n'
SHAPES, BATCH = "shapes and dtypes", "batch = single"

MUTATIONS = {
    "wrong width": encoder(
        *("self.feature_size = options.width", "self.feature_size = options.width + 1"),
        *(SHAPES, "feature_size says 33, but the encoder's features are 32 wide"),
    ),
    "misdeclared length": encoder(
        *("return len(inputs)", "return len(inputs) + 1"),
        *(SHAPES, "num_positions says 4 for this item, but the encoder gives 3 positions"),
    ),
    "no floats": encoder(
        *(FORWARD, f"{FORWARD}.round().long()"),
        *(SHAPES, "features must be floats, got torch.int64"),
    ),
    "non-determinism": encoder(
        *(FORWARD, f"{FORWARD} + torch.rand(1)"),
        *("determinism", "the encoder is not deterministic"),
    ),
    "trainable encoder": encoder(
        *("self.requires_grad_(False).eval()", "self.eval()"),
        *("frozen", "an encoder is frozen, but 4 parameters are trainable: ['layers.0.weight']"),
    ),
    "gradient into the encoder": encoder(
        *(FORWARD, f"self.requires_grad_(True)\n        {FORWARD}"),
        *(SHAPES, "features of a frozen encoder carry no gradient"),
    ),
    "gradient into the encoder of a workflow": encoder(
        *(LISTED, LISTED.replace("self.layers", "self.requires_grad_(len(inputs) == 2).layers")),
        *("gradient, save and load", "a gradient reaches the frozen encoder: ['item.layers.0.weight']"),
    ),
    "neighbours of one size": encoder(
        *(FORWARD, f"{FORWARD} + len(inputs)"),
        *(BATCH, "one item alone is encoded otherwise than in a batch"),
    ),
    "neighbours of other sizes": encoder(
        *(LISTED, LISTED.replace("(-2))", "(-2)) + len(inputs)")),
        *(BATCH, "one item alone is encoded otherwise than in a batch"),
    ),
    "no lists": encoder(
        *("if isinstance(inputs, list):", "if False:"),
        *(BATCH, "items of different sizes reach the encoder as a list, which it does not take: AttributeError"),
    ),
    "a network call": encoder(
        *("    problem = missing(options)", f"    {CONNECT}\n    problem = missing(options)"),
        *(
            "no network",
            "building or running the encoder 'gyro' uses the network: socket.getaddrinfo('weights.invalid'",
        ),
    ),
    "a network call that is forgiven": modality(
        *(READ, f"{READ}\n        try: {CONNECT}\n        except OSError: pass"),
        *("no network", "reading items of the modality 'gyro' uses the network"),
    ),
    "wrong example inputs": encoder(
        *("torch.zeros(1, 1, self.options", "torch.zeros(2, 1, self.options"),
        *("example inputs", "example_inputs must give a tensor (1, ...), gave torch.Size([2, 1, 8, 1])"),
    ),
    "no example inputs": encoder(
        *("def example_inputs", "def other_inputs"),
        *("example inputs", "GyroEncoder gives no example_inputs, which training on several devices needs"),
    ),
    "a key without the weights": encoder(
        *("{super().fingerprint()} {options}", "{options}"),
        *("built twice", "fingerprint() does not change with the encoder's weights"),
    ),
    "a key without an option": Mutation(
        [
            ("options.py", "    width: int", "    loud: bool = False\n    width: int"),
            ("encoder.py", FORWARD, f"{FORWARD} * (1 + self.options.loud)"),
            ("encoder.py", 'exclude={"path"}', 'exclude={"path", "loud"}'),
        ],
        *("fingerprint follows options", "fingerprint() does not change with loud=True, but features do"),
    ),
    "a traceback for an option": encoder(
        *("problem = missing(options)", "problem = missing(options) or [0][options.width - 32]"),
        *("fingerprint follows options", "building with width=33 raises IndexError instead of a ModelError"),
    ),
    "an untyped option": Mutation(
        [
            ("options.py", "from pydantic import Field", "from typing import Any\n\nfrom pydantic import Field"),
            ("options.py", "width: int = Field(default=32, ge=1)", "width: Any = 32"),
        ],
        *("registration and options", "the option width of the encoder 'gyro' is typed Any"),
    ),
    "missing weights unnoticed": Mutation(
        [("checkpoint.py", "if weights.is_file():", "if True:")],
        *("names what is missing", "missing() does not name a path that is not there"),
    ),
    "another error on bad items": encoder(
        *("if not isinstance(item, np.ndarray) or item.ndim != 2:", "if False:"),
        *("refuses bad items", "preprocessing of None raises AttributeError instead of DataError"),
    ),
    "an unstable content_key": modality(
        *(KEY, "return hashlib.sha256(__import__('os').urandom(8))"),
        *("content keys", "content_key changes when a source is read again"),
    ),
    "a content_key of the path": modality(
        *(KEY, "return hashlib.sha256(str(source).encode())"),
        *("paths, bytes and files alike", "content_key depends on where the content lies"),
    ),
    "another error on corrupt input": modality(
        *(f"except ValueError{NO_TABLE}", f"except KeyError{NO_TABLE}"),
        *("refuses corrupt input", "load of 1024 bytes of noise raises UnicodeDecodeError instead of DataError"),
    ),
    "a limit that is not kept": modality(
        *("if len(values) > self.options.max_steps:", "if False:"),
        *("refuses corrupt input", "is accepted; it must raise DataError"),
    ),
    "reading without end": modality(
        *(READ, f"{READ} if not hasattr(source, 'read') else (source.read(), 'the file')"),
        *("refuses huge input", "load reads a file object to its end, however far that is: read up to a limit"),
    ),
    "empty input": Mutation(
        [
            ("modality.py", READ, f"{READ} if source != b'' else (b'', 'nothing')"),
            ("modality.py", "else np.zeros((0, 1))", "else np.zeros((1, 1))"),
        ],
        *("refuses empty input", "load of b'' is accepted; it must raise DataError"),
    ),
    "wrong types": modality(
        *(READ, f"{READ} if type(source) is not object else source + 'bytes'"),
        *("refuses wrong types", "load of object raises TypeError instead of DataError"),
    ),
    "a missing file unnamed": modality(
        *(READ, f"{READ} if str(source) != 'no-such-folder/no-such-item' else self._reader.read(b'')"),
        *("names what is missing", "the message does not name 'no-such-folder/no-such-item'"),
    ),
    "a page that links elsewhere": modality(
        *("<svg role", "<img src=https://example.org/a.png><svg role"),
        *("reads and shows", "to_html must give an HTML fragment that links to nothing"),
    ),
    "examples that raise": Mutation(
        [("examples.py", "    items = [np.sin", "    raise RuntimeError('no weights')\n    items = [np.sin")],
        *("examples", "examples: raises RuntimeError: no weights"),
    ),
    "no examples": hooks(
        *(EXAMPLES, ""),
        *("examples", "it cannot be tried: register examples="),
    ),
    "a hook that raises after registering": hooks(
        *(f"{EXAMPLES}    )\n", f"{EXAMPLES}    )\n    raise RuntimeError('late')\n"),
        *("loads", "it fails to load: RuntimeError: late"),
    ),
    "a plugin that exits": hooks(
        *(IMPORT, f"{IMPORT}raise SystemExit(3)\n"),
        *("loads", "it fails to load: SystemExit: 3"),
    ),
    "a hook without a mark": Mutation(
        [("__init__.py", "@hookimpl\ndef register_encoders", "def register_encoders")],
        *("loads", "it fails to load: register_encoders is not marked"),
    ),
    "nothing registered": Mutation(
        [
            ("__init__.py", "@hookimpl\ndef register_encoders", "def _register_encoders"),
            ("__init__.py", "@hookimpl\ndef register_modalities", "def _register_modalities"),
        ],
        *("loads", "it registers nothing: write one of register_modalities"),
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_caught(installed: Installed, name: str) -> None:
    mutation = MUTATIONS[name]
    for file, old, new in mutation.edits:
        installed.replace(file, old, new)
    found = failures(run(installed))
    assert found, "nothing failed"
    assert (found[0].check, mutation.words in found[0].message) == (mutation.check, True), found


def own_failure(installed: Installed) -> CheckResult:
    manager = installed.manager()
    checks = plugins.PluginChecks(manager, PLUGIN, manager.components("encoder"))
    [failure] = failures(collect("plugin", PLUGIN, checks.own_checks()))
    return failure


def test_a_slow_import_is_caught(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "MAX_IMPORT_S", 0.2)
    monkeypatch.setattr(plugins, "TRIES", 1)
    installed.replace("__init__.py", IMPORT, f"{IMPORT}__import__('time').sleep(0.4)\n")
    message = own_failure(installed).message
    assert re.search(r"importing adaptkit_gyro takes \d\.\d s; at most 0\.2 s are allowed", message)


def test_a_heavy_import_is_caught(installed: Installed) -> None:
    (installed.source.parent / "jax.py").touch()
    installed.replace("__init__.py", IMPORT, f"{IMPORT}import jax\n")
    expected = "importing adaptkit_gyro imports jax: import such libraries inside the builders"
    assert own_failure(installed).message == expected


def test_a_hash_that_ends_with_its_process_is_caught(installed: Installed) -> None:
    installed.replace("modality.py", KEY, "return hashlib.sha256(str(hash(self._reader.read(source)[0])).encode())")
    found = failures(run(installed, fresh_processes=True))
    assert [(r.check, r.message) for r in found] == [
        ("hashes in another process", "content_key of the modality 'gyro' gives other keys in another process")
    ]
