"""Tiny workflows to export, all of their own tensors moved off their starting point."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, SiglipVisionConfig, SiglipVisionModel

import adaptkit
from adaptkit.build import build_processor
from adaptkit.testing import tiny_clip_vision, tiny_tokenizer
from adaptkit.testing.families import tiny_config

INNER = {"policy": "inner_adapter", "placement": {"layers": [0, 2]}}
INSIDE, OUTSIDE = 200, 259  # of the tiny vocabulary of 259


def base_of(family, *, seed=0, **settings):
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(tiny_config(family, **settings)).eval()


def workflow(
    family="llama", *, insertion=INNER, replace_ends=True, encoder=None, projector="mlp2x_gelu", placeholder_id=OUTSIDE,
    placeholder=None, base=None, modality="image", **settings,
):  # fmt: skip
    spec = {
        "encoder": tiny_clip_vision() if encoder is None else encoder,
        "projector": projector,
        "placeholder_id": placeholder_id,
        "placeholder": placeholder,
    }
    model = adaptkit.adapt(base or base_of(family, **settings), {modality: spec}, insertion, replace_ends)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.trainable_state_dict().values():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return model


def save_towers(folder):
    """A CLIP and a SigLIP tower, and their folders."""
    tiny_clip_vision().save_pretrained(folder / "clip")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = SiglipVisionConfig(**sizes, image_size=32, patch_size=8)
    SiglipVisionModel(config).save_pretrained(folder / "siglip")
    return {"clip": str(folder / "clip"), "siglip": str(folder / "siglip")}


def processor_of(model, tokenizer=None):
    return build_processor(dict(model.config.modalities), tokenizer or tiny_tokenizer())


def probe(placeholder_id, *, positions=16, seed=5):
    """Two rows with a picture each, the second padded on the left, as both models take them."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(3, 190, (2, 9), generator=generator)
    media = torch.full((2, positions), placeholder_id)
    input_ids = torch.cat([words[:, :4], media, words[:, 4:]], 1)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, :3] = 0
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "pixel_values": torch.randn(2, 3, 32, 32, generator=generator),
    }


@torch.no_grad()
def logits(model, inputs):
    seen = inputs["attention_mask"].bool()
    return model(**inputs).logits[seen]
