"""What is typed in `adaptkit chat`: entries of one line or several, and the completion of commands and files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adaptkit.errors import DataError

QUOTES = '"""'


@dataclass(frozen=True)
class Entry:
    """What was typed.

    Attributes:
        text: Its lines.
        is_command: Whether it began with a slash, and did not stand between triple quotes.
    """

    text: str
    is_command: bool = False


def read_entry(read_line: Callable[[bool], str]) -> Entry:
    r"""Read one entry: a line, lines that each but the last end in `\`, or a block between triple quotes.

    Args:
        read_line: Gives the next line, without its end; told whether it continues an entry. It raises `EOFError`.

    Raises:
        EOFError: There is nothing more.
        DataError: The end came within an entry, or it is not text.
    """
    try:
        line = read_line(False)
        if line.lstrip().startswith(QUOTES):
            return Entry(_text(_rest_of_block(line.lstrip().removeprefix(QUOTES), read_line)))
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(_next(read_line, "a line after \\"))
        return Entry(_text("\n".join(lines)), is_command=line.startswith("/"))
    except UnicodeDecodeError as error:
        raise DataError(f"what was typed cannot be decoded as {error.encoding}.") from error


def _rest_of_block(line: str, read_line: Callable[[bool], str]) -> str:
    lines = [line]
    while not lines[-1].rstrip().endswith(QUOTES):
        lines.append(_next(read_line, f"the closing {QUOTES}"))
    lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
    return "\n".join(lines)


def _next(read_line: Callable[[bool], str], awaited: str) -> str:
    try:
        return read_line(True)
    except EOFError as error:
        raise DataError(f"the input ended before {awaited}.") from error


def _text(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):  # bytes that Python kept for itself
        raise DataError("what was typed is not valid UTF-8.")
    return text.strip()


def completions(line: str, arguments: dict[str, Callable[[], Iterable[str]] | None]) -> list[str]:
    """What a line that begins with a slash may become.

    Args:
        line: Up to the cursor.
        arguments: For each command its possible arguments; None for a file.
    """
    if not line.startswith("/"):
        return []
    name, separator, argument = line[1:].partition(" ")
    if not separator:
        return [f"/{other} " for other in arguments if other.startswith(name)]
    if name == "media" and " " not in argument:
        return [f"/media {other} " for other in _choices(arguments["media"]) if other.startswith(argument)]
    prefix = f"/{name} "
    if name == "media":
        modality, _, argument = argument.partition(" ")
        prefix, name = f"/media {modality} ", "image"
    if name in arguments and arguments[name] is None:
        return [prefix + path for path in _files(argument)]
    return [prefix + other for other in _choices(arguments.get(name)) if other.startswith(argument)]


def _choices(given: Callable[[], Iterable[str]] | None) -> Sequence[str]:
    return [] if given is None else list(given())


def _files(typed: str) -> list[str]:
    head, slash, beginning = typed.rpartition("/")
    folder = Path(f"{head}{slash}" or ".").expanduser()
    found = []
    with suppress(OSError, RuntimeError):  # no such folder, no permission, no home
        for path in sorted(folder.iterdir()):
            if path.name.startswith(beginning) and (beginning or not path.name.startswith(".")):
                found.append(f"{head}{slash}{path.name}" + ("/" if path.is_dir() else ""))
    return found


def use_readline(complete: Callable[[str], list[str]]) -> None:
    """Edit lines with readline, where Python has it: history, and completion of the whole line."""
    try:
        import readline
    except ImportError:  # Windows
        return

    def nth(text: str, state: int) -> str | None:
        found = complete(text)
        return found[state] if state < len(found) else None

    readline.set_completer(nth)
    readline.set_completer_delims("")
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")
    readline.set_auto_history(True)
    if not is_libedit:
        readline.parse_and_bind("set completion-ignore-case on")
        readline.parse_and_bind("set enable-bracketed-paste on")  # lines that are pasted are one entry
