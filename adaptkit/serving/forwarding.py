"""What the application asks, forwarded to engines that speak OpenAI's protocol."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, cast

import httpx
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig

from adaptkit.chat.placeholders import refuse_placeholders
from adaptkit.errors import AdaptkitError, DataError, ModelError, RunError, first_line, unknown_name
from adaptkit.export.together import StockFolder
from adaptkit.inference import Answer, Piece, QueueFullError, TokenLogprob, Usage
from adaptkit.inference.answer import FinishReason
from adaptkit.inference.request import Event
from adaptkit.inference.routing import AUTO, TEXT, choose_workflow, used_modalities
from adaptkit.model.messages import normalised
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.serving.engine_options import engine_options
from adaptkit.serving.engines import Engine
from adaptkit.serving.remote import wire_message

UNKNOWN_ID = -1
"""For tokens of which an engine tells the text alone."""
_RETRY_S = 1.0
_CONNECT_TIMEOUT_S = 10.0
_CHAT, _TEXT = "/v1/chat/completions", "/v1/completions"


@dataclass(frozen=True)
class Served:
    """What stands for a model that runs in another process.

    Attributes:
        config: Of the checkpoint.
        generation_config: Of the workflow.
        placeholder: The text that stands for a medium; None for the base.
    """

    config: PreTrainedConfig
    generation_config: GenerationConfig
    placeholder: str | None

    @classmethod
    def of(cls, folder: StockFolder) -> Served:
        """Read it from a stock checkpoint."""
        path = folder.directory
        has_own = (path / "generation_config.json").is_file()
        generation = GenerationConfig.from_pretrained(path) if has_own else GenerationConfig()
        return cls(AutoConfig.from_pretrained(path), generation, folder.placeholder)

    @property
    def num_positions(self) -> int | None:
        """The decoder's, where they are limited."""
        found: int | None = getattr(self.config.get_text_config(decoder=True), "max_position_embeddings", None)
        return found


class ForwardingSession:
    """Looks like a session to the application, and asks engines.

    Prompts without media travel as token ids, so that they are those of a session. Prompts with media travel as
    messages, for whose template and tokens the exported processor stands; a text in them that spells a special token
    is refused, as the engine would take it for one.

    Args:
        engines: By workflow, the base as `text`.
        folders: What each of them serves.
        processors: Of the workflows; the base has the first one's.
        default: The workflow that takes media where several could.
        max_batch_size: Requests that each engine runs at once.
        max_waiting: Requests that wait for each engine.

    Raises:
        ModelError: There is no workflow of the default's name, or a generation config has what vLLM has not.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        folders: Mapping[str, StockFolder],
        processors: Mapping[str, AdaptkitProcessor],
        *,
        default: str | None = None,
        max_batch_size: int = 16,
        max_waiting: int = 64,
    ) -> None:
        self.workflows = served(folders)
        check_default(default, self.workflows)
        self.default = default or next(iter(processors))
        self._engines = dict(engines)
        self._processors = {TEXT: next(iter(processors.values())), **processors}
        self._max_batch_size, self._places = max_batch_size, max_batch_size + max_waiting
        self._active: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        timeout = httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S)
        self._client = httpx.AsyncClient(trust_env=False, timeout=timeout, limits=httpx.Limits(max_connections=None))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def modalities(self) -> dict[str, list[str]]:
        """Modalities that each workflow takes."""
        return {name: [] if name == TEXT else list(p.modalities) for name, p in self._processors.items()}

    def status(self) -> dict[str, Any]:
        """Requests that run and wait, and engines that run."""
        active = list(self._active.values())
        running = sum(min(number, self._max_batch_size) for number in active)
        return {
            "running": running,
            "waiting": sum(active) - running,
            "max_batch_size": self._max_batch_size,
            "engines": sum(engine.is_running for engine in self._engines.values()),
            "groups": [],
        }

    def submit(
        self,
        messages: Sequence[Mapping[str, Any]],
        workflow: str = AUTO,
        *,
        on_event: Callable[[Event], None] | None = None,
        **options: Any,
    ) -> Forwarded:
        """Ask the engine of the workflow that takes the media; as `Session.submit`.

        Raises:
            DataError: The messages are malformed, a medium is unreadable, or the prompt is too long.
            ArgumentError: An option is unknown, out of range, or none of vLLM's.
            QueueFullError: As many requests wait as may.
            RunError: The engine does not answer.
        """
        messages = normalised(messages, {kind for takes in self.modalities.values() for kind in takes})
        if not messages:
            raise DataError("there is no message to answer.")
        name = choose_workflow(used_modalities(messages), self.modalities, self.default, workflow)
        processor = self._processors[name]
        pictures: list[Any] = []

        def measure(modality: str, source: Any) -> int:
            entry = processor.modalities[modality]
            if modality == "image":
                source = entry.modality.load(source)
                pictures.append(source)
            return entry.num_positions(entry.load(source))

        encoded = processor.encode(messages, add_generation_prompt=True, num_positions=measure)
        body: dict[str, Any] = {"prompt": encoded.input_ids}
        path = _TEXT
        if encoded.media:
            self._refuse_special(name, messages)
            body, path = {"messages": _wire_messages(messages, pictures)}, _CHAT
        clean = processor.cut_answer
        return self._send(name, path, body, len(encoded.input_ids), options, clean, on_event)

    def submit_text(
        self, text: str, workflow: str = TEXT, *, on_event: Callable[[Event], None] | None = None, **options: Any
    ) -> Forwarded:
        """Queue a text to continue, without a chat template; else as `submit`."""
        name = choose_workflow((), self.modalities, self.default, workflow)
        processor = self._processors[name]
        ids = list(processor.tokenizer(text)["input_ids"])
        if not ids:
            raise DataError("the text is empty, so there is nothing to continue.")
        if name != TEXT:
            refuse_placeholders(ids, processor.placeholder_ids)
        return self._send(name, _TEXT, {"prompt": ids}, len(ids), options, str, on_event)

    def close(self) -> None:
        """Close the connections, and end what runs."""

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._client.aclose()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> ForwardingSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _refuse_special(self, name: str, messages: Sequence[Mapping[str, Any]]) -> None:
        words = self._processors[name].special_tokens_in(messages)
        placeholder = self.workflows[name].placeholder
        if placeholder and any(placeholder in text for text in _texts(messages)):
            words = [*words, placeholder]
        if words:
            raise DataError(
                f"a message holds {words[0]!r}, which the engine would take for a token of its own. Write it otherwise."
            )

    def _send(
        self,
        name: str,
        path: str,
        body: dict[str, Any],
        num_prompt: int,
        options: Mapping[str, Any],
        clean: Callable[[str], str],
        on_event: Callable[[Event], None] | None,
    ) -> Forwarded:
        model, processor = self.workflows[name], self._processors[name]
        positions = model.num_positions
        if positions is not None and num_prompt >= positions:
            raise DataError(
                f"the prompt takes {num_prompt} positions, and the decoder has {positions} for prompt and answer. "
                "Shorten the conversation, or give fewer media."
            )
        room = None if positions is None else positions - num_prompt
        fields = engine_options(model.generation_config, options, room)
        stop = processor.stop_settings(model.generation_config)
        ends = options.get("eos_token_id", stop["eos_token_id"])
        fields["stop_token_ids"] = [ends] if isinstance(ends, int) else list(ends or [])
        fields["stop"] = [*(stop.get("stop_strings") or []), *(options.get("stop_strings") or [])]
        body |= {"model": name, "stream": True, "stream_options": {"include_usage": True}, **fields}
        if (number := options.get("logprobs")) is not None:
            body |= {"logprobs": True, "top_logprobs": number} if path == _CHAT else {"logprobs": number}
        engine = self._engines[name]
        engine.check()
        with self._lock:
            if self._active[name] >= self._places:
                raise QueueFullError(self._places - self._max_batch_size, _RETRY_S)
            self._active[name] += 1
        request = Forwarded(name, clean, on_event)
        request.task = asyncio.run_coroutine_threadsafe(self._forward(request, engine, path, body), self._loop)
        request.task.add_done_callback(lambda _: self._leave(request))
        request.wait_accepted()
        return request

    def _leave(self, request: Forwarded) -> None:
        with self._lock:
            self._active[request.workflow] -= 1
        if not request.accepted.done():  # it was cancelled before it began
            request.fail(RunError("the request was cancelled."))

    async def _forward(self, request: Forwarded, engine: Engine, path: str, body: Mapping[str, Any]) -> None:
        headers = {"Authorization": f"Bearer {engine.key}"}
        try:
            async with self._client.stream("POST", engine.url + path, json=body, headers=headers) as response:
                if response.status_code != 200:
                    raise _refusal(engine.name, response.status_code, await response.aread())
                request.accepted.set_result(None)
                async for line in response.aiter_lines():
                    if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                        request.take(json.loads(data))
            request.finish()
        except AdaptkitError as error:
            request.fail(error)
        except Exception as error:  # a broken line, or whatever another protocol leads to
            reason = f"the engine of {engine.name!r} broke off: {first_line(error) or type(error).__name__}."
            request.fail(RunError(reason))
        except asyncio.CancelledError:
            request.fail(RunError("the request was cancelled."))
            raise


class Forwarded:
    """A request that an engine answers.

    Attributes:
        workflow: Which workflow answers.
        accepted: Done when the engine has taken it.
        task: What follows it.
    """

    def __init__(
        self, workflow: str, clean: Callable[[str], str], on_event: Callable[[Event], None] | None = None
    ) -> None:
        self.workflow = workflow
        self.accepted: Future[None] = Future()
        self.task: Future[None] | None = None
        self._clean = clean
        self._on_event = on_event or (lambda _: None)
        self._text, self._sent = "", ""
        self._logprobs: list[TokenLogprob] = []
        self._reason: str | None = None
        self._usage: Mapping[str, Any] = {}

    def cancel(self) -> None:
        """Close the connection, which tells the engine."""
        if self.task is not None:
            self.task.cancel()

    def wait_accepted(self) -> None:
        """Wait until the engine has taken the request.

        Raises:
            AdaptkitError: It refuses it, or does not answer.
        """
        try:
            self.accepted.result()
        except BaseException:
            self.cancel()
            raise

    def take(self, chunk: Mapping[str, Any]) -> None:
        """An event of the engine's stream."""
        if error := chunk.get("error"):
            raise RunError(f"the engine of {self.workflow!r}: {error.get('message', error)}")
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk["choices"]:
            self._text += (choice["delta"].get("content") if "delta" in choice else choice["text"]) or ""
            self._reason = choice.get("finish_reason") or self._reason
            logprobs = _logprobs(choice.get("logprobs"))
            self._logprobs += logprobs
            text = self._clean(self._text)
            grown = text[len(self._sent) :] if text.startswith(self._sent) else ""
            self._sent += grown
            if grown or logprobs:
                self._on_event(Piece(grown, (), tuple(logprobs)))

    def finish(self) -> None:
        """The end of the stream."""
        if self._reason not in ("stop", "length"):
            raise RunError(f"the engine of {self.workflow!r} gave no whole answer ({self._reason or 'it broke off'}).")
        details = self._usage.get("prompt_tokens_details") or {}
        usage = Usage(
            self._usage.get("prompt_tokens", 0),
            self._usage.get("completion_tokens", 0),
            details.get("cached_tokens") or 0,
        )
        reason = cast(FinishReason, self._reason)
        self._on_event(Answer(self._clean(self._text), self.workflow, reason, [], usage, self._logprobs))

    def fail(self, error: AdaptkitError) -> None:
        """Tell whoever waits: who submits, or else who listens."""
        if self.accepted.done():
            self._on_event(error)
        else:
            self.accepted.set_exception(error)


def served(folders: Mapping[str, StockFolder]) -> dict[str, Served]:
    """What stands for each model.

    Raises:
        ModelError: A generation config has a setting that vLLM has not.
    """
    found = {name: Served.of(folder) for name, folder in folders.items()}
    for name, model in found.items():
        try:
            engine_options(model.generation_config, {})
        except DataError as error:
            raise ModelError(f"the generation config of {name!r}: {error}") from error
    return found


def check_default(default: str | None, workflows: Mapping[str, Any]) -> None:
    """Raise a `ModelError` where there is no such workflow."""
    if default is not None and default not in workflows:
        raise ModelError(unknown_name("workflow", default, workflows))


def _wire_messages(messages: Sequence[Mapping[str, Any]], pictures: Sequence[Any]) -> list[dict[str, Any]]:
    """The messages in OpenAI's form; pictures upright and without transparency, as the workflow reads them."""
    rest = iter(pictures)
    found = []
    for message in messages:
        parts = [part | {"image": _png(next(rest))} if part["type"] == "image" else part for part in message["content"]]
        found.append({**message, **wire_message({**message, "content": parts})})
    return found


def _png(picture: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _texts(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]


def _logprobs(found: Mapping[str, Any] | None) -> list[TokenLogprob]:
    if not found:
        return []
    if "content" in found:  # of a chat
        return [
            TokenLogprob(UNKNOWN_ID, entry["token"], entry["logprob"], _top(entry.get("top_logprobs")))
            for entry in found["content"] or []
        ]
    tops = found.get("top_logprobs") or [None] * len(found["tokens"])
    entries = zip(found["tokens"], found["token_logprobs"], tops, strict=True)
    return [TokenLogprob(UNKNOWN_ID, text, value, _top(top)) for text, value, top in entries]


def _top(found: Any) -> tuple[tuple[int, str, float], ...]:
    pairs = found.items() if isinstance(found, Mapping) else [(e["token"], e["logprob"]) for e in found or []]
    return tuple((UNKNOWN_ID, text, value) for text, value in pairs)


def _refusal(name: str, status: int, raw: bytes) -> AdaptkitError:
    try:
        body = json.loads(raw)
        said = body.get("error", body)
        message = said["message"] if isinstance(said, Mapping) else str(said)
    except (ValueError, KeyError, AttributeError):
        message = f"HTTP status {status}"
    kind = DataError if status in (400, 413, 422) else RunError
    return kind(f"the engine of {name!r}: {message}")
