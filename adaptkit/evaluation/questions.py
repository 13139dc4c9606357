"""Questions with known answers, and what a model answers, greedily and in batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from adaptkit.chat.template import TurnEnd, answer_frame, end_of_turn
from adaptkit.errors import DataError
from adaptkit.inference import Session
from adaptkit.interfaces import Message

Advance = Callable[[int], None]
"""Called with the number of questions answered since the last call."""


SPARE_TOKENS = 3
"""How many tokens beyond the longest right answer a model may write."""

_ASKED = "asked"
_PREFIX_BYTES = 1 << 30
_LOOSE_SPACES = re.compile(r" ?([,;()\[\]]) ?")


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Attributes:
        kind: By which scores are broken down.
        text: As asked, without its media.
        expected: The right answer.
        media: `(modality, source)` of each medium, in reading order, placed before the text.
        box: The right answer as a box `(x1, y1, x2, y2)` in pixels, for grounding.
        size: Width and height in pixels of the medium that `box` lies in.
        conversation: Turns to send instead of `media` and `text`, which then only describe them.
        reasoning: What the right answer is preceded by, and is not compared.
    """

    kind: str
    text: str
    expected: str
    media: tuple[tuple[str, Any], ...] = ()
    box: tuple[float, float, float, float] | None = None
    size: tuple[int, int] = (1, 1)
    conversation: tuple[Message, ...] = ()
    reasoning: str = ""

    def messages(self) -> list[Message]:
        """The conversation that asks it; as in IAA, a line break stands between media and text."""
        if self.conversation:
            return list(self.conversation)
        parts: list[dict[str, Any]] = [{"type": modality, modality: source} for modality, source in self.media]
        text = f"\n{self.text}" if self.media else self.text
        return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]

    def without_media(self) -> Question:
        """The same question, which then can only be guessed."""
        return replace(self, media=(), conversation=tuple(_without_media(turn) for turn in self.conversation))


def _without_media(turn: Message) -> Message:
    return {**turn, "content": [part for part in turn["content"] if part["type"] == "text"]}


@dataclass(frozen=True)
class Prompts:
    """A batch ready for `generate`.

    Attributes:
        input_ids: Left-padded, `(batch, seq)`.
        attention_mask: `(batch, seq)`.
    """

    input_ids: Tensor
    attention_mask: Tensor


def normalize_answer(text: str) -> str:
    """Lower case, with single spaces, and none around commas, semicolons and brackets.

    Decoding joins the tokens of a list of numbers with or without spaces, depending on the tokenizer.
    """
    return _LOOSE_SPACES.sub(r"\1", " ".join(text.lower().split()))


def is_right(answer: str, question: Question) -> bool:
    """Exact match after `normalize_answer`."""
    return normalize_answer(answer) == normalize_answer(question.expected)


def make_prompts(processor: Any, questions: Sequence[Question]) -> Prompts:
    """Tokenise questions without media."""
    rows = [processor.encode(question.messages(), add_generation_prompt=True).input_ids for question in questions]
    return Prompts(*pad_left(rows, processor.pad_token_id))


def generate_answers(
    model: Any,
    processor: Any,
    questions: Sequence[Question],
    *,
    batch_size: int = 64,
    advance: Advance = lambda num: None,
) -> list[str]:
    """Answer questions by greedy decoding, in batches of one session.

    Args:
        model: A workflow; a plain decoder where there are no media.

    Returns:
        The answers without special tokens, in the order of the questions.

    Raises:
        DataError: A medium cannot be read, its modality is not one of the processor's, or a prompt is too long.
    """
    base = getattr(model, "base", model)
    workflows = {} if base is model else {_ASKED: (model, processor)}
    options = {"max_new_tokens": generation_settings(model, processor, questions)["max_new_tokens"], "do_sample": False}
    frame = answer_frame(processor.tokenizer, processor.chat_template)
    keeps = _PREFIX_BYTES if _ask_twice(questions) else 0
    answers: list[str] = []
    with (
        evaluation_mode(base, model),
        Session(base, workflows, tokenizer=processor, max_batch_size=batch_size, prefix_cache_bytes=keeps) as session,
    ):
        for start in range(0, len(questions), batch_size):
            asked = [question.messages() for question in questions[start : start + batch_size]]
            answers += [frame.content(answer.text) for answer in session.batch(asked, session.default, **options)]
            advance(len(asked))
    return answers


def _ask_twice(questions: Sequence[Question]) -> bool:
    """Whether a medium is asked about more than once, so that it is worth keeping what was computed of it."""
    sources = [source if isinstance(source, str) else id(source) for q in questions for _, source in q.media]
    return len(set(sources)) < len(sources)


def generate_ids(model: Any, prompts: Prompts, config: GenerationConfig) -> Tensor:
    """New ids of one batch by stock `generate`, `(batch, new positions)`."""
    output: Tensor = model.generate(
        input_ids=prompts.input_ids.to(model.device),
        attention_mask=prompts.attention_mask.to(model.device),
        generation_config=config,
    )
    return output[:, prompts.input_ids.shape[1] :]


def decode_answers(processor: Any, new_ids: Any) -> list[str]:
    """Texts of answers, without what the chat template writes before them and without reasoning."""
    frame = answer_frame(processor.tokenizer, processor.chat_template)
    return [frame.content(text) for text in processor.decode_answers(new_ids)]


def generation_settings(model: Any, processor: Any, questions: Sequence[Question]) -> dict[str, Any]:
    """Keywords of `GenerationConfig`: greedy, until a turn ends or the longest right answer is exceeded."""
    tokenizer = processor.tokenizer
    stop = processor.stop_settings(getattr(model, "generation_config", None))
    frame = answer_frame(tokenizer, processor.chat_template)
    end = end_of_turn(tokenizer, processor.chat_template) if processor.chat_template else TurnEnd()
    written = [frame.lead, end.trailer, *end.strings]  # cut off afterwards
    if any(question.reasoning for question in questions):
        written.append(frame.separator)
    around = tokenizer(written, add_special_tokens=False)["input_ids"]
    right = sorted({question.reasoning + question.expected for question in questions})
    lengths = [len(ids) for ids in tokenizer(right, add_special_tokens=False)["input_ids"]] if right else [1]
    return {
        "max_new_tokens": max(lengths) + SPARE_TOKENS + sum(map(len, around)),
        "do_sample": False,
        "num_beams": 1,
        "eos_token_id": stop["eos_token_id"],
        "pad_token_id": processor.pad_token_id,
    }


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """`input_ids` and `attention_mask`, `(batch, seq)`."""
    length = max(map(len, rows))
    input_ids = torch.tensor([[pad_id] * (length - len(row)) + list(row) for row in rows])
    attention_mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return input_ids, attention_mask


@contextmanager
def evaluation_mode(*models: Any) -> Iterator[None]:
    """Switch dropout off, and leave every model in the mode it was found in."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def require_modalities(processor: Any, questions: Sequence[Question]) -> None:
    """Refuse questions with media that a workflow does not take.

    Raises:
        DataError: Names what is asked for and what there is.
    """
    needed = {modality for question in questions for modality, _ in question.media}
    missing = sorted(needed - set(processor.modalities))
    if missing:
        known = ", ".join(processor.modalities) or "none"
        raise DataError(f"the questions need the modality {', '.join(missing)}; this workflow has {known}.")
