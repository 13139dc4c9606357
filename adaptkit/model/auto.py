"""Registration with transformers' Auto classes, done when transformers loads them."""

from __future__ import annotations



def register_auto_classes() -> None:
    """Let `AutoConfig`, `AutoModelForImageTextToText` and `AutoProcessor` know adaptkit's checkpoints."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    from adaptkit.model import checkpoint, processor  # noqa: F401  (checkpoint gives the model its loader)
    from adaptkit.model.composite import AdaptkitForConditionalGeneration
    from adaptkit.model.config import MODEL_TYPE, AdaptkitConfig

    AutoConfig.register(MODEL_TYPE, AdaptkitConfig, exist_ok=True)
    AutoModelForImageTextToText.register(AdaptkitConfig, AdaptkitForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(AdaptkitConfig, processor.AdaptkitProcessor, exist_ok=True)
