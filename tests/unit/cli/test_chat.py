"""`adaptkit chat`: what is typed, what is asked of the backend, and what stands on the screen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from adaptkit.cli import cli
from adaptkit.cli.chat import PlainScreen, TerminalScreen, run_terminal
from adaptkit.cli.chat_commands import COMMANDS, Chat
from adaptkit.cli.chat_input import Entry, completions, read_entry
from adaptkit.cli.conversation import as_path
from adaptkit.errors import DataError, unknown_name
from tests.unit.serving.scripted import Script, scripted_server


@dataclass
class Answer:
    """An answer that a test wrote; an exception among its pieces is raised."""

    pieces: Sequence[str | BaseException]
    workflow: str = "vision"
    finish_reason: str | None = "stop"
    is_cancelled: bool = False

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class Backend:
    """Gives the answers of a test, and keeps what it was asked; it takes pictures that begin with `P`."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[list[dict[str, Any]], str]] = field(default_factory=list)
    choices: Sequence[str] = ("auto", "text", "vision")
    modalities: Sequence[str] | None = ("image",)
    refusal: Exception | None = None

    def read(self, name: str, source: Any) -> Any:
        if name != "image":
            raise DataError(unknown_name("modality of this run", name, ["image"]))
        if not Path(source).read_bytes().startswith(b"P"):
            raise DataError(f"{source} is not a picture.")

    def ask(self, messages: Sequence[Mapping[str, Any]], workflow: str, options: Mapping[str, Any]) -> Answer:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(([dict(message) for message in messages], workflow))
        return self.answers.pop(0) if self.answers else Answer(["three"])

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a cat.png").write_bytes(b"P1")
    (tmp_path / "dog.png").write_bytes(b"P2")
    (tmp_path / "notes.txt").write_bytes(b"words")
    return tmp_path


def reader(*lines: str | type[BaseException]) -> Callable[[Any], str]:
    left = list(lines)

    def read_line(_: Any) -> str:
        line = left.pop(0) if left else EOFError
        if isinstance(line, str):
            return line
        raise line

    return read_line


def talk(*lines: str | type[BaseException], backend: Backend | None = None) -> Chat:
    """Type lines in a terminal until they end."""
    chat = Chat(backend or Backend(), TerminalScreen(), "auto", {})
    run_terminal(chat, reader(*lines))
    return chat


@pytest.mark.parametrize(
    ("lines", "entry"),
    [
        (["how many?"], Entry("how many?")),
        (["one \\", "two\\", "three"], Entry("one \ntwo\nthree")),
        (['"""', "/one", "", 'two"""'], Entry("/one\n\ntwo")),
        (['"""/etc"""'], Entry("/etc")),
        (["/help"], Entry("/help", is_command=True)),
        (["  "], Entry("")),
        (["pasted\nlines"], Entry("pasted\nlines")),
    ],
)
def test_entries_have_one_line_or_several(lines: list[str], entry: Entry) -> None:
    assert read_entry(reader(*lines)) == entry


@pytest.mark.parametrize(("lines", "says"), [(['"""a'], "closing"), (["a\\"], "after"), (["a\udcff"], "UTF-8")])
def test_half_an_entry_is_an_error(lines: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_entry(reader(*lines))


def test_turns_are_remembered_until_reset(folder: Path) -> None:
    backend = Backend([Answer(["a ", "cat"])])
    talk("/system be brief", "/image a cat.png", "what?", "and?", "/reset", "again?", backend=backend)
    (first, _), (second, _), (third, _) = backend.asked
    system = {"role": "system", "content": "be brief"}
    seen = {
        "role": "user",
        "content": [{"type": "image", "image": b"P1"}, {"type": "text", "text": "\nwhat?"}],
    }
    assert first == [system, seen]
    assert second == [*first, {"role": "assistant", "content": "a cat"}, {"role": "user", "content": "and?"}]
    assert third == [system, {"role": "user", "content": "again?"}]


def test_the_workflow_that_answers_is_chosen_and_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend = Backend()
    chat = talk("/workflow vision", "hm?", "/workflow visoin", backend=backend)
    assert (backend.asked[0][1], chat.workflow) == ("vision", "vision")
    printed = capsys.readouterr()
    assert "vision: three" in printed.out
    assert "Did you mean 'vision'?" in printed.err


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("/imag x.png", ["/imag", "/image"]),
        ("/image missing.png", ["missing.png"]),
        ("/image notes.txt", ["notes.txt"]),
        ("/image .", ["folder"]),
        ("/image", ["/image FILE"]),
        ("/audio dog.png", ["audio", "image"]),
        ("/media image", ["/media NAME FILE"]),
        ("/quit now", ["/quit", "now"]),
        ("/save dog.png", ["dog.png", "exists"]),
        ("/load missing.json", ["missing.json"]),
        ("/load notes.txt", ["notes.txt", "/save"]),
    ],
)
def test_a_mistake_is_named_and_the_chat_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str, names: list[str]
) -> None:
    backend = Backend()
    chat = talk(line, "still there?", backend=backend)
    printed = capsys.readouterr().err
    assert all(name in printed for name in names), printed
    assert len(backend.asked) == 1
    assert not chat.conversation.attached


def test_a_question_that_is_refused_leaves_the_conversation_as_it_was(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = Backend()
    chat = talk("first", backend=backend)
    backend.refusal = DataError("workflow 'text' takes no image.")
    run_terminal(chat, reader("/image dog.png", "second"))
    assert [turn.text for turn in chat.conversation.turns] == ["first", "three"]
    assert [medium.path.name for medium in chat.conversation.attached] == ["dog.png"]
    assert "/reset" in capsys.readouterr().err
    run_terminal(chat, reader("/drop"))
    assert not chat.conversation.attached


def test_ctrl_c_stops_the_answer_and_not_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    stopped, unbegun = Answer(["three ", KeyboardInterrupt()]), Answer([KeyboardInterrupt()])
    chat = talk("one", "two", KeyboardInterrupt, "three", backend=Backend([stopped, unbegun]))
    assert stopped.is_cancelled
    assert unbegun.is_cancelled
    assert [turn.text for turn in chat.conversation.turns] == ["one", "three ", "three", "three"]
    assert "(stopped)" in capsys.readouterr().out


def test_an_answer_that_fails_is_shown_and_not_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    chat = talk("one", "two", backend=Backend([Answer(["th", RuntimeError("no\x1b[31m tensor")])]))
    assert [turn.text for turn in chat.conversation.turns] == ["two", "three"]
    assert "\\x1b[31m tensor" in capsys.readouterr().err


def test_answers_and_names_reach_no_terminal_as_codes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "\x1b[31mred.png").write_bytes(b"P3")
    talk("/image \x1b[31mred.png", "hm?", backend=Backend([Answer(["\x1b]0;t\x07", "two\nlines"], "vi\x1b[1m")]))
    printed = capsys.readouterr().out
    assert "\x1b]0" not in printed
    assert "\x1b[31m" not in printed
    assert "\\x1b]0;t\\x07two\nlines" in printed


@pytest.mark.parametrize("screen", [TerminalScreen, PlainScreen])
def test_an_answer_that_was_cut_off_says_so(screen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert screen().answer(Answer(["th"], finish_reason="length")) == ("th", False)
    printed = capsys.readouterr()
    assert "--max-new-tokens" in printed.out + printed.err


def test_a_saved_conversation_goes_on(folder: Path) -> None:
    talk("/system be brief", "/image a cat.png", "what?", "/save said.json", "and?", "/save said.json")
    messages = json.loads((folder / "said.json").read_text())["messages"]
    assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * 2]
    assert messages[1]["content"][0] == {"type": "image", "path": str(folder / "a cat.png")}
    assert messages[2]["workflow"] == "vision"
    backend = Backend()
    chat = talk("/load said.json", "then?", backend=backend)
    assert [message["role"] for message in backend.asked[0][0]] == ["system", *["user", "assistant"] * 2, "user"]
    assert chat.conversation.turns[0].media[0].data == b"P1"
    (folder / "a cat.png").unlink()
    assert not talk("/load said.json").conversation.turns


def test_commands_and_their_arguments_are_completed(folder: Path) -> None:
    arguments = Chat(Backend(), TerminalScreen(), "auto", {}).arguments()
    assert completions("/wo", arguments) == ["/workflow "]
    assert completions("/workflow v", arguments) == ["/workflow vision"]
    assert completions("/image a", arguments) == ["/image a cat.png"]
    assert completions("/media im", arguments) == ["/media image "]
    assert completions("/media image d", arguments) == ["/media image dog.png"]
    assert completions(f"/save {folder}/n", arguments) == [f"/save {folder}/notes.txt"]
    assert not any(completions(line, arguments) for line in ("how", "/nothing x", "/image no/such/", "/reset x"))


def test_paths_may_be_quoted_as_a_shell_wants_them(folder: Path) -> None:
    for typed in ("a cat.png", "a\\ cat.png", "'a cat.png'", str(folder / "a cat.png")):
        assert as_path(typed).is_file()
    assert as_path("it's missing") == Path("it's missing")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    talk("/help")
    printed = capsys.readouterr().out
    assert all(f"/{name}" in printed for name in COMMANDS)


@pytest.fixture
def script() -> Iterator[Script]:
    pytest.importorskip("openai")
    with scripted_server() as script:
        yield script


def run(*arguments: str, lines: str | bytes) -> Result:
    return CliRunner().invoke(cli, ["chat", *arguments], input=lines)


def test_without_a_terminal_prompts_are_lines_and_answers_too(script: Script, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    lines = f"/image {tmp_path / 'a.png'}\nhow many?\n\nfirst \\\nsecond\n/quit\nnever\n"
    result = run("--url", script.url, "--model", "vision", "--system", "be brief", lines=lines)
    assert (result.exit_code, result.stdout) == (0, "three shapes\nthree shapes\n"), result.output
    first, second = script.bodies
    assert first["model"] == "vision"
    assert first["messages"][0] == {"role": "system", "content": "be brief"}
    assert first["messages"][1]["content"][0]["type"] == "image_url"
    assert second["messages"][-1]["content"] == "first \nsecond"


@pytest.mark.parametrize(
    ("lines", "code", "names"),
    [
        ("hm?\n/imag x\nnever\n", 2, ["/image"]),
        ("/image missing.png\nnever\n", 2, ["missing.png"]),
        ('"""never', 2, ["closing"]),
        (b"\xff\xfe\n", 2, ["decoded"]),
    ],
)
def test_without_a_terminal_the_first_error_ends_it(
    script: Script, lines: str | bytes, code: int, names: list[str]
) -> None:
    result = run("--url", script.url, lines=lines)
    assert result.exit_code == code
    assert all(name in result.stderr for name in names), result.stderr
    assert not any("never" in str(body) for body in script.bodies)


def test_a_server_that_fails_ends_it_with_one(script: Script) -> None:
    assert run("--url", "http://127.0.0.1:9", lines="hm?").exit_code == 1
    script.is_broken = True
    assert run("--url", script.url, lines="hm?").exit_code == 1


def test_checkpoints_or_a_server_but_not_both(script: Script) -> None:
    assert run(lines="").exit_code == 2
    assert run("run", "--url", script.url, lines="").exit_code == 2
