"""Methods that transformers' users call on models never change the frozen base or an encoder."""

import copy
from itertools import chain

import pytest
import torch
from peft import LoraConfig
from torch import nn

import adaptkit
from adaptkit.errors import ModelError
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from tests.unit.model.conftest import build

ROWS = 259


def frozen_tensors(model):
    modules = (model.base, *model.source_encoders.values())
    named = chain.from_iterable(chain(m.named_parameters(), m.named_buffers()) for m in modules)
    return [(name, tensor, tensor.detach().clone(), tensor.requires_grad) for name, tensor in named]


def assert_untouched(model, before, config):
    after = frozen_tensors(model)
    for (name, tensor, value, gradient), (_, now, now_value, now_gradient) in zip(before, after, strict=True):
        assert now is tensor, name
        assert now_gradient == gradient, name
        assert torch.equal(now_value, value), name
    assert model.base.config.to_dict() == config


CALLS = {
    "resize_token_embeddings": (ROWS + 3,),
    "resize_position_embeddings": (99,),
    "set_input_embeddings": (nn.Embedding(4, 32),),
    "set_output_embeddings": (nn.Linear(32, 4),),
    "set_decoder": (nn.Identity(),),
    "set_encoder": (nn.Identity(),),
    "add_adapter": (LoraConfig(target_modules=["q_proj"]),),
    "load_adapter": ("org/name",),
    "enable_peft_hotswap": (),
    "dequantize": (),
    "save_distributed_checkpoint": (None, "folder"),
    "to_empty": (),
}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def shared(request):
    return build(request.param, replace_ends=False)[1]


@pytest.mark.parametrize("method", CALLS)
def test_what_has_no_meaning_is_refused_and_changes_nothing(shared, method):
    before, config = frozen_tensors(shared), shared.base.config.to_dict()
    own = list(shared.trainable_state_dict())
    with pytest.raises(ModelError, match=method):
        getattr(shared, method)(*CALLS[method])
    assert_untouched(shared, before, config)
    assert list(shared.trainable_state_dict()) == own


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.tie_weights(),
        lambda model: model.init_weights(),
        lambda model: model.initialize_weights(),
        lambda model: model.post_init(),
        lambda model: model.requires_grad_(True),
        lambda model: model.resize_token_embeddings(),
        lambda model: (model.enable_input_require_grads(), model.disable_input_require_grads()),
        lambda model: model.set_attn_implementation("eager"),
        lambda model: model.float(),
        lambda model: model.load_state_dict(model.state_dict()),
        lambda model: model.load_state_dict(dict(model.trainable_state_dict()), strict=False),
    ],
)
def test_what_has_a_meaning_is_kept_to_the_workflow(shared, call):
    before, config = frozen_tensors(shared), shared.base.config.to_dict()
    call(shared)
    assert_untouched(shared, before, config)
    assert {name for name, p in shared.named_parameters() if p.requires_grad} == set(shared.trainable_state_dict())


def test_frozen_tensors_are_not_loaded_over(shared):
    state = {name: value.clone() for name, value in shared.state_dict().items()}
    frozen = next(name for name in state if (name.startswith("language_model") and "layers" in name) or ".h." in name)
    state[frozen] += 1
    before, config = frozen_tensors(shared), shared.base.config.to_dict()
    with pytest.raises(ModelError, match=frozen):
        shared.load_state_dict(state)
    assert_untouched(shared, before, config)


def test_casts_by_any_method_are_the_composites_own(shared):
    model = build("llama")[1]
    for method, dtype in (("half", torch.float16), ("bfloat16", torch.bfloat16), ("double", torch.float64)):
        getattr(model, method)()
        assert {model.base.dtype, model.dtype} == {dtype}
    model.type(torch.float32)
    assert model.base.dtype == torch.float32


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_own_ends_are_resized_and_come_back(family, tmp_path):
    base, model = build(family)
    before, config = frozen_tensors(model), copy.deepcopy(base.config.to_dict())
    old = model.get_input_embeddings().weight.detach().clone()
    assert model.resize_token_embeddings(ROWS + 3, pad_to_multiple_of=8) is model.get_input_embeddings()
    assert_untouched(model, before, config)
    assert model.get_input_embeddings().weight.shape[0] == model.get_output_embeddings().weight.shape[0] == 264
    assert torch.equal(model.get_input_embeddings().weight[:ROWS], old)
    assert all(p.requires_grad for p in (model.get_input_embeddings().weight, model.get_output_embeddings().weight))
    inputs = {"input_ids": torch.tensor([[3, 263, 5]])}
    with torch.no_grad():
        expected = model(**inputs).logits
        model.save_pretrained(tmp_path)
        again = adaptkit.load(tmp_path, base=base)
        assert torch.equal(again(**inputs).logits, expected)
    assert model(**inputs, labels=inputs["input_ids"]).loss.requires_grad


def test_a_placeholder_does_not_become_a_token():
    image = {"encoder": tiny_clip_vision(), "projector": "linear"}
    model = adaptkit.adapt(tiny_decoder("llama"), {"image": image}, replace_ends=True)
    with pytest.raises(ModelError, match=r"id 259 stands for 'image'.*placeholder_id of 262"):
        model.resize_token_embeddings(ROWS + 3)
    assert model.get_input_embeddings().weight.shape[0] == ROWS
