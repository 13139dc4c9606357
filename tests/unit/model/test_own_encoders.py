"""Encoders that a workflow trains: what is trained, what stays shared, and that it is saved."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import SiglipVisionConfig, SiglipVisionModel

import adaptkit
from adaptkit.errors import ModelError
from adaptkit.export.merging import copy_to_write
from adaptkit.interfaces import Encoder
from adaptkit.model.own_encoders import distances_from_top, own_encoder
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from tests.unit.model.conftest import PLACEHOLDER_ID

LORA = {"rank": 2, "dropout": 0.5}


def workflow(encoder: Any = None, **modality: Any) -> Any:
    torch.manual_seed(0)
    given = {"encoder": encoder or tiny_clip_vision(), "placeholder_id": PLACEHOLDER_ID, **modality}
    return adaptkit.adapt(
        tiny_decoder("llama"), {"image": given}, {"policy": "inner_adapter", "placement": {"last": 1}}
    )


def batch_for(model: Any) -> dict[str, Any]:
    pixels = torch.randn_like(model.encoders["image"].example_inputs())
    positions = model.encode("image", pixels).shape[1]
    ids = torch.tensor([[1, 2, *[PLACEHOLDER_ID] * positions, 3, 4]])
    return {"input_ids": ids, "pixel_values": pixels, "labels": ids.clone()}


def step(model: Any, batch: dict[str, Any]) -> None:
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(**batch).loss.backward()
    optimizer.step()
    model.eval()


@pytest.mark.parametrize("lora", [None, LORA])
def test_the_copy_learns_and_the_encoder_stays_as_it_was(lora: Any, tmp_path: Any) -> None:
    encoder = tiny_clip_vision()
    before = copy.deepcopy(encoder.state_dict())
    model = workflow(encoder, train_encoder=True, encoder_lora=lora)
    names = model.trainable_parts()["encoder"]
    assert all(name.startswith("encoders.image.") for name in names)
    assert all("lora_" in name for name in names) == (lora is not None)
    batch = batch_for(model)
    own = {name: model.get_parameter(name).clone() for name in names}
    step(model, batch)
    without = [name for name in names if model.get_parameter(name).grad is None]
    assert not without
    # A key's bias shifts all scores of a row alike, so its gradient is zero; LoRA's A has none before B is moved
    moved = {name for name in names if not torch.equal(model.get_parameter(name), own[name])}
    assert len(moved) > len(names) // 3
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model.config.modalities["image"]["train_encoder"] is True

    model.save_pretrained(tmp_path)
    assert set(names) <= load_file(tmp_path / "model.safetensors").keys()
    again = adaptkit.load(tmp_path, base=model.base, encoders={"image": encoder})
    del batch["labels"]
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    assert not torch.equal(again.encode("image", batch["pixel_values"]), workflow(encoder).encode(
        "image", batch["pixel_values"]
    ))  # fmt: skip


def test_blocks_behind_the_features_and_what_nothing_calls_stay_shared() -> None:
    model = workflow(train_encoder=True, encoder_options={"feature_layer": -2})
    source = {id(p) for p in model.source_encoders["image"].parameters()}
    shared = [name for name, p in model.encoders["image"].named_parameters() if id(p) in source]
    assert any("layers.1." in name for name in shared)  # of two
    assert any("post_layernorm" in name for name in shared)
    assert not any("layers.0." in name for name in shared)


def test_low_rank_maps_are_those_that_run_as_modules() -> None:
    torch.manual_seed(0)
    config = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    siglip = SiglipVisionModel(SiglipVisionConfig(**config, image_size=32, patch_size=16))
    model = workflow(siglip, train_encoder=True, encoder_lora={"rank": 2, "target_modules": ["q_proj", "fc1"]})
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in model.trainable_parts()["encoder"]}
    assert adapted == {"q_proj", "fc1"}
    with pytest.raises(ModelError, match=r"'qproj'.*'q_proj'"):
        workflow(train_encoder=True, encoder_lora={"target_modules": ["qproj"]})


def test_statistics_of_batches_are_not_trained() -> None:
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", pretrained=False, num_classes=0)
    model = workflow(network, train_encoder=True)
    before = {name: buffer.clone() for name, buffer in model.encoders.named_buffers()}
    step(model, batch_for(model))
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.encoders.named_buffers())


def test_dropout_of_low_rank_differences_is_on_in_training_only() -> None:
    model = workflow(train_encoder=True, encoder_lora=LORA)
    dropouts = [m for m in model.encoders.modules() if isinstance(m, nn.Dropout) and m.p == LORA["dropout"]]
    assert dropouts
    assert all(m.training for m in model.train().encoders.modules() if m in set(dropouts))
    assert not any(m.training for m in model.eval().encoders.modules())


def test_learning_rates_decay_from_the_last_block_down() -> None:
    model = workflow(train_encoder=True, encoder_options={"feature_layer": -1})
    distances = distances_from_top(model.encoders["image"])
    by_place = {
        place: {distance for name, distance in distances.items() if place in name}
        for place in ("embeddings", "layers.0.", "layers.1.", "post_layernorm")
    }
    assert by_place == {"embeddings": {3}, "layers.0.": {2}, "layers.1.": {1}, "post_layernorm": {0}}
    assert set(model.encoder_distances()) >= set(model.trainable_parts()["encoder"])


def test_what_is_written_for_stock_models_has_the_differences_in_its_weights() -> None:
    model = workflow(train_encoder=True, encoder_lora={"rank": 2})
    batch = batch_for(model)
    step(model, batch)
    merged = copy_to_write(model, torch.float32, merge=True)
    assert not [name for name, _ in merged.encoders.named_parameters() if "lora_" in name]
    features = [m.encode("image", batch["pixel_values"]) for m in (merged, model)]
    torch.testing.assert_close(*features)
    assert [name for name, _ in model.encoders.named_parameters() if "lora_" in name]


class Unknown(Encoder):
    """An encoder that says nothing of its inputs."""

    feature_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, inputs: Any) -> Any:
        return self.linear(inputs)

    def build_preprocessor(self) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("modality", "words"),
    [
        ({"train_encoder": "yes"}, "train_encoder"),
        ({"encoder_lora": {"rank": 2}}, "train_encoder to true"),
        ({"train_encoder": True, "encoder_lora": {"rank": 0}}, "encoder_lora.*rank|rank.*greater"),
        ({"train_encoder": True, "encoder_lora": {"ranks": 1}}, "ranks"),
        ({"train_encoder": True, "encoder": Unknown(), "type": None}, "example_inputs"),
    ],
)
def test_what_cannot_be_trained_is_refused(modality: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        workflow(**modality)


def test_a_policy_that_adapts_encoders_itself_excludes_it() -> None:
    given = {"encoder": tiny_clip_vision(), "train_encoder": True, "placeholder_id": PLACEHOLDER_ID}
    with pytest.raises(ModelError, match=r"train_encoder.*'mma'"):
        adaptkit.adapt(tiny_decoder("llama"), {"image": given}, "mma")


def test_without_gradients_around_it_a_copy_is_made_all_the_same() -> None:
    encoder = workflow().source_encoders["image"]
    with torch.no_grad():
        assert any(p.requires_grad for p in own_encoder(encoder).parameters())
