"""What holds for every workflow of the inner-adapter policy, over four decoder families."""

import copy
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

import adaptkit
from adaptkit.testing import tiny_decoder
from tests.unit.model.conftest import batch_of, build

# Left padding, batching and incremental decoding change the shapes of matrix products, and with them the order of
# float32 sums: differences of a few 1e-6 on logits of order 1.
ROUNDING = {"rtol": 1e-4, "atol": 2e-5}

TEXT = {"input_ids": torch.tensor([[5, 6, 7, 8, 9, 10, 3]])}


@torch.no_grad()
def logits_of(model, **inputs):
    return model(**inputs).logits


def train_one_step(model, batch):
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model(**batch.inputs, labels=batch.labels).loss.backward()
    optimizer.step()
    model.eval()


def test_text_is_bit_identical_before_during_and_after_training(family):
    expected = logits_of(tiny_decoder(family, num_hidden_layers=4), **TEXT)
    base, model = build(family)
    assert model.base is base
    assert torch.equal(logits_of(model.base, **TEXT), expected)
    batch = batch_of(model)
    for _ in range(2):
        train_one_step(model, batch)
        base.eval()
        assert torch.equal(logits_of(model.base, **TEXT), expected)


def test_every_frozen_tensor_is_shared_with_the_base(base_and_model):
    base, model = base_and_model
    own = set(model.trainable_state_dict())
    shared = {id(p) for p in base.parameters()}
    for name, parameter in model.language_model.named_parameters():
        assert (f"language_model.{name}" in own) != (id(parameter) in shared), name
    ends = {
        id(p) for module in (base.get_input_embeddings(), base.get_output_embeddings()) for p in module.parameters()
    }
    kept = {id(p) for p in model.language_model.parameters()}
    assert {id(p) for p in base.parameters()} - ends - kept <= {id(p) for p in _final_norm(base).parameters()}


def _final_norm(base):
    return base.transformer.ln_f if hasattr(base, "transformer") else base.model.norm


def test_a_step_changes_every_own_tensor_and_no_other(base_and_model):
    base, model = base_and_model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    base_before = {name: p.detach().clone() for name, p in base.named_parameters()}
    train_one_step(model, batch_of(model))
    own = set(model.trainable_state_dict())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in own), name
    for name, parameter in base.named_parameters():
        assert torch.equal(parameter, base_before[name]), name


def test_stages_train_the_named_parts_alone(base_and_model):
    _, model = base_and_model
    model.set_trainable(["projector"])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == set(model.trainable_parts()["projector"])
    with pytest.raises(adaptkit.ModelError, match="'insertions'"):
        model.set_trainable(["insertions"])


def test_the_workflow_equals_a_stock_deeper_model(base_and_model):
    _, model = base_and_model
    config = copy.deepcopy(model.language_model.config)
    stock = type(model.language_model)(type(config).from_dict(config.to_dict())).eval()
    stock.load_state_dict(model.language_model.state_dict())
    assert config.num_hidden_layers == 6
    assert torch.equal(logits_of(stock, **TEXT), logits_of(model, **TEXT))


def test_inserted_layers_that_add_nothing_leave_the_base(family):
    base, model = build(family, replace_ends=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            output_projection = any(part in name for part in ("o_proj", "down_proj", "c_proj"))
            if name in model.trainable_parts()["insertion"] and output_projection:
                parameter.zero_()
    assert torch.equal(logits_of(model, **TEXT), logits_of(base, **TEXT))


def test_the_file_holds_the_own_tensors_and_nothing_else(base_and_model, tmp_path):
    _, model = base_and_model
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    own = model.trainable_state_dict()
    assert saved.keys() == own.keys()
    assert all(torch.equal(saved[name], own[name]) for name in own)


def test_save_then_load_reproduces_the_outputs(base_and_model, tmp_path):
    base, model = base_and_model
    batch = batch_of(model)
    model.save_pretrained(tmp_path)
    loaded = adaptkit.load(tmp_path, base=base)
    assert loaded.base is base
    assert torch.equal(logits_of(loaded, **batch.inputs), logits_of(model, **batch.inputs))


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_cached_generation_equals_uncached(base_and_model, cache):
    _, model = base_and_model
    batch = batch_of(model, padding_side="left")
    options = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    implementation = {} if cache == "dynamic" else {"cache_implementation": "static", "disable_compile": True}
    cached = model.generate(**batch.inputs, **options, **implementation)
    uncached = model.generate(**batch.inputs, **options, use_cache=False)
    for one, other in zip(cached.logits, uncached.logits, strict=True):
        torch.testing.assert_close(one, other, **ROUNDING)
    assert torch.equal(cached.sequences, uncached.sequences)


def test_beam_search_with_several_images_equals_one_row_at_a_time(base_and_model):
    _, model = base_and_model
    batch = batch_of(model, padding_side="left")
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "num_beams": 3, "do_sample": False}
    together = model.generate(**batch.inputs, **options)[:, -4:]
    for row, (inputs, _) in enumerate(_single_rows(batch)):
        alone = model.generate(**inputs, **options)[:, -4:]
        assert torch.equal(together[row : row + 1], alone)


def test_left_and_right_padding_agree(base_and_model):
    _, model = base_and_model
    left, right = batch_of(model, padding_side="left"), batch_of(model, padding_side="right")
    positions = left.inputs["attention_mask"].cumsum(1).sub(1).clamp(min=0)
    left_logits = logits_of(model, **left.inputs, position_ids=positions)[left.inputs["attention_mask"] == 1]
    right_logits = logits_of(model, **right.inputs)[right.inputs["attention_mask"] == 1]
    torch.testing.assert_close(left_logits, right_logits, **ROUNDING)


def test_a_batch_equals_its_rows_alone(base_and_model):
    _, model = base_and_model
    batch = batch_of(model)
    together = logits_of(model, **batch.inputs)
    for row, (inputs, length) in enumerate(_single_rows(batch)):
        torch.testing.assert_close(together[row : row + 1, :length], logits_of(model, **inputs), **ROUNDING)


def _single_rows(batch):
    first = 0
    for row, num in zip(batch.rows, batch.num_items, strict=True):
        inputs = {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row), dtype=torch.long)}
        if num:
            inputs["features"] = {"image": batch.pixel_values[first : first + num]}
        first += num
        yield inputs, len(row)


def test_encoded_features_stand_for_raw_ones(base_and_model):
    _, model = base_and_model
    batch = batch_of(model)
    encoded = {
        **batch.inputs,
        "features": {"image": adaptkit.EncodedFeatures(model.encode("image", batch.pixel_values))},
    }
    named = {**batch.inputs, "features": None, "pixel_values": batch.pixel_values}
    expected = logits_of(model, **batch.inputs)
    assert torch.equal(logits_of(model, **encoded), expected)
    assert torch.equal(logits_of(model, **named), expected)


def test_gradient_checkpointing_changes_no_gradient(family):
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if family == "gpt2" else {}
    _, model = build(family, **no_dropout)
    batch = batch_of(model)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
            enable()
        model.train()
        model.zero_grad()
        model(**batch.inputs, labels=batch.labels).loss.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() >= set(model.trainable_state_dict())
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_the_loss_at_supervised_positions_is_the_whole_loss(family):
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if family == "gpt2" else {}
    _, model = build(family, **no_dropout)
    batch = batch_of(model)
    with torch.no_grad():
        whole = model.eval()(**batch.inputs, labels=batch.labels)
        partial = model.train()(**batch.inputs, labels=batch.labels)
        summed = model(**batch.inputs, labels=batch.labels, num_items_in_batch=10)
    num_supervised = int((batch.labels[:, 1:] != -100).sum())
    assert whole.logits.shape[:2] == batch.labels.shape
    assert partial.logits.shape[0] == num_supervised
    torch.testing.assert_close(partial.loss, whole.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(summed.loss * 10, whole.loss * num_supervised, rtol=1e-5, atol=1e-5)


def test_a_trainer_resumes_without_warning_of_frozen_tensors(tmp_path, caplog):
    rows = [{"input_ids": torch.arange(3, 9) + i, "labels": torch.arange(3, 9) + i} for i in range(4)]

    def trainer(steps):
        model = build("llama")[1]
        model.set_trainable(["insertion"])
        options = {"per_device_train_batch_size": 2, "report_to": [], "use_cpu": True, "disable_tqdm": True}
        return Trainer(model, TrainingArguments(tmp_path, max_steps=steps, save_steps=1, **options), train_dataset=rows)

    straight = trainer(2)
    straight.train()
    shutil.rmtree(tmp_path / "checkpoint-2")
    resumed = trainer(2)
    logging.get_logger("transformers").addHandler(caplog.handler)
    resumed.train(resume_from_checkpoint=True)
    assert "keys in the checkpoint" not in caplog.text
    for name, tensor in straight.model.trainable_state_dict().items():
        assert torch.equal(tensor, resumed.model.trainable_state_dict()[name]), name
