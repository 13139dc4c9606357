"""One prompt on its way to an answer."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from adaptkit.inference.answer import Answer, FinishReason, Piece, TokenLogprob, Usage
from adaptkit.inference.pending import Pending, Prompt
from adaptkit.inference.sampling import Sampler

logger = logging.getLogger(__name__)

Event = Piece | Answer | BaseException
_REPLACEMENT = "\ufffd"


class Request(Pending[Answer]):
    """One prompt on its way to an answer. Iterate over it for pieces, or wait for the `result`."""

    def __init__(
        self,
        workflow: str,
        prompt: Prompt,
        sampler: Sampler,
        *,
        decode: Callable[[Sequence[int]], str],
        decode_token: Callable[[int], str],
        stop_ids: Sequence[int],
        stop_strings: Sequence[str],
        max_new_tokens: int,
        on_event: Callable[[Event], None] | None = None,
        in_pieces: bool = True,
    ) -> None:
        super().__init__(workflow, prompt)
        self.sampler = sampler
        self._decode, self._decode_token = decode, decode_token
        self._stop_ids, self._stop_strings = frozenset(stop_ids), tuple(filter(None, stop_strings))
        self._max_new_tokens = max_new_tokens
        self._on_event = on_event
        self._in_pieces = in_pieces  # else as one piece at the end, which saves decoding after each token
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._text = ""
        self._logprobs: list[TokenLogprob] = []
        self._pending: list[int] = []

    def __iter__(self) -> Iterator[Piece]:
        while True:
            event = self._events.get()
            if isinstance(event, Piece):
                yield event
                continue
            self._events.put(event)  # whoever iterates again is told so too
            if isinstance(event, BaseException):
                raise event
            return

    # -- the engine's side ---------------------------------------------------------------------------------------

    def take_logits(self, logits: Tensor, likeliest: int) -> None:
        """Choose the next token from the last position's logits."""
        if self.sampler.is_plain(likeliest):
            self.append(likeliest)
        else:
            self.take(logits[-1])

    def take(self, logits: Tensor) -> int:
        """Choose the next token from `(vocab,)` logits, and tell who listens; the request may be finished then."""
        token_id = self.sampler.choose(logits, self.token_ids)
        logprob = None
        if self.sampler.num_logprobs is not None:
            value, top = self.sampler.logprobs(logits, token_id)
            alternatives = tuple((other, self._decode_token(other), p) for other, p in top)
            logprob = TokenLogprob(token_id, self._decode_token(token_id), value, alternatives)
        self.append(token_id, logprob)
        return token_id

    def append(self, token_id: int, logprob: TokenLogprob | None = None) -> None:
        """Add a token to the answer."""
        self.token_ids.append(token_id)
        self._pending.append(token_id)
        if logprob is not None:
            self._logprobs.append(logprob)
        is_last = token_id in self._stop_ids or len(self.token_ids) >= self._max_new_tokens
        if not (is_last or self._in_pieces or self._stop_strings):
            return  # nobody reads the text yet
        text = self._decode(self.token_ids)
        cut = min((i for i in (text.find(s) for s in self._stop_strings) if i >= 0), default=None)
        if cut is not None:
            self.finish("stop", text[:cut])
        elif token_id in self._stop_ids:
            self.finish("stop", text)
        elif len(self.token_ids) >= self._max_new_tokens:
            self.finish("length", text)
        elif self._in_pieces:
            self._send_piece(self._certain(text))

    def finish(self, reason: FinishReason, text: str | None = None) -> None:
        """Send what is left, and the answer."""
        text = self._decode(self.token_ids) if text is None else text
        if self._pending:
            self._send_piece(text)
        usage = Usage(self.num_prompt_tokens, len(self.token_ids), self.cached_tokens)
        self._end(Answer(text, self.workflow, reason, list(self.token_ids), usage, list(self._logprobs)))

    def _certain(self, text: str) -> str:
        """The text that later tokens cannot change: without half a character or what may begin a stop string."""
        text = text.rstrip(_REPLACEMENT)
        for length in range(min(len(text), max(map(len, self._stop_strings), default=1) - 1), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop_strings):
                return text[:-length]
        return text

    def _send_piece(self, text: str) -> None:
        grown = text[len(self._text) :] if text.startswith(self._text) else ""
        self._text += grown
        logprobs = self._logprobs[len(self.token_ids) - len(self._pending) :]
        self._send(Piece(grown, tuple(self._pending), tuple(logprobs)))
        self._pending = []

    def _end(self, outcome: Answer | BaseException) -> None:
        super()._end(outcome)
        self._send(outcome)

    def _send(self, event: Event) -> None:
        self._events.put(event)
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except BaseException:  # this thread runs the requests of others, too
            logger.exception("on_event of request %d raised at its %s", self.id, type(event).__name__)
