"""What the image encoder's features tell a linear read-out."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionModel

from adaptkit.world import scenes
from adaptkit.world.scenes import CELLS, COLORS, IMAGE_SIZE, SHAPES, Scene, Split

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def normalize(images: Tensor) -> Tensor:
    """Pixels `(num, 64, 64, 3)` from 0 to 255 as `pixel_values`, `(num, 3, 64, 64)`."""
    return ((images.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


@torch.no_grad()
def patch_features(model: CLIPVisionModel, items: list[Scene]) -> Tensor:
    """`hidden_states[-2]` without the class token, `(num, patches, hidden)`."""
    model.eval()
    chunks = []
    for start in range(0, len(items), 256):
        pixels = np.stack([scenes.render_array(scene) for scene in items[start : start + 256]])
        outputs = model(normalize(torch.from_numpy(pixels)), output_hidden_states=True)
        chunks.append(outputs.hidden_states[-2][:, 1:])
    return torch.cat(chunks)


def probe_encoder(model_dir: Path, seed: int = 1, num_scenes: int = 1_000, split: Split = "test") -> dict[str, float]:
    """Fits linear probes on training scenes' frozen features, and scores them on scenes never trained on.

    Args:
        model_dir: A folder that `build_encoder` wrote.
        num_scenes: Held-out scenes; as many training scenes twice over fit the probes.

    Returns:
        Accuracies of `shape`, `color` and `cell` at the patch under an object's centre, and `position_px`,
        `radius_px`: mean absolute errors.
    """
    model = CLIPVisionModel.from_pretrained(model_dir, dtype=torch.float32)
    size = model.config.patch_size
    fit = _probe_data(model, scenes.sample_scenes(seed + 1, 2 * num_scenes, "train"), size)
    held_out = _probe_data(model, scenes.sample_scenes(seed, num_scenes, split), size)
    scores = {}
    for column, name in enumerate(("shape", "color", "cell")):
        weights = _fit_classifier(fit[0], fit[1][:, column])
        hits = (_with_bias(held_out[0]) @ weights).argmax(dim=1) == held_out[1][:, column]
        scores[name] = float(hits.float().mean())
    design = _with_bias(fit[0])
    solution = torch.linalg.lstsq(design, fit[2]).solution
    errors = (_with_bias(held_out[0]) @ solution - held_out[2]).abs().mean(dim=0)
    return scores | {"position_px": float(errors[:2].mean()), "radius_px": float(errors[2])}


def _probe_data(model: CLIPVisionModel, items: list[Scene], patch_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features at the objects' centres, their classes `(num, 3)`, and their centres and radii in px."""
    features = patch_features(model, items)
    side = IMAGE_SIZE // patch_size
    rows, names, places = [], [], []
    for number, scene in enumerate(items):
        for item in scene.objects:
            rows.append(features[number, int(item.y // patch_size) * side + int(item.x // patch_size)])
            names.append((SHAPES.index(item.shape), COLORS.index(item.color), CELLS.index(item.cell)))
            places.append((item.x, item.y, item.radius))
    return torch.stack(rows), torch.tensor(names), torch.tensor(places)


def _with_bias(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones(len(features), 1)], dim=1)


def _fit_classifier(features: Tensor, classes: Tensor) -> Tensor:
    """Softmax regression by L-BFGS, `(hidden + 1, classes)`."""
    design = _with_bias(features)
    weights = torch.zeros(design.shape[1], int(classes.max()) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(design @ weights, classes) + 1e-4 * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()
