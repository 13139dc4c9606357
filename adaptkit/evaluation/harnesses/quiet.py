"""Harnesses kept from the terminal, whose progress and routine messages are not for users of adaptkit."""

from __future__ import annotations

import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

from PIL import ImageFile

from adaptkit.errors import PluginError, install_command

_LOGGERS = ("lm_eval", "lmms_eval", "datasets", "evaluate", "httpx", "urllib3", "absl", "nltk", "filelock")
_API_KEY = re.compile(r".*API_?KEY$|^(AZURE|OPENAI|ANTHROPIC|DASHSCOPE|REKA)_", re.IGNORECASE)


class _Nowhere(io.TextIOBase):
    """Takes whatever is written; loggers that a harness makes keep it, so it is never closed."""

    def write(self, text: str) -> int:
        return len(text)


_NOWHERE = _Nowhere()


def require_harnesses() -> None:
    """Refuse to go on where the harnesses are not installed.

    Raises:
        PluginError: It says how to install them.
    """
    missing = [name for name in ("lmms_eval", "lm_eval", "datasets") if find_spec(name) is None]
    if missing:
        raise PluginError(
            f"tasks of lmms-eval and lm-eval need the packages of the extra 'eval' ({', '.join(missing)} cannot be "
            f"imported): {install_command('eval')}."
        )


@contextmanager
def quiet_harness() -> Iterator[None]:
    """Run harness code: without its output and warnings, and without the keys of services that it might call."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(_NOWHERE))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        kept = {name: value for name, value in os.environ.items() if not _API_KEY.match(name)}
        stack.enter_context(patch.dict(os.environ, kept, clear=True))
        stack.enter_context(_quiet_loggers())
        stack.enter_context(_no_bars())
        # lmms-eval lets Pillow accept pictures that are cut short, in the whole process
        stack.enter_context(patch.object(ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES))
        yield


@contextmanager
def _quiet_loggers() -> Iterator[None]:
    from loguru import logger

    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    logger.disable("lmms_eval")
    logger.disable("utils")  # as which lmms-eval imports what lies beside a task file
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.enable("lmms_eval")
        logger.enable("utils")
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _no_bars() -> Iterator[None]:
    from tqdm.std import tqdm

    plain = tqdm.__init__

    def without_bar(self: Any, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **{**kwargs, "disable": True})

    with patch.object(tqdm, "__init__", without_bar):
        yield
