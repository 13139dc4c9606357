"""What depends on values, and so cannot be told of shadows: a small decoder of the same family shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

from transformers import PretrainedConfig, PreTrainedModel

from adaptkit.errors import ModelError
from adaptkit.model.assembly import adapt
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.packing import Method, attention_for_packing
from adaptkit.testing import tiny_decoder

_SAID = ("softcap", "soft_cap", "sliding_window")
"""Parts of names of settings that are taken over, beside those that are true or false."""


@dataclass(frozen=True)
class _Trial:
    """What a small decoder showed.

    Attributes:
        head_comes_last: Whether its loss can be computed in chunks.
        packing: How its conversations are kept apart in packed rows; None where that was not tried.
    """

    head_comes_last: bool
    packing: Method | None = None


@contextmanager
def as_tried(model: AdaptkitForConditionalGeneration, *, packing: bool) -> Iterator[None]:
    """Let a model of shadows be computed as its family is; one that transformers does not know, as Llama would be.

    Raises:
        ModelError: The family cannot be packed.
    """
    config = model.base.config
    trial = _try(config.model_type, _settings(config), packing)
    with ExitStack() as stack:
        if trial is not None:
            stack.enter_context(patch.object(model, "_head_comes_last", lambda: trial.head_comes_last))
        methods = [] if trial is None or trial.packing is None else [trial.packing]
        if methods:
            stack.enter_context(patch("adaptkit.model.packing._methods", lambda _: methods))
        yield


@cache
def _try(model_type: str, settings: str, packing: bool) -> _Trial | None:
    decoder = _small(model_type, json.loads(settings))
    if decoder is None:
        return None
    workflow = adapt(decoder, {}, {"policy": "projector_only"})
    last = workflow._head_comes_last()
    if not packing:
        return _Trial(last)
    with attention_for_packing(workflow):
        return _Trial(last, workflow._packing)


def _small(model_type: str, settings: dict[str, Any]) -> PreTrainedModel | None:
    for taken_over in (settings, {}):
        try:
            return tiny_decoder(model_type, **taken_over)
        except ModelError:
            return None
        except Exception:  # some settings go with sizes that a small one does not have
            continue
    return None


def _settings(config: PretrainedConfig) -> str:
    values = config.get_text_config(decoder=True).to_dict()
    kept = {k: v for k, v in values.items() if isinstance(v, bool) or (v is not None and any(s in k for s in _SAID))}
    return json.dumps({k: v for k, v in kept.items() if not isinstance(v, dict | list)}, sort_keys=True)
