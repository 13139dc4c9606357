"""Flamingo's perceiver resampler: any number of features to a fixed number."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit.projectors.options import PerceiverResamplerOptions


class PerceiverResampler(nn.Module):
    """Learned latents that attend to features and to themselves (arXiv 2204.14198, section 2.1 and figure 5).

    Parameter names are OpenFlamingo's; see `PerceiverResamplerOptions`.

    Args:
        size: Width of the features and of the latents.
        max_num_media: Gives items of a row an embedding of their place in it, up to that many.
        max_num_frames: Gives the frames of an item an embedding of their place in it, up to that many.
    """

    def __init__(
        self,
        size: int,
        *,
        depth: int = 6,
        num_latents: int = 64,
        num_heads: int = 8,
        head_dim: int = 64,
        ff_mult: int = 4,
        max_num_media: int | None = None,
        max_num_frames: int | None = None,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(num_latents, size))
        self.frame_embs = None if max_num_frames is None else nn.Parameter(torch.randn(max_num_frames, size))
        self.media_time_embs = None if max_num_media is None else nn.Parameter(torch.randn(max_num_media, 1, size))
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(size, num_heads, head_dim), _feed_forward(size, ff_mult)])
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(size)

    def forward(self, features: Tensor) -> Tensor:
        """Resample the features of each item.

        Args:
            features: `(batch, items, frames, positions, size)`.

        Returns:
            `(batch, items, num_latents, size)`.
        """
        if self.frame_embs is not None:
            features = features + self.frame_embs[: features.shape[2]].unsqueeze(1)
        features = features.flatten(2, 3)
        if self.media_time_embs is not None:
            features = features + self.media_time_embs[: features.shape[1]]
        latents = self.latents.expand(*features.shape[:2], -1, -1)
        for layer in self.layers:
            attention, feed_forward = cast(nn.ModuleList, layer)
            latents = attention(features, latents) + latents
            latents = feed_forward(latents) + latents
        return cast(Tensor, self.norm(latents))


class PerceiverAttention(nn.Module):
    """Attention of latents to features and to the latents themselves, both normalised; no biases."""

    def __init__(self, size: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = num_heads * head_dim
        self.norm_media = nn.LayerNorm(size)
        self.norm_latents = nn.LayerNorm(size)
        self.to_q = nn.Linear(size, inner, bias=False)
        self.to_kv = nn.Linear(size, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, size, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """Attend from `(batch, items, num_latents, size)` to `(batch, items, positions, size)`."""
        latents = self.norm_latents(latents)
        keys, values = self.to_kv(torch.cat([self.norm_media(features), latents], dim=2)).chunk(2, dim=-1)
        heads = [t.unflatten(-1, (self.num_heads, -1)).transpose(2, 3) for t in (self.to_q(latents), keys, values)]
        attended = F.scaled_dot_product_attention(*heads)
        return cast(Tensor, self.to_out(attended.transpose(2, 3).flatten(3)))


class ResamplerProjector(nn.Module):
    """A resampler for the items of one modality, and a linear map where the decoder is not as wide as the features."""

    def __init__(self, options: PerceiverResamplerOptions, feature_size: int, hidden_size: int, name: str = "") -> None:
        super().__init__()
        self.resampler = PerceiverResampler(feature_size, **options.model_dump())
        self.output = nn.Linear(feature_size, hidden_size) if feature_size != hidden_size else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """`(..., positions, feature_size)` to `(..., num_latents, hidden_size)`."""
        items = features.reshape(-1, 1, 1, *features.shape[-2:])
        resampled: Tensor = self.output(self.resampler(items).squeeze(1))
        return resampled.reshape(*features.shape[:-2], *resampled.shape[1:])


def _feed_forward(size: int, mult: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(size),
        nn.Linear(size, mult * size, bias=False),
        nn.GELU(),
        nn.Linear(mult * size, size, bias=False),
    )
