"""The composite model, feature splicing, adapter weights and the processor.

Importing it registers adaptkit's checkpoints with transformers' Auto classes.
"""

from adaptkit.model import checkpoint  # gives the composite its loader
from adaptkit.model.auto import register_auto_classes
from adaptkit.model.config import AdaptkitConfig
from adaptkit.model.processor import AdaptkitProcessor

register_auto_classes()

__all__ = ["AdaptkitConfig", "AdaptkitProcessor", "checkpoint"]
