"""Tiny decoders, and contract checks for what plugins offer.

For adaptkit's own tests and for plugin authors': nothing here downloads, and each check raises
`ContractError` with the sentence of the contract that was broken.
"""

from adaptkit.testing.contract import (
    ContractError,
    check_component,
    check_encoder,
    check_modality,
    check_projector,
)
from adaptkit.testing.families import FAMILIES, tiny_config
from adaptkit.testing.tiny import tiny_clip_vision, tiny_decoder, tiny_tokenizer

__all__ = [
    "FAMILIES",
    "ContractError",
    "check_component",
    "check_encoder",
    "check_modality",
    "check_projector",
    "tiny_clip_vision",
    "tiny_config",
    "tiny_decoder",
    "tiny_tokenizer",
]
