"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from adaptkit.cli.terminal import reserved_stdout
from adaptkit.hookspecs import MAX_SEED

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def json_option(help: str = "Print only JSON.") -> Decorator:
    """The option `--json`, as the argument `as_json`: standard output then holds nothing else, whoever prints."""
    return click.option("--json", "as_json", is_flag=True, is_eager=True, callback=_reserve, help=help)


def trust_option() -> Decorator:
    """The option without which no code of a checkpoint is run."""
    help = "Run code that comes with the checkpoint's base or tokenizer. Read it first; nobody asks again."
    return click.option("--trust-remote-code", is_flag=True, help=help)


def seed_option(help: str, **settings: Any) -> Decorator:
    """The option `--seed`; its default is shown."""
    number = click.IntRange(0, MAX_SEED)
    return click.option("--seed", metavar="INTEGER", type=number, help=help, **{"show_default": True, **settings})


def add_options(*options: Decorator) -> Decorator:
    """Several options as one decorator; the first comes first in the help."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _reserve(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value and not context.resilient_parsing:
        keep_stdout(context)
    return value


def keep_stdout(context: click.Context) -> None:
    """From now on, only what the command itself prints reaches standard output."""
    context.find_root().with_resource(reserved_stdout())
