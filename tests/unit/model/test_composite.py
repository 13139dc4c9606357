"""Errors, sharing between workflows, placeholders and dtypes."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, T5Config, T5ForConditionalGeneration

import adaptkit
from adaptkit.errors import DataError, ModelError, PluginError
from adaptkit.model import composite
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from tests.unit.model.conftest import PLACEHOLDER_ID, batch_of, build


def modalities(**changes):
    return {"image": {"encoder": tiny_clip_vision(), "projector": "linear", **changes}}


def test_a_count_that_differs_names_both_counts():
    _, model = build("llama")
    batch = batch_of(model)
    batch.inputs["features"] = {"image": batch.pixel_values[:1]}
    with pytest.raises(DataError, match=r"48 image placeholders.* 16 positions.*1 item"):
        model(**batch.inputs)


def test_placeholders_without_features_are_an_error():
    _, model = build("llama")
    batch = batch_of(model)
    del batch.inputs["features"]
    with pytest.raises(DataError, match=r"48 image placeholders.* 0 positions"):
        model(**batch.inputs)


def test_a_width_that_an_encoder_did_not_declare_names_both_widths():
    _, model = build("llama")
    model.encoders["image"].feature_size = 48
    with pytest.raises(PluginError, match=r"48.*feature_size.*32"):
        model(**batch_of(model).inputs)


def test_an_unknown_modality_names_the_nearest():
    _, model = build("llama")
    with pytest.raises(DataError, match="Did you mean 'image'"):
        model(input_ids=torch.tensor([[1, 2]]), features={"imag": torch.zeros(1, 3, 32, 32)})


@pytest.mark.parametrize("encoded", [False, True])
def test_media_that_go_one_by_one_are_refused_where_processes_would_wait(monkeypatch, encoded):
    _, model = build("llama")
    batch = batch_of(model, num_items=(1, 1))
    pictures = list(batch.pixel_values)
    if encoded:
        pictures = adaptkit.EncodedFeatures(list(model.encode("image", batch.pixel_values)))
        next(model.projectors["image"].parameters()).ds_id = 0  # as ZeRO-3 marks what it has cut up
    monkeypatch.setattr(composite, "is_sharded", lambda parameter: True)
    model.train()
    with pytest.raises(ModelError, match=r"'image' differ in shape.*strategy zero2 or ddp, or fsdp with"):
        model(**{**batch.inputs, "features": {"image": pictures}})


def test_features_beside_inputs_embeds_are_an_error():
    _, model = build("llama")
    with pytest.raises(DataError, match="features need input_ids"):
        model(inputs_embeds=torch.zeros(1, 3, 32), features={"image": torch.zeros(1, 3, 32, 32)})


def test_two_workflows_share_one_base():
    base, first = build("llama")
    second = adaptkit.adapt(base, modalities(placeholder_id=5), {"policy": "projector_only"})
    storages = {p.data_ptr() for p in base.parameters()}
    assert {p.data_ptr() for p in second.language_model.parameters()} == storages
    own = {p.data_ptr() for p in first.trainable_state_dict().values()}
    assert own.isdisjoint(storages | {p.data_ptr() for p in second.trainable_state_dict().values()})


def test_moves_of_the_composite_move_the_base_too():
    base, model = build("llama")
    model.to(torch.float64)
    assert base.dtype == torch.float64
    own = set(model.trainable_state_dict())
    shared = {id(p) for p in base.parameters()}
    frozen = [p for n, p in model.language_model.named_parameters() if f"language_model.{n}" not in own]
    assert all(id(p) in shared for p in frozen)
    base_buffers, own_buffers = dict(base.named_buffers()), dict(model.language_model.named_buffers())
    assert all(own_buffers[name] is base_buffers[name] for name in base_buffers if "layers" not in name)


def test_a_half_precision_base_keeps_float32_masters():
    base = tiny_decoder("llama", num_hidden_layers=4).to(torch.bfloat16)
    model = adaptkit.adapt(
        base, modalities(placeholder_id=PLACEHOLDER_ID), {"policy": "inner_adapter", "placement": {"every": 2}}, True
    )
    assert all(p.dtype == torch.float32 for p in model.trainable_state_dict().values())
    batch = batch_of(model, num_items=(1, 1))
    model.train()
    model(**batch.inputs, labels=batch.labels).loss.backward()
    parameters = dict(model.named_parameters())
    assert all(parameters[name].grad.dtype == torch.float32 for name in model.trainable_state_dict())
    model.eval()
    assert model.generate(**batch_of(model, padding_side="left").inputs, max_new_tokens=2).shape[0] == 3


def test_a_placeholder_is_never_generated():
    base, _ = build("llama")
    model = adaptkit.adapt(base, modalities(placeholder_id=7))
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = 100 * model.get_output_embeddings().weight[7]
    output = model.generate(input_ids=torch.tensor([[3, 4, 5]]), max_new_tokens=20, do_sample=False)
    assert 7 not in output[0, 3:]


def test_labels_at_placeholders_are_not_learned():
    _, model = build("llama")
    batch = batch_of(model)
    everything = batch.inputs["input_ids"].masked_fill(batch.inputs["attention_mask"] == 0, -100)
    masked = everything.masked_fill(everything == PLACEHOLDER_ID, -100)
    with torch.no_grad():
        assert torch.equal(model(**batch.inputs, labels=everything).loss, model(**batch.inputs, labels=masked).loss)


def test_default_placeholders_lie_outside_the_vocabulary():
    base = tiny_decoder("gpt2")
    model = adaptkit.adapt(base, modalities())
    rows = base.get_input_embeddings().weight.shape[0]
    assert model.config.modalities["image"]["placeholder_id"] == rows


def test_tied_ends_are_untied_in_the_workflow_alone():
    base, model = build("gpt2")
    assert base.lm_head.weight is base.transformer.wte.weight
    workflow = model.language_model
    assert workflow.lm_head.weight is not workflow.transformer.wte.weight
    assert not workflow.config.tie_word_embeddings
    assert base.config.tie_word_embeddings


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"modalities": {"image": {"projector": "linear"}}}, ModelError, "an encoder is missing"),
        ({"modalities": modalities(placholder_id=3)}, ModelError, "Did you mean 'placeholder_id'"),
        ({"modalities": modalities(placeholder_id=-3)}, ModelError, r"placeholder_id: .*-3"),
        ({"modalities": modalities(projector="linaer")}, PluginError, "Did you mean 'linear'"),
        ({"modalities": modalities(encoder={"name": "clpi"})}, PluginError, "no encoder named 'clpi'"),
        ({"modalities": modalities(encoder=nn.Linear(2, 2))}, ModelError, "adopts a Linear as an encoder"),
        (
            {"modalities": modalities(), "insertion": {"policy": "iner_adapter"}},
            PluginError,
            "Did you mean 'inner_adapter'",
        ),
        ({"modalities": modalities(), "insertion": {"policy": "inner_adapter"}}, ModelError, "needs a placement"),
        (
            {"modalities": modalities(), "insertion": {"policy": "inner_adapter", "placement": {"layers": [9]}}},
            ModelError,
            "numbered 0 to",
        ),
    ],
)
def test_wrong_arguments_are_refused_in_words(arguments, error, words):
    with pytest.raises(error, match=words):
        adaptkit.adapt(tiny_decoder("llama"), **arguments)


def test_an_encoder_decoder_is_refused():
    base = T5ForConditionalGeneration(T5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, vocab_size=20, d_kv=8))
    with pytest.raises(ModelError, match="is an encoder-decoder"):
        adaptkit.adapt(base, modalities())


def test_another_base_is_refused_and_the_override_accepts_it(tmp_path):
    _, model = build("llama")
    model.save_pretrained(tmp_path)
    other = tiny_decoder("llama", seed=5, num_hidden_layers=4)
    with pytest.raises(ModelError, match=r"another base.*weights"):
        adaptkit.load(tmp_path, base=other)
    assert adaptkit.load(tmp_path, base=other, allow_different_base=True).base is other
    with pytest.raises(ModelError, match=r"Qwen2ForCausalLM.*LlamaForCausalLM"):
        adaptkit.load(tmp_path, base=tiny_decoder("qwen2", num_hidden_layers=4))


def test_a_base_in_another_precision_is_the_same_base(tmp_path):
    base, model = build("llama")
    base.to(torch.bfloat16).to(torch.float32)
    model.save_pretrained(tmp_path)
    assert adaptkit.load(tmp_path, base=base.to(torch.bfloat16)).base.dtype == torch.bfloat16


def test_damaged_checkpoints_are_refused_in_words(tmp_path):
    base, model = build("llama")
    model.save_pretrained(tmp_path)
    tensors = tmp_path / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    with pytest.raises(ModelError, match="is damaged"):
        adaptkit.load(tmp_path, base=base)
    tensors.unlink()
    with pytest.raises(ModelError, match="is missing: the checkpoint is incomplete"):
        adaptkit.load(tmp_path, base=base)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        adaptkit.load(tmp_path, base=base)
    with pytest.raises(ModelError, match="is not a folder"):
        adaptkit.load(tmp_path / "nowhere")
    _, unnamed = build("llama")
    unnamed.save_pretrained(tmp_path / "unnamed")
    with pytest.raises(ModelError, match=r"Pass it: adaptkit\.load"):
        adaptkit.load(tmp_path / "unnamed")


def test_auto_classes_load_a_workflow(tmp_path):
    base, _ = build("llama")
    base.save_pretrained(tmp_path / "base")
    base = type(base).from_pretrained(tmp_path / "base")
    model = adaptkit.adapt(base, modalities(), {"policy": "inner_adapter", "placement": {"count": 1}})
    model.save_pretrained(tmp_path / "workflow")
    config = AutoConfig.from_pretrained(tmp_path / "workflow")
    assert config.base["name_or_path"] == "../base"
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "workflow")
    assert type(loaded) is type(model)
    inputs = {"input_ids": torch.tensor([[3, 4, 5]])}
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
