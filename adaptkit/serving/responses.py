"""Answers as OpenAI's clients read them, whole and in pieces."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from adaptkit.inference import Answer, Piece, TokenLogprob, Usage

JSON = dict[str, Any]


class ChatForm:
    """The JSON of chat completions."""

    def __init__(self, workflow: str) -> None:
        self.id, self.created, self.model = f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), workflow

    def whole(self, answers: Sequence[Answer], usage: JSON) -> JSON:
        """The response to a request without `stream`."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": self._logprobs(answer.logprobs),
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(answers)
        ]
        return self._envelope("chat.completion", choices) | {"usage": usage}

    def first(self, index: int) -> JSON | None:
        """What a stream says before a choice's first token."""
        return self._chunk(index, {"role": "assistant", "content": ""})

    def piece(self, index: int, piece: Piece) -> JSON:
        """What a choice has grown by."""
        return self._chunk(index, {"content": piece.text}, logprobs=self._logprobs(piece.logprobs))

    def last(self, index: int, answer: Answer) -> JSON:
        """The end of a choice."""
        return self._chunk(index, {}, finish_reason=answer.finish_reason)

    def usage(self, usage: JSON) -> JSON:
        """The end of a stream, where the usage was asked for."""
        return self._envelope("chat.completion.chunk", []) | {"usage": usage}

    def _chunk(self, index: int, delta: JSON, *, logprobs: Any = None, finish_reason: str | None = None) -> JSON:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return self._envelope("chat.completion.chunk", [choice])

    def _envelope(self, kind: str, choices: list[JSON]) -> JSON:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> JSON | None:
        if not logprobs:
            return None
        content = [
            _token(entry.text, entry.logprob) | {"top_logprobs": [_token(text, value) for _, text, value in entry.top]}
            for entry in logprobs
        ]
        return {"content": content, "refusal": None}


class TextForm:
    """The JSON of text completions."""

    def __init__(self, workflow: str) -> None:
        self.id, self.created, self.model = f"cmpl-{uuid.uuid4().hex}", int(time.time()), workflow
        self._offsets: dict[int, int] = {}

    def whole(self, answers: Sequence[Answer], usage: JSON) -> JSON:
        """The response to a request without `stream`."""
        choices = [
            self._choice(i, a.text, self._logprobs(i, a.logprobs), a.finish_reason) for i, a in enumerate(answers)
        ]
        return self._envelope(choices) | {"usage": usage}

    def first(self, index: int) -> JSON | None:
        """What a stream says before a choice's first token: nothing."""
        return None

    def piece(self, index: int, piece: Piece) -> JSON:
        """What a choice has grown by."""
        return self._envelope([self._choice(index, piece.text, self._logprobs(index, piece.logprobs), None)])

    def last(self, index: int, answer: Answer) -> JSON:
        """The end of a choice."""
        return self._envelope([self._choice(index, "", None, answer.finish_reason)])

    def usage(self, usage: JSON) -> JSON:
        """The end of a stream, where the usage was asked for."""
        return self._envelope([]) | {"usage": usage}

    def _choice(self, index: int, text: str, logprobs: JSON | None, finish_reason: str | None) -> JSON:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _envelope(self, choices: list[JSON]) -> JSON:
        found = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        return found | {"choices": choices}

    def _logprobs(self, index: int, logprobs: Sequence[TokenLogprob]) -> JSON | None:
        if not logprobs:
            return None
        offsets = []
        for entry in logprobs:
            offsets.append(self._offsets.get(index, 0))
            self._offsets[index] = offsets[-1] + len(entry.text)
        return {
            "tokens": [entry.text for entry in logprobs],
            "token_logprobs": [entry.logprob for entry in logprobs],
            "top_logprobs": [{text: value for _, text, value in entry.top} for entry in logprobs],
            "text_offset": offsets,
        }


def usage_of(answers: Iterable[Answer], num_choices: int) -> JSON:
    """What a request cost; its prompts count once, however many answers each had."""
    answers = list(answers)
    usages: list[Usage] = [answer.usage for answer in answers]
    prompt = sum(usage.prompt_tokens for usage in usages[::num_choices])
    completion = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in usages[::num_choices])},
    }


def model_card(name: str, modalities: Sequence[str], created: int) -> JSON:
    """An entry of `/v1/models`; `modalities` is ours."""
    return {"id": name, "object": "model", "created": created, "owned_by": "adaptkit", "modalities": list(modalities)}


def _token(text: str, logprob: float) -> JSON:
    return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}
