"""The stock model that a workflow equals: transformers' LLaVA over the same tensors."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from adaptkit.model.composite import AdaptkitForConditionalGeneration


def stock_llava(model: AdaptkitForConditionalGeneration) -> LlavaForConditionalGeneration:
    """A `LlavaForConditionalGeneration` whose text model is the workflow's deeper one; every tensor is shared.

    Args:
        model: An `inner_adapter` workflow with a CLIP encoder and a two-layer MLP.
    """
    (name,) = model.encoders
    encoder: Any = model.encoders[name]
    text = model.language_model.config
    config = LlavaConfig(
        vision_config=encoder.model.config.to_dict(),
        text_config=text.to_dict(),
        image_token_index=model.config.modalities[name]["placeholder_id"],
        image_seq_length=encoder.build_preprocessor().fixed_positions,
        vision_feature_layer=encoder.options.feature_layer or -encoder.model.config.num_hidden_layers - 1,
        vision_feature_select_strategy="full" if encoder.options.keep_cls else "default",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        stock = LlavaForConditionalGeneration(config)
    stock.model.language_model = model.language_model.model
    stock.lm_head = model.language_model.lm_head
    stock.model.vision_tower = encoder.model
    projector: Any = model.projectors[name]
    adapter = stock.model.multi_modal_projector
    adapter.linear_1, adapter.linear_2 = projector[0], projector[2]
    return stock
