"""Local models that translate: encoder-decoders by the rules of their families, and chat models by a prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from adaptkit.data_tools.translate.languages import Language, marian_prefix
from adaptkit.data_tools.translate.spans import LostError
from adaptkit.errors import ModelError
from adaptkit.files.loading import is_out_of_memory, load_stock

PROMPT = (
    "Translate the following text from {source} to {target}. Keep marks such as [[1]], numbers, and names of things "
    "that have no translation exactly as they are. Answer with the translation alone.\n\n{text}"
)
_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_T5 = ("t5", "mt5", "umt5")
_MARGIN = 64
_GROWTH = 3
"""Tokens of a translation for one of its source, at most; thrice covers scripts that a vocabulary spells in bytes."""


class Translator(Protocol):
    """What translates texts.

    Attributes:
        by_sentence: Whether it wants one sentence at a time; else a line.
    """

    by_sentence: bool

    def translate(self, texts: Sequence[str]) -> Sequence[str | LostError]:
        """The translation of each text, or why there is none."""


@dataclass(frozen=True)
class GenerationOptions:
    """How translations are generated.

    Attributes:
        batch_size: Texts at a time, at most.
        max_new_tokens: Of one translation.
        num_beams: 1 takes the likeliest token at each step.
        device: Where to; a GPU if there is one where not given.
        dtype: Of the weights; on a CPU float32, else the checkpoint's where not given.
    """

    batch_size: int = 16
    max_new_tokens: int = 1024
    num_beams: int = 1
    device: str | None = None
    dtype: str | None = None


def load_translator(path: str, source: Language, target: Language, options: GenerationOptions) -> Translator:
    """Load a model that translates, told by its configuration.

    Args:
        path: Folder or hub id of a Marian, M2M100, NLLB, mBART or T5 model, or of a decoder with a chat template.
        source: Language of the texts.
        target: Language of the translations.
        options: How translations are generated.

    Raises:
        ModelError: It cannot be loaded, or is of no such kind.
        DataError: It does not know a language.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    advice = "Name the folder or hub id of a translation or chat model."
    config = load_stock(AutoConfig, path, advice=advice)
    tokenizer = load_stock(AutoTokenizer, path, advice=advice)
    if not config.is_encoder_decoder and tokenizer.chat_template is None:
        raise ModelError(
            f"{path} is a {config.model_type} decoder without a chat template, which cannot be asked to translate. "
            "Name an instruction-tuned model, or a Marian, M2M100, NLLB, mBART or T5 model."
        )
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = options.dtype or ("float32" if device == "cpu" else "auto")
    loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = load_stock(loader, path, advice=advice, dtype=dtype, use_safetensors=True).to(device).eval()
    kind = _seq2seq if config.is_encoder_decoder else _chat
    return kind(model, tokenizer, source, target, options)


def _seq2seq(
    model: Any, tokenizer: Any, source: Language, target: Language, options: GenerationOptions
) -> GeneratingTranslator:
    family, prefix, forced = model.config.model_type, "", None
    if family == "marian":
        _check_direction(tokenizer, source, target)
        prefix = marian_prefix(target, tokenizer.supported_language_codes)
    elif family in ("m2m_100", "mbart"):
        tokenizer.src_lang = _name_of(tokenizer, source).strip("_")
        forced = tokenizer.convert_tokens_to_ids(_name_of(tokenizer, target))
    elif family in _T5:
        tag = f"<2{target.code}>"
        known = tokenizer.convert_tokens_to_ids(tag) != tokenizer.unk_token_id
        prefix = f"{tag} " if known else f"translate {source.name} to {target.name}: "
    else:
        known_families = "marian, m2m_100 (M2M100 and NLLB), mbart, t5, mt5, umt5"
        raise ModelError(f"no rule to translate with a model of the family {family!r}. Known: {known_families}.")
    more = {} if forced is None else {"forced_bos_token_id": forced}
    return GeneratingTranslator(model, tokenizer, options, lambda text: prefix + text, more, by_sentence=True)


def _check_direction(tokenizer: Any, source: Language, target: Language) -> None:
    """A Marian model that says its languages must have these."""
    for what, language in (("source", source), ("target", target)):
        said = getattr(tokenizer, f"{what}_lang", None)
        if isinstance(said, str) and len(said) in (2, 3) and said not in (language.code, *language.marian):
            raise ModelError(f"the model's {what} language is {said!r}, not {language.code!r} ({language.name}).")


def _name_of(tokenizer: Any, language: Language) -> str:
    """What a vocabulary with a token for each language calls one."""
    for name in (language.flores, language.mbart, f"__{language.code}__"):
        if name and tokenizer.convert_tokens_to_ids(name) not in (None, tokenizer.unk_token_id):
            return name
    raise ModelError(f"the model has no token for {language.name} ({language.flores}, __{language.code}__).")


def _chat(
    model: Any, tokenizer: Any, source: Language, target: Language, options: GenerationOptions
) -> GeneratingTranslator:
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    settings = model.generation_config  # those of sampling mean nothing here
    settings.temperature = settings.top_p = settings.top_k = None

    def ask(text: str) -> str:
        content = PROMPT.format(source=source.name, target=target.name, text=text)
        messages = [{"role": "user", "content": content}]
        asked = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return str(asked)

    return GeneratingTranslator(model, tokenizer, options, ask, {}, by_sentence=False)


@dataclass
class GeneratingTranslator:
    """Translates with a model of transformers, texts of like length together.

    Attributes:
        model: Encoder-decoder, or decoder.
        tokenizer: Its tokenizer.
        options: How translations are generated.
        prompt: What the model is given of a text.
        generation: Further arguments of `generate`.
        by_sentence: Whether it wants one sentence at a time.
    """

    model: Any
    tokenizer: Any
    options: GenerationOptions
    prompt: Callable[[str], str]
    generation: dict[str, Any] = field(default_factory=dict)
    by_sentence: bool = True

    def translate(self, texts: Sequence[str]) -> list[str | LostError]:
        """The translation of each text, or why there is none."""
        ids = [self._encode(text) for text in texts]
        results: list[str | LostError] = [LostError("too long for the model")] * len(texts)
        limit = self._max_positions()
        order = sorted((i for i in range(len(texts)) if len(ids[i]) <= limit), key=lambda i: -len(ids[i]))
        for start in range(0, len(order), self.options.batch_size):
            chosen = order[start : start + self.options.batch_size]
            for index, result in zip(chosen, self._generate([ids[i] for i in chosen])):
                results[index] = result
        return results

    def _encode(self, text: str) -> list[int]:
        is_chat = not self.model.config.is_encoder_decoder  # whose template has its special tokens
        return list(self.tokenizer(self.prompt(text), add_special_tokens=not is_chat)["input_ids"])

    def _max_positions(self) -> int:
        config = self.model.config.get_text_config()
        known = getattr(config, "max_position_embeddings", None)
        return known if isinstance(known, int) and known > 0 else 1 << 20

    def _generate(self, ids: Sequence[list[int]]) -> list[str | LostError]:
        """One batch; of one that does not fit into memory each half by itself."""
        try:
            return self._generate_once(ids)
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(ids) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(ids) // 2
        return [*self._generate(ids[:half]), *self._generate(ids[half:])]

    def _generate_once(self, ids: Sequence[list[int]]) -> list[str | LostError]:
        inputs = self.tokenizer.pad({"input_ids": list(ids)}, return_tensors="pt").to(self.model.device)
        longest = inputs["input_ids"].shape[1]
        is_chat = not self.model.config.is_encoder_decoder
        room = self._max_positions() - (longest if is_chat else 1)
        with torch.inference_mode():
            output = self.model.generate(
                **inputs,
                do_sample=False,
                num_beams=self.options.num_beams,
                forced_eos_token_id=None,  # else what is cut off ends as if it were complete
                max_new_tokens=max(1, min(self.options.max_new_tokens, _GROWTH * longest + _MARGIN, room)),
                **self.generation,
            )
        return [self._decode(row[longest if is_chat else 1 :].tolist()) for row in output]

    def _decode(self, ids: list[int]) -> str | LostError:
        ends = self.model.generation_config.eos_token_id
        if not {*([ends] if isinstance(ends, int) else ends or [])} & set(ids):
            return LostError("cut off at the most tokens (max_new_tokens)")
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return _THOUGHT.sub("", text).strip()


def describe_model(path: str) -> str:
    """What identifies a model in a record: its folder as an absolute path, or its id."""
    return str(Path(path).resolve()) if Path(path).exists() else path
