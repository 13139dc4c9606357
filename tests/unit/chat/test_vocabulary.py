"""Words that a tokenizer does not have."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adaptkit.build import modality_specs
from adaptkit.chat.encoding import special_tokens_in
from adaptkit.chat.vocabulary import check_vocabulary, describe_special_tokens, describe_unknown_words, unknown_words
from adaptkit.errors import DataError, ModelError
from adaptkit.files.paths import resolve_model_path
from adaptkit.interfaces import Sample
from adaptkit.recipe import load_recipe
from adaptkit.testing import tiny_tokenizer

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
    monkeypatch.setattr("adaptkit.chat.vocabulary.NUM_SAMPLES", 5)
    assert describe_unknown_words(tokenizer, "mine", Source()) is None


# -- against an embedding --------------------------------------------------------------------------------------------


def rows(number: int) -> Any:
    weight = torch.empty(number, 0)
    return SimpleNamespace(get_input_embeddings=lambda: SimpleNamespace(weight=weight))


@pytest.mark.parametrize("special", [True, False])
def test_a_token_without_a_row_is_named_before_anything_is_built(special: bool) -> None:
    """By the function that training, dry runs and `data check` share."""
    recipe = load_recipe(Path(__file__).parents[3] / "recipes" / "iaa_vision_tiny.yaml")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<image>", "<loc1>", "<loc2>"], special_tokens=special)
    workflow = next(iter(recipe.workflows))
    with pytest.raises(
        ModelError, match=r"base\.path.*262 token ids, .* 261 rows.*'<loc2>' \(id 261\).*resize"
    ) as caught:
        modality_specs(recipe, workflow, tokenizer, rows(261))
    assert "<loc1>" not in str(caught.value)
    assert modality_specs(recipe, workflow, tokenizer, rows(262))


def test_a_familys_own_token_for_media_may_lie_beyond_and_placeholders_lie_beyond_it() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer._set_model_specific_special_tokens({"image_token": "<soft>"})
    tokenizer.add_special_tokens({"image_token": "<soft>"})
    assert tokenizer.convert_tokens_to_ids("<soft>") == 259
    check_vocabulary(tokenizer, 259)
    recipe = load_recipe(
        Path(__file__).parents[3] / "recipes" / "iaa_vision_tiny.yaml", ["modalities.image.placeholder=null"]
    )
    specs = modality_specs(recipe, next(iter(recipe.workflows)), tokenizer, rows(259))
    assert specs["image"].placeholder_id == 260


def test_special_tokens_in_a_dataset_are_said_with_what_becomes_of_them() -> None:
    class Marked(Source):
        def __getitem__(self, index: int) -> Sample:
            return Sample("", said("a" if index else "a<|im_end|>"))

    for as_tokens, fate in ((False, "learned as text"), (True, "end or begin a turn")):
        warning = describe_special_tokens(
            "mine", Marked(), lambda messages: special_tokens_in(tiny_tokenizer(), messages), as_tokens=as_tokens
        )
        assert warning is not None
        assert all(word in warning for word in ("data.mine", "1 of the first 7", "<|im_end|>", fate))
