"""Public datasets as conversations.

Each converter reads a dataset as it is published and writes a LLaVA file. Grounding datasets ask where what an
expression describes is, with boxes as fractions of the picture padded to a square, as the Inner-Adaptor release has
them; question sets ask what they ask, in the words of LLaVA-1.5 or LaVIN; recordings are transcribed.
"""

from adaptkit.data_tools.convert.cauldron import convert_cauldron
from adaptkit.data_tools.convert.coco import convert_coco, convert_objects365
from adaptkit.data_tools.convert.conversations import ConversationOptions, RegionSummary
from adaptkit.data_tools.convert.flickr30k import convert_flickr30k
from adaptkit.data_tools.convert.questions import (
    convert_docvqa,
    convert_scienceqa,
    convert_textvqa,
    convert_vqav2,
    convert_vsr,
)
from adaptkit.data_tools.convert.refcoco import convert_refcoco
from adaptkit.data_tools.convert.speech import convert_common_voice, convert_librispeech
from adaptkit.data_tools.convert.turns import TurnOptions, TurnSummary
from adaptkit.data_tools.convert.writing import Summary, WriteOptions

__all__ = [
    "ConversationOptions",
    "RegionSummary",
    "Summary",
    "TurnOptions",
    "TurnSummary",
    "WriteOptions",
    "convert_cauldron",
    "convert_coco",
    "convert_common_voice",
    "convert_docvqa",
    "convert_flickr30k",
    "convert_librispeech",
    "convert_objects365",
    "convert_refcoco",
    "convert_scienceqa",
    "convert_textvqa",
    "convert_vqav2",
    "convert_vsr",
]
