"""What a session answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class TokenLogprob:
    """Log-probability of a generated token, before temperature and other sampling options.

    Attributes:
        token_id: The token.
        text: As the tokenizer decodes it alone.
        logprob: Natural logarithm.
        top: The most likely tokens at its position, as `(token_id, text, logprob)`, best first; as many as were asked
            for.
    """

    token_id: int
    text: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True)
class Usage:
    """Tokens that an answer cost.

    Attributes:
        prompt_tokens: Positions of the prompt, those of media included.
        completion_tokens: Generated tokens.
        cached_tokens: Positions of the prompt whose keys and values were there from an earlier request.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Positions of prompt and answer."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Piece:
    """What an answer has grown by.

    Attributes:
        text: May be empty, where tokens do not complete a character yet or may begin a stop string.
        token_ids: Tokens generated since the piece before.
        logprobs: Of these tokens, where asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A finished answer.

    Attributes:
        text: Without special tokens and stop strings.
        workflow: Which workflow gave it; `text` is the base.
        finish_reason: `stop` at an end of turn or a stop string, `length` at the most tokens, or `cancelled`.
        token_ids: Generated tokens, the end of turn included.
        usage: Tokens that it cost.
        logprobs: Of the tokens, where asked for.
    """

    text: str
    workflow: str
    finish_reason: FinishReason
    token_ids: list[int]
    usage: Usage
    logprobs: list[TokenLogprob] = field(default_factory=list)


@dataclass(frozen=True)
class Score:
    """How likely a continuation is.

    Attributes:
        logprob: Natural logarithm of its probability, the sum over its tokens.
        is_greedy: Whether greedy decoding would write it.
        num_tokens: Tokens of it.
    """

    logprob: float
    is_greedy: bool
    num_tokens: int
