"""Scores that would come from a service elsewhere: found beforehand, and kept from being asked for."""

from __future__ import annotations

import ipaddress
import socket
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

CLIENTS = (
    *("openai", "anthropic", "requests", "httpx", "aiohttp", "urllib3", "litellm", "dashscope", "reka", "vertexai"),
    *("google.generativeai", "google.genai", "azure", "zhipuai", "cohere", "mistralai", "together", "groq"),
    "lmms_eval.llm_judge",
)
"""Modules whose only use in scoring is to ask a service."""

_HARNESSES = {"lmms_eval", "lm_eval"}
_STDLIB = sysconfig.get_paths()["stdlib"]


class CalledOutError(BaseException):
    """A harness tried to reach another machine. No `except Exception` of its retries catches it.

    Attributes:
        host: Which one.
    """

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host


@contextmanager
def no_calls() -> Iterator[None]:
    """Refuse every connection to another machine.

    Raises:
        CalledOutError: One was tried; nothing was sent.
    """
    look_up, connect, connect_ex = socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse(host)
        return look_up(host, *args, **kwargs)

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        def checked(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                _refuse(address[0])
            return method(self, address)

        return checked

    with (
        patch.object(socket, "getaddrinfo", guarded_look_up),
        patch.object(socket.socket, "connect", guarded(connect), create=True),
        patch.object(socket.socket, "connect_ex", guarded(connect_ex), create=True),
    ):
        yield


def _refuse(host: Any) -> None:
    name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    try:
        is_here = ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        is_here = name == "localhost"
    if not is_here:
        raise CalledOutError(name)


def judge_of(config: Mapping[str, Any]) -> str | None:
    """What a task would ask to score its answers, as the functions that lead to it; None where it asks nobody.

    Args:
        config: A task's, with its functions.
    """
    metrics = [metric for metric in config.get("metric_list") or () if isinstance(metric, Mapping)]
    roots = [config.get("process_results")]
    roots += [metric.get(key) for metric in metrics for key in ("aggregation", "metric")]
    seen: set[Any] = set()
    for root in roots:
        if callable(root) and (found := _client_behind(root, seen)):
            return " → ".join(found)
    return None


def _client_behind(value: Any, seen: set[Any]) -> list[str] | None:
    """The names on a way from a function to a client of a service, following what its code refers to."""
    function = _plain(value)
    if not isinstance(function, types.FunctionType) or function in seen:
        return None
    seen.add(function)
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    for name in sorted(names):
        if name in function.__globals__:
            found = _client_in(function.__globals__[name], names, seen)
        else:
            found = [name] if _is_client(name) else None  # imported where it is used
        if found:
            return [function.__name__, *found]
    return None


def _client_in(value: Any, names: set[str], seen: set[Any]) -> list[str] | None:
    """As `_client_behind`, from what a global name stands for; of modules and classes what `names` refer to."""
    kind = value if isinstance(value, type | types.FunctionType | types.ModuleType) else type(value)
    module = kind.__name__ if isinstance(kind, types.ModuleType) else getattr(kind, "__module__", None) or ""
    if _is_client(module):
        return [module]
    if not _is_followed(kind):
        return None
    if isinstance(kind, types.FunctionType):
        return _client_behind(kind, seen)
    if isinstance(kind, types.ModuleType):
        return _first(vars(kind), names, seen)
    members = {name: member for base in reversed(kind.__mro__) for name, member in vars(base).items()}
    return _first(members, _used_members(members, names), seen)


def _used_members(members: Mapping[str, Any], names: set[str]) -> set[str]:
    """Methods of an object that are called by name, and those that these call in turn."""
    used = {"__init__", "__call__"} | names
    while True:
        codes = [code for name in used & set(members) if (code := getattr(_plain(members[name]), "__code__", None))]
        more = used | {name for code in codes for part in _codes(code) for name in part.co_names if name in members}
        if more == used:
            return used
        used = more


def _first(members: Mapping[str, Any], names: set[str], seen: set[Any]) -> list[str] | None:
    found = (_client_behind(members[name], seen) for name in sorted(names & set(members)))
    return next(filter(None, found), None)


def _plain(value: Any) -> Any:
    """The function behind methods, partial applications and decorators."""
    while True:
        inner = value.func if isinstance(value, partial) else None
        inner = inner or getattr(value, "__func__", None) or getattr(value, "__wrapped__", None)
        if inner is None:
            return value
        value = inner


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _is_client(name: str) -> bool:
    return any(name == client or name.startswith(f"{client}.") for client in CLIENTS)


def _is_followed(value: Any) -> bool:
    """Whether code is a harness's or that of a user's task files, rather than a library's."""
    if isinstance(value, types.ModuleType):
        path = getattr(value, "__file__", None)
    else:
        members = [value] if isinstance(value, types.FunctionType) else vars(value).values()
        codes = (getattr(_plain(member), "__code__", None) for member in members)
        path = next((code.co_filename for code in codes if code is not None), None)
    if path is None:
        return False
    parts = Path(path).parts
    return bool(_HARNESSES & set(parts)) or not (
        {"site-packages", "dist-packages"} & set(parts) or path.startswith(_STDLIB)
    )
