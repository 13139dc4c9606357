"""BLIP-2's querying transformer, with transformers' implementation inside."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from adaptkit.projectors.maps import to_items
from adaptkit.projectors.options import QFormerOptions


class QFormerProjector(nn.Module):
    """Learned queries that attend to each other and to the features (arXiv 2301.12597, section 3.1 and figure 2).

    As in BLIP-2 the features pass a layer norm of their own first, and one linear map leads from the queries to the
    decoder's width. Text, which BLIP-2's first stage lets the queries see, plays no part.

    Args:
        feature_size: Width of the features.
        hidden_size: Width of the decoder.
        num_queries: Number of queries, hence of positions afterwards.
        query_size: Width of the queries.
        num_layers: Number of layers.
        num_heads: Heads of the attention.
        intermediate_size: Width of the feed-forward networks.
        cross_attention_frequency: Every how many layers one attends to the features; the first one does.
        dropout: Of attention and hidden states, in training.
    """

    def __init__(
        self,
        feature_size: int,
        hidden_size: int,
        *,
        num_queries: int,
        query_size: int,
        num_layers: int,
        num_heads: int,
        intermediate_size: int,
        cross_attention_frequency: int,
        dropout: float,
    ) -> None:
        super().__init__()
        config = Blip2QFormerConfig(
            hidden_size=query_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            intermediate_size=intermediate_size,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            cross_attention_frequency=cross_attention_frequency,
            encoder_hidden_size=feature_size,
        )
        # Equal queries would stay equal for ever: nothing tells them apart but where they start
        self.queries = nn.Parameter(torch.empty(num_queries, query_size).normal_(std=config.initializer_range))
        self.feature_norm = nn.LayerNorm(feature_size)
        self.q_former = Blip2QFormerModel(config)
        self.output = nn.Linear(query_size, hidden_size)

    def forward(self, features: Tensor) -> Tensor:
        """`(..., positions, feature_size)` to `(..., num_queries, hidden_size)`."""
        items = to_items(features)
        queries = self.queries.expand(len(items), -1, -1)
        attended = self.q_former(query_embeds=queries, encoder_hidden_states=self.feature_norm(items))
        projected: Tensor = self.output(attended.last_hidden_state)
        return projected.reshape(*features.shape[:-2], *projected.shape[1:])


def build_q_former(options: QFormerOptions, feature_size: int, hidden_size: int, name: str) -> nn.Module:
    """BLIP-2's querying transformer and the linear map after it."""
    values = options.model_dump()
    values["intermediate_size"] = options.intermediate_size or 4 * options.query_size
    return QFormerProjector(feature_size, hidden_size, **values)
