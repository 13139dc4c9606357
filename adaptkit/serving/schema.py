"""The requests of OpenAI's API: what is supported, and what is refused by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adaptkit.errors import unknown_name


class Unsupported(NamedTuple):
    """A field that OpenAI knows and this server does not.

    Attributes:
        reason: Why, or what to do instead.
        neutral: Values that ask for nothing, which some clients always send; so does null.
    """

    reason: str
    neutral: Sequence[Any] = ()


class Body(BaseModel):
    """A JSON object that holds known fields only."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    unsupported: ClassVar[Mapping[str, Unsupported]] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        for name, value in values.items():
            field = cls.unsupported.get(name)
            if field is not None and value is not None and value not in field.neutral:
                raise ValueError(f"{name} is not supported: {field.reason}.")
            if field is None and name not in cls.model_fields:
                raise ValueError(unknown_name("field", name, cls.model_fields))
        return {name: value for name, value in values.items() if name not in cls.unsupported}


_FUNCTIONS = Unsupported("the models call no functions", ([],))
_SPOKEN = Unsupported("answers are text")
_STORED = Unsupported("the server stores nothing", (False, {}))
_NOT_TOLD_APART = Unsupported("requests are not attributed to users")

_EVERYWHERE = {
    "frequency_penalty": Unsupported("use repetition_penalty", (0,)),
    "presence_penalty": Unsupported("use repetition_penalty", (0,)),
    "service_tier": Unsupported("there is one tier", ("auto", "default")),
    "store": _STORED,
    "metadata": _STORED,
    "user": _NOT_TOLD_APART,
    "safety_identifier": _NOT_TOLD_APART,
}


class StreamOptions(Body):
    """What a stream holds beside the answer."""

    unsupported = {"include_obfuscation": Unsupported("streams are not padded", (False,))}

    include_usage: bool = False


class GenerationRequest(Body):
    """What chat and text completions have in common. `top_k` and what follows it are transformers' options."""

    model: Annotated[str, Field(max_length=256)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(default=None, max_length=1000)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    no_repeat_ngram_size: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for requests with stream: true.")
        if not all(token.isdecimal() and len(token) < 20 for token in self.logit_bias or ()):
            raise ValueError("logit_bias: its keys are token ids.")
        return self

    @property
    def num_choices(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def wanted_tokens(self) -> int | None:
        """Most tokens of an answer, where the request says."""
        return self.max_tokens

    @property
    @abstractmethod
    def num_logprobs(self) -> int | None:
        """How many alternatives to report for each token; None for no log-probabilities."""

    def options(self, choice: int) -> dict[str, Any]:
        """Options of a session for one of the answers; each has a seed of its own."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        bias = [[[int(token)], value] for token, value in (self.logit_bias or {}).items()]
        options = {
            "seed": None if self.seed is None else (self.seed + choice) % 2**63,
            "stop_strings": [string for string in stop or [] if string],
            "max_new_tokens": self.wanted_tokens,
            "sequence_bias": bias,
            "logprobs": self.num_logprobs,
        }
        options |= {name: getattr(self, name) for name in _SAME_NAMES}
        return {name: value for name, value in options.items() if value not in (None, [])}


_SAME_NAMES = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "no_repeat_ngram_size")


class ChatMessage(Body):
    """One turn. The parts of its content are read with the media, whose kinds depend on the workflows."""

    unsupported = {
        "tool_calls": _FUNCTIONS,
        "function_call": _FUNCTIONS,
        "audio": _SPOKEN,
        "refusal": Unsupported("models refuse in words"),
        "annotations": Unsupported("answers have none", ([],)),
    }

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]
    name: str | None = None


class ChatRequest(GenerationRequest):
    """`POST /v1/chat/completions`."""

    unsupported = {
        **_EVERYWHERE,
        "tools": _FUNCTIONS,
        "functions": _FUNCTIONS,
        "tool_choice": Unsupported(_FUNCTIONS.reason, ("none", "auto")),
        "function_call": Unsupported(_FUNCTIONS.reason, ("none", "auto")),
        "parallel_tool_calls": Unsupported(_FUNCTIONS.reason, (True, False)),
        "response_format": Unsupported("answers are free text", ({"type": "text"},)),
        "modalities": Unsupported(_SPOKEN.reason, (["text"],)),
        "audio": _SPOKEN,
        "prediction": Unsupported("decoding uses no draft"),
        "reasoning_effort": Unsupported("the models have no levels of reasoning"),
        "verbosity": Unsupported("say in the prompt how long the answer should be"),
        "web_search_options": Unsupported("the server reaches no other host"),
        "prompt_cache_key": Unsupported("prompts that begin alike are reused by themselves"),
    }

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    @model_validator(mode="after")
    def _check_chat(self) -> ChatRequest:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens say the same: give one of them.")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs is for requests with logprobs: true.")
        return self

    @property
    def wanted_tokens(self) -> int | None:
        """Most tokens of an answer, where the request says."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """How many alternatives to report for each token; None for no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`: text that the model continues, without a chat template."""

    unsupported = {
        **_EVERYWHERE,
        "best_of": Unsupported("ask for n answers", (1,)),
        "echo": Unsupported("the prompt is not repeated", (False,)),
        "suffix": Unsupported("text is continued at its end", ("",)),
    }

    prompt: str | Annotated[list[str], Field(min_length=1)]
    logprobs: int | None = Field(default=None, ge=0, le=20)

    @property
    def prompts(self) -> list[str]:
        """One text or several."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def num_logprobs(self) -> int | None:
        """How many alternatives to report for each token; None for no log-probabilities."""
        return self.logprobs
