"""Configs that older libraries read too."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def portable_text_config(config: PreTrainedConfig) -> dict[str, Any]:
    """A decoder's config, with what libraries before transformers 5 look for under its older name.

    Without `rope_theta` and `head_dim` beside the sizes, transformers 4 takes defaults of the family and silently
    computes wrong logits; servers choose the decoder's class by `architectures`.
    """
    values: dict[str, Any] = config.to_dict()
    family = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if family:
        values["architectures"] = [family]
    heads, width = values.get("num_attention_heads"), values.get("hidden_size")
    rotary = bool(values.get("rope_parameters"))
    if rotary and isinstance(heads, int) and isinstance(width, int) and values.get("head_dim") is None:
        values["head_dim"] = width // heads
    values.update(_older_rope(values.get("rope_parameters") or {}))
    return values


def _older_rope(parameters: dict[str, Any]) -> dict[str, Any]:
    """The rotary settings as transformers 4 names them."""
    if "full_attention" in parameters:
        older = _older_rope(parameters["full_attention"] or {})
        local = (parameters.get("sliding_attention") or {}).get("rope_theta")
        return older if local is None else {**older, "rope_local_base_freq": local}
    older = {key: parameters[key] for key in ("rope_theta", "partial_rotary_factor") if key in parameters}
    if parameters.get("rope_type", "default") != "default":
        older["rope_scaling"] = {key: value for key, value in parameters.items() if key != "rope_theta"}
    return older
