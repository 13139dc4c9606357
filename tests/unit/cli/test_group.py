"""The command line as a whole: help, errors and exit codes."""

from __future__ import annotations

import resource
import subprocess
import sys
import types
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner, Result

from adaptkit import __version__
from adaptkit.cli import COMMANDS, cli
from adaptkit.cli.group import LazyGroup
from adaptkit.errors import RecipeError, RunError

ERRORS: dict[str, Callable[[], BaseException]] = {
    "user": lambda: RecipeError("recipes/x.yaml:3: base.path: nothing there."),
    "run": lambda: RunError("the disk is full."),
    "bug": lambda: KeyError("gate"),
    "interrupt": KeyboardInterrupt,
    "disk": lambda: PermissionError(13, "Permission denied", "/locked/run"),
    "usage": lambda: click.UsageError("--a and --b exclude each other."),
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call a group whose command `fail KIND` raises one of `ERRORS`."""

    @click.command()
    @click.argument("kind")
    @click.argument("rest", nargs=-1)
    def fail(kind: str, rest: tuple[str, ...]) -> None:
        if kind in ERRORS:
            raise ERRORS[kind]()
        click.echo(f"done {rest}")

    module = types.ModuleType("a_command_of_the_tests")
    module.fail = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    group = LazyGroup({"fail": (f"{module.__name__}:fail", "Fail."), "absent": ("no.such:thing", "Never imported.")})
    return lambda *args: CliRunner().invoke(group, args, prog_name="adaptkit")


@pytest.mark.parametrize(
    ("kind", "exit_code", "words"),
    [
        ("user", 2, "recipes/x.yaml:3: base.path: nothing there."),
        ("run", 1, "the disk is full."),
        ("bug", 1, "this is a bug in adaptkit, please report it: KeyError: 'gate'"),
        ("interrupt", 130, "interrupted"),
        ("disk", 1, "Permission denied: /locked/run"),
        ("usage", 2, "--a and --b exclude each other."),
    ],
)
def test_an_error_is_one_message_and_an_exit_code(
    run: Callable[..., Result], kind: str, exit_code: int, words: str
) -> None:
    result = run("fail", kind)
    assert result.exit_code == exit_code
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


@pytest.mark.parametrize(
    "args", [("--debug", "fail", "user"), ("fail", "--debug", "user"), ("fail", "user", "--debug")]
)
def test_debug_brings_the_traceback_back_wherever_it_stands(run: Callable[..., Result], args: tuple[str, ...]) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "RecipeError" in result.stderr


def test_debug_after_two_dashes_is_an_ordinary_argument(run: Callable[..., Result]) -> None:
    assert run("fail", "no", "--", "--debug").stdout == "done ('--debug',)\n"


def test_an_unknown_command_names_the_nearest() -> None:
    result = CliRunner().invoke(cli, ["trian"])
    assert result.exit_code == 2
    assert "no command named 'trian'. Did you mean 'train'?" in result.stderr


def test_the_help_lists_every_command_without_importing_it(run: Callable[..., Result]) -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "Never imported." in result.stdout


def test_version() -> None:
    assert CliRunner().invoke(cli, ["--version"], prog_name="adaptkit").stdout == f"adaptkit {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_says_what_the_list_says(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.help


def test_help_answers_in_under_a_second() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "adaptkit", "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, so that the test does not depend on what else the machine does
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_a_mistake_in_a_real_process_has_no_traceback() -> None:
    command = [sys.executable, "-m", "adaptkit", "inspect", "no/such/run"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("Error: ")
    assert "no/such/run" in result.stderr
    assert "Traceback" not in result.stderr
