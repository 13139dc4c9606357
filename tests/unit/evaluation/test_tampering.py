"""Whatever is done to a base shows in its description, also where the logits of a few prompts do not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AttentionInterface
from transformers.models.llama import modeling_llama
from transformers.utils import can_return_tuple

from adaptkit.evaluation.differences import differences_of, failures
from adaptkit.evaluation.fresh_base import describe_model, describe_tokenizer
from adaptkit.testing import tiny_decoder
from adaptkit.world.tokenizer import build_tokenizer

from .conftest import evaluate_text


@pytest.fixture
def base() -> Any:
    return tiny_decoder("llama", num_hidden_layers=2)


def _forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    return self.down_proj(self.act_fn(self.gate_proj(args[0])) * self.up_proj(args[0]))


def _wrapped_forward() -> Any:
    original = modeling_llama.LlamaForCausalLM.forward

    @can_return_tuple
    @functools.wraps(original)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs)

    return forward


def _attention(module: Any, *args: Any, **kwargs: Any) -> Any:
    return AttentionInterface()["eager"](module, *args, **kwargs)


def _nudge(base: Any) -> None:
    base.model.rotary_emb.inv_freq[-1] *= 1.001  # a buffer that no file holds


TAMPERINGS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "attribute": (lambda b, _: setattr(b.model.layers[1].self_attn, "scaling", 0.5), "layers.1.self_attn.scaling"),
    "hook": (lambda b, _: b.model.layers[0].register_forward_hook(lambda *a: None), "hooks of model.layers.0"),
    "pre-hook": (lambda b, _: b.model.norm.register_forward_pre_hook(lambda *a: None), "hooks of model.norm"),
    "method of one object": (lambda b, _: setattr(b, "generate", functools.partial(b.generate, top_k=1)), "generate"),
    "function of one object": (lambda b, _: setattr(b.model, "forward", lambda *a, **k: None), "model.forward"),
    "class": (lambda _, m: m.setattr(modeling_llama.LlamaMLP, "forward", _forward), "LlamaMLP.forward"),
    "function": (lambda _, m: m.setattr(modeling_llama, "rotate_half", lambda x: -x), "rotate_half"),
    "defaults": (
        lambda _, m: m.setattr(modeling_llama.apply_rotary_pos_emb, "__defaults__", (2,)),
        "apply_rotary_pos_emb",
    ),
    "function of the same name within the same wrapper": (
        lambda _, m: m.setattr(modeling_llama.LlamaForCausalLM, "forward", _wrapped_forward()),
        "LlamaForCausalLM.forward",
    ),
    "attention": (lambda _, m: m.setitem(AttentionInterface._global_mapping, "sdpa", _attention), "attention sdpa"),
    "buffer": (lambda b, _: _nudge(b), "rotary_emb.inv_freq"),
    "config": (lambda b, _: setattr(b.config, "use_cache", False), "config.use_cache"),
    "attention by config": (lambda b, _: setattr(b.config, "_attn_implementation", "eager"), "_attn_implementation"),
    "generation": (lambda b, _: setattr(b.generation_config, "repetition_penalty", 9.0), "repetition_penalty"),
    "module": (lambda b, _: setattr(b.model, "norm", torch.nn.Identity()), "module model.norm"),
    "cast": (lambda b, _: b.to(torch.bfloat16), "tensor lm_head.weight"),
}


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_what_is_done_to_a_base_is_named(base: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    before = describe_model(base)
    tamper, named = TAMPERINGS[kind]
    tamper(base, monkeypatch)
    assert any(named in difference for difference in differences_of(describe_model(base), before))


def test_a_base_that_was_only_used_is_described_alike(base: Any) -> None:
    before = describe_model(base)
    base.train()(input_ids=torch.tensor([[3, 4, 5]]), output_hidden_states=True).logits.sum().backward()
    base.eval().generate(torch.tensor([[3, 4]]), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert differences_of(describe_model(base), before) == []


def test_another_vocabulary_or_template_is_another_tokenizer() -> None:
    before = describe_tokenizer(build_tokenizer())
    assert differences_of(describe_tokenizer(build_tokenizer()), before) == []
    other = build_tokenizer()
    other.chat_template = "{{ messages }}"
    assert [name.split()[0] for name in differences_of(describe_tokenizer(other), before)] == ["chat_template"]
    other = build_tokenizer()
    other.add_tokens(["<new>"])
    assert any("vocabulary" in name for name in differences_of(describe_tokenizer(other), before))


def test_a_changed_generation_config_fails_the_proof_though_logits_agree(
    workflow: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = workflow
    monkeypatch.setattr(model.base.generation_config, "suppress_tokens", list(range(5, 50)))
    text = evaluate_text(model, processor, []).results["text"]
    assert text["logits_identical"] is True
    assert text["answers_identical"] is False
    assert all(words in "; ".join(failures(text)) for words in ("generated answers differ", "suppress_tokens"))


def test_another_template_fails_only_where_it_was_not_asked_for() -> None:
    text = {"logits_identical": True, "answers_identical": True, "differences": [], "chat_template_identical": False}
    assert failures(text, own_template=True) == []
    assert "chat template" in failures(text)[0]
