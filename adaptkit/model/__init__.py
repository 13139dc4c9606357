"""The composite model, feature splicing, adapter weights and the processor.

Importing it registers adaptkit's checkpoints with transformers' Auto classes.
"""

from transformers import AutoConfig, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor

from adaptkit.model import checkpoint  # gives the composite its loader
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.config import AdaptkitConfig
from adaptkit.model.processor import AdaptkitProcessor

AutoConfig.register(AdaptkitConfig.model_type, AdaptkitConfig, exist_ok=True)
for auto_class in (AutoModelForImageTextToText, AutoModelForMultimodalLM):
    auto_class.register(AdaptkitConfig, AdaptkitForConditionalGeneration, exist_ok=True)
AutoProcessor.register(AdaptkitConfig, AdaptkitProcessor, exist_ok=True)

__all__ = ["AdaptkitConfig", "AdaptkitProcessor", "checkpoint"]
