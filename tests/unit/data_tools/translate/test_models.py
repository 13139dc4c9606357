"""Tiny models of every family that translates, with random weights: languages, batches, ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from adaptkit.data_tools.translate import GenerationOptions, LostError, find_language, load_translator
from adaptkit.data_tools.translate.models import GeneratingTranslator
from adaptkit.errors import AdaptkitError
from adaptkit.world import model_path

SENTENCES = ["the cat sat here .", "where is the dog ?", "two red circles and one large blue square", "yes"]
EN, ZH, DE = find_language("en"), find_language("zh"), find_language("de")
SIZES = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "d_model": 16,
         "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64}  # fmt: skip


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentencepiece model of the sentences."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "text.txt").write_text("\n".join(SENTENCES * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "spm"), vocab_size=60, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False,
    )  # fmt: skip
    return folder / "spm.model"


def vocabulary(pieces: Path, *specials: str) -> dict[str, int]:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    words = ["<s>", "<pad>", "</s>", "<unk>", *specials]
    words += [model.id_to_piece(i) for i in range(model.get_piece_size())]
    return {word: i for i, word in enumerate(dict.fromkeys(words))}


def save(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def marian(folder: Path, pieces: Path, *languages: str, **said: str) -> Path:
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocabulary(pieces, *languages)))
    tokenizer = MarianTokenizer(str(pieces), str(pieces), str(folder / "vocab.json"), **said)
    config = MarianConfig(**SIZES, vocab_size=len(tokenizer), pad_token_id=1, eos_token_id=2,
                          decoder_start_token_id=1, forced_eos_token_id=2)  # fmt: skip
    return save(MarianMTModel(config), tokenizer, folder)


def m2m100(folder: Path, pieces: Path) -> Path:
    from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocabulary(pieces)))
    tokenizer = M2M100Tokenizer(str(folder / "vocab.json"), str(pieces))
    size = max(tokenizer.get_lang_id(code) for code in ("en", "de", "zh", "zu")) + 9
    config = M2M100Config(**SIZES, vocab_size=size, pad_token_id=1, eos_token_id=2,
                          decoder_start_token_id=2, forced_eos_token_id=2)  # fmt: skip
    return save(M2M100ForConditionalGeneration(config), tokenizer, folder)


def nllb(folder: Path) -> Path:
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    words = ["<s>", "<pad>", "</s>", "<unk>", "\N{LOWER ONE EIGHTH BLOCK}", *"abcdefghijklmnopqrstuvwxyz.?"]
    tokenizer = NllbTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    config = M2M100Config(**SIZES, vocab_size=len(tokenizer), pad_token_id=1, eos_token_id=2,
                          decoder_start_token_id=2, forced_eos_token_id=2)  # fmt: skip
    return save(M2M100ForConditionalGeneration(config), tokenizer, folder)


def t5(folder: Path, *tags: str) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = dict.fromkeys(["<pad>", "</s>", "<unk>", *tags, *" ".join(SENTENCES).split()])
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    config = T5Config(vocab_size=len(words), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
                      decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)  # fmt: skip
    return save(T5ForConditionalGeneration(config), tokenizer, folder)


def load(folder: Path, target: Any = ZH, **options: Any) -> GeneratingTranslator:
    torch.manual_seed(0)
    options = {"batch_size": 2, "max_new_tokens": 8, "device": "cpu", **options}
    translator = load_translator(str(folder), EN, target, GenerationOptions(**options))
    assert isinstance(translator, GeneratingTranslator)
    return translator


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_marian(tmp_path: Path, pieces: Path) -> None:
    translator = load(marian(tmp_path / "one", pieces))
    assert translator.by_sentence
    assert translator.prompt("the cat") == "the cat"
    results = translator.translate([*SENTENCES, "cat " * 100])
    assert not [result for result in results[:4] if not isinstance(result, str) and "cut off" not in str(result)]
    assert "too long" in str(results[4])
    translator = load(marian(tmp_path / "many", pieces, ">>cmn_Hans<<", ">>deu<<"))
    assert translator.prompt("the cat") == ">>cmn_Hans<< the cat"
    assert translator.tokenizer.convert_tokens_to_ids(">>cmn_Hans<<") in translator._encode("the cat")
    with pytest.raises(AdaptkitError, match="Japanese"):
        load(tmp_path / "many", find_language("ja"))
    with pytest.raises(AdaptkitError, match="'fr', not 'zh'"):
        load(marian(tmp_path / "said", pieces, source_lang="en", target_lang="fr"))


def test_m2m100_begins_with_the_target_language(tmp_path: Path, pieces: Path) -> None:
    translator = load(m2m100(tmp_path / "m2m", pieces), DE)
    assert translator.generation == {"forced_bos_token_id": translator.tokenizer.get_lang_id("de")}
    assert translator._encode("the cat")[0] == translator.tokenizer.get_lang_id("en")
    assert len(translator.translate(SENTENCES)) == 4


def test_nllb_begins_with_the_target_language(tmp_path: Path) -> None:
    translator = load(nllb(tmp_path / "nllb"))
    assert translator.generation == {"forced_bos_token_id": translator.tokenizer.convert_tokens_to_ids("zho_Hans")}
    assert translator._encode("the cat")[0] == translator.tokenizer.convert_tokens_to_ids("eng_Latn")
    assert len(translator.translate(SENTENCES)) == 4


def test_t5_is_asked_in_words_or_by_a_tag(tmp_path: Path) -> None:
    assert load(t5(tmp_path / "t5")).prompt("the cat") == "translate English to Chinese: the cat"
    assert load(t5(tmp_path / "tagged", "<2zh>")).prompt("the cat") == "<2zh> the cat"


def test_a_chat_model_is_asked(tmp_path: Path) -> None:
    translator = load(model_path("decoder"), max_new_tokens=4)
    assert not translator.by_sentence
    assert "from English to Chinese" in translator.prompt("the cat")
    alone = [translator.translate([text])[0] for text in SENTENCES[:2]]
    together = translator.translate(SENTENCES[:2])
    assert [str(result) for result in alone] == [str(result) for result in together]  # left padding changes nothing


def test_thoughts_and_unfinished_answers() -> None:
    translator = load(model_path("decoder"))
    end = translator.model.generation_config.eos_token_id
    end = end if isinstance(end, int) else end[0]
    ids = translator.tokenizer("red", add_special_tokens=False)["input_ids"]
    assert translator._decode([*ids, end]) == "red"
    assert isinstance(translator._decode(ids), LostError)


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    translator = load(model_path("decoder"), batch_size=4, max_new_tokens=2)
    sizes = []
    whole = translator.model.generate

    def generate(**arguments: Any) -> Any:
        sizes.append(len(arguments["input_ids"]))
        if sizes[-1] > 1:
            raise RuntimeError("CUDA out of memory")
        return whole(**arguments)

    translator.model.generate = generate
    assert len(translator.translate(SENTENCES)) == 4
    assert sizes == [4, 2, 1, 1, 2, 1, 1]


def test_models_that_cannot_translate(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, BartConfig, BartForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(model_path("decoder"))
    save(BartForConditionalGeneration(BartConfig(**SIZES, vocab_size=len(tokenizer))), tokenizer, tmp_path / "bart")
    with pytest.raises(AdaptkitError, match=r"'bart'.*marian"):
        load(tmp_path / "bart")
    tokenizer.chat_template = None
    save(AutoModelForCausalLM.from_pretrained(model_path("decoder")), tokenizer, tmp_path / "base")
    with pytest.raises(AdaptkitError, match="chat template"):
        load(tmp_path / "base")
    with pytest.raises(AdaptkitError, match="nowhere"):
        load(tmp_path / "nowhere")
