"""The click group behind `adaptkit`: subcommands imported on first use, and errors turned into exit codes."""

from __future__ import annotations

import errno
import importlib
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import click

from adaptkit import __version__
from adaptkit.cli.hints import LISTING, argument_hint, command_like, option_hint
from adaptkit.errors import AdaptkitError, RunStoppedError, inert, unknown_name
from adaptkit.processes.group import PeerError, num_processes, process_index
from adaptkit.processes.launch import leave_report

DEBUG = "--debug"
ARGUMENTS = f"{__name__}.arguments"
INTERRUPTED = 130  # what shells report for a process ended by Ctrl-C


class NamingGroup(click.Group):
    """A group that suggests the nearest subcommand for an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if not ctx.resilient_parsing and args[0] not in known and not args[0].startswith("-"):
            raise click.UsageError(self.unknown_command(ctx, args[0], known), ctx)
        return super().resolve_command(ctx, args)

    def unknown_command(self, ctx: click.Context, name: str, known: list[str]) -> str:
        """The message for an unknown subcommand."""
        lists = self.invoke_without_command and name in LISTING
        hint = f"`{ctx.command_path}` alone lists." if lists else f"See `{ctx.command_path} --help`."
        return unknown_name("command", name, known, hint=hint)


class LazyGroup(NamingGroup):
    """A group that knows its subcommands' names and one-line helps without importing them.

    Args:
        lazy_commands: For each subcommand, `module:attribute` of its click command and its line in the help.
        attributes: Passed to `click.Group`.
    """

    def __init__(self, lazy_commands: Mapping[str, tuple[str, str]], **attributes: Any) -> None:
        super().__init__(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]}, **attributes)
        self._lazy_commands = dict(lazy_commands)
        click.version_option(__version__, message="%(prog)s %(version)s")(self)
        # Declared for the help page; `parse_args` takes it out wherever it stands.
        click.option(DEBUG, is_flag=True, expose_value=False, help="Show the traceback of an error.")(self)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy_commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy_commands:
            return None
        module, _, attribute = self._lazy_commands[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def unknown_command(self, ctx: click.Context, name: str, known: list[str]) -> str:
        meant = command_like(name)
        if meant is None or meant.split()[0] not in (*known, "--help", "--version"):
            return super().unknown_command(ctx, name, known)
        if meant.startswith("-"):
            return f"no command named {name!r}. Did you mean `{ctx.command_path} {meant}`?"
        return f"no command named {name!r}. Did you mean `{ctx.command_path} {meant}`? See `{ctx.command_path} --help`."

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._lazy_commands.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ctx.meta[DEBUG] = DEBUG in args[:end]
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, [a for a in args[:end] if a != DEBUG] + args[end:])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            advice = self._advice(ctx, error)
            said = f"{error.message.rstrip('.')}. {advice}" if advice else error.message
            vars(error)["message"] = inert(said)  # it holds what was typed
            raise
        except (click.exceptions.Exit, click.Abort):
            raise
        except BaseException as error:
            message, exit_code = explain(error)
            if message is None:
                raise
            if ctx.meta[DEBUG]:
                message = f"{message}\n{traceback.format_exc()}"
            is_error = not isinstance(error, RunStoppedError)
            is_secondary = isinstance(error, PeerError)
            if not leave_report(message, exit_code, is_error=is_error, is_secondary=is_secondary):
                from adaptkit.cli.terminal import echo_message

                echo_message(f"{_speaker()}{'Error: ' if is_error else ''}", message)
            raise click.exceptions.Exit(exit_code) from error

    def _advice(self, ctx: click.Context, error: click.ClickException) -> str | None:
        if isinstance(error, click.NoSuchOption):
            if error.ctx is not None:
                hidden = {o for p in error.ctx.command.params if getattr(p, "hidden", False) for o in p.opts}
                vars(error)["possibilities"] = [o for o in error.possibilities or () if o not in hidden]
            hint = option_hint(error, ctx.meta[ARGUMENTS])
            if hint is not None:
                vars(error)["possibilities"] = None
            return hint
        return argument_hint(error) if isinstance(error, click.UsageError) else None


def explain(error: BaseException) -> tuple[str | None, int]:
    """The message and exit code for an error; no message if it is to be raised as it is."""
    if isinstance(error, AdaptkitError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted.", INTERRUPTED
    failure = _failure(error)
    if failure is not None:
        return failure, 1
    if isinstance(error, OSError) and error.errno is not None and error.errno != errno.EPIPE:
        place = f": {error.filename}" if error.filename else ""
        return inert(f"{error.strerror}{place}"), 1
    if isinstance(error, Exception) and not isinstance(error, OSError):
        reason = f"{type(error).__name__}: {_first_line(error)}"
        return inert(f"this is a bug in adaptkit, please report it: {reason} (add {DEBUG} for the traceback)"), 1
    return None, 1


def _failure(error: BaseException) -> str | None:
    """The message for a failure of the machine."""
    from adaptkit.files.failures import LOWER, explain_failure

    return explain_failure(error, LOWER) if isinstance(error, Exception) else None


def _speaker() -> str:
    """A prefix that names this process if torchrun started several, each of which prints its error."""
    return f"process {process_index()}: " if num_processes() > 1 else ""


def _first_line(error: BaseException) -> str:
    lines: Sequence[str] = str(error).splitlines()
    return lines[0] if lines else "no message"
