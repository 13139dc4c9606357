"""Options of a session, as vLLM's requests name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig

from adaptkit.errors import ArgumentError
from adaptkit.inference.sampling import DEFAULT_MAX_NEW_TOKENS, OPTIONS, OWN_OPTIONS, check_options

_SAME = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_OF_SAMPLING = ("temperature", "top_p", "top_k", "min_p")
_NEUTRAL: Mapping[str, Any] = {"typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "no_repeat_ngram_size": 0}
_TRANSLATED = (*_SAME, "max_new_tokens", "min_new_tokens", "do_sample", "sequence_bias", "suppress_tokens")
_ELSEWHERE = ("eos_token_id", *OWN_OPTIONS)
_NEVER = -100.0
_GREEDY_BELOW = 1e-5


def engine_options(config: GenerationConfig, options: Mapping[str, Any], room: int | None = None) -> dict[str, Any]:
    """Fields of a request that generates as a session does, whose defaults are the workflow's generation config.

    Args:
        config: Of the workflow.
        options: Of `Session.submit`.
        room: Most new tokens that there are positions for.

    Raises:
        ArgumentError: An option is unknown, out of range, or one that vLLM has nothing like.
    """
    check_options(options)
    given = {name: value for name, value in options.items() if value is not None}
    values: dict[str, Any] = {name: getattr(config, name, None) for name in OPTIONS} | given
    values = {name: value for name, value in values.items() if value not in (None, [], {})}
    _refuse_others(values)
    fields: dict[str, Any] = {name: values[name] for name in _SAME if name in values}
    samples = given.get("do_sample", given["temperature"] > 0 if "temperature" in given else config.do_sample)
    if not samples or fields.get("temperature", 1.0) < _GREEDY_BELOW:
        fields = {name: value for name, value in fields.items() if name not in _OF_SAMPLING} | {"temperature": 0.0}
    else:
        fields.setdefault("temperature", 1.0)
        fields.setdefault("top_k", 50)  # as transformers samples where nothing is said
    wanted = values.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)
    fields["max_tokens"] = wanted if room is None else min(wanted, room)
    fields |= {"min_tokens": values["min_new_tokens"]} if values.get("min_new_tokens") else {}
    fields |= {"seed": given["seed"]} if "seed" in given else {}
    bias = _bias(values)
    return fields | ({"logit_bias": bias} if bias else {})


def _bias(values: Mapping[str, Any]) -> dict[str, float]:
    pairs = values.get("sequence_bias", [])
    entries = pairs.items() if isinstance(pairs, Mapping) else [(tuple(ids), value) for ids, value in pairs]
    bias = {}
    for ids, value in entries:
        if len(ids) != 1:
            raise ArgumentError("sequence_bias: vLLM has a bias for single tokens, not for sequences of them.")
        bias[str(ids[0])] = float(value)
    return bias | {str(token_id): _NEVER for token_id in values.get("suppress_tokens", [])}


def _refuse_others(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        known = name in _TRANSLATED or name in _ELSEWHERE
        if not known and value != _NEUTRAL.get(name):
            raise ArgumentError(f"{name} is not supported here: vLLM has no such option.")
