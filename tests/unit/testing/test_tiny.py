"""The tiny models are what tests take them for."""

from __future__ import annotations

import pytest
import torch

from adaptkit.errors import ModelError
from adaptkit.testing import FAMILIES, tiny_clip_vision, tiny_decoder, tiny_tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_decoders_are_small_seeded_float32_and_leave_the_random_state_alone(family: str) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    decoder, twin, other = tiny_decoder(family), tiny_decoder(family), tiny_decoder(family, seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert sum(parameter.numel() for parameter in decoder.parameters()) < 200_000
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.float32}
    assert not decoder.training
    input_ids = torch.arange(12)[None]
    logits = [model(input_ids).logits for model in (decoder, twin, other)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    assert logits[0].shape == (1, 12, len(tiny_tokenizer()))


def test_decoders_take_other_sizes_and_refuse_other_families() -> None:
    assert tiny_decoder("gpt2", num_hidden_layers=2, vocab_size=50).config.num_hidden_layers == 2
    assert tiny_decoder("gpt2").config.tie_word_embeddings
    assert tiny_decoder("gpt_neo", num_hidden_layers=5).config.num_hidden_layers == 5
    with pytest.raises(ModelError, match="Did you mean 'llama'"):
        tiny_decoder("lama")


def test_the_tokenizer_loses_nothing_and_has_a_chat_template() -> None:
    tokenizer = tiny_tokenizer()
    messages = [{"role": "user", "content": "  Ünïcode 你好\n\t<x>"}, {"role": "assistant", "content": "🙂"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.endswith("🙂<|im_end|>\n<|im_start|>assistant\n")
    input_ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(input_ids) == text
    assert input_ids.count(tokenizer.eos_token_id) == 2
    assert tokenizer.pad_token_id == 0


def test_the_vision_model_is_seeded() -> None:
    pixel_values = torch.rand(1, 3, 32, 32)
    models = [tiny_clip_vision(), tiny_clip_vision(), tiny_clip_vision(seed=1)]
    found = [model(pixel_values).last_hidden_state for model in models]
    assert found[0].shape == (1, 17, 32)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
