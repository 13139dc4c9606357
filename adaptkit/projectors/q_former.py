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
    """

    def __init__(self, options: QFormerOptions, feature_size: int, hidden_size: int, name: str = "") -> None:
        super().__init__()
        size = options.query_size
        config = Blip2QFormerConfig(
            hidden_size=size,
            num_hidden_layers=options.num_layers,
            num_attention_heads=options.num_heads,
            intermediate_size=options.intermediate_size or 4 * size,
            hidden_dropout_prob=options.dropout,
            attention_probs_dropout_prob=options.dropout,
            cross_attention_frequency=options.cross_attention_frequency,
            encoder_hidden_size=feature_size,
        )
        # Equal queries would stay equal: only their initial values differ
        self.queries = nn.Parameter(torch.empty(options.num_queries, size).normal_(std=config.initializer_range))
        self.feature_norm = nn.LayerNorm(feature_size)
        self.q_former = Blip2QFormerModel(config)
        self.output = nn.Linear(size, hidden_size)

    def forward(self, features: Tensor) -> Tensor:
        """`(..., positions, feature_size)` to `(..., num_queries, hidden_size)`."""
        items = to_items(features)
        queries = self.queries.expand(len(items), -1, -1)
        attended = self.q_former(query_embeds=queries, encoder_hidden_states=self.feature_norm(items))
        projected: Tensor = self.output(attended.last_hidden_state)
        return projected.reshape(*features.shape[:-2], *projected.shape[1:])
