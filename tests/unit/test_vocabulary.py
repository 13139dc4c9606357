"""Words that a tokenizer does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adaptkit.errors import DataError
from adaptkit.interfaces import Sample
from adaptkit.paths import resolve_model_path
from adaptkit.vocabulary import describe_unknown_words, unknown_words

MESSAGES: Any = [
    {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "what color is it ?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "a crimson thing , crimson"}]},
]


def said(text: str) -> Any:
    return [{"role": "user", "content": [{"type": "text", "text": text}]}]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(resolve_model_path("world:decoder"))


def test_they_are_found_in_any_turn_and_once(tokenizer: Any) -> None:
    assert unknown_words(tokenizer, MESSAGES) == ["crimson", "thing"]
    assert unknown_words(tokenizer, MESSAGES[:1]) == []
    assert unknown_words(tokenizer, said("velociraptor ?")) == ["velociraptor"]


def test_the_unknown_token_itself_stands_there_on_purpose(tokenizer: Any) -> None:
    assert unknown_words(tokenizer, said(f"a {tokenizer.unk_token} circle")) == []


@pytest.mark.parametrize("name", ["llama3", "qwen2"])
def test_bytes_spell_every_word(shared: Path, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(next((shared / "data" / "tokenizers").glob(f"{name}*")))
    assert unknown_words(tokenizer, said("ein Dünnbrettbohrer ☃ 𓀀")) == []


def test_parts_of_words_count() -> None:
    words = models.WordPiece({"[UNK]": 0, "good": 1, "##ness": 2}, unk_token="[UNK]")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
    assert unknown_words(wrapped, said("goodness good bad goodly")) == ["bad", "goodly"]


class Source:
    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Sample:
        if index == 0:
            raise DataError("this one is bad")
        text = "a circle" if index < 5 else f"w{index} x1 x2 x3 x4 x5"
        return Sample("x", said(text))


def test_a_dataset_is_described_by_its_first_samples(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    warning = describe_unknown_words(tokenizer, "mine", Source())
    assert warning is not None
    assert warning.startswith("data.mine: 2 of the first 7 conversations have words")
    assert f"learned as {tokenizer.unk_token}: 'w5', 'x1', 'x2', 'x3', 'x4' and 2 more." in warning
    monkeypatch.setattr("adaptkit.vocabulary.NUM_SAMPLES", 5)
    assert describe_unknown_words(tokenizer, "mine", Source()) is None
