"""What is printed is inert: text from elsewhere is shown as it is, and nothing in it reaches the terminal."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

import adaptkit
from adaptkit.cli import cli, main
from adaptkit.cli.group import LazyGroup, explain
from adaptkit.cli.output import json_option, keep_stdout
from adaptkit.cli.progress import progress_bar
from adaptkit.cli.terminal import Console, TextColumn, echo, echo_json, echo_message, echo_text, styled
from adaptkit.errors import AdaptkitError, DataError, Lines, RecipeError, inert, inert_text, join_lines

PACKAGE = Path(adaptkit.__file__).parent
HOSTILE = "run[/x][bold]v2\nError: forged\r\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp.exe\u2028\ud800:smile:"
SHOWN = r"run[/x][bold]v2\nError: forged\r\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp.exe\u2028\ud800:smile:"


def screen(show: Callable[[Console], None], *, is_terminal: bool = False) -> str:
    file = io.StringIO()
    show(Console(file=file, width=500, force_terminal=is_terminal, color_system=None, legacy_windows=False))
    return file.getvalue()


def _table(console: Console) -> None:
    table = Table(HOSTILE, title=HOSTILE, box=None)
    table.add_row(HOSTILE)
    console.print(table)


def _status(console: Console) -> None:
    with console.status(HOSTILE):
        pass


def _bar(console: Console) -> None:
    with progress_bar(console, HOSTILE) as advance:
        advance(1, 2, HOSTILE)


def _columns(console: Console) -> None:
    with Progress(TextColumn("{task.description} {task.fields[text]}"), console=console) as bar:
        bar.add_task(HOSTILE, text=HOSTILE)


PLACES: dict[str, Callable[[Console], None]] = {
    "print": lambda console: console.print(HOSTILE),
    "print of an object": lambda console: console.print(
        DataError(HOSTILE), Path(HOSTILE.replace("\ud800", "")), HOSTILE
    ),
    "print of styled text": lambda console: console.print(styled(HOSTILE, "red"), style="bold"),
    "table": _table,
    "status": _status,
    "progress bar": _bar,
    "column of a bar": _columns,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_console_shows_foreign_text_on_one_line_as_it_is(place: str) -> None:
    shown = screen(PLACES[place], is_terminal=place in ("status", "progress bar", "column of a bar"))
    assert SHOWN in shown
    assert not any(line.strip().startswith("Error: forged") for line in shown.splitlines())
    assert "\x1b[31m" not in shown
    assert not set("\x07\x9b\u202e\u2028\ud800") & set(shown)


def test_text_that_was_made_elsewhere_is_without_escape_codes_too() -> None:
    assert screen(lambda console: console.print(Text("a\x1b[2Jb"))) == "a\\x1b[2Jb\n"


def test_what_is_inert_stays() -> None:
    for text in ("plain", "Grüße, 世界 👩‍👩‍👧", "می‌خواهم", "back\\slash [x] {y}"):
        assert inert(text) == text
    assert inert(inert(HOSTILE)) == inert(HOSTILE) == SHOWN
    assert inert_text("a\tb\n\x1b[0m") == "a\tb\n\\x1b[0m"


def test_messages_of_errors_are_one_line_unless_they_were_made_of_several() -> None:
    assert str(RecipeError(HOSTILE)) == SHOWN
    several = RecipeError(join_lines([HOSTILE, "b"]))
    assert str(several).splitlines() == [SHOWN, "b"]
    assert str(RecipeError(join_lines([str(several), "c"]))).splitlines() == [SHOWN, "b", "c"]
    again = pickle.loads(pickle.dumps(several))
    assert str(again) == str(several)
    assert isinstance(str(again), Lines)


ERRORS: dict[str, Callable[[], BaseException]] = {
    "ours": lambda: AdaptkitError(f"{HOSTILE} is wrong"),
    "the system's": lambda: FileNotFoundError(2, "No such file", HOSTILE),
    "anybody's": lambda: KeyError(HOSTILE),
    "usage": lambda: click.UsageError(f"{HOSTILE} is wrong"),
    "parameter": lambda: click.BadParameter(HOSTILE, param_hint="--tasks"),
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_no_message_of_an_error_forges_a_line(
    kind: str, debug: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    def fail() -> None:
        raise ERRORS[kind]()

    monkeypatch.setattr(sys.modules[__name__], "fail", fail, raising=False)
    result = CliRunner().invoke(LazyGroup({"fail": (f"{__name__}:fail", "")}), [*debug, "fail"])
    assert sum("Error:" in line and not line.startswith(" ") for line in result.stderr.splitlines()) == 1
    assert "\x1b" not in result.stderr
    assert "run[/x][bold]v2" in result.stderr


def test_what_was_typed_is_shown_inert() -> None:
    for arguments in (["trian\nError: forged\x1b[31m"], ["plugins", "--x\nError: forged\x1b[31m"]):
        stderr = CliRunner().invoke(cli, arguments).stderr
        assert "\x1b" not in stderr
        assert not any(line.startswith("Error: forged") for line in stderr.splitlines())


def test_a_warning_is_one_inert_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(type(cli), "main", lambda *args, **options: None)
    main()
    assert warnings.formatwarning(HOSTILE, UserWarning, "file.py", 3) == f"file.py:3: UserWarning: {SHOWN}\n"


def test_lines_of_a_message_after_the_first_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    echo_message("Error: ", "one\nError: two")
    assert capsys.readouterr().err == "Error: one\n  Error: two\n"


def test_an_answer_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    echo_text("one\n\ttwo\x1b[2J")
    echo(HOSTILE)
    assert capsys.readouterr().out == f"one\n\ttwo\\x1b[2J\n{SHOWN}\n"


def test_json_holds_what_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    echo_json({HOSTILE: [HOSTILE, "é"]})
    out = capsys.readouterr().out
    assert json.loads(out) == {HOSTILE: [HOSTILE, "é"]}
    assert "é" in out
    assert not set("\x1b\x9b\u202e\u2028\ud800") & set(out)


PRINTERS = {"print", "echo", "secho", "prompt", "confirm", "pprint"}
ELSEWHERE = {
    "testing/fresh_process.py",  # a program of its own: JSON for the process that starts it
}


def _offences(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            bad = names & {"rich.console.Console", "rich.progress.TextColumn", "rich.progress.track", "rich.print"}
            bad |= {n for n in names if n.startswith(("rich.markup", "rich.prompt", "rich.panel", "rich.traceback"))}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            bad = {node.func.id} & {"print", "input", *(["Text"] if node.args else [])}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            name = f"{owner}.{node.func.attr}"
            bad = {name} if owner == "click" and node.func.attr in PRINTERS else set()
            bad |= {name} if name in ("sys.stdout.write", "sys.stderr.write") else set()
            bad |= {name} if node.func.attr == "from_markup" else set()
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            texts = [c.value for c in ast.walk(node.exc) if isinstance(c, ast.Constant) and isinstance(c.value, str)]
            bad = {"a line break in a message: use join_lines"} if any("\n" in text for text in texts) else set()
        else:
            continue
        found += [f"{path.relative_to(PACKAGE)}:{node.lineno}: {one}" for one in sorted(bad)]
    return found


def test_nothing_else_prints() -> None:
    ours = [p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "cli" / "terminal.py"]
    modules = [p for p in ours if p.relative_to(PACKAGE).as_posix() not in ELSEWHERE]
    offences = [offence for path in modules for offence in _offences(path)]
    assert not offences, "\n".join(offences)


def test_only_the_command_line_imports_rich() -> None:
    importers = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([a.name for a in node.names] if isinstance(node, ast.Import) else [str(node.module)])
        if name.split(".")[0] == "rich"
    }
    assert importers == {"cli"}


def test_json_is_alone_on_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    @json_option()
    def noisy(as_json: bool) -> None:
        print("a plugin says hello")
        subprocess.run([sys.executable, "-S", "-c", "print('a child too')"], check=True)
        os.write(1, b"and a library\n")
        Console().print("and the console")
        echo_json({"json": as_json})

    monkeypatch.setattr(sys.modules[__name__], "noisy", noisy, raising=False)
    result = CliRunner().invoke(LazyGroup({"noisy": (f"{__name__}:noisy", "")}), ["noisy", "--json"])
    assert json.loads(result.stdout) == {"json": True}
    assert "a plugin says hello" in result.stderr
    assert "and the console" in result.stderr
    assert sys.stdout is not sys.stderr


DESCRIPTORS = """
import os, click
from adaptkit.cli.output import json_option
from adaptkit.cli.terminal import echo_json

@click.command()
@json_option()
def noisy(as_json):
    os.write(1, b"a library")
    os.system("echo a child")
    print("a plugin")
    echo_json(["é"])

noisy(["--json"], standalone_mode=False)
print("back again")
"""


def test_json_is_alone_on_the_descriptor_as_well() -> None:
    run = subprocess.run([sys.executable, "-c", DESCRIPTORS], capture_output=True, encoding="utf-8", check=True)
    assert run.stdout == '[\n  "é"\n]\nback again\n'
    assert all(text in run.stderr for text in ("a library", "a child", "a plugin"))


def test_the_explanation_of_any_error_is_inert() -> None:
    for make in ERRORS.values():
        message, _ = explain(make())
        assert message is not None
        assert inert(message) == message


def test_standard_output_can_be_kept_for_an_answer() -> None:
    @click.command()
    @click.pass_context
    def answer(context: click.Context) -> None:
        keep_stdout(context)
        print("loading")
        echo_text("blue")

    assert CliRunner().invoke(answer).stdout == "blue\n"
