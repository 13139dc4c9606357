"""What `adaptkit serve` says when it serves."""

from __future__ import annotations

import json
from typing import Any

from adaptkit.cli.terminal import echo

KEY_VARIABLE = "ADAPTKIT_API_KEY"


def say_what_is_served(session: Any) -> None:
    """Name the workflows, what they take, and which have a batch of their own."""
    for name, takes in session.modalities.items():
        default = ", default" if name == session.default and len(session.modalities) > 2 else ""
        echo(f"{name}: {', '.join(takes) or 'text'}{default}")
    for group in session.status()["groups"]:
        if group["reason"]:
            echo(f"{', '.join(group['workflows'])}: a batch of its own; {group['reason']}")


def say_where(url: str, has_key: bool) -> None:
    """Say where the server listens, and how to ask it."""
    echo(f"Serving on {url}/v1. Ctrl-C stops it. Try:")
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "Hello"}]})
    key = f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if has_key else ""
    echo(f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d '{body}'")
