"""Discovery: broken plugins set aside and named, clashes refused with both packages, loading limited by name."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from adaptkit import hookimpl
from adaptkit.cli import cli
from adaptkit.cli import plugins as cli_plugins
from adaptkit.errors import PluginError
from adaptkit.plugin_manager import PluginManager, get_plugin_manager
from adaptkit.testing.plugins import select

SOUND = """
from pydantic import Field
from adaptkit import Options, hookimpl

class SquareOptions(Options):
    power: int = Field(default=2, ge=1)
    path: str

@hookimpl
def register_projectors(register):
    register(name="square", build=lambda options, *sizes: (options.power, *sizes), options=SquareOptions,
             description="Squares [bold]things[/].", pattern="square[0-9]+")
"""


class Site:
    """A folder of installed distributions, made up."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.syspath_prepend(str(folder))
        self._monkeypatch = monkeypatch

    def install(self, name: str, source: str, *, entry_point: str | None = None, version: str = "1.2") -> None:
        """Write a one-module distribution with one entry point."""
        module = f"module_of_{name.replace('-', '_')}"
        (self.folder / f"{module}.py").write_text(textwrap.dedent(source))
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[adaptkit]\n{entry_point or name} = {module}\n")
        self._monkeypatch.delitem(sys.modules, module, raising=False)

    def entry_points(self) -> list[EntryPoint]:
        found = distributions(path=[str(self.folder)])
        return [entry_point for distribution in found for entry_point in distribution.entry_points]

    def manager(self) -> PluginManager:
        return PluginManager(self.entry_points())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def test_a_plugin_is_found_with_its_origin(site: Site) -> None:
    site.install("fake-square", SOUND)
    manager = site.manager()
    assert manager.plugins == {"fake-square": "fake-square 1.2"}
    [component] = manager.components("projector")
    assert (component.name, component.plugin, component.package) == ("square", "fake-square", "fake-square 1.2")
    assert manager.build("projector", "square", {"path": "x"}, 3, 4) == (2, 3, 4)
    assert manager.names("projector") == ["square"]
    assert manager.names("encoder") == []


def test_a_pattern_serves_many_names(site: Site) -> None:
    site.install("fake-square", SOUND)
    manager = site.manager()
    assert manager.get("projector", "square17").name == "square"
    for name in ("square1x", "xsquare1"):
        with pytest.raises(PluginError, match=f"no projector named '{name}'"):
            manager.get("projector", name)


BROKEN = {
    "ModuleNotFoundError: No module named 'no_such_library'": "import no_such_library",
    "SyntaxError": "def",
    "RuntimeError: at import": "raise RuntimeError('at import')",
    "ValueError: in a hook": """
        from adaptkit import hookimpl
        @hookimpl
        def register_encoders(register):
            raise ValueError("in a hook")
        """,
    "RuntimeError: after registering": """
        from adaptkit import hookimpl
        @hookimpl
        def register_encoders(register):
            register(name="half", build=print)
            raise RuntimeError("after registering")
        """,
    "SystemExit: 3": "import sys; sys.exit(3)",
    "SystemExit: in a hook": """
        from adaptkit import hookimpl
        @hookimpl
        def register_encoders(register):
            raise SystemExit("in a hook")
        """,
    "the pattern of 'half'": """
        from adaptkit import hookimpl
        @hookimpl
        def register_encoders(register):
            register(name="half", build=print, pattern="half[")
        """,
    "the name and the description of 'half' must be texts": """
        from adaptkit import hookimpl
        @hookimpl
        def register_encoders(register):
            register(name="half", build=print, description=None)
        """,
    "no hook named 'register_projektors'. Did you mean 'register_projectors'?": """
        from adaptkit import hookimpl
        @hookimpl
        def register_projektors(register):
            pass
        """,
    "missing 1 required keyword-only argument: 'build'": """
        from adaptkit import hookimpl
        @hookimpl
        def register_encoders(register):
            register(name="half")
        """,
    "options of 'loose' must be a subclass of adaptkit.Options": """
        from adaptkit import hookimpl
        @hookimpl
        def register_encoders(register):
            register(name="loose", build=print, options=dict)
        """,
    "missing of 'odd' must be a function": """
        from adaptkit import hookimpl
        @hookimpl
        def register_encoders(register):
            register(name="odd", build=print, missing="yes")
        """,
}


BROKEN["no field of projector components named 'num_positons'. Did you mean 'num_positions'?"] = """
    from adaptkit import hookimpl
    @hookimpl
    def register_projectors(register):
        register(name="half", build=print, num_positons=len)
    """
BROKEN["register_projectors is not marked as a hook"] = """
    def register_projectors(register):
        register(name="half", build=print)
    """
BROKEN["register_projectors: register takes fields by keyword"] = """
    from adaptkit import hookimpl
    @hookimpl
    def register_projectors(register):
        register("half", build=print)
    """
BROKEN["build of 'half' must be a function"] = """
    from adaptkit import hookimpl
    @hookimpl
    def register_projectors(register):
        register(name="half", build=None)
    """
BROKEN["feature_mode of 'half' must be 'splice' or 'context'"] = """
    from adaptkit import hookimpl
    @hookimpl
    def register_insertion_policies(register):
        register(name="half", build=print, feature_mode="contxt")
    """
for number in ("'1'", "None", "True", "1.0"):
    BROKEN[f"must be the number of the contract that it is made for, an integer; got {number}"] = f"""
    ADAPTKIT_CONTRACT = {number}
    """
BROKEN["contract 2 of adaptkit.interfaces, and the installed adaptkit has contract 1: upgrade inner-adaptkit"] = """
    from adaptkit import hookimpl
    ADAPTKIT_CONTRACT = 2
    @hookimpl
    def register_encoders(register):
        register(name="half", build=print)
    """
BROKEN["contract 0 of adaptkit.interfaces, and the installed adaptkit has contract 1: upgrade fake-broken"] = """
    ADAPTKIT_CONTRACT = 0
    """


@pytest.mark.parametrize("reason", BROKEN)
def test_a_broken_plugin_is_set_aside_and_named(site: Site, reason: str) -> None:
    site.install("fake-broken", BROKEN[reason])
    site.install("fake-square", SOUND)
    manager = site.manager()
    assert list(manager.plugins) == ["fake-square"]
    assert manager.broken["fake-broken"].package == "fake-broken 1.2"
    assert reason in manager.broken["fake-broken"].reason
    assert [component.name for component in manager.components()] == ["square"]
    with pytest.raises(PluginError) as caught:
        manager.get("encoder", "half")
    assert "Plugins that failed to load: fake-broken (fake-broken 1.2)" in str(caught.value)


def test_two_plugins_with_one_name_are_refused_with_both_packages(site: Site) -> None:
    site.install("fake-square", SOUND)
    site.install("other-square", SOUND, version="3.4")
    with pytest.raises(PluginError) as caught:
        site.manager()
    message = str(caught.value)
    assert "two plugins register the projector 'square'" in message
    assert "fake-square 1.2" in message
    assert "other-square 3.4" in message


def test_one_name_in_two_kinds_is_no_clash(site: Site) -> None:
    site.install("fake-square", SOUND)
    site.install("other-square", SOUND.replace("register_projectors", "register_encoders"))
    assert len(site.manager().components()) == 2


def test_two_packages_with_one_entry_point_are_refused(site: Site) -> None:
    site.install("fake-square", SOUND)
    site.install("impostor", SOUND, entry_point="fake-square")
    with pytest.raises(PluginError, match=r"two packages name a plugin 'fake-square': .* and "):
        site.manager()


def test_one_distribution_listed_twice_loads_once(site: Site) -> None:
    site.install("fake-square", SOUND)
    assert len(PluginManager(site.entry_points() * 2).components()) == 1


def test_a_variable_limits_what_loads(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("inner-adaptkit", SOUND.replace('"square"', '"core"'), entry_point="adaptkit-core")
    site.install("fake-square", SOUND)
    site.install("fake-broken", "raise RuntimeError")
    for selection, expected in (("", []), ("fake-square", ["fake-square"]), ("none, fake-square ", ["fake-square"])):
        monkeypatch.setenv("ADAPTKIT_PLUGINS", selection)
        manager = site.manager()
        assert list(manager.plugins) == ["adaptkit-core", *expected]
        assert not manager.broken
    monkeypatch.setenv("ADAPTKIT_PLUGINS", "")
    with pytest.raises(
        PluginError, match=r"ADAPTKIT_PLUGINS='' limits which plugins load, and excludes .*fake-square 1\.2"
    ):
        site.manager().get("projector", "square")
    monkeypatch.setenv("ADAPTKIT_PLUGINS", "fake-sqare")
    with pytest.raises(PluginError, match="fake-sqare, which no installed package has"):
        site.manager().get("projector", "square")
    with pytest.raises(PluginError, match=r"ADAPTKIT_PLUGINS .* fake-square"):
        select(site.manager(), "fake-square")


def test_a_folder_whose_package_is_broken_is_not_called_missing(site: Site) -> None:
    site.install("fake-broken", "import no_such_library")
    (site.folder / "pyproject.toml").write_text("[project]\nname = 'Fake.Broken'\n")
    assert [name for name, _ in select(site.manager(), str(site.folder))] == ["fake-broken"]


def test_a_plugin_that_prints_does_not_break_json(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("fake-square", "import os\nprint('hello')\n" + textwrap.dedent(SOUND))
    monkeypatch.setattr(cli_plugins, "get_plugin_manager", site.manager)
    result = CliRunner().invoke(cli, ["plugins", "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["components"][0]["name"] == "square"
    assert "hello" in result.stderr


def test_wrong_options_are_told_together_with_the_nearest_name(site: Site) -> None:
    site.install("fake-square", SOUND)
    with pytest.raises(PluginError) as caught:
        site.manager().options("projector", "square", {"powr": 3, "power": 0})
    message = str(caught.value)
    assert message.startswith("options of the projector 'square': ")
    assert "no option named 'powr'. Did you mean 'power'?" in message
    assert "power: Input should be greater than or equal to 1" in message
    assert "path: Field required" in message


def test_an_unknown_name_comes_with_the_nearest(site: Site) -> None:
    site.install("fake-square", SOUND)
    with pytest.raises(PluginError) as caught:
        site.manager().get("projector", "sqare")
    assert "no projector named 'sqare'. Did you mean 'square'? Known: square." in str(caught.value)


def test_the_listing_shows_what_is_there_and_what_is_broken(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("fake-square", SOUND)
    site.install("fake-broken", "raise RuntimeError('a [reason]')")
    monkeypatch.setattr(cli_plugins, "get_plugin_manager", site.manager)
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(cli, ["plugins"], catch_exceptions=False).output
    for text in ("square", "projector", "fake-square 1.2", "power = 2", "path (required)", "Squares [bold]things[/]."):
        assert text in shown
    assert "RuntimeError: a [reason]" in shown

    data = json.loads(CliRunner().invoke(cli, ["plugins", "--json"], catch_exceptions=False).output)
    [component] = data["components"]
    assert (component["name"], component["kind"]) == ("square", "projector")
    assert (component["package"], component["version"]) == ("fake-square", "1.2")
    assert component["options"]["properties"]["power"]["default"] == 2
    assert data["broken"] == [
        {"plugin": "fake-broken", "package": "fake-broken", "version": "1.2", "reason": "RuntimeError: a [reason]"}
    ]


def test_installed_plugins_are_all_sound() -> None:
    manager = get_plugin_manager()
    assert manager.broken == {}
    assert {"image", "clip", "mlpNx_gelu", "inner_adapter"} <= {component.name for component in manager.components()}


def test_listing_plugins_loads_no_heavy_library() -> None:
    code = (
        "import sys; from adaptkit.plugin_manager import get_plugin_manager; get_plugin_manager().components(); "
        "print([name for name in ('torch', 'transformers', 'PIL') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_plugin_of_this_process_is_taken_in_by_name() -> None:
    @hookimpl
    def register_projectors(register: Any) -> None:
        register(name="mine", build=lambda *arguments: None, description="Made in a notebook.")

    manager = PluginManager([])
    manager.add(SimpleNamespace(register_projectors=register_projectors), name="notebook")
    assert manager.get("projector", "mine").package == "this process"
    with pytest.raises(PluginError, match=r"'notebook' is loaded already"):
        manager.add(SimpleNamespace(), name="notebook")


def test_a_plugin_that_registers_a_name_twice_is_named() -> None:
    @hookimpl
    def register_projectors(register: Any) -> None:
        for _ in range(2):
            register(name="mine", build=lambda *arguments: None)

    with pytest.raises(PluginError, match=r"'notebook' .* registers the projector 'mine' twice"):
        PluginManager([]).add(SimpleNamespace(register_projectors=register_projectors), name="notebook")


def test_a_trait_that_a_function_gives_is_checked() -> None:
    component = registered(build=print, needs_placement=lambda options: "yes").get("insertion policy", "mine")
    with pytest.raises(PluginError, match=r"needs_placement of 'mine' must be True or False.*'yes'"):
        component.needs_placement(None)


def test_a_plugin_whose_name_is_taken_leaves_nothing_behind() -> None:
    def registering(*names: str) -> SimpleNamespace:
        @hookimpl
        def register_projectors(register: Any) -> None:
            for name in names:
                register(name=name, build=lambda *arguments: None)

        return SimpleNamespace(register_projectors=register_projectors)

    manager = PluginManager([])
    manager.add(registering("mine"), name="first")
    with pytest.raises(PluginError, match="two plugins register the projector 'mine': first"):
        manager.add(registering("other", "mine"), name="second")
    assert manager.names("projector") == ["mine"]
    manager.add(registering("other"), name="second")  # mended, and tried again
    assert manager.names("projector") == ["mine", "other"]


def registered(**fields: Any) -> PluginManager:
    """A manager with one projector, or one insertion policy where a trait is given."""

    def register(register: Any) -> None:
        register(name="mine", **fields)

    hook = "register_insertion_policies" if "needs_placement" in fields else "register_projectors"
    register.__name__ = hook
    manager = PluginManager([])
    manager.add(SimpleNamespace(**{hook: hookimpl(register)}), name="notebook")
    return manager


def test_a_function_given_by_its_place_is_imported_on_first_use(site: Site) -> None:
    (site.folder / "builders_for_test.py").write_text("def build(options, *sizes): return sizes")
    component = registered(build="builders_for_test:build").get("projector", "mine")
    assert "builders_for_test" not in sys.modules
    assert component.build(component.options(), 3, 4) == (3, 4)
    assert not component.gives("num_positions")
    assert component.num_positions(component.options(), 7) == 7


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("no_such_package.builders:build", "cannot import no_such_package.builders: ModuleNotFoundError"),
        ("adaptkit.projectors.mlp:build_liner", "Did you mean 'build_linear'?"),
        ("unfinished_for_test:build", "cannot import unfinished_for_test: SyntaxError"),
    ],
)
def test_a_place_without_a_function_is_named(place: str, words: str, site: Site) -> None:
    (site.folder / "unfinished_for_test.py").write_text("def (")
    component = registered(build=place).get("projector", "mine")
    with pytest.raises(PluginError) as caught:
        component.build(component.options(), 3, 4, "mine")
    assert words in str(caught.value)
    assert "build of the projector 'mine' (this process)" in str(caught.value)


def test_traits_of_a_policy_are_those_that_are_registered() -> None:
    component = registered(build=lambda options: SimpleNamespace(), needs_placement=False, supports_packing=bool).get(
        "insertion policy", "mine"
    )
    assert (component.needs_placement(None), component.supports_packing(None)) == (False, False)
    assert component.feature_mode(None) is None
    assert vars(component.build(None)) == {"needs_placement": False, "supports_packing": False}


def test_traits_that_contradict_the_class_of_a_policy_are_refused() -> None:
    policy = SimpleNamespace(needs_placement=False)
    component = registered(build=lambda options: policy, needs_placement=True).get("insertion policy", "mine")
    with pytest.raises(PluginError, match=r"needs_placement=True, .* False"):
        component.build(None)


def test_fields_by_the_former_name_warn() -> None:
    component = registered(build=print, num_positions=len).get("projector", "mine")
    with pytest.warns(DeprecationWarning, match="use the fields"):
        assert component.extra == {"num_positions": len}
