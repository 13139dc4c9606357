"""`adaptkit serve`: workflows over HTTP."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adaptkit.cli.output import FOLDER, trust_option
from adaptkit.cli.serve_vllm import COMMAND_VARIABLE, check_engine, serve_with_vllm
from adaptkit.cli.served import KEY_VARIABLE, say_what_is_served, say_where
from adaptkit.cli.terminal import echo
from adaptkit.errors import ModelError, install_command, keep_secret

if TYPE_CHECKING:
    from adaptkit.inference import Session
    from adaptkit.serving.settings import ServerSettings

_COUNT = click.IntRange(min=1)
_SECONDS = click.FloatRange(min=0, min_open=True)


@click.command()
@click.argument("checkpoint", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--api-key",
    envvar=KEY_VARIABLE,
    show_envvar=True,
    default="",
    metavar="KEY",
    help="What clients must send as a bearer token. The variable keeps it out of the list of processes.",
)
@click.option("--default", metavar="WORKFLOW", show_default="the first", help="What answers where several could.")
@click.option("--device", show_default="the GPU if there is one", help="Where the models run, such as cuda:1.")
@click.option("--max-batch-size", default=16, show_default=True, type=_COUNT, help="Requests that run at once.")
@click.option(
    "--max-waiting",
    default=64,
    show_default=True,
    type=_COUNT,
    help="Requests that wait for a place; further ones are answered with status 429.",
)
@click.option(
    "--prefix-cache-bytes",
    default=1 << 30,
    show_default=True,
    type=click.IntRange(min=0),
    help="Memory for what prompts that begin alike need not compute again; 0 keeps nothing.",
)
@click.option("--max-tokens", type=_COUNT, show_default="the decoder's positions", help="Most tokens of an answer.")
@click.option(
    "--allow-media-dir",
    "media_dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder whose files requests may name. Without it they hold their media.",
)
@click.option("--max-media-bytes", type=_COUNT, default=20 << 20, show_default=True, help="Size of one medium.")
@click.option("--max-body-bytes", type=_COUNT, default=64 << 20, show_default=True, help="Size of a request.")
@click.option("--max-pixels", type=_COUNT, default=40_000_000, show_default=True, help="Size of a picture.")
@click.option(
    "--request-timeout",
    "request_timeout_s",
    default=600.0,
    show_default=True,
    type=_SECONDS,
    metavar="SECONDS",
    help="Time for an answer.",
)
@click.option(
    "--receive-timeout",
    "receive_timeout_s",
    default=30.0,
    show_default=True,
    type=_SECONDS,
    metavar="SECONDS",
    help="Time in which a client must have sent its request.",
)
@click.option(
    "--replicas",
    "num_replicas",
    type=_COUNT,
    help="Copies of all this on Ray Serve, each on a GPU of its own if there are GPUs. Limits hold for each of them.",
)
@click.option(
    "--engine",
    default="adaptkit",
    show_default=True,
    type=click.Choice(("adaptkit", "vllm")),
    help="What runs the models: this process, or a vLLM for each workflow on its export as a stock checkpoint.",
)
@click.option(
    "--vllm-command",
    envvar=COMMAND_VARIABLE,
    show_envvar=True,
    metavar="COMMAND",
    show_default="vllm serve",
    help="How vLLM is started, from an environment of its own; further options of vLLM may stand in it.",
)
@click.option(
    "--engine-dir", type=FOLDER, show_default="beside the first CHECKPOINT", help="Folder for what is exported."
)
@trust_option()
def serve(
    checkpoint: tuple[Path, ...],
    host: str,
    port: int,
    api_key: str,
    default: str | None,
    device: str | None,
    max_batch_size: int,
    max_waiting: int,
    prefix_cache_bytes: int,
    num_replicas: int | None,
    engine: str,
    vllm_command: str | None,
    engine_dir: Path | None,
    trust_remote_code: bool,
    **limits: Any,
) -> None:
    """Serve the workflows of each CHECKPOINT, and their base as text, over HTTP as OpenAI's API.

    A CHECKPOINT is a run directory, a workflow's folder, or a hub id; all are over one base. The model `auto` answers
    text with the base, and media with the workflow that takes them. SIGTERM and Ctrl-C finish what runs.
    """
    try:
        from adaptkit.serving.app import create_app
        from adaptkit.serving.server import Server, is_loopback
        from adaptkit.serving.settings import ServerSettings
    except ModuleNotFoundError as error:
        raise ModelError(f"{error.name} is not installed: {install_command('serve')}.") from error
    from adaptkit.cli.quiet import quiet_libraries

    check_engine(click.get_current_context())
    quiet_libraries()
    if api_key:
        keep_secret(api_key, "the API key")
    elif not is_loopback(host):
        echo(f"Warning: whoever reaches {host} can use this server. Set {KEY_VARIABLE}, or --api-key.", err=True)
    settings = ServerSettings(api_key=api_key, **limits)
    options = {"default": default, "max_batch_size": max_batch_size, "max_waiting": max_waiting}
    options |= {"prefix_cache_bytes": prefix_cache_bytes, "trust_remote_code": trust_remote_code, "device": device}
    if num_replicas is not None:
        _serve_replicas(num_replicas, checkpoint, options, settings, host, port)
        return
    if engine == "vllm":
        serve_with_vllm(checkpoint, options, settings, (host, port), vllm_command, engine_dir)
        return
    server = Server(host, port, settings)
    with _open_session(checkpoint, options) as session:
        app = create_app(session, settings)
        say_what_is_served(session)
        say_where(server.url, bool(api_key))
        server.run(app)
    echo("Stopped.")


def _open_session(checkpoint: Sequence[Path], options: Mapping[str, Any]) -> Session:
    from adaptkit.inference import Session

    return Session.open(list(checkpoint), **options)


def _serve_replicas(
    num_replicas: int,
    checkpoint: Sequence[Path],
    options: Mapping[str, Any],
    settings: ServerSettings,
    host: str,
    port: int,
) -> None:
    import torch

    from adaptkit.model.run_folders import workflow_folders
    from adaptkit.serving.replicas import replicas
    from adaptkit.serving.server import signals_set

    if port == 0:
        raise click.UsageError("--replicas needs a --port of your choice.")
    if (options["device"] or "cuda") not in ("cpu", "cuda"):
        raise click.UsageError("--replicas: Ray gives each a GPU; --device is cuda or cpu.")
    here = [path.absolute() if path.exists() else path for path in checkpoint]
    for path in here:
        workflow_folders(path)  # what is wrong with it is said here, not in a replica
    with (
        replicas(
            functools.partial(_open_session, here, options),
            settings,
            num_replicas=num_replicas,
            num_places=options["max_batch_size"] + options["max_waiting"],
            host=host,
            port=port,
            on_gpu=options["device"] != "cpu" and torch.cuda.is_available(),
        ) as url,
        signals_set(threading.Event()) as stopped,
    ):
        echo(f"{num_replicas} replicas of {', '.join(map(str, checkpoint))}")
        say_where(url, bool(settings.api_key))
        stopped.wait()
    echo("Stopped.")
