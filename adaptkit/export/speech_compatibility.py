"""Why a workflow cannot become a stock Qwen2-Audio or Voxtral."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from torch import nn

from adaptkit.export.compatibility import hidden_size_of, is_gelu_mlp, stock_problems
from adaptkit.model.composite import AdaptkitForConditionalGeneration

TITLES = {"qwen2-audio": "Qwen2-Audio", "voxtral": "Voxtral"}
"""What to call each target in messages."""


def speech_problems(model: AdaptkitForConditionalGeneration, target: str, *, merge: bool = False) -> list[str]:
    """Reasons why a workflow has no stock speech model that computes the same; empty where it has.

    Args:
        target: `qwen2-audio` or `voxtral`.
        merge: Judge it as it is after folding low-rank differences into the weights.
    """
    return stock_problems(model, merge, TITLES[target], partial(_media_problems, target), may_tie=False)


def _media_problems(target: str, model: AdaptkitForConditionalGeneration, name: str) -> Iterator[str]:
    title, encoder = TITLES[target], cast(Any, model.encoders[name])
    config: Any = getattr(getattr(encoder, "model", None), "config", None)
    options: Any = getattr(encoder, "options", None)
    if getattr(config, "model_type", None) != "whisper" or not hasattr(options, "hide_padding"):
        family = getattr(config, "model_type", None) or "no transformers model"
        yield (
            f"its encoder of {name!r} is a {type(encoder).__name__} over {family}; {title} has the encoder of a "
            "Whisper model: the encoder 'whisper' with backend: transformers."
        )
        return
    if encoder.num_layers != config.encoder_layers:
        yield f"feature_layer is {options.feature_layer}; {title} takes the output after the final norm: -1."
    wanted = _wanted_options(config, target)
    wrong = [f"{key}: {str(value).lower()}" for key, value in wanted.items() if getattr(options, key) != value]
    if wrong:
        yield f"the encoder lacks {', '.join(wrong)}; {title} {_HABITS[target]}."
    projector = model.projectors[name]
    if not _PROJECTORS[target](projector, encoder.feature_size, hidden_size_of(model)):
        reference = model.config.modalities[name]["projector"]
        yield f"the projector is {reference.get('name') or reference.get('object')!r}; {title} has {_NEEDED[target]}."


def _wanted_options(config: Any, target: str) -> dict[str, Any]:
    if target == "qwen2-audio":
        return {"pool": 2, "pool_before_norm": True, "stack": 1, "trim": True, "hide_padding": True}
    # Voxtral joins as many states as fit into the width of the encoder's feed-forward networks
    return {"pool": 1, "stack": config.encoder_ffn_dim // config.d_model, "trim": False}


_HABITS = {
    "qwen2-audio": (
        "averages neighbouring states in pairs before their final norm, hides the silence after a recording from the "
        "encoder, and keeps what the recording fills"
    ),
    "voxtral": "joins neighbouring states to the width of the encoder's feed-forward networks, and keeps all of them",
}
_NEEDED = {
    "qwen2-audio": "one linear map with a bias: linear",
    "voxtral": "two linear maps without biases, with GELU and the decoder's width between: mlp2x_gelu with bias: false",
}


def _is_linear(projector: nn.Module, feature_size: int, hidden_size: int) -> bool:
    if not isinstance(projector, nn.Linear) or cast(Any, projector).bias is None:
        return False
    return (projector.in_features, projector.out_features) == (feature_size, hidden_size)


_PROJECTORS: dict[str, Callable[[nn.Module, int, int], bool]] = {
    "qwen2-audio": _is_linear,
    "voxtral": partial(is_gelu_mlp, bias=False),
}
