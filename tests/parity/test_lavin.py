"""Results of the official LaVIN, without its rounding of routing weights to half precision.

Where its network for training and its program for inference differ, ours is the former.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

import adaptkit
from adaptkit.importers import import_lavin
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.policies import MmaOptions
from adaptkit.policies.mma import Mma, RouterAdapter
from adaptkit.surgery import AdapterContext
from tests.parity import lavin_reference as lavin

TOLERANCE: dict[str, Any] = {"rtol": 0, "atol": 1e-4}  # what the reference's authors of the data suggest for float32
ROUTERS = ("router_t10", "router_t1", "router_g4_s1", "router_g1")


@pytest.fixture(scope="module")
def data(shared: Path) -> Path:
    folder = shared / "data" / "parity" / "lavin_mma"
    if not folder.is_dir():
        pytest.skip(f"no reference data of LaVIN at {folder}")
    return folder


@pytest.fixture(scope="module")
def modules(data: Path) -> dict[str, Tensor]:
    return lavin.load(data, "modules")


@pytest.fixture(scope="module")
def inputs(data: Path) -> dict[str, Tensor]:
    return lavin.load(data, "full_inputs")


@pytest.fixture(scope="module")
def expected(data: Path) -> dict[str, Tensor]:
    return lavin.load(data, "full_attn_router_reference")


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Their adapters, imported onto their base."""
    folder = tmp_path_factory.mktemp("lavin")
    frozen = lavin.load(data, "full_base")
    lavin.write_base(frozen, folder / "base")
    lavin.write_encoder(frozen, folder / "encoder")
    source = data / "full_attn_router_adapters.safetensors"
    imported = import_lavin(source, folder / "out", folder / "base", folder / "encoder", scale=0.7)
    return adaptkit.load(imported.workflows["vision"])


def placeholder_of(model: Any) -> int:
    return int(model.config.modalities["image"]["placeholder_id"])


# -- modules ---------------------------------------------------------------------------------------------------------


def router_of(data: Path, modules: dict[str, Tensor], case: str) -> RouterAdapter:
    known = json.loads((data / "manifest.json").read_text(encoding="utf-8"))["modules"][case]
    options = MmaOptions(
        hidden_size=known["hidden_dim"], groups=known["groups"], scale=known["scale"], temperature=known["t"]
    )
    adapter = RouterAdapter(known["in_features"], options, beside=nn.Linear(1, 1)).eval()
    fill(adapter, {n.removeprefix("state/"): t for n, t in lavin.case_of(modules, case).items() if "state/" in n})
    return adapter


def fill(adapter: RouterAdapter, state: dict[str, Tensor]) -> None:
    parts = {"conv_A": "down", "conv_B": "experts.0", "conv_D": "experts.1", "expert_weights": "router"}
    renamed = {
        f"{parts[n.split('.')[0]]}.{n.split('.')[1]}": t.flatten(1) if t.ndim > 1 else t for n, t in state.items()
    }
    adapter.load_state_dict(renamed)


@torch.no_grad()
@pytest.mark.parametrize("case", ROUTERS)
def test_router_adapter(data: Path, modules: dict[str, Tensor], case: str) -> None:
    adapter, values = router_of(data, modules, case), lavin.case_of(modules, case)
    weights = adapter.route(values["x"][:, 0])
    torch.testing.assert_close(weights, values["routing_weights"], **TOLERANCE)
    torch.testing.assert_close(adapter(values["x"], weights.unsqueeze(1)), values["y"], **TOLERANCE)
    given = adapter(values["x"], values["given_weights"].unsqueeze(1))
    torch.testing.assert_close(given, values["y_given_weights"], **TOLERANCE)


@torch.no_grad()
def test_visual_projection(modules: dict[str, Tensor]) -> None:
    values = lavin.case_of(modules, "adapter_mlp_proj")
    component = get_plugin_manager().get("projector", "mlp_silu")
    projector = component.build(component.options(hidden_size=12), 24, 32, "mlp_silu")
    projector.load_state_dict(
        {
            f"{number}.{kind}": values[f"state/{name}.{kind}"]
            for number, name in ((0, "conv_A"), (2, "conv_B"))
            for kind in ("weight", "bias")
        }
    )
    torch.testing.assert_close(projector(values["x"]), values["y"], **TOLERANCE)


class ClipBlock(nn.Module):
    """OpenAI's, whose attention is torch's and takes its input three times."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attn = nn.MultiheadAttention(32, 2)
        self.c_fc, self.c_proj = nn.Linear(32, 128), nn.Linear(128, 32)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        hidden = self.c_fc(self.ln_2(x))
        return x + self.c_proj(hidden * torch.sigmoid(1.702 * hidden))


@torch.no_grad()
def test_every_sample_of_an_encoders_batch_routes_itself(modules: dict[str, Tensor]) -> None:
    values = lavin.case_of(modules, "clip_block_router")
    state = {name.removeprefix("state/"): value for name, value in values.items() if name.startswith("state/")}
    block = ClipBlock().eval()
    block.load_state_dict({n.removeprefix("mlp."): t for n, t in state.items() if "adapter" not in n})
    encoder: Any = nn.Module()
    encoder.blocks, encoder.num_layers = nn.Sequential(block), None
    options = MmaOptions(scale=0.7, hidden_size=8)
    Mma(options).adapt_encoder(encoder)
    adapter = block.attn.input_adapter
    adapter.eval()
    fill(adapter, {n.removeprefix("adapter_attn."): t for n, t in state.items() if "adapter" in n})
    found = encoder.blocks(values["x_LND"])
    torch.testing.assert_close(found, values["y_LND_each_sample_alone"], **TOLERANCE)
    torch.testing.assert_close(found[:, 0], values["y_LND"][:, 0], **TOLERANCE)
    assert (found[:, 1:] - values["y_LND"][:, 1:]).abs().max() > 0.5  # theirs depends on the first sample


# -- the complete model ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_features_are_theirs_of_each_image_alone(model: Any, inputs: dict[str, Tensor], expected: Any) -> None:
    found = model.encode("image", inputs["images"])
    torch.testing.assert_close(found, expected["clip_feats_each_image_alone"], **TOLERANCE)
    torch.testing.assert_close(found[:1], expected["clip_feats"][:1], **TOLERANCE)
    assert (found[1:] - expected["clip_feats"][1:]).abs().max() > 1  # theirs depends on the first image of the batch
    projected = model.projectors["image"](expected["clip_feats"])
    torch.testing.assert_close(projected, expected["image_embeds"], **TOLERANCE)


@torch.no_grad()
def test_routing_weights(model: Any, expected: dict[str, Tensor]) -> None:
    context = AdapterContext(torch.zeros(3, 5, dtype=torch.bool), torch.tensor([1, 0, 1]))
    model.policy.prepare(context, model.language_model, model.policy_modules)
    found = context.get("routing")
    torch.testing.assert_close(
        torch.stack([found[number] for number in range(4)]), expected["routing_weights_attn"], **TOLERANCE
    )


@torch.no_grad()
def test_logits_and_loss(model: Any, inputs: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    input_ids, labels = lavin.sequences(inputs, placeholder_of(model))
    features = expected["clip_feats"][[0, 2]]
    output = model(input_ids=input_ids, labels=labels, features={"image": adaptkit.EncodedFeatures(features)})
    torch.testing.assert_close(output.logits, expected["logits"][:, 1:], **TOLERANCE)
    torch.testing.assert_close(output.loss, expected["loss"], **TOLERANCE)


@torch.no_grad()
def test_logits_from_pixels(model: Any, inputs: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    input_ids, _ = lavin.sequences(inputs, placeholder_of(model))
    output = model(input_ids=input_ids[:2], features={"image": inputs["images"][:1]})
    torch.testing.assert_close(output.logits, expected["logits"][:2, 1:], **TOLERANCE)


@torch.no_grad()
def test_decoding_is_the_training_network(model: Any, expected: dict[str, Tensor]) -> None:
    """Their program rotates decoded tokens one position too early; their training network does not."""
    tokens = expected["eval/tokens"].clamp(min=0)
    tokens[[0, 2], 3:5] = placeholder_of(model)
    cache, prompt = DynamicCache(config=model.language_model.config), 8
    steps = [model(
        input_ids=tokens[:, :prompt], past_key_values=cache, use_cache=True,
        features={"image": adaptkit.EncodedFeatures(expected["clip_feats"][[0, 2]])},
    ).logits]  # fmt: skip
    for index in range(prompt, tokens.shape[1]):
        steps.append(model(input_ids=tokens[:, index : index + 1], past_key_values=cache, use_cache=True).logits)
    found, network = torch.cat(steps, 1), expected["eval/train_network_logits_same_sequence"][:, 1:]
    for row, length in enumerate(expected["eval/token_lens"].tolist()):
        torch.testing.assert_close(found[row, :length], network[row, :length], **TOLERANCE)
    theirs = expected["eval/step_logits"].transpose(0, 1)
    torch.testing.assert_close(found[:, prompt - 1], theirs[:, 0], **TOLERANCE)
    assert (found[:2, prompt:-1] - theirs[:2, 1:]).abs().max() > 0.5
