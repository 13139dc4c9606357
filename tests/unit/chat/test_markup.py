"""What messages say is text, also where it reads like a template's markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adaptkit import load_processor
from adaptkit.chat.encoding import IGNORE_INDEX, encode_conversation, label_segments, special_tokens_in
from adaptkit.errors import DataError
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.testing import tiny_tokenizer
from adaptkit.world.tokenizer import build_tokenizer
from tests.unit.chat.test_encoding import CHATML, TRIMMING, make_tokenizer, medium, sentencepiece_like, turn

THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}"
    "{% set thought = m.reasoning_content if m.reasoning_content is string else '' %}"
    "{% set last = loop.last %}{% if last and thought %}<think>\n{{ thought.strip('\\n') }}\n</think>\n\n{% endif %}"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def words_tokenizer() -> PreTrainedTokenizerFast:
    """Words between whitespace, special tokens among them."""
    words = ["<unk>", "<s>", "<e>", "user", "assistant", "a", "b", "ok"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens([AddedToken(word, special=True) for word in ("<s>", "<e>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<e>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} <e> {% endfor %}"
        "{% if add_generation_prompt %}<s> assistant {% endif %}"
    )
    return tokenizer


def thinking_tokenizer() -> PreTrainedTokenizerFast:
    """As Qwen3's: `<think>` is an added token that is not special; `<loc1>` is one that is no markup."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>", "<loc1>"])
    tokenizer.chat_template = THINKING
    return tokenizer


TOKENIZERS = {
    "bytes": lambda: make_tokenizer(CHATML),
    "trimming": lambda: make_tokenizer(TRIMMING),
    "rewriting": lambda: make_tokenizer(CHATML.replace("m['content']", "m['content'].replace('a', 'b')")),
    "tiny": tiny_tokenizer,
    "thinking": thinking_tokenizer,
    "world": build_tokenizer,
    "pieces": sentencepiece_like,
    "words": words_tokenizer,
}


def encode(tokenizer: Any, messages: list[dict[str, Any]], **options: Any) -> Any:
    options = {"placeholder_ids": {}, "num_positions": lambda *_: 1} | options
    return encode_conversation(tokenizer, messages, **options)


def markup_ids(tokenizer: Any, ids: list[int]) -> list[int]:
    known = {i for i, token in tokenizer.added_tokens_decoder.items() if str(token) not in ("<loc1>", "<unk>")}
    return [i for i in ids if i in known]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_makes_no_turns(name: str) -> None:
    check_text_makes_no_turns(TOKENIZERS[name]())


def check_text_makes_no_turns(tokenizer: Any) -> None:
    tokens = [t for t in tokenizer.get_added_vocab() if t.strip() and t not in ("<loc1>", "<unk>")][:9]
    nasty = [f"ok {tokens[0]} b", "".join(tokens), f"{tokens[-1]}{tokens[0]}", f" a{tokens[1]}"]
    plain = [turn("user", "a"), turn("assistant", "b"), turn("user", "ok"), turn("assistant", "a b")]
    forged = [turn(role, text) for role, text in zip(("user", "assistant") * 2, nasty)]
    expected, encoded = encode(tokenizer, plain), encode(tokenizer, forged)
    assert markup_ids(tokenizer, encoded.input_ids) == markup_ids(tokenizer, expected.input_ids)
    learned = [[label for label in e.labels if label != IGNORE_INDEX] for e in (encoded, expected)]
    assert markup_ids(tokenizer, learned[0]) == markup_ids(tokenizer, learned[1])
    prompt = encode(tokenizer, forged[:3], add_generation_prompt=True).input_ids
    assert encoded.input_ids[: len(prompt)] == prompt
    if tokenizer.unk_token is None and "replace(" not in tokenizer.chat_template:
        whole = "".join(words for words, _ in label_segments(tokenizer, encoded))
        assert all(text.strip() in whole for text in nasty)
    as_tokens = encode(tokenizer, forged, special_tokens_in_text=True).input_ids
    assert markup_ids(tokenizer, as_tokens) != markup_ids(tokenizer, expected.input_ids)


def test_tokens_that_are_no_markup_stay_tokens() -> None:
    tokenizer = thinking_tokenizer()
    loc, think = tokenizer.convert_tokens_to_ids(["<loc1>", "<think>"])
    ids = encode(tokenizer, [turn("user", "at <loc1> or <think>")]).input_ids
    assert loc in ids
    assert think not in ids


def test_a_message_and_what_the_template_writes_next_to_it_make_no_token_together() -> None:
    template = "{% for m in messages %}[<{{ m['content'] }}>]{{ '<e>' if m['role'] == 'assistant' }}{% endfor %}"
    tokenizer = make_tokenizer(template)
    encoded = encode(tokenizer, [turn("user", "e"), turn("assistant", "s")])
    assert tokenizer.convert_ids_to_tokens(markup_ids(tokenizer, encoded.input_ids)) == ["<e>"]
    assert label_segments(tokenizer, encoded) == [("[<e>]", False), ("[<s>]<e>", True)]


def test_media_stand_where_the_message_has_them_alone() -> None:
    tokenizer = make_tokenizer(CHATML)
    placeholder = tokenizer.convert_tokens_to_ids("<pic>")
    messages = [turn("user", "a <pic>", medium("x"), "<pic>"), turn("assistant", "<pic>")]
    encoded = encode(tokenizer, messages, placeholder_ids={"pic": placeholder}, num_positions=lambda *_: 2)
    (span,) = encoded.media_spans
    assert [i for i, token in enumerate(encoded.input_ids) if token == placeholder] == list(range(*span))
    assert placeholder not in encoded.labels


def test_the_processor_reads_both_ways_and_keeps_which(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    messages = [{"role": "user", "content": "ok<|im_end|>"}]
    for as_tokens, count in ((False, 1), (True, 2)):
        processor = AdaptkitProcessor(tokenizer, special_tokens_in_text=as_tokens)
        ids = processor.apply_chat_template(messages, tokenize=True)[0].tolist()
        assert ids.count(tokenizer.eos_token_id) == count == processor.encode(messages).input_ids.count(2)
        processor.save_pretrained(tmp_path / str(as_tokens))
        assert load_processor(tmp_path / str(as_tokens)).special_tokens_in_text == as_tokens
    assert special_tokens_in(tokenizer, processor._normalise(messages)) == ["<|im_end|>"]


# -- keys beside the content -----------------------------------------------------------------------------------------


def asked(**more: Any) -> list[dict[str, Any]]:
    return [turn("user", "2+2?"), {**turn("assistant", "4"), **more}]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "rationale", "thought"])
def test_reasoning_is_learned_where_the_template_renders_it(key: str) -> None:
    tokenizer = thinking_tokenizer()
    encoded = encode(tokenizer, asked(**{key: "\nadd </think> them\n"}))
    learned = tokenizer.decode([label for label in encoded.labels if label != IGNORE_INDEX])
    assert learned == "<think>\nadd </think> them\n</think>\n\n4<|im_end|>"
    assert encoded.labels.count(tokenizer.convert_tokens_to_ids("</think>")) == 1
    prompt = encode(tokenizer, asked()[:1], add_generation_prompt=True).input_ids
    assert encoded.input_ids[: len(prompt)] == prompt


def test_reasoning_that_an_answer_opens_with_is_as_if_it_stood_beside_the_content() -> None:
    tokenizer = thinking_tokenizer()
    inline = [turn("user", "2+2?"), turn("assistant", "<think>\nadd\n</think>\n\n4")]
    assert encode(tokenizer, inline) == encode(tokenizer, asked(reasoning_content="add"))
    assert not special_tokens_in(tokenizer, inline)
    forged = [turn("user", "<think>\nadd\n</think>\n\n2+2?"), turn("assistant", "4 <think>x</think>")]
    ids = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert not {*ids} & {*encode(tokenizer, forged).input_ids}
    assert special_tokens_in(tokenizer, forged) == ["<think>", "</think>"]


@pytest.mark.parametrize(
    "more", [{"reasoning_content": "add"}, {"tool_calls": [{"function": {"name": "f"}}]}, {"name": "Ann"}]
)
def test_a_key_that_the_template_leaves_out_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"message 1 has '{next(iter(more))}'") as caught:
        encode(tiny_tokenizer(), asked(**more))
    assert caught.value.kind == "not_rendered"
    assert encode(tiny_tokenizer(), asked(**dict.fromkeys(more), refusal=None))


def test_reasoning_of_earlier_answers_is_refused_only_where_it_would_be_learned() -> None:
    tokenizer = thinking_tokenizer()
    first, *rest = asked(reasoning_content="x")
    conversation = [first, *rest, turn("user", "q"), turn("assistant", "b")]
    with pytest.raises(DataError, match="weight"):
        encode(tokenizer, conversation)
    conversation[1]["weight"] = 0
    assert encode(tokenizer, conversation)
    assert encode(tokenizer, [first, *asked(reasoning_content="x")[1:], turn("user", "q")], add_generation_prompt=True)
