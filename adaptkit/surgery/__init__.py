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
from adaptkit.surgery.copying import own_parameters, structural_copy, trainable_copy
from adaptkit.surgery.decoder import Decoder, LayerRecord, check_forward, decoder_layers, locate_decoder
from adaptkit.surgery.layers import attention_blocks, attention_of, mlp_of
from adaptkit.surgery.policy import InsertionPolicy
from adaptkit.surgery.quantization import (
    PACKED_WEIGHTS,
    bitsandbytes_config,
    check_move,
    num_bytes,
    num_values,
    prepare_quantized,
    quantization_of,
    require_bitsandbytes,
)

__all__ = [
    "PACKED_WEIGHTS",
    "AdapterContext",
    "ContextLayer",
    "Decoder",
    "InsertionPolicy",
    "LayerRecord",
    "Placement",
    "attention_blocks",
    "attention_of",
    "bitsandbytes_config",
    "check_forward",
    "check_move",
    "current_context",
    "decoder_layers",
    "extend_module",
    "first_output",
    "locate_decoder",
    "mlp_of",
    "num_bytes",
    "num_values",
    "own_parameters",
    "prepare_quantized",
    "provide_context",
    "quantization_of",
    "require_bitsandbytes",
    "resolve_placement",
    "structural_copy",
    "trainable_copy",
    "with_first_output",
]
