"""`adaptkit demo`: a chat on a web page."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import click

from adaptkit.cli.answering import answer_options, backend_options, open_backend
from adaptkit.cli.terminal import echo

_STOPPED = 143  # what shells report for SIGTERM


@click.command()
@backend_options
@answer_options
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to serve on; the default is this machine."
)
@click.option("--port", default=7860, show_default=True, type=click.IntRange(1, 65535), help="Port to serve on.")
def demo(
    checkpoints: tuple[Path, ...],
    url: str | None,
    api_key: str | None,
    workflow: str | None,
    host: str,
    port: int,
    trust_remote_code: bool,
    **options: Any,
) -> None:
    """Talk to workflows of CHECKPOINT, or to a server, on a web page, until Ctrl-C.

    The page takes several pictures, recordings and other files, shows answers as they are written, and draws the boxes
    that they hold. Everything it loads comes from this machine.
    """
    with ExitStack() as stack:
        from adaptkit.serving.demo.page import Page, import_gradio

        import_gradio()  # a missing one is reported before models are loaded
        from adaptkit.serving.server import is_loopback

        os.environ["GRADIO_TEMP_DIR"] = stack.enter_context(TemporaryDirectory(prefix="adaptkit-demo-"))
        opening = open_backend(checkpoints, url, api_key, workflow, trust_remote_code=trust_remote_code)
        backend, chosen = stack.enter_context(opening)
        page = stack.enter_context(closing(Page(backend, chosen, options, f"adaptkit · {_name(checkpoints, url)}")))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(_STOPPED))
        address = page.start(host, port)
        if not is_loopback(host):
            echo(f"Warning: whoever reaches {host} can use this page; it has no password.", err=True)
        echo(f"{address} (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def _name(checkpoints: tuple[Path, ...], url: str | None) -> str:
    """What the page is over, without a password that the address may hold."""
    return urlsplit(url).netloc.rpartition("@")[2] if url else " + ".join(path.resolve().name for path in checkpoints)
