"""Refusing the network for a while, and saying who wanted it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from adaptkit.testing.requirements import ContractError

_METHODS = ("connect", "connect_ex", "sendto")
_FUNCTIONS = ("getaddrinfo", "gethostbyname", "create_connection")


@contextmanager
def no_network(what: str) -> Iterator[None]:
    """Refuse name lookups and connections; those to sockets of this machine's own file system stay allowed.

    Args:
        what: Who is watched, for the message.

    Raises:
        ContractError: On leaving, where something was refused, whether or not its caller got over it.
    """
    attempts: list[str] = []

    def refusal(name: str, original: Any, is_method: bool) -> Any:
        def refuse(*arguments: Any, **keywords: Any) -> Any:
            if is_method and arguments[0].family == getattr(socket, "AF_UNIX", None):
                return original(*arguments, **keywords)
            target = arguments[is_method:][:2] or tuple(keywords.values())[:2]
            attempts.append(f"{name}({', '.join(repr(value) for value in target)})")
            raise OSError(f"{what}: the network is refused while contracts are checked")

        return refuse

    patches = [
        *(mock.patch.object(socket.socket, n, refusal(n, getattr(socket.socket, n), True)) for n in _METHODS),
        *(mock.patch.object(socket, n, refusal(n, getattr(socket, n), False)) for n in _FUNCTIONS),
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()
        if attempts:
            raise ContractError(f"{what} uses the network: {attempts[0]}")
