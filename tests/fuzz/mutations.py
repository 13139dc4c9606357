"""Random damage, for trials of readers: of values, as JSON has them, and of bytes."""

from __future__ import annotations

import random
import string
from typing import Any

_WORDS = (
    "conversations",
    "from",
    "value",
    "human",
    "gpt",
    "user",
    "assistant",
    "system",
    "messages",
    "role",
    "content",
)
_JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, -0.0, 1e308, float("inf"), float("nan"), 10**400, 2**63, "", " ", "\n", "\0",
    "\ud800", "\udfff\ud800", "\ufdd0", "\u2028", "ü" * 30, "a" * 5000, ".", "..", "/", "~",
    "~nobody/x", "../../x", "a\0b",
    "data:", "data:x/y;base64,", "data:x/y;base64,AAA", "data:x/y;base64,%%%%", "http://x/y", "file:///x", "{{ x }}",
    "<|im_end|>", "<|pad|>", [], {}, [None], [[]], [{}], {"": ""}, {"bytes": None, "path": None}, {"bytes": "x"},
    {"path": 3}, {"url": 3}, {"url": ""}, {"data": "%", "format": 7}, {"data": "AAAA"},
)  # fmt: skip


def mutate_value(value: Any, rng: random.Random) -> Any:
    """A copy of a value with one place in it replaced, dropped, doubled, moved or nested."""
    if not isinstance(value, dict | list) or not value or rng.random() > 0.9:
        return _replacement(value, rng)
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    keys = list(copy) if isinstance(copy, dict) else range(len(copy))
    key, action = rng.choice(list(keys)), rng.random()
    if action < 0.1:
        del copy[key]
    elif action < 0.2:
        copy[key] = copy[rng.choice(list(keys))]
    elif action < 0.3:
        _add(copy, key, rng)
    else:
        copy[key] = mutate_value(copy[key], rng)
    return copy


def _add(copy: Any, key: Any, rng: random.Random) -> None:
    if isinstance(copy, list):
        copy.insert(key, copy[key])
    elif rng.random() < 0.5:
        copy[rng.choice((*_WORDS, "type", "text", "id", "txt", ""))] = _junk(rng)
    else:
        copy[rng.choice((str(key).upper(), f"{key}s", str(key)[:-1]))] = copy.pop(key)


def _replacement(value: Any, rng: random.Random) -> Any:
    action = rng.random()
    if isinstance(value, str) and value and action < 0.4:
        place = rng.randrange(len(value) + 1)
        insert = rng.choice(("", "\0", "\ud800", "\ufdd0", "<", "/", value, rng.choice(string.printable), "é", "猫"))
        return value[:place] + insert + value[place + rng.randrange(3) :]
    if action < 0.5:
        return [value] * rng.choice((1, 2, 30))
    if action < 0.6:
        return {rng.choice((*_WORDS, "bytes", "path", "url", "data")): value}
    if action < 0.65:
        return _nested(value, rng.choice((3, 60, 200)), rng)
    return _junk(rng)


def _junk(rng: random.Random) -> Any:
    return rng.choice((*_JUNK, rng.choice(_WORDS)))


def _nested(value: Any, depth: int, rng: random.Random) -> Any:
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_TEXTS = (
    b"[" * 3000,
    b'{"a":' * 2000,
    b"9" * 5000,
    b"null",
    b"\\ud800",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\0",
    b"}",
    b",",
    b"NaN",
)


def mutate_bytes(raw: bytes, rng: random.Random) -> bytes:
    """A copy of some bytes with damage in one place: cut, flipped, overwritten, doubled, or with noise put in."""
    changed = bytearray(raw)
    place, action = rng.randrange(len(raw) + 1), rng.randrange(9)
    length = min(rng.choice((1, 2, 4, 8, 64, 512)), len(raw) - place)
    if action == 0:
        del changed[place:]
    elif action == 1:
        del changed[place : place + length]
    elif action == 2:
        changed[place:place] = raw[place : place + 512]
    elif action == 3:
        changed[place : place + length] = bytes(length)
    elif action == 4:
        changed[place : place + length] = rng.randbytes(length)
    elif action == 5:
        width = rng.choice((1, 2, 4, 8))
        number = rng.choice(_EXTREMES) % 256**width
        changed[place : place + width] = number.to_bytes(width, rng.choice(("little", "big")))
    elif action == 6:
        changed[place : place + rng.randrange(3)] = rng.choice(_TEXTS)
    elif action == 7:
        changed += raw[:place] if rng.random() < 0.5 else rng.randbytes(64)
    elif raw and place < len(raw):
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)
