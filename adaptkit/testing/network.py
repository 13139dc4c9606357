"""Refusing the network for a while, and saying who wanted it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from adaptkit.testing.requirements import ContractError

_EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")

_watched: list[tuple[str, list[str]]] = []
"""What is watched now, innermost last, and the attempts that it made."""


@contextmanager
def no_network(what: str) -> Iterator[None]:
    """Refuse name lookups and connections; those to sockets of this machine's own file system stay allowed.

    Args:
        what: Who is watched, for the message.

    Raises:
        ContractError: On leaving, where something was refused, whether or not its caller caught the error.
    """
    _add_audit_hook()
    attempts: list[str] = []
    _watched.append((what, attempts))
    try:
        yield
    finally:
        _watched.pop()
        if attempts:
            raise ContractError(f"{what} uses the network: {attempts[0]}")


@cache
def _add_audit_hook() -> None:
    """Once: an audit hook stays for the life of the process."""
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched or event not in _EVENTS:
        return
    first, *others = arguments
    is_socket = isinstance(first, socket.socket)
    if is_socket and first.family == getattr(socket, "AF_UNIX", None):
        return
    what, attempts = _watched[-1]
    target = others[:1] if is_socket else arguments[:2]
    attempts.append(f"{event}({', '.join(map(repr, target))})")
    raise OSError(f"{what}: the network is refused while contracts are checked")
