"""Stock speech models, and what stands between a workflow and them."""

from __future__ import annotations

from typing import Any, cast

from adaptkit.model.composite import AdaptkitForConditionalGeneration

SPEECH_MODELS = {
    "qwen2-audio": (
        "averages neighbouring Whisper states in pairs before their final norm, hides the silence after a clip from "
        "the encoder, and projects by one linear map"
    ),
    "voxtral": "joins four neighbouring Whisper states, and projects by two linear maps without biases",
}
"""What each does that no encoder of adaptkit does yet."""


def speech_problem(model: AdaptkitForConditionalGeneration, target: str) -> str:
    """Why a workflow cannot become a stock speech model; there is always a reason so far.

    Args:
        model: The workflow.
        target: One of `SPEECH_MODELS`.
    """
    found = [f"{name!r} has {_describe(cast(Any, encoder))}" for name, encoder in model.encoders.items()]
    return (
        f"this workflow cannot become a stock {target}, which {SPEECH_MODELS[target]}; of this workflow's modalities "
        f"{' and '.join(found) or 'there is none'}. adaptkit has no encoder yet that computes the same."
    )


def _describe(encoder: Any) -> str:
    inner = getattr(encoder, "model", None)
    family = getattr(getattr(inner, "config", None), "model_type", None)
    if family == "whisper":
        return f"a {type(encoder).__name__} that gives one feature for each state of the Whisper model"
    return f"a {type(encoder).__name__} over {family}, which is no Whisper model"
