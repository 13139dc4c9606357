"""Training of the built-in image encoder: a stock CLIP vision model that has seen the world's images.

Downstream reads `hidden_states[-2]` of its patches, so dense supervision (what covers this patch, and where
does that object lie) stands there. The last layer and the pooled output learn CLIP's kind of
objective: which coloured shapes a caption of the image would name.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from adaptkit.hookspecs import Options, Seed
from adaptkit.world import scenes
from adaptkit.world.patch_labels import Labels, label_patches, mirror_some
from adaptkit.world.probes import MEAN, STD, normalize, probe_encoder
from adaptkit.world.scenes import CELLS, COLORS, IMAGE_SIZE, SHAPES
from adaptkit.world.storage import Progress, build_optimizer, save_model


class EncoderOptions(Options):
    """What `recipes/world/encoder.yaml` may set."""

    seed: Seed = 0
    hidden_size: int = 96
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    patch_size: int = 8
    num_images: int = 40_000
    num_steps: int = 1_600
    batch_size: int = 64
    warmup_steps: int = 100
    decay_share: float = 0.6
    muon_learning_rate: float = 0.02
    adamw_learning_rate: float = 2.0e-3
    weight_decay: float = 0.01
    global_loss_weight: float = 0.3
    scale_loss_weight: float = 0.0
    evaluate_every: int = 400
    num_probe_scenes: int = 1_000


class _Heads(nn.Module):
    """Linear read-outs, thrown away after training."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.sizes = (1, len(SHAPES), len(COLORS), len(CELLS), 3)
        self.dense = nn.Linear(hidden_size, sum(self.sizes))
        self.pairs = nn.Linear(hidden_size, len(SHAPES) * len(COLORS))


def build_encoder(options: EncoderOptions, output: Path, progress: Progress = print) -> Path:
    """Trains the encoder and writes it with its image processor.

    The same options give the same encoder on the same machine; elsewhere the last bits may differ.

    Args:
        output: Folder to write; it is replaced as a whole at every checkpoint.
    """
    rng = np.random.default_rng(options.seed)
    training_scenes = scenes.sample_scenes(options.seed, options.num_images, "train")
    images = torch.from_numpy(np.stack([scenes.render_array(scene) for scene in training_scenes]))
    labels = label_patches(training_scenes, options.patch_size)
    progress(f"rendered {len(images)} images")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = CLIPVisionModel(_config(options))
        heads = _Heads(options.hidden_size)
    named = [*model.named_parameters(), *((f"lm_head.{name}", p) for name, p in heads.named_parameters())]
    optimizer = build_optimizer(named, options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, options))
    for step in range(1, options.num_steps + 1):
        index = torch.from_numpy(rng.integers(len(images), size=options.batch_size))
        pixel_values, batch = mirror_some(normalize(images[index]), labels.take(index), rng)
        losses = _losses(model, heads, pixel_values, batch)
        loss = losses["dense"] + options.global_loss_weight * losses["pairs"]
        loss += options.scale_loss_weight * losses["scale"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        if step % 50 == 0:
            progress(f"encoder step {step}: {_as_text({k: float(v.detach()) for k, v in losses.items()})}")
        if step % options.evaluate_every == 0 or step == options.num_steps:
            save_model(model, output, image_processor().save_pretrained)
            scores = probe_encoder(output, num_scenes=options.num_probe_scenes, split="dev")
            progress(f"encoder step {step}, held out: {_as_text(scores)}")
            model.train()
    return output


def image_processor() -> CLIPImageProcessorPil:
    """CLIP's preprocessing at the world's image size."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=list(MEAN),
        image_std=list(STD),
    )


def _config(options: EncoderOptions) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=options.hidden_size,
        intermediate_size=4 * options.hidden_size,
        projection_dim=options.hidden_size,
        num_hidden_layers=options.num_hidden_layers,
        num_attention_heads=options.num_attention_heads,
        image_size=IMAGE_SIZE,
        patch_size=options.patch_size,
        attn_implementation="eager",
    )


def _schedule(step: int, options: EncoderOptions) -> float:
    """Warm-up, a plateau, and a linear way down to nothing."""
    warm = min(1.0, (step + 1) / options.warmup_steps)
    return warm * min(1.0, (options.num_steps - step) / (options.decay_share * options.num_steps))


def _losses(model: CLIPVisionModel, heads: _Heads, pixel_values: Tensor, labels: Labels) -> dict[str, Tensor]:
    outputs = model(pixel_values, output_hidden_states=True)
    features = outputs.hidden_states[-2][:, 1:]
    dense = heads.dense(features)
    covered, shape, color, cell, location = dense.split(heads.sizes, dim=-1)
    mask = labels.covered
    objectness = F.binary_cross_entropy_with_logits(covered[..., 0], mask.float())
    parts = {
        "shape": F.cross_entropy(shape[mask], labels.shape[mask]),
        "color": F.cross_entropy(color[mask], labels.color[mask]),
        "cell": F.cross_entropy(cell[mask], labels.cell[mask]),
        "location": F.smooth_l1_loss(location[mask], labels.location[mask], beta=0.05),
    }
    total = 2 * parts["shape"] + parts["color"] + 0.5 * parts["cell"] + 2 * parts["location"] + objectness
    pairs = F.binary_cross_entropy_with_logits(heads.pairs(outputs.pooler_output), labels.pairs) * 10
    return {"dense": total, "pairs": pairs, "scale": features.square().mean()} | {
        name: value.detach() for name, value in parts.items()
    }


def _as_text(values: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in values.items())
