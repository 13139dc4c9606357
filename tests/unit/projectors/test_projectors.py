"""Projectors against independent references: transformers, timm, and torch's own functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import adaptkit
from adaptkit.errors import DataError, PluginError
from adaptkit.model.processor import ModalityInputs
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.testing import check_projector, tiny_clip_vision, tiny_decoder

PLACEHOLDER_ID = 999
SMALL: dict[str, dict[str, Any]] = {
    "q_former": {"num_queries": 5, "query_size": 16, "num_layers": 3, "num_heads": 2},
    "c_abstractor": {"num_queries": 4, "conv_size": 8, "depth": 2},
    "pixel_shuffle": {"factor": 2},
}
VARIANTS = [
    *SMALL.items(),
    ("q_former", {**SMALL["q_former"], "cross_attention_frequency": 1, "intermediate_size": 8, "dropout": 0}),
    ("c_abstractor", {**SMALL["c_abstractor"], "num_queries": 9, "position_grid": 3, "mlp_depth": 1}),
    ("c_abstractor", {**SMALL["c_abstractor"], "map_side": 2, "position_grid": 2}),
    ("pixel_shuffle", {"factor": 4, "mlp_depth": 1, "norm": False, "bias": False}),
    ("pixel_shuffle", {"factor": 2, "map_side": 2}),
    ("mlp3x_gelu", {"bias": False, "intermediate_size": 7}),
]


def build(name: str, feature_size: int = 12, hidden_size: int = 20, **options: Any) -> Any:
    component = get_plugin_manager().get("projector", name)
    torch.manual_seed(0)
    return component.build(component.options.model_validate(options), feature_size, hidden_size, name)


def positions_after(name: str, positions: int, **options: Any) -> int:
    component = get_plugin_manager().get("projector", name)
    return component.num_positions(component.options.model_validate(options), positions)


def moved(module: nn.Module) -> nn.Module:
    """The module away from its starting point, where biases are zeros and scales ones."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_projectors_keep_the_contract(name: str, options: dict[str, Any]) -> None:
    check_projector(name, options)


@pytest.mark.parametrize("name", SMALL)
def test_a_projector_learns_what_a_map_of_its_features_says(name: str) -> None:
    """Which of three means the features of an item have, among noise."""
    torch.manual_seed(2)
    labels = torch.arange(48) % 3
    directions = torch.randn(3, 12)
    features = directions[labels].unsqueeze(1) + torch.randn(48, 16, 12)
    projector = build(name, hidden_size=3, **SMALL[name])
    optimizer = torch.optim.AdamW(projector.parameters(), 3e-3)
    for _ in range(90):
        loss = F.cross_entropy(projector(features).mean(1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.2  # not knowing gives 1.1


def test_the_q_former_is_blip_2_s() -> None:
    """Against BLIP-2's own composition: query tokens and language projection around the same transformer."""
    from transformers import Blip2QFormerModel

    projector = moved(build("q_former", **SMALL["q_former"]))
    config = projector.q_former.config
    assert [layer.has_cross_attention for layer in projector.q_former.encoder.layer] == [True, False, True]
    reference = Blip2QFormerModel(config).eval()
    reference.load_state_dict(projector.q_former.state_dict())
    features = torch.randn(2, 7, 12)
    normed = F.layer_norm(features, (12,), projector.feature_norm.weight, projector.feature_norm.bias)
    with torch.no_grad():
        outputs = reference(projector.queries.unsqueeze(0).repeat(2, 1, 1), encoder_hidden_states=normed)
        expected = F.linear(outputs.last_hidden_state, projector.output.weight, projector.output.bias)
        assert torch.allclose(projector(features), expected, atol=1e-6)


def test_queries_start_apart_and_do_not_care_about_the_order_of_features() -> None:
    projector = build("q_former", **SMALL["q_former"]).eval()
    features = torch.randn(1, 9, 12)
    with torch.no_grad():
        projected = projector(features)
        assert torch.pdist(projected[0]).min() > 1e-3
        assert torch.allclose(projector(features.flip(1)), projected, atol=1e-5)


def test_the_c_abstractor_is_made_of_regnet_stages() -> None:
    timm = pytest.importorskip("timm", reason="the reference for the blocks is timm's RegNet")
    from timm.layers import LayerNorm2d
    from timm.models.regnet import RegStage

    projector = moved(build("c_abstractor", num_queries=4, conv_size=8, depth=2, position_grid=4))
    stages = []
    for size, ours in ((12, projector.before), (8, projector.after)):
        stage = RegStage(2, size, 8, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d).eval()
        renamed = {f"b{int(key[0]) + 1}{key[1:]}": value for key, value in ours.state_dict().items()}
        stage.load_state_dict(renamed)
        stages.append(stage)
    features = torch.randn(3, 16, 12)
    maps = features.transpose(1, 2).unflatten(2, (4, 4)) + projector.position_embedding
    with torch.no_grad():
        pooled = stages[1](F.avg_pool2d(stages[0](maps), 2))
        expected = projector.output(pooled.flatten(2).transpose(1, 2))
        assert torch.allclose(projector(features), expected, atol=1e-5), timm.__version__


def test_a_position_embedding_is_resized_to_the_map() -> None:
    projector = build("c_abstractor", **SMALL["c_abstractor"], position_grid=2)
    with torch.no_grad():
        projector.position_embedding.copy_(torch.ones(1, 12, 2, 2))
        without = build("c_abstractor", **SMALL["c_abstractor"])
        without.load_state_dict(projector.state_dict(), strict=False)
        features = torch.randn(1, 25, 12)
        assert torch.allclose(projector(features), without(features + 1), atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle_merges_like_pixel_unshuffle(factor: int) -> None:
    projector = build("pixel_shuffle", 4, factor=factor)
    projector.mlp = nn.Identity()
    features = torch.randn(2, 36, 4)
    maps = F.pixel_unshuffle(features.transpose(1, 2).unflatten(2, (6, 6)), factor)
    assert torch.equal(projector(features), maps.flatten(2).transpose(1, 2))


def test_merged_features_are_those_of_one_square() -> None:
    """Written out: the second position of a 4 x 4 map joins its features 2, 3, 6 and 7."""
    projector = build("pixel_shuffle", 1)
    projector.mlp = nn.Identity()
    merged = projector(torch.arange(16.0).reshape(1, 16, 1))
    assert merged[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


@pytest.mark.parametrize("name", ["c_abstractor", "pixel_shuffle"])
def test_several_maps_of_an_item_are_projected_one_by_one(name: str) -> None:
    projector = build(name, **SMALL[name], map_side=4).eval()
    features = torch.randn(2, 48, 12)
    with torch.no_grad():
        expected = torch.cat([projector(part) for part in features.split(16, 1)], 1)
        assert torch.allclose(projector(features), expected, atol=1e-6)
    assert expected.shape[1] == positions_after(name, 48, **SMALL[name], map_side=4)


@pytest.mark.parametrize("name", ["c_abstractor", "pixel_shuffle"])
@pytest.mark.parametrize(
    ("positions", "options", "words"),
    [
        (17, {}, "17 features .* square map"),
        (0, {}, "0 features .* square map"),
        (20, {"map_side": 4}, "20 features .* 4 x 4 = 16"),
    ],
)
def test_features_that_form_no_maps_are_refused(name: str, positions: int, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        positions_after(name, positions, **SMALL[name], **options)
    with pytest.raises(DataError, match=words):
        build(name, **SMALL[name], **options)(torch.zeros(1, positions, 12))


def test_a_factor_that_does_not_divide_is_refused_with_those_that_do() -> None:
    words = r"maps of 6 x 6 cannot be merged in squares of 4 x 4.*\(1, 2, 3, 6\)"
    with pytest.raises(DataError, match=words):
        positions_after("pixel_shuffle", 36, factor=4)
    with pytest.raises(DataError, match=words):
        build("pixel_shuffle", factor=4)(torch.zeros(1, 36, 12))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("q_former", {"query_size": 10, "num_heads": 4}, "num_heads 4 does not divide query_size 10"),
        ("c_abstractor", {"num_queries": 10}, "num_queries 10 is not a square number; the nearest are 9 and 16"),
        ("pixel_shuffle", {"factor": 0}, "factor"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(PluginError, match=words):
        get_plugin_manager().options("projector", name, options)


def workflow(projector: dict[str, Any]) -> Any:
    base = tiny_decoder("llama", num_hidden_layers=3)
    torch.manual_seed(3)
    encoder = tiny_clip_vision()
    image = {"encoder": encoder, "projector": projector, "placeholder_id": PLACEHOLDER_ID}
    model = adaptkit.adapt(base, {"image": image}, {"policy": "inner_adapter", "placement": {"layers": [1]}})
    return base, encoder, model


def batch_of(model: Any, projector: dict[str, Any]) -> dict[str, Any]:
    pixel_values = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    fixed = model.encode("image", pixel_values).shape[1]
    spec: Any = {"name": projector["name"], "options": {k: v for k, v in projector.items() if k != "name"}}
    preprocessor: Any = type("Fixed", (), {"fixed_positions": fixed})()
    inputs = ModalityInputs("image", None, preprocessor, PLACEHOLDER_ID, projector=spec)  # type: ignore[arg-type]
    rows = [[3, *[PLACEHOLDER_ID] * (inputs.fixed_positions or 0), 4, 5]] * 2
    return {"input_ids": torch.tensor(rows), "features": {"image": pixel_values}}


@pytest.mark.parametrize("name", SMALL)
def test_a_workflow_trains_saves_and_generates(name: str, tmp_path: Path) -> None:
    projector = {"name": name, **SMALL[name]}
    base, encoder, model = workflow(projector)
    batch = batch_of(model, projector)
    before = {key: value.clone() for key, value in model.projectors.state_dict().items()}
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.5)
    model(**batch, labels=batch["input_ids"].masked_fill(batch["input_ids"] == PLACEHOLDER_ID, -100)).loss.backward()
    optimizer.step()
    model.eval()
    assert any(not torch.equal(value, before[key]) for key, value in model.projectors.state_dict().items())
    model.save_pretrained(tmp_path)
    again = adaptkit.load(tmp_path, base=base, encoders={"image": encoder})
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)
    cached: Tensor = model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert torch.equal(cached, model.generate(**batch, max_new_tokens=4, do_sample=False, use_cache=False))
