"""Models made from a config alone: stock files, drawn from the caller's seed, and mistakes in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adaptkit_clip.encoder import load_encoder
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionModel

from adaptkit.errors import ModelError
from adaptkit.plugin_manager import get_plugin_manager

CONFIG: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 20,
    "patch_size": 5,
}


def create(config: dict[str, Any], directory: Path) -> Any:
    return get_plugin_manager().get("encoder", "clip").create(config, directory)


def test_what_is_written_is_a_stock_model_with_its_processor(tmp_path: Path, picture: Image.Image) -> None:
    torch.manual_seed(3)
    options = create(CONFIG, tmp_path / "new" / "model")
    torch.manual_seed(3)
    again = create({**CONFIG, "model_type": "clip_vision_model"}, tmp_path / "again")
    encoder = load_encoder(options)
    assert encoder.fingerprint() == load_encoder(again).fingerprint()
    assert {key: getattr(encoder.config, key) for key in CONFIG} == CONFIG
    inputs = encoder.build_preprocessor()(picture)[None]
    stock = CLIPVisionModel.from_pretrained(options.path).eval()
    expected = stock(inputs, output_hidden_states=True).hidden_states[-2][:, 1:]
    assert torch.equal(encoder(inputs), expected)
    assert CLIPImageProcessor.from_pretrained(options.path).crop_size["height"] == 20


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    prints = set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        prints.add(load_encoder(create(CONFIG, tmp_path / str(seed))).fingerprint())
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_sze": 3}, "no field of a CLIPVisionConfig named 'hidden_sze'.*Did you mean 'hidden_size'"),
        ({"hidden_size": "wide"}, "hidden_size.*expected int"),
        ({"num_attention_heads": 5}, "not a multiple of the number of attention heads"),
        ({"image_size": 21}, "image_size: 21 is not a multiple of patch_size: 5"),
        ({"image_size": [20, 30]}, "pictures and patches are square"),
        ({"patch_size": 0}, "patch_size: 0 is not a size"),
        ({"hidden_act": "gulp"}, "gulp"),
        ({"model_type": "siglip_vision_model"}, "only 'clip_vision_model'"),
    ],
)
def test_a_config_that_makes_no_model_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        create({**CONFIG, **change}, tmp_path)
    assert not any(tmp_path.iterdir())
