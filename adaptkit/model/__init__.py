"""The composite model, feature splicing, adapter weights and the processor.

Importing it registers adaptkit's checkpoints with transformers' Auto classes.
"""

from adaptkit.model import checkpoint, processor  # the first gives the composite its loader
from adaptkit.model.auto import register_auto_classes

register_auto_classes()

__all__ = ["checkpoint", "processor"]
