"""A server that speaks OpenAI's protocol, ours or another, as what answers a chat."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from adaptkit.errors import AdaptkitError, DataError, RunError, first_line, install_command, keep_secret, unknown_name
from adaptkit.serving.backends import AUTO, Messages, Reply

if TYPE_CHECKING:
    from openai import Stream
    from openai.types.chat import ChatCompletionChunk

_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 600
_OPTIONS = {"max_new_tokens": "max_tokens", "temperature": "temperature", "seed": "seed"}
"""What the protocol calls the generation options of a chat."""
_AUDIO_FORMATS = {b"RIFF": "wav", b"fLaC": "flac", b"OggS": "ogg"}
"""First bytes of a recording, and how the protocol names its format; anything else is sent as MP3."""


class ServerBackend:
    """Answers of a server.

    Args:
        url: Its address; where it has no path, `/v1` is added.
        api_key: Sent with every request; nothing is read from the environment.
        model: What is asked by default; else `auto`, or the first model.

    Raises:
        DataError: The address is none, the server refuses the key, or it has no such model.
        RunError: The server does not answer.
    """

    def __init__(self, url: str, api_key: str | None = None, model: str | None = None) -> None:
        openai = _import_openai()
        self.url = _base_url(url)
        if api_key:
            keep_secret(api_key, "the API key")
        timeout = openai.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
        self._client = openai.OpenAI(base_url=self.url, api_key=api_key or "none", timeout=timeout, max_retries=0)
        models = self._list_models()
        self.choices = _order(list(models), model, self.url)
        self.modalities: Sequence[str] | None = None
        if models and None not in models.values():
            self.modalities = list(dict.fromkeys(name for names in models.values() for name in names or ()))

    def _list_models(self) -> dict[str, Sequence[str] | None]:
        """The modalities of each model, which only a server of ours tells."""
        import openai

        with _explained(self.url):
            try:
                return {str(model.id): getattr(model, "modalities", None) for model in self._client.models.list()}
            except openai.NotFoundError:  # some servers answer and do not list
                return {}

    def read(self, name: str, source: Any) -> Any:
        """Read a picture; any other medium is for the server to judge, which may say what it takes."""
        if self.modalities is not None and name not in self.modalities:
            raise DataError(f"{self.url}: {unknown_name('modality', name, self.modalities)}")
        return _read_picture(source)[0] if name == "image" else None

    def ask(self, messages: Messages, workflow: str, options: Mapping[str, Any]) -> Reply:
        """Send the messages, and give the answer as it comes."""
        body: Any = {_OPTIONS[name]: value for name, value in options.items()}
        with _explained(self.url):
            stream = self._client.chat.completions.create(
                model=workflow, messages=[wire_message(message) for message in messages], stream=True, **body
            )
        return ServerReply(stream, workflow, self.url)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class ServerReply:
    """The answer of a server.

    Args:
        stream: Its events.
        workflow: The model that was asked.
        url: Of the server, for messages.
    """

    def __init__(self, stream: Stream[ChatCompletionChunk], workflow: str, url: str) -> None:
        self._stream = stream
        self._url = url
        self.workflow = workflow
        self.finish_reason: str | None = None

    def __iter__(self) -> Iterator[str]:
        with _explained(self._url):
            for chunk in self._stream:
                self.workflow = chunk.model or self.workflow
                for choice in chunk.choices:
                    self.finish_reason = choice.finish_reason or self.finish_reason
                    if choice.delta.content:
                        yield choice.delta.content

    def cancel(self) -> None:
        """Close the connection, which tells the server."""
        self.finish_reason = self.finish_reason or "cancelled"
        self._stream.close()


def _import_openai() -> Any:
    try:
        import openai
    except ImportError as error:
        raise DataError(f"asking a server needs the openai client: {install_command('chat')}") from error
    return openai


def _base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise DataError(f"{url!r} is not the address of a server, such as http://127.0.0.1:8000.")
    return url.rstrip("/") + ("/v1" if parts.path in ("", "/") else "")


def _order(models: list[str], model: str | None, url: str) -> list[str]:
    if model is None and not models:
        raise DataError(f"{url} lists no models: check the address, or name a model with --model.")
    first = model or (AUTO if AUTO in models else models[0])
    if models and first not in models:
        raise DataError(f"{url}: {unknown_name('model', first, models)}")
    return [first, *(name for name in models if name != first)]


def wire_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose media are bytes, in OpenAI's form."""
    content = message["content"]
    parts = content if isinstance(content, str) else [_wire_part(part) for part in content]
    return {"role": message["role"], "content": parts}


def _wire_part(part: Mapping[str, Any]) -> dict[str, Any]:
    name = part["type"]
    if name == "text":
        return {"type": "text", "text": part["text"]}
    data = part[name]
    text = base64.b64encode(data).decode()
    if name == "image":
        return {"type": "image_url", "image_url": {"url": f"data:{_read_picture(data)[1]};base64,{text}"}}
    if name == "audio":
        return {"type": "input_audio", "input_audio": {"data": text, "format": _AUDIO_FORMATS.get(data[:4], "mp3")}}
    return {"type": name, name: {"data": text}}


def _read_picture(source: Any) -> tuple[Any, str]:
    """A picture, upright as most viewers and workflows show it, and its media type."""
    from PIL import Image, ImageOps

    where = "what was sent" if isinstance(source, bytes) else source
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            return ImageOps.exif_transpose(picture), picture.get_format_mimetype() or "image/png"
    except Exception as error:  # Pillow's readers raise many types on damaged files
        raise DataError(f"{where} is not a picture that Pillow can read, or it is damaged.") from error


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn what the client raises into errors of ours."""
    import openai

    try:
        yield
    except (AdaptkitError, GeneratorExit):
        raise
    except openai.APIStatusError as error:
        raise _refusal(url, error) from error
    except openai.APIConnectionError as error:
        cause = first_line(error.__cause__ or error)
        raise RunError(f"{url} does not answer: {cause}. Check the address, and that the server runs.") from error
    except Exception as error:  # whatever a client makes of bytes that follow another protocol, or of a broken line
        raise RunError(f"{url}: {type(error).__name__}: {first_line(error)}. Is it OpenAI's protocol?") from error


def _refusal(url: str, error: Any) -> AdaptkitError:
    body = error.body if isinstance(error.body, Mapping) else {}
    said = body.get("message") or f"HTTP status {error.status_code}"
    if error.status_code in (401, 403):
        return DataError(f"{url}: {said}. Give the server's key with --api-key or ADAPTKIT_API_KEY.")
    kind = DataError if error.status_code < 500 and error.status_code != 429 else RunError
    return kind(f"{url}: {said}")
