"""Options of commands that answer; and who answers in `adaptkit chat` and `adaptkit demo`: checkpoints, or a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from adaptkit.cli.output import add_options, seed_option, trust_option
from adaptkit.cli.served import KEY_VARIABLE
from adaptkit.serving.backends import Backend, SessionBackend, check_choice


def backend_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the checkpoints, the server, and who of them answers."""
    return add_options(
        click.argument("checkpoints", metavar="[CHECKPOINT]...", nargs=-1, type=click.Path(path_type=Path)),
        click.option("--url", help="Ask a server that speaks OpenAI's protocol instead, such as `adaptkit serve`."),
        click.option("--api-key", envvar=KEY_VARIABLE, show_envvar=True, metavar="KEY", help="Key of that server."),
        click.option(
            "--workflow",
            "--model",
            "workflow",
            show_default="auto",
            help="Who answers: a workflow, `text` for the base alone, or a model of the server.",
        ),
        trust_option(),
    )(command)


def answer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of generation."""
    return add_options(
        click.option(
            "--max-new-tokens",
            default=128,
            show_default=True,
            type=click.IntRange(min=1),
            help="Most tokens of an answer.",
        ),
        click.option(
            "--temperature",
            default=0.0,
            show_default=True,
            type=click.FloatRange(min=0),
            help="Temperature of sampling; 0 decodes greedily.",
        ),
        seed_option("Seed of sampling.", default=0),
    )(command)


@contextmanager
def open_backend(
    checkpoints: tuple[Path, ...],
    url: str | None,
    api_key: str | None,
    workflow: str | None,
    *,
    trust_remote_code: bool,
) -> Iterator[tuple[Backend, str]]:
    """What answers, and the workflow that is asked at first.

    Raises:
        UsageError: There are checkpoints and a server, or neither.
        DataError: The workflow is unknown.
    """
    if bool(checkpoints) == bool(url):
        raise click.UsageError("Name checkpoints, or a server with --url" + (", not both." if url else "."))
    backend = _connect(str(url), api_key, workflow) if url else _load(checkpoints, trust_remote_code)
    try:
        yield backend, check_choice(backend, workflow or backend.choices[0])
    finally:
        backend.close()


def _connect(url: str, api_key: str | None, model: str | None) -> Backend:
    from adaptkit.serving.remote import ServerBackend

    return ServerBackend(url, api_key, model)


def _load(checkpoints: tuple[Path, ...], trust_remote_code: bool) -> Backend:
    from adaptkit.cli.quiet import quiet_libraries

    quiet_libraries()
    from adaptkit.inference import Session

    given = checkpoints[0] if len(checkpoints) == 1 else list(checkpoints)
    return SessionBackend(Session.open(given, trust_remote_code=trust_remote_code))
