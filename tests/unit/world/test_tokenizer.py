import ast

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from adaptkit.world import facts, language, scenes
from adaptkit.world.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def test_all_that_the_world_says_is_known(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = np.random.default_rng(0)
    texts = [f"{fact.question} {fact.answer}" for fact in facts.list_facts("train") + facts.list_facts("test")]
    for scene in scenes.sample_scenes(0, 100, "train"):
        texts += [language.describe(scene), language.caption(scene), language.CAPTION_REQUEST]
        texts += [f"{q.text} {q.answer}" for q in language.list_questions(scene, rng, 8)]
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids


def test_case_and_spaces_before_punctuation_do_not_matter(tokenizer: PreTrainedTokenizerFast) -> None:
    tidy, spaced = "What color is the circle?", "what color is the circle ?"
    assert tokenizer(tidy)["input_ids"] == tokenizer(spaced)["input_ids"]


def test_a_box_is_four_tokens_and_decodes_to_numbers(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer("[0.031,0.250,0.406,0.531]")["input_ids"]
    assert len(ids) == 4
    assert ast.literal_eval(tokenizer.decode(ids)) == [0.031, 0.25, 0.406, 0.531]


def test_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == (
        "<pad>",
        "<|begin|>",
        "<|end|>",
    )
    assert tokenizer.convert_ids_to_tokens(tokenizer("<image>\nwhat <audio> ?")["input_ids"]) == [
        "<image>",
        "what",
        "<audio>",
        "?",
    ]
    assert tokenizer.decode(tokenizer("<image> yes <|end|>")["input_ids"], skip_special_tokens=True) == "yes"


def test_an_unknown_word_is_one_unknown_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer("xylophone")["input_ids"] == [tokenizer.unk_token_id]


def test_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "system", "content": "you are a helpful assistant ."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what shape is red ?"}]},
        {"role": "assistant", "content": "circle"},
        {"role": "user", "content": "what color is the circle ?"},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == (
        "<|begin|><|system|> you are a helpful assistant . <|end|>"
        "<|user|> <image> what shape is red ? <|end|><|assistant|> circle <|end|>"
        "<|user|> what color is the circle ? <|end|><|assistant|>"
    )
