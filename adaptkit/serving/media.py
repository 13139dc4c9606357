"""Messages of a request as a session takes them: media as bytes, never as a path or an address that a client names."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from adaptkit.errors import unknown_name
from adaptkit.serving.errors import RequestError
from adaptkit.serving.schema import ChatMessage
from adaptkit.serving.settings import ServerSettings

_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
_SUPPORTED = "Send its content: a data URL (data:TYPE/SUBTYPE;base64,...), or base64 as data."
PICTURES = "image"
"""The modality whose items have pixels to count before anything is decoded."""


class MediaReader:
    """Reads the messages of requests.

    Args:
        modalities: Names of all modalities that some workflow takes.
        settings: Limits, and the folder whose files requests may name.
    """

    def __init__(self, modalities: Collection[str], settings: ServerSettings) -> None:
        self._modalities = sorted(modalities)
        self._settings = settings
        self._folder = settings.media_dir.resolve(strict=True) if settings.media_dir else None

    def read(self, messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
        """The messages with every medium as bytes.

        Raises:
            RequestError: A part is malformed, names what may not be read, or is beyond a limit.
        """
        settings = self._settings
        if len(messages) > settings.max_messages:
            raise RequestError(
                f"there are {len(messages):,} messages, more than the limit of {settings.max_messages:,}.",
                param="messages",
            )
        read = [self._message(message, f"messages.{i}") for i, message in enumerate(messages)]
        parts = [part for message in read for part in message["content"]]
        check_text((part["text"] for part in parts if part["type"] == "text"), settings, "messages")
        num_media = sum(part["type"] != "text" for part in parts)
        if num_media > settings.max_media:
            raise RequestError(f"there are {num_media} media, more than the limit of {settings.max_media}.", status=413)
        return read

    def _message(self, message: ChatMessage, place: str) -> dict[str, Any]:
        content = message.content
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        read = [self._part(part, f"{place}.content.{i}") for i, part in enumerate(parts)]
        found = {"role": "system" if message.role == "developer" else message.role, "content": read}
        return found | ({"name": message.name} if message.name else {})

    def _part(self, part: Mapping[str, Any], place: str) -> dict[str, Any]:
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            _refuse_others(part, ("type", "text"), place)
            return {"type": "text", "text": part["text"]}
        modality = self._modality(kind, place)
        medium = part.get(str(kind))
        if kind == f"{modality}_url" and isinstance(medium, str):
            medium = {"url": medium}
        if not isinstance(medium, Mapping):
            raise RequestError(f"{place}: a part of type {kind!r} needs {kind!r}, a JSON object.", param=place)
        _refuse_others(part, ("type", kind), place)
        raw = self._content(medium, f"{place}.{kind}")
        if modality == PICTURES:
            self._check_pixels(raw, place)
        return {"type": modality, modality: raw}

    def _modality(self, kind: Any, place: str) -> str:
        if isinstance(kind, str):
            name = kind.removesuffix("_url").removeprefix("input_")
            if name in self._modalities:
                return name
        if kind == "text":
            raise RequestError(f"{place}: a part of type 'text' needs 'text', a string.", param=place)
        known = ["text", "image_url", "input_audio", *self._modalities]
        if kind in known:
            have = ", ".join(self._modalities) or "text alone"
            raise RequestError(f"{place}: no workflow here takes {kind!r}. They take: {have}.", param=place)
        raise RequestError(f"{place}: {unknown_name('part type', str(kind), known)}", param=place)

    def _content(self, medium: Mapping[str, Any], place: str) -> bytes:
        given = {key: medium[key] for key in ("data", "url") if medium.get(key) is not None}
        if len(given) != 1 or not all(isinstance(value, str) for value in given.values()):
            raise RequestError(f"{place}: one of data and url is needed, as a string. {_SUPPORTED}", param=place)
        if medium.get("detail") not in (None, "auto"):
            raise RequestError(f"{place}.detail is not supported: the workflow decides on the resolution.", param=place)
        _refuse_others(medium, ("data", "url", "detail", "format"), place)
        ((key, value),) = given.items()
        raw = self._decode(value, place) if key == "data" or value[:5].lower() == "data:" else self._file(value, place)
        if not raw:
            raise RequestError(f"{place} is empty.", param=place)
        return raw

    def _decode(self, value: str, place: str) -> bytes:
        start = 0
        if value[:5].lower() == "data:":
            header = _DATA_URL.match(value)
            if header is None:
                raise RequestError(
                    f"{place}: the data URL is not of the form data:TYPE/SUBTYPE;base64,....", param=place
                )
            start = header.end()
        self._check_size((len(value) - start) * 3 // 4, place)
        try:
            return base64.b64decode(value[start:], validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError(f"{place} is not valid base64: {error}.", param=place) from error

    def _file(self, url: str, place: str) -> bytes:
        scheme = urlsplit(url).scheme.lower() if "://" in url else "file"
        if scheme != "file":
            raise RequestError(f"{place}: the server fetches nothing from URLs. {_SUPPORTED}", param=place)
        if self._folder is None:
            raise RequestError(f"{place}: the server opens no files (--allow-media-dir). {_SUPPORTED}", param=place)
        name = unquote(urlsplit(url).path) if "://" in url else url
        try:
            path = (self._folder / name).resolve(strict=True)
            inside = path.is_relative_to(self._folder) and path.is_file()
        except (OSError, ValueError, RuntimeError):  # missing, a NUL in the name, a loop of links
            inside = False
        if not inside:
            raise RequestError(f"{place}: there is no file {name!r} in the folder that the server allows.", param=place)
        self._check_size(path.stat().st_size, place)
        return path.read_bytes()

    def _check_size(self, num_bytes: int, place: str) -> None:
        limit = self._settings.max_media_bytes
        if num_bytes > limit:
            raise RequestError(f"{place} has more than the limit of {limit:,} bytes.", status=413, param=place)

    def _check_pixels(self, raw: bytes, place: str) -> None:
        """Refuse by its header what would be large when decoded; what has no readable header, the modality refuses."""
        from PIL import Image

        try:
            width, height = Image.open(io.BytesIO(raw)).size
        except Image.DecompressionBombError:
            width = height = self._settings.max_pixels
        except Exception:  # Pillow's readers raise many types on damaged headers
            return
        if width * height > self._settings.max_pixels:
            raise RequestError(
                f"{place} has more than the limit of {self._settings.max_pixels:,} pixels. Scale it down.",
                status=413,
                param=place,
            )


def check_text(texts: Any, settings: ServerSettings, param: str) -> None:
    """Refuse more text than is worth counting tokens of, and what is not text.

    Raises:
        RequestError: It is too long, or holds half of a surrogate pair.
    """
    num_characters = 0
    for text in texts:
        num_characters += len(text)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"{param}: a text holds {error.object[error.start]!a}, half a character.") from error
    if num_characters > settings.max_prompt_characters:
        raise RequestError(
            f"{param}: {num_characters:,} characters of text, more than the limit of "
            f"{settings.max_prompt_characters:,}.",
            param=param,
            code="context_length_exceeded",
        )


def _refuse_others(found: Mapping[str, Any], known: Collection[Any], place: str) -> None:
    for name, value in found.items():
        if name not in known and value is not None:
            raise RequestError(f"{place}: {unknown_name('field', name, known)}", param=place)
