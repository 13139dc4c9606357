"""`adaptkit serve --engine vllm`: stock checkpoints, a vLLM on each, and our application before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from adaptkit.cli.served import say_what_is_served, say_where
from adaptkit.cli.terminal import echo
from adaptkit.errors import DataError

if TYPE_CHECKING:
    from adaptkit.serving.settings import ServerSettings

COMMAND_VARIABLE = "ADAPTKIT_VLLM_COMMAND"
COMMAND = "vllm serve"
_START_TIMEOUT_S = 3600.0  # of large checkpoints, whose kernels are compiled; one that fails ends at once
_NOT_WITH_VLLM = {
    "device": "give it to vLLM in --vllm-command, or as CUDA_VISIBLE_DEVICES",
    "prefix_cache_bytes": "vLLM reuses prompts in memory of its own",
    "num_replicas": "start the command several times, behind a load balancer",
}
_ONLY_WITH_VLLM = ("vllm_command", "engine_dir")


def check_engine(context: click.Context) -> None:
    """Refuse options that the engine would not follow."""
    given = [name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    for name in given:
        option = next(p.opts[0] for p in context.command.params if p.name == name)
        if context.params["engine"] == "vllm" and name in _NOT_WITH_VLLM:
            raise click.UsageError(f"{option} does not go with --engine vllm: {_NOT_WITH_VLLM[name]}.")
        if context.params["engine"] != "vllm" and name in _ONLY_WITH_VLLM:
            raise click.UsageError(f"{option} is for --engine vllm.")


def serve_with_vllm(
    checkpoint: Sequence[Path],
    options: Mapping[str, Any],
    settings: ServerSettings,
    address: tuple[str, int],
    command: str | None,
    directory: Path | None,
) -> None:
    """Export what is not exported yet, start an engine on each, and serve them until SIGTERM or Ctrl-C."""
    from adaptkit.export.together import export_together
    from adaptkit.inference.routing import TEXT, named_folders
    from adaptkit.model.processor import load_processor
    from adaptkit.serving.app import create_app
    from adaptkit.serving.engines import engines
    from adaptkit.serving.forwarding import ForwardingSession, check_default, served
    from adaptkit.serving.server import Server

    folders = named_folders(checkpoint)
    check_default(options["default"], {TEXT: None, **folders})
    directory = directory or _beside(checkpoint[0])
    trust = options["trust_remote_code"]
    stock = export_together(folders, directory, base_name=TEXT, trust_remote_code=trust)
    served(stock)  # what their generation configs hold is refused before anything starts
    for name, found in stock.items():
        echo(f"{name}: {found.directory}{' (up to date)' if found.reused else ''}")
    processors = {name: load_processor(folder, trust_remote_code=trust) for name, folder in folders.items()}
    limits = {name: options[name] for name in ("max_batch_size", "max_waiting")}
    server = Server(*address, settings)
    with (
        engines(
            {name: found.directory for name, found in stock.items()},
            command or COMMAND,
            log_dir=directory / "logs",
            max_batch_size=options["max_batch_size"],
            timeout_s=_START_TIMEOUT_S,
            on_start=lambda name: echo(f"Starting vLLM for {name}; see {directory / 'logs' / name}.log"),
            on_end=lambda message: echo(f"Warning: {message}", err=True),
        ) as started,
        ForwardingSession(started, stock, processors, default=options["default"], **limits) as session,
    ):
        say_what_is_served(session)
        say_where(server.url, bool(settings.api_key))
        server.run(create_app(session, settings))
    echo("Stopped.")


def _beside(checkpoint: Path) -> Path:
    if not checkpoint.exists():
        raise DataError(f"{checkpoint} is not a folder here: say with --engine-dir where its exports are to be.")
    here = checkpoint.resolve()
    return here.with_name(f"{here.name}-vllm")
