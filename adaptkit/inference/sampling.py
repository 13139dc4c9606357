"""How one request chooses its tokens: transformers' logits processors, applied to its row alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, NoBadWordsLogitsProcessor

from adaptkit.errors import ArgumentError, DataError, first_line, unknown_name, wrong_type

DEFAULT_MAX_NEW_TOKENS = 512
"""Most tokens of an answer where neither the request nor the generation config says."""

OPTIONS = (
    *("max_new_tokens", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff", "repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "sequence_bias"),
    *("suppress_tokens", "begin_suppress_tokens", "exponential_decay_length_penalty", "eos_token_id"),
)
"""Options of transformers' generation that concern one row alone."""

OWN_OPTIONS = ("seed", "stop_strings", "logprobs")

_OF_WHOLE_SEARCHES = {
    "num_beams": "a session decodes one sequence per request",
    "num_return_sequences": "submit the request several times, with seeds",
    "assistant_model": "a session decodes without an assistant",
    "max_length": "give max_new_tokens",
    "penalty_alpha": "a session decodes greedily or samples",
}

_RANGES: dict[str, tuple[type, float, float]] = {
    "max_new_tokens": (int, 1, math.inf),
    "min_new_tokens": (int, 0, math.inf),
    "temperature": (float, 0, 100),
    "top_k": (int, 0, math.inf),
    "top_p": (float, 0, 1),
    "min_p": (float, 0, 1),
    "typical_p": (float, 0, 1),
    "epsilon_cutoff": (float, 0, 1),
    "eta_cutoff": (float, 0, 1),
    "repetition_penalty": (float, 0, math.inf),
    "no_repeat_ngram_size": (int, 0, math.inf),
    "logprobs": (int, 0, 100),
    "seed": (int, -(2**63), 2**64 - 1),
}

_GREEDY_BELOW = 1e-5
"""Temperatures by which scores may become infinite when they are divided."""


def check_options(options: Mapping[str, Any]) -> None:
    """Raise an `ArgumentError` where an option is unknown, out of range, or of whole searches."""
    for name, value in options.items():
        if name in _OF_WHOLE_SEARCHES:
            raise ArgumentError(f"{name} cannot be honoured here: {_OF_WHOLE_SEARCHES[name]}.")
        if name not in (*OPTIONS, *OWN_OPTIONS):
            raise ArgumentError(unknown_name("generation option", name, (*OPTIONS, *OWN_OPTIONS)))
        if name in _RANGES and value is not None:
            _check_range(name, value)
    do_sample, stop_strings = options.get("do_sample"), options.get("stop_strings")
    if do_sample is not None and not isinstance(do_sample, bool):
        raise ArgumentError(wrong_type("do_sample", "True or False", do_sample))
    texts = [] if stop_strings is None else stop_strings
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ArgumentError(wrong_type("stop_strings", "a list of texts", stop_strings))


def _check_range(name: str, value: Any) -> None:
    kind, low, high = _RANGES[name]
    is_number = isinstance(value, int | kind) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or value == math.inf:
        upper = f"to {high}" if high < math.inf else "or more"
        number = "a whole number" if kind is int else "a number"
        raise ArgumentError(f"{name}: {number}, {low} {upper}, is needed; got {value!r}.")


class Sampler:
    """Chooses the next token of one row.

    Args:
        model: The causal LM or workflow whose generation config holds what is not given.
        prompt_ids: The prompt.
        options: Of transformers' generation, and `seed` and `logprobs`.
        like: A sampler of this model with these options, whose preparations serve again.

    Attributes:
        config: The generation config of this request.
        num_logprobs: How many alternatives to report, or None for no log-probabilities.
    """

    def __init__(
        self, model: Any, prompt_ids: Sequence[int], options: Mapping[str, Any], like: Sampler | None = None
    ) -> None:
        with _refusals_named():
            self.config: GenerationConfig = _config(model, options) if like is None else like.config
        self.num_logprobs = options.get("logprobs")
        self._prompt = list(prompt_ids)
        self._device = model.device
        self._greedy = not self.config.do_sample
        self._generator = None if self._greedy else _generator(model.device, options.get("seed"))
        self._processors: Any
        self._never: frozenset[int] | None
        if like is None or like._never is None:  # it depends on the prompt
            with _refusals_named():
                self._processors = _processors(model, self.config, self._prompt)
            self._never = _never_chosen(self._processors)
        else:
            self._processors, self._never = like._processors, like._never

    def is_plain(self, likeliest: int) -> bool:
        """Whether the most likely token is the next one, whatever came before, and needs no log-probability."""
        return self._greedy and self.num_logprobs is None and self._never is not None and likeliest not in self._never

    def choose(self, logits: Tensor, new_ids: Sequence[int]) -> int:
        """The next token.

        Args:
            logits: At the last position, `(vocab,)`.
            new_ids: Tokens generated so far.

        Raises:
            DataError: The options leave none.
        """
        scores = logits.to(torch.float32).unsqueeze(0)
        if self._processors:
            input_ids = torch.tensor([[*self._prompt, *new_ids]], device=logits.device)
            scores = self._processors(input_ids, scores.clone())
        if not math.isfinite(float(scores.max())):
            raise DataError("no token is left to choose: the options rule out all of them, or change scores too much.")
        if self._greedy:
            return int(scores.argmax())
        probabilities = scores.softmax(-1)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))

    def logprobs(self, logits: Tensor, token_id: int) -> tuple[float, list[tuple[int, float]]]:
        """Log-probability of a token, and the most likely ones with theirs."""
        values = logits.to(torch.float32).log_softmax(-1)
        top = values.topk(min(self.num_logprobs or 0, values.shape[0]))
        return float(values[token_id]), list(zip(top.indices.tolist(), top.values.tolist()))


def _config(model: Any, options: Mapping[str, Any]) -> GenerationConfig:
    """The generation config of requests with these options."""
    check_options(options)
    given = {name: value for name, value in options.items() if name in OPTIONS and value is not None}
    if "temperature" in given:
        given.setdefault("do_sample", given["temperature"] > 0)
        if given["temperature"] < _GREEDY_BELOW:
            given |= {"do_sample": False, "temperature": 1.0}
    # Stop strings of the generation config are the session's to find
    config: GenerationConfig
    config, _ = model._prepare_generation_config(None, **given, stop_strings=None)
    if given.get("max_new_tokens") is None and config.max_new_tokens is None:
        config.max_new_tokens = DEFAULT_MAX_NEW_TOKENS
    model._prepare_special_tokens(config, kwargs_has_attention_mask=True, device=model.device)
    return config


@contextmanager
def _refusals_named() -> Iterator[None]:
    """Turn what transformers raises on options, of many types, into errors of the caller."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise ArgumentError(f"the options of generation are not valid: {first_line(error)}.") from error


def _generator(device: torch.device, seed: int | None) -> torch.Generator:
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(int(seed))
    return generator


def _processors(model: Any, config: GenerationConfig, prompt: Sequence[int]) -> Any:
    ids = torch.tensor([prompt], device=model.device)
    config.max_length = len(prompt) + config.max_new_tokens  # at which some families force an end
    return model._get_logits_processor(
        config, input_ids_seq_length=ids.shape[1], encoder_input_ids=ids, device=str(model.device), model_kwargs={}
    )


def _never_chosen(processors: Any) -> frozenset[int] | None:
    """Tokens that processors rule out, where that is all they do whatever came before; else None."""
    found: set[int] = set()
    for processor in processors or ():
        if type(processor) is not NoBadWordsLogitsProcessor or any(len(word) != 1 for word in processor.bad_word_ids):
            return None
        found.update(word[0] for word in processor.bad_word_ids)
    return frozenset(found)
