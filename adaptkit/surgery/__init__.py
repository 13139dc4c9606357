"""What insertion policies are made of: the structural copy, a decoder's parts, inserting, replacing ends."""

from adaptkit.placement import Placement, resolve_placement
from adaptkit.surgery.copying import structural_copy
from adaptkit.surgery.decoder import Decoder, LayerRecord, locate_decoder
from adaptkit.surgery.policy import InsertionPolicy

__all__ = [
    "Decoder",
    "InsertionPolicy",
    "LayerRecord",
    "Placement",
    "locate_decoder",
    "resolve_placement",
    "structural_copy",
]
