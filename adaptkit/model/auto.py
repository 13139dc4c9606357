"""Registration with transformers' Auto classes."""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor

from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.config import MODEL_TYPE, AdaptkitConfig
from adaptkit.model.processor import AdaptkitProcessor


def register_auto_classes() -> None:
    """Let `AutoConfig`, `AutoProcessor` and the Auto classes of models that take media know adaptkit's checkpoints."""
    AutoConfig.register(MODEL_TYPE, AdaptkitConfig, exist_ok=True)
    for auto_class in (AutoModelForImageTextToText, AutoModelForMultimodalLM):
        auto_class.register(AdaptkitConfig, AdaptkitForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(AdaptkitConfig, AdaptkitProcessor, exist_ok=True)
