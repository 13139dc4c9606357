"""Registration with transformers' Auto classes."""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.config import MODEL_TYPE, AdaptkitConfig
from adaptkit.model.processor import AdaptkitProcessor


def register_auto_classes() -> None:
    """Let `AutoConfig`, `AutoModelForImageTextToText` and `AutoProcessor` know adaptkit's checkpoints."""
    AutoConfig.register(MODEL_TYPE, AdaptkitConfig, exist_ok=True)
    AutoModelForImageTextToText.register(AdaptkitConfig, AdaptkitForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(AdaptkitConfig, AdaptkitProcessor, exist_ok=True)
