"""Tiny workflows with a Whisper encoder, and recordings as they and their stock models take them."""

from __future__ import annotations

import torch

from adaptkit.plugin_manager import get_plugin_manager
from tests.unit.export.workflows import OUTSIDE, workflow

FRAMES = 200  # of a window of two seconds
QWEN2 = {"pool": 2, "pool_before_norm": True, "trim": True, "hide_padding": True}
VOXTRAL = {"stack": 4}
PROJECTORS = {"qwen2-audio": "linear", "voxtral": {"name": "mlp2x_gelu", "bias": False}}
ENCODERS = {"qwen2-audio": QWEN2, "voxtral": VOXTRAL}


def save_whisper(folder, **changes):
    """A tiny Whisper encoder, all of it random, and its folder."""
    sizes = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128}
    config = {**sizes, "max_source_positions": FRAMES // 2, "init_std": 0.2, **changes}
    get_plugin_manager().get("encoder", "whisper").create(config, folder)
    return str(folder)


def hearing(path, target, family="llama", *, encoder=None, **options):
    """A workflow that has the stock equal `target`, but for the options given."""
    spec = {"name": "whisper", "path": path, **(ENCODERS[target] if encoder is None else encoder)}
    options = {"projector": PROJECTORS[target], **options}
    return workflow(family, encoder=spec, modality="audio", **options)


def speech_probe(target, model, placeholder_id, *, seed=5):
    """Two rows with a recording each, the second padded on the left: the workflow's inputs and the stock model's."""
    generator = torch.Generator().manual_seed(seed)
    windows = model.encoders["audio"].windows
    lengths = [127, FRAMES] if target == "qwen2-audio" else [FRAMES, FRAMES]
    mels = torch.randn(2, windows.mel_bins, FRAMES, generator=generator)
    rows = []
    for length in lengths:
        words = torch.randint(3, 190, (9,), generator=generator)
        media = torch.full((windows.num_features(length),), placeholder_id)
        rows.append(torch.cat([words[:4], media, words[4:]]))
    width = max(map(len, rows)) + 2
    input_ids = torch.stack([torch.cat([row.new_zeros(width - len(row)), row]) for row in rows])
    attention_mask = torch.stack([(torch.arange(width) >= width - len(row)).long() for row in rows])
    shared = {"input_ids": input_ids, "attention_mask": attention_mask}
    ours = {**shared, "features": {"audio": [windows.join(m[None], [n]) for m, n in zip(mels, lengths, strict=True)]}}
    theirs = {**shared, "input_features": mels}
    if target == "qwen2-audio":
        theirs["feature_attention_mask"] = (torch.arange(FRAMES) < torch.tensor(lengths)[:, None]).long()
    return ours, theirs


__all__ = ["ENCODERS", "FRAMES", "OUTSIDE", "PROJECTORS", "hearing", "save_whisper", "speech_probe"]
