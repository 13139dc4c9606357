"""Public grounding datasets as conversations: where is what an expression describes?

Each converter reads a dataset as it is published and writes a LLaVA file, with boxes as fractions of the picture padded
to a square, as the Inner-Adaptor release has them.
"""

from adaptkit.data_tools.convert.coco import convert_coco, convert_objects365
from adaptkit.data_tools.convert.conversations import ConversationOptions, RegionSummary
from adaptkit.data_tools.convert.flickr30k import convert_flickr30k
from adaptkit.data_tools.convert.refcoco import convert_refcoco

__all__ = [
    "ConversationOptions",
    "RegionSummary",
    "convert_coco",
    "convert_flickr30k",
    "convert_objects365",
    "convert_refcoco",
]
