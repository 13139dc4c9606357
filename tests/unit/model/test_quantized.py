"""Workflows on bases that bitsandbytes has packed into 4 or 8 bits."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.integrations.bitsandbytes import dequantize_bnb_weight

import adaptkit
from adaptkit.errors import ModelError
from adaptkit.evaluation import fresh_base
from adaptkit.evaluation.text_identity import loading_of, text_logits
from adaptkit.files.hashing import hash_tensors
from adaptkit.model.inspection import describe_components
from adaptkit.surgery.quantization import bitsandbytes_config, quantization_of
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from tests.unit.model.conftest import batch_of

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

PLACEHOLDER_ID = 999
# bitsandbytes packs blocks of 64 values, and on the CPU unpacks narrower rows wrongly
SIZES = {
    "llama": {"hidden_size": 64, "head_dim": 16},
    "qwen2": {"hidden_size": 64, "head_dim": 16},
    "gpt2": {"n_embd": 64},
}
INNER = {"policy": "inner_adapter", "placement": {"layers": [0, 2]}}
KINDS = ("nf4", "fp4", "int8")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Bases on disk, by family."""
    made = {}
    for family in SIZES:
        made[family] = tmp_path_factory.mktemp(family)
        tiny_decoder(family, **SIZES[family]).save_pretrained(made[family])
    return made


def load_base(folder, kind):
    packing = None if kind is None else bitsandbytes_config(kind, torch.float32)
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=packing, dtype=torch.float32).eval()


def build(base, insertion=INNER, replace_ends=False):
    torch.manual_seed(0)
    encoder = {"encoder": tiny_clip_vision(), "projector": "mlp2x_gelu", "placeholder_id": PLACEHOLDER_ID}
    return adaptkit.adapt(base, {"image": encoder}, insertion, replace_ends)


def train(model, num_steps=2):
    batch = batch_of(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    model.train()
    for _ in range(num_steps):
        model(**batch.inputs, labels=batch.labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    return batch


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_base_stays_as_it_is_loaded_alone_before_and_after_training(folders, family, kind) -> None:
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        alone = load_base(folders[family], kind)(ids).logits
        base = load_base(folders[family], kind)
        model = build(base, replace_ends=True)
        assert torch.equal(model.base(ids).logits, alone)
        model(input_ids=ids)
        assert torch.equal(model.base(ids).logits, alone)
    before = hash_tensors(base.state_dict().items())
    train(model)
    assert hash_tensors(base.state_dict().items()) == before
    with torch.no_grad():
        assert torch.equal(model.base(ids).logits, alone)


def test_the_proof_of_identity_packs_the_base_likewise(folders) -> None:
    model = build(load_base(folders["llama"], "nf4"))
    request = loading_of(model.base)
    fresh = fresh_base.load_base(json.loads(json.dumps(request)))
    ids = [list(range(3, 20)), list(range(30, 60))]
    with torch.no_grad():
        assert torch.equal(fresh_base.compute_logits(fresh, ids), text_logits(model.base, ids))


@pytest.mark.parametrize(
    "insertion",
    [
        {**INNER, "delta": {"rank": 2}},
        {"policy": "gated_inner_adapter", "placement": {"layers": [1]}},
        {"policy": "controlnet", "placement": {"layers": [0, 2]}},
        {"policy": "lora", "rank": 2},
        {"policy": "visual_expert"},
        {"policy": "mma", "encoder_adapter": "none"},
        {"policy": "gated_cross_attention", "placement": {"layers": [1]}, "num_heads": 2, "head_dim": 8},
    ],
    ids=lambda insertion: insertion["policy"] + ("_delta" if "delta" in insertion else ""),
)
def test_policies_train_full_precision_tensors_over_packed_ones(folders, insertion) -> None:
    kind = "int8" if insertion["policy"] == "lora" else "nf4"
    model = build(load_base(folders["llama"], kind), insertion)
    own = model.trainable_state_dict()
    assert {tensor.dtype for tensor in own.values()} == {torch.float32}
    before = {name: tensor.clone() for name, tensor in own.items()}
    batch = train(model)
    changed = [name for name in own if not torch.equal(own[name], before[name])]
    assert any(name.startswith("projectors.") for name in changed)
    assert any(name.startswith(("language_model.", "policy_modules.")) for name in changed)
    generated = model.generate(**batch.inputs, max_new_tokens=3, do_sample=False)
    assert generated.shape[0] == len(batch.rows)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_insertion_layers_are_unpacked_copies(folders, family) -> None:
    packed, plain = build(load_base(folders[family], "nf4")), build(load_base(folders[family], None))
    assert {n: p.shape for n, p in packed.trainable_state_dict().items()} == {
        n: p.shape for n, p in plain.trainable_state_dict().items()
    }
    for name, tensor in packed.trainable_state_dict().items():
        difference = (tensor - plain.trainable_state_dict()[name]).abs().max()
        assert float(difference) < 0.2 * float(plain.trainable_state_dict()[name].abs().max()) + 1e-6, name


def test_gradients_reach_through_packed_layers_as_through_plain_ones(folders) -> None:
    model = build(load_base(folders["llama"], "nf4"), {"policy": "projector_only"})
    plain = build(load_base(folders["llama"], None), {"policy": "projector_only"})
    with torch.no_grad():
        for layer, packed in zip(plain.base.model.layers, model.base.model.layers, strict=True):
            for name, module in layer.named_modules():
                if isinstance(module, torch.nn.Linear):
                    weight = packed.get_submodule(name).weight
                    module.weight.copy_(dequantize_bnb_weight(weight))
    batch = batch_of(model)
    for each in (model, plain):
        each.train()
        each(**batch.inputs, labels=batch.labels).loss.backward()
    for (name, ours), theirs in zip(model.projectors.named_parameters(), plain.projectors.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_holds_no_packed_tensor_and_loads_the_base_as_in_training(folders, kind, tmp_path) -> None:
    model = build(load_base(folders["llama"], kind))
    batch = train(model)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["base"]["quantization"] == kind
    assert {t.dtype for t in adaptkit.model.checkpoint.load_tensors(tmp_path).values()} == {torch.float32}
    encoders = {"image": model.encoders["image"]}
    loaded = adaptkit.load(tmp_path, encoders=encoders)
    assert quantization_of(loaded.base) == kind
    with torch.no_grad():
        assert torch.equal(loaded(**batch.inputs).logits, model(**batch.inputs).logits)


def test_another_quantization_is_refused_unless_asked_for(folders, tmp_path) -> None:
    model = build(load_base(folders["llama"], "nf4"))
    model.save_pretrained(tmp_path)
    encoders, plain = {"image": model.encoders["image"]}, load_base(folders["llama"], None)
    with pytest.raises(ModelError, match=r"nf4.*not quantised"):
        adaptkit.load(tmp_path, base=plain, encoders=encoders)
    assert adaptkit.load(tmp_path, base=plain, encoders=encoders, allow_different_base=True).base is plain
    other = load_base(folders["llama"], "nf4")
    other.lm_head.weight.data += 1
    with pytest.raises(ModelError, match="its weights differ"):
        adaptkit.load(tmp_path, base=other, encoders=encoders)


def test_inspection_counts_values_and_bytes_of_packed_weights(folders) -> None:
    plain, packed = (describe_components(build(load_base(folders["llama"], kind)))[0] for kind in (None, "nf4"))
    base = load_base(folders["llama"], None)
    linear = sum(p.numel() for n, p in base.named_parameters() if n.endswith("proj.weight"))
    assert packed.num_parameters == plain.num_parameters
    expected = plain.num_bytes - 4 * linear + linear / 2
    assert expected < packed.num_bytes < expected + 0.1 * linear


def test_what_a_packed_base_cannot_do_is_refused(folders) -> None:
    with pytest.raises(ModelError, match="full: the base is quantised"):
        build(load_base(folders["llama"], "nf4"), {"policy": "full"})
    model = build(load_base(folders["llama"], "int8"))
    with pytest.raises(ModelError, match="cannot be cast"):
        model.to(torch.bfloat16)
    with pytest.raises(ModelError, match="cannot be moved"):
        model.to("meta")
    base = load_base(folders["llama"], "nf4")
    base.model.layers[0].mlp.up_proj.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(ModelError, match="repacked for inference"):
        build(base)
    base = load_base(folders["llama"], None)
    base.quantization_method = "gptq"
    with pytest.raises(ModelError, match="quantised by gptq"):
        build(base)


def test_the_extra_is_named_where_bitsandbytes_is_missing(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'inner-adaptkit\[bitsandbytes\]'"):
        bitsandbytes_config("nf4", torch.float32)
