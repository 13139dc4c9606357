"""How many positions a decoder has."""

from __future__ import annotations

from torch import Tensor, nn

from adaptkit.surgery.arguments import require_module

_NAMES = ("wpe", "positions_embed", "embed_positions")


def max_positions(decoder: nn.Module) -> int | None:
    """Positions of a decoder that looks them up in a table, as GPT-2 and OPT do; None where they are computed.

    Conversations cannot be longer than the first; that they can be longer than what a decoder of the other kind was
    trained on does not make them any good.
    """
    require_module("decoder", decoder)
    number: int | None = getattr(decoder.config, "max_position_embeddings", None)
    for module in decoder.modules():
        for name in _NAMES:
            table = getattr(module, name, None)
            table = table.weight if isinstance(table, nn.Embedding) else table
            if number is not None and isinstance(table, Tensor) and table.shape[0] >= number:
                return number
    return None
