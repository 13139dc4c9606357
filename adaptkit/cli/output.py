"""Options by which a command prints for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from adaptkit.cli.terminal import reserved_stdout


def json_option(help: str = "Print only JSON.") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option `--json`, as the argument `as_json`: standard output then holds nothing else, whoever prints."""
    return click.option("--json", "as_json", is_flag=True, is_eager=True, callback=_reserve, help=help)


def trust_option() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option without which no code of a checkpoint is run."""
    help = "Run code that comes with the checkpoint's base or tokenizer. Read it first; nobody asks again."
    return click.option("--trust-remote-code", is_flag=True, help=help)


def _reserve(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value and not context.resilient_parsing:
        keep_stdout(context)
    return value


def keep_stdout(context: click.Context) -> None:
    """From now on, only what the command itself prints reaches standard output."""
    context.find_root().with_resource(reserved_stdout())
