"""`adaptkit plugins new` and `check`: packages that work at once, tables and exit codes that tell the truth."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from adaptkit import Options, hookimpl
from adaptkit.cli import cli
from adaptkit.plugin_manager import PluginManager, get_plugin_manager, set_plugin_manager
from adaptkit.scaffold import SCAFFOLDS
from adaptkit.testing import check_plugin
from tests.unit.testing.scaffolds import MODULE, PLUGIN, Installed

CORE = [EntryPoint(f"adaptkit-{name}", f"adaptkit.{name}", "adaptkit") for name in ("policies", "projectors")]


def adaptkit(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False)


@pytest.fixture
def use() -> Iterator[Callable[[PluginManager], object]]:
    """Lets the command line see a plugin manager of the test's own."""
    before = get_plugin_manager()
    yield set_plugin_manager
    set_plugin_manager(before)


def test_new_writes_a_package_and_says_what_comes_next(tmp_path: Path) -> None:
    result = adaptkit("plugins", "new", "wind-speed", "--directory", str(tmp_path / "not there yet"))
    assert result.exit_code == 0, result.output
    package = tmp_path / "not there yet" / "adaptkit-wind-speed"
    names = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    source = "src/adaptkit_wind_speed"
    assert {"pyproject.toml", "README.md", "tests/test_contract.py", f"{source}/py.typed"} <= names
    assert {f"{source}/{name}.py" for name in ("__init__", "modality", "encoder", "checkpoint", "examples")} <= names
    assert f"pip install -e '{package}'" in result.output
    assert "adaptkit plugins check adaptkit-wind-speed" in result.output
    texts = [path.read_text(encoding="utf-8") for path in package.rglob("*") if path.is_file()]
    assert not any("{{" in text or "{%" in text for text in texts)
    assert "class WindSpeedEncoder(Encoder):" in (package / source / "encoder.py").read_text(encoding="utf-8")


def test_the_prefix_may_be_given(tmp_path: Path) -> None:
    assert adaptkit("plugins", "new", "adaptkit-gyro", "--directory", str(tmp_path)).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["adaptkit-gyro"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Gyro"], "'Gyro' is not a name for a plugin: use up to 40 small letters and digits"),
        (["../gyro"], "is not a name for a plugin"),
        (["9axis"], "is not a name for a plugin"),
        (["gyro-"], "is not a name for a plugin"),
        (["g" * 41], "is not a name for a plugin"),
        (["text"], "the name 'text' is reserved: chat messages call their text parts so"),
        (["linear", "--kind", "projector"], "a projector named 'linear' is installed already, by inner-adaptkit 0"),
        (["image"], "a modality named 'image' is installed already, by adaptkit-image 0"),
        (["image", "--kind", "projector"], "a plugin package named 'adaptkit-image' is installed already"),
        (["taken"], "adaptkit-taken exists already. Choose another name, or another --directory."),
        (["eye", "--kind", "encoder"], "--kind encoder needs --modality, whose items it encodes. Installed:"),
        (["eye", "--kind", "encoder", "--modality", "imag"], "no modality named 'imag'. Did you mean 'image'?"),
        (["eye", "--modality", "image"], "--modality goes with --kind encoder; a package of kind modality takes none"),
    ],
)
def test_what_cannot_be_made_is_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "adaptkit-taken").mkdir()
    result = adaptkit("plugins", "new", *arguments, "--directory", str(tmp_path))
    assert result.exit_code == 2
    assert words in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["adaptkit-taken"]


def test_the_command_offers_every_scaffold() -> None:
    from adaptkit.cli.plugins_new import KINDS

    assert set(KINDS) == set(SCAFFOLDS)


@pytest.mark.parametrize(("kind", "modality"), [("encoder", "image"), ("projector", None), ("policy", None)])
def test_every_other_scaffold_passes_its_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, modality: str | None
) -> None:
    manager = Installed(tmp_path, monkeypatch, kind, modality).manager()
    results = check_plugin(PLUGIN, manager=manager, fresh_processes=False)
    assert {result.outcome for result in results} == {"passed"}, results
    assert {result.kind for result in results} == {"plugin", *SCAFFOLDS[kind].registers}


def test_a_built_wheel_installs_the_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Installed(tmp_path, monkeypatch).package
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    subprocess.run(command, cwd=package, check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").iterdir()
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    [installed] = distributions(path=[str(tmp_path / "site")])
    [entry_point] = installed.entry_points
    assert (entry_point.name, entry_point.value, entry_point.group) == (PLUGIN, MODULE, "adaptkit")
    assert (tmp_path / "site" / MODULE / "py.typed").is_file()
    manager = PluginManager([entry_point])
    assert [(c.kind, c.name, c.package) for c in manager.components()] == [
        ("modality", "gyro", f"{PLUGIN} 0.1.0"),
        ("encoder", "gyro", f"{PLUGIN} 0.1.0"),
    ]


def plugin(**extra: Any) -> SimpleNamespace:
    """A plugin that registers one projector."""
    import torch

    class GainOptions(Options):
        bias: bool = True

    def build(options: GainOptions, feature_size: int, hidden_size: int, name: str) -> Any:
        return torch.nn.Linear(feature_size, hidden_size + extra.get("excess", 0), bias=options.bias)

    @hookimpl
    def register_projectors(register: Any) -> None:
        register(name="gain", build=build, options=GainOptions, description="A [bold]gain[/].")

    return SimpleNamespace(register_projectors=register_projectors)


def test_check_prints_a_table_and_succeeds(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = PluginManager(CORE)
    manager.add(plugin(), name="gains")
    use(manager)
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("gains", "gain"):  # the plugin, and its component
        result = adaptkit("plugins", "check", name)
        assert result.exit_code == 0, result.output
        for words in ("plugin gains", "projector gain", "registration and options", "batch = single", "passed"):
            assert words in result.output
        assert "All 9 checks done." in result.output


def test_check_fails_and_says_why(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = PluginManager(CORE)
    manager.add(plugin(excess=1), name="gains")
    use(manager)
    monkeypatch.setenv("COLUMNS", "200")
    result = adaptkit("plugins", "check", "gains")
    assert result.exit_code == 1
    assert "should give a tensor of shape (2, 16, 20), gave (2, 16, 21)" in result.output
    assert "not run, since 'shapes and dtypes' failed" in result.output
    assert "1 of 9 checks failed." in result.output


def test_check_prints_json_alone(use: Any) -> None:
    manager = PluginManager(CORE)
    manager.add(plugin(excess=1), name="gains")
    use(manager)
    result = adaptkit("plugins", "check", "gains", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert set(found[0]) == {"kind", "name", "check", "outcome", "message"}
    outcomes = {(entry["kind"], entry["check"]): entry["outcome"] for entry in found}
    assert outcomes["plugin", "loads"] == "passed"
    assert outcomes["projector", "shapes and dtypes"] == "failed"
    assert outcomes["projector", "gradient"] == "skipped"


def test_check_of_an_unknown_name_is_a_users_mistake(use: Any) -> None:
    manager = PluginManager(CORE)
    manager.add(plugin(), name="gains")
    use(manager)
    result = adaptkit("plugins", "check", "gain", "gans")
    assert result.exit_code == 2
    assert "no plugin named 'gans'. Did you mean 'gains'?" in result.output
    assert "passed" not in result.output  # told before anything was tried


def test_check_of_a_package_that_is_not_installed_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert adaptkit("plugins", "new", "sonar").exit_code == 0
    result = adaptkit("plugins", "check", "adaptkit-sonar")
    assert result.exit_code == 2
    assert "`pip install -e adaptkit-sonar`" in result.output


def test_check_of_a_broken_plugin_says_why_it_does_not_load(
    use: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_that_exits.py").write_text("import sys\nsys.exit('bye')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    manager = PluginManager([*CORE, EntryPoint("exits", "module_that_exits", "adaptkit")])
    use(manager)
    monkeypatch.setenv("COLUMNS", "160")
    result = adaptkit("plugins", "check", "exits")
    assert result.exit_code == 1
    assert "it fails to load: SystemExit: bye" in result.output
    listing = adaptkit("plugins")
    assert listing.exit_code == 0
    assert "SystemExit: bye" in listing.output
    assert "linear" in listing.output


def test_one_plugins_odd_options_do_not_hide_the_others(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:

    from pydantic import Field

    def raising() -> int:
        raise RuntimeError("no default today")

    class OddOptions(Options):
        function: Callable[[], int] = len  # type: ignore[assignment]
        number: int = Field(default_factory=raising)

    @hookimpl
    def register_projectors(register: Any) -> None:
        register(name="odd", build=print, options=OddOptions)

    manager = PluginManager(CORE)
    manager.add(SimpleNamespace(register_projectors=register_projectors), name="odd")
    use(manager)
    monkeypatch.setenv("COLUMNS", "160")
    assert "its default raises RuntimeError" in adaptkit("plugins").output
    listed = {entry["name"]: entry for entry in json.loads(adaptkit("plugins", "--json").stdout)["components"]}
    assert "error" in listed["odd"]["options"]
    assert "bias" in listed["linear"]["options"]["properties"]
