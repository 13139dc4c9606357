"""What a server allows, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class ServerSettings:
    """What a server allows, and how much of it.

    Attributes:
        api_key: What clients must send as a bearer token; empty for no check.
        media_dir: A folder whose files requests may name; without it they hold their media.
        max_body_bytes: Of a request.
        max_media_bytes: Of one medium.
        max_media: Media in a request.
        max_pixels: Width times height of a picture.
        max_messages: In a conversation.
        max_prompt_characters: Text in all messages, or of a prompt.
        max_tokens: What a request may ask for at most; the decoder's positions are a limit in any case.
        max_choices: Answers to one prompt, or prompts of one request times answers to each.
        max_connections: At a time; the next is answered with status 503.
        request_timeout_s: From a request's last byte to the end of its answer.
        receive_timeout_s: For a request's head, and again for its body.
    """

    api_key: str = ""
    media_dir: Path | None = None
    max_body_bytes: int = 64 * MIB
    max_media_bytes: int = 20 * MIB
    max_media: int = 64
    max_pixels: int = 40_000_000
    max_messages: int = 1000
    max_prompt_characters: int = 1_000_000
    max_tokens: int | None = None
    max_choices: int = 16
    max_connections: int = 256
    request_timeout_s: float = 600.0
    receive_timeout_s: float = 30.0
