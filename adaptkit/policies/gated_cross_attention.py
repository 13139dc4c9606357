"""Flamingo's gated cross-attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit.interfaces import Encoder
from adaptkit.policies.options import GatedCrossAttentionOptions
from adaptkit.surgery import AdapterContext, ContextLayer, Decoder, InsertionPolicy


class GatedCrossAttention(InsertionPolicy):
    """Flamingo (arXiv 2204.14198, section 2.2 and figure 4): cross-attention to media before each chosen layer.

    `x ← x + tanh(a) · attention(x, media); x ← x + tanh(b) · ff(x)`, then the frozen layer. Both gates start at zero.
    """

    options: GatedCrossAttentionOptions
    uses_context = True
    exports_as_stock = False
    supports_compile = False

    def apply(self, decoder: Decoder, encoders: Mapping[str, Encoder], layers: list[int]) -> None:
        """Put a block before each chosen layer."""
        width = decoder.hidden_size
        for layer in decoder.extend_layers(layers, _CrossAttendingLayer):
            block = GatedCrossAttentionBlock(self.options, width, media_size=width)
            layer.gated_cross_attention = block.to(next(layer.parameters()).device)


class _CrossAttendingLayer(ContextLayer):
    """A decoder layer with a block before it."""

    gated_cross_attention: GatedCrossAttentionBlock

    def adapted_forward(self, hidden_states: Tensor, context: AdapterContext, *args: Any, **kwargs: Any) -> Any:
        return self.stock_forward(self.gated_cross_attention(hidden_states, context), *args, **kwargs)


class GatedCrossAttentionBlock(nn.Module):
    """Cross-attention and a feed-forward network, each through a tanh gate. Parameter names are OpenFlamingo's."""

    def __init__(self, options: GatedCrossAttentionOptions, hidden_size: int, media_size: int) -> None:
        super().__init__()
        self.attn = MediaAttention(options, hidden_size, media_size)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.ff = nn.Sequential(
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, options.ff_mult * hidden_size, bias=False),
            nn.GELU(),
            nn.Linear(options.ff_mult * hidden_size, hidden_size, bias=False),
        )
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(self, hidden_states: Tensor, context: AdapterContext) -> Tensor:
        """Hidden states `(batch, seq, hidden_size)` with what their media add.

        Where the batch has no media the attention adds nothing; while training it then runs over zeros that nobody
        attends to, so that every process has a gradient for it.
        """
        if _media_of(context) is not None or (self.training and torch.is_grad_enabled()):
            hidden_states = _through_gate(hidden_states, self.attn(hidden_states, context), self.attn_gate)
        return _through_gate(hidden_states, self.ff(hidden_states), self.ff_gate)


class MediaAttention(nn.Module):
    """Attention of tokens to the features of the items that came before them; no biases.

    A token before which no item came is given zeros. OpenFlamingo lets such a token see all items evenly, also later
    ones, where it attends to all previous ones, and any token that counts more items than there are.
    """

    def __init__(self, options: GatedCrossAttentionOptions, hidden_size: int, media_size: int) -> None:
        super().__init__()
        self.num_heads = options.num_heads
        self.all_previous = options.attend == "all_previous"
        inner = options.num_heads * options.head_dim
        self.norm = nn.LayerNorm(hidden_size)
        self.to_q = nn.Linear(hidden_size, inner, bias=False)
        self.to_kv = nn.Linear(media_size, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, hidden_size, bias=False)

    def forward(self, hidden_states: Tensor, context: AdapterContext) -> Tensor:
        """What `(batch, seq, hidden_size)` tokens see of the context's media, shaped alike."""
        keys, values = self._keys_and_values(hidden_states, context)
        queries = self._split(self.to_q(self.norm(hidden_states)))
        visible = self._visible(hidden_states, context)
        visible = visible.repeat_interleave(keys.shape[2] // visible.shape[2], dim=2)
        sees_any = visible.any(-1, keepdim=True)
        mask = (visible | ~sees_any).unsqueeze(1)  # a row of a softmax must not be empty; such rows are zeroed below
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        attended = attended.transpose(1, 2).flatten(2).masked_fill(~sees_any, 0)
        return cast(Tensor, self.to_out(attended))

    def _visible(self, hidden_states: Tensor, context: AdapterContext) -> Tensor:
        """Which items each token attends to, `(batch, seq, items)`."""
        media = _media_of(context)
        if media is None or context.text_time is None:
            return torch.zeros(*hidden_states.shape[:2], 1, dtype=torch.bool, device=hidden_states.device)
        number = torch.arange(1, media.shape[1] + 1, device=hidden_states.device)
        time = context.text_time.to(hidden_states.device).unsqueeze(-1)
        return time >= number if self.all_previous else time == number

    def _keys_and_values(self, hidden_states: Tensor, context: AdapterContext) -> tuple[Tensor, Tensor]:
        """Of all media, `(batch, heads, items * positions, head_dim)`; computed once while decoding."""
        if self in context.media_values:
            return cast(tuple[Tensor, Tensor], context.media_values[self])
        media = _media_of(context)
        if media is None:
            media = hidden_states.new_zeros(hidden_states.shape[0], 1, 1, self.to_kv.in_features)
        keys, values = self.to_kv(media.flatten(1, 2).to(hidden_states.device)).chunk(2, dim=-1)
        both = self._split(keys), self._split(values)
        if not torch.is_grad_enabled():
            context.media_values[self] = both
        return both

    def _split(self, tensor: Tensor) -> Tensor:
        return tensor.view(*tensor.shape[:-1], self.num_heads, -1).transpose(1, 2)


def _media_of(context: AdapterContext) -> Tensor | None:
    """Media of a batch, `(batch, items, positions, media_size)`, if any row has one."""
    return None if context.media is None or not context.media.shape[1] else context.media


def _through_gate(hidden_states: Tensor, branch: Tensor, gate: Tensor) -> Tensor:
    """Add a branch in the dtype of the residual stream, which a float32 gate must not change."""
    return hidden_states + (branch * torch.tanh(gate)).to(hidden_states.dtype)
