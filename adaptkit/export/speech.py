"""Stock speech models, and what a workflow would need to become one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch

from adaptkit.errors import ModelError
from adaptkit.export.output import ExportReport
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.processor import AdaptkitProcessor

_NEEDED = {
    "Qwen2-Audio": (
        "averages neighbouring Whisper states in pairs before their final norm, hides the silence after a clip from "
        "the encoder, and projects by one linear map"
    ),
    "Voxtral": "joins four neighbouring Whisper states, and projects by two linear maps without biases",
}


def export_qwen2_audio(
    model: AdaptkitForConditionalGeneration,
    processor: AdaptkitProcessor | None,
    directory: str | Path,
    *,
    merge: bool = False,
    dtype: torch.dtype | None = None,
) -> ExportReport:
    """Refuse, saying what stands between this workflow and a stock `Qwen2AudioForConditionalGeneration`.

    No encoder that adaptkit has computes features as Qwen2-Audio does.

    Raises:
        ModelError: Always.
    """
    raise ModelError(_refusal(model, "Qwen2-Audio"))


def export_voxtral(
    model: AdaptkitForConditionalGeneration,
    processor: AdaptkitProcessor | None,
    directory: str | Path,
    *,
    merge: bool = False,
    dtype: torch.dtype | None = None,
) -> ExportReport:
    """Refuse, saying what stands between this workflow and a stock `VoxtralForConditionalGeneration`.

    Raises:
        ModelError: Always.
    """
    raise ModelError(_refusal(model, "Voxtral"))


def _refusal(model: AdaptkitForConditionalGeneration, target: str) -> str:
    found = [f"{name!r} has {_describe(cast(Any, encoder))}" for name, encoder in model.encoders.items()]
    return (
        f"this workflow cannot become a stock {target}, which {_NEEDED[target]}; of this workflow's modalities "
        f"{' and '.join(found) or 'there is none'}. adaptkit has no encoder yet that computes the same."
    )


def _describe(encoder: Any) -> str:
    inner = getattr(encoder, "model", None)
    family = getattr(getattr(inner, "config", None), "model_type", None)
    if family == "whisper":
        return f"a {type(encoder).__name__} that gives one feature for each state of the Whisper model"
    return f"a {type(encoder).__name__} over {family}, which is no Whisper model"
