"""What insertion policies are made of: the structural copy, a decoder's parts, inserting, replacing ends."""

from adaptkit.placement import Placement, resolve_placement
from adaptkit.surgery.context import (
    AdapterContext,
    ContextLayer,
    current_context,
    extend_module,
    first_output,
    provide_context,
    with_first_output,
)
from adaptkit.surgery.copying import check_materialised, own_parameters, structural_copy, trainable_copy
from adaptkit.surgery.decoder import Decoder, LayerRecord, check_forward, decoder_layers, locate_decoder
from adaptkit.surgery.layers import attention_blocks, attention_of, mlp_of
from adaptkit.surgery.low_rank import add_low_rank
from adaptkit.surgery.policy import InsertionPolicy
from adaptkit.surgery.positions import max_positions
from adaptkit.surgery.quantization import quantization_of

__all__ = [
    "AdapterContext",
    "ContextLayer",
    "Decoder",
    "InsertionPolicy",
    "LayerRecord",
    "Placement",
    "add_low_rank",
    "attention_blocks",
    "attention_of",
    "check_forward",
    "check_materialised",
    "current_context",
    "decoder_layers",
    "extend_module",
    "first_output",
    "locate_decoder",
    "max_positions",
    "mlp_of",
    "own_parameters",
    "provide_context",
    "quantization_of",
    "resolve_placement",
    "structural_copy",
    "trainable_copy",
    "with_first_output",
]
