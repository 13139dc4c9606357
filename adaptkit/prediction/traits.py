"""Traits of a decoder that depend on values: a small decoder of the same family shows them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from adaptkit.errors import ModelError
from adaptkit.model.assembly import adapt
from adaptkit.model.packing import TrainingTraits, packing_methods
from adaptkit.testing import tiny_decoder

_KEPT = ("softcap", "soft_cap", "sliding_window")
"""Parts of names of settings that the small decoder takes over, beside those that are true or false."""


def find_traits(config: PretrainedConfig, *, packing: bool) -> TrainingTraits:
    """How a family is trained; one that transformers does not know, as Llama would be.

    Args:
        packing: Whether to look for a way to pack, too.

    Raises:
        ModelError: The family cannot be packed.
    """
    found = _find(config.model_type, _settings(config), packing)
    return found or TrainingTraits(True, packing_methods(config.get_text_config(decoder=True))[0])


@cache
def _find(model_type: str, settings: str, packing: bool) -> TrainingTraits | None:
    decoder = _small(model_type, json.loads(settings))
    if decoder is None:
        return None
    return adapt(decoder, {}, {"policy": "projector_only"}).find_traits(packing=packing)


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
    kept = {k: v for k, v in values.items() if isinstance(v, bool) or (v is not None and any(s in k for s in _KEPT))}
    return json.dumps({k: v for k, v in kept.items() if not isinstance(v, dict | list)}, sort_keys=True)
