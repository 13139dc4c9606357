"""Reading back what was written, and comparing it with the workflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from adaptkit.errors import AdaptkitError, ModelError
from adaptkit.files.loading import cause
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.model.stock_methods import num_rows

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Largest difference of logits, relative to the largest logit where that is above 1."""

HALF_TOLERANCE = 2e-2
"""The same in half precision, whose products round to about a hundredth."""

_NUM_WORDS = 5


@dataclass(frozen=True)
class Medium:
    """One medium, as a workflow and its stock model take it.

    Attributes:
        what: What to call it in messages.
        positions: Placeholders that it takes.
        ours: The workflow's inputs for it.
        theirs: Those of the stock model.
    """

    what: str
    positions: int
    ours: dict[str, Any]
    theirs: dict[str, Any]


def compare_logits(
    ours: AdaptkitForConditionalGeneration,
    folder: Path,
    placeholder_id: int,
    dtype: torch.dtype,
    model_class: Any,
    title: str,
    medium: Callable[[Any, torch.Generator], Medium],
) -> float:
    """Read a stock checkpoint and compare its logits with the workflow's.

    The prompts hold a medium and none, one row is padded on the left, and one token is decoded on top of the cache.

    Args:
        ours: The workflow in the dtype that was written.
        placeholder_id: Of the written model.
        medium: Makes a random medium for an encoder.

    Returns:
        The largest difference.

    Raises:
        ModelError: Tensors are missing or left over, or the logits differ by more than rounding.
    """
    stock = _read_back(folder, dtype, model_class, title).to(ours.device)
    (encoder,) = ours.encoders.values()
    one = medium(encoder, torch.Generator().manual_seed(0))
    (old_id,) = (entry["placeholder_id"] for entry in ours.config.modalities.values())
    prompts, next_ids = _prompts(ours, old_id, one.positions)
    input_ids = prompts["input_ids"]
    renamed = {**prompts, "input_ids": input_ids.masked_fill(input_ids == old_id, placeholder_id)}
    expected = _logits(ours, _moved({**prompts, **one.ours}, ours.device), next_ids)
    try:
        found = _logits(stock, _moved({**renamed, **one.theirs}, ours.device), next_ids)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"the stock model fails on a prompt with {one.what} ({cause(error)}).") from error
    places = (f"with {one.what}", "after one decoded token", "of text")
    return max(
        difference_of(a, b[..., : a.shape[-1]], dtype, f"the stock model computes other logits {where}")
        for where, a, b in zip(places, expected, found, strict=True)
    )


def difference_of(expected: Tensor, found: Tensor, dtype: torch.dtype, problem: str) -> float:
    """The largest difference of logits.

    Raises:
        ModelError: It is more than rounding; `problem` begins the message.
    """
    difference = float((expected - found).abs().max())
    limit = TOLERANCES.get(dtype, HALF_TOLERANCE) * max(1.0, float(expected.abs().max()))
    if not difference <= limit:  # also where it is not a number
        raise ModelError(
            f"{problem}: they differ by {difference:.2g}, more than rounding ({limit:.2g}). Nothing was written."
        )
    return difference


def compare_ids(
    ours: AdaptkitProcessor, modality: str, content: list[dict[str, Any]], theirs: Callable[[], Tensor], token_id: int
) -> None:
    """Compare the token ids that the workflow's processor makes of a message with those of the stock one.

    Args:
        theirs: Makes the stock processor's ids.
        token_id: The placeholder in them.

    Raises:
        ModelError: They differ.
    """
    messages = [{"role": "user", "content": content}]
    try:
        mine = ours.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
    except AdaptkitError as error:
        raise ModelError(f"the workflow's own processor cannot read a medium in a message: {error}") from error
    found, mine = theirs(), mine.masked_fill(mine == ours.placeholder_ids[modality], token_id)
    if torch.equal(mine, found):
        return
    added = found.shape[1] - mine.shape[1]
    if added > 0 and torch.equal(mine, found[:, added:]):
        raise ModelError(
            f"the stock processor begins every conversation with {ours.tokenizer.decode(found[0, :added])!r}, which "
            "the chat template does not write and the workflow was trained without. Train with a template that begins "
            "with {{ bos_token }} (base.chat_template), or pass processor=None and prepare inputs yourself."
        )
    raise ModelError(
        f"the stock processor makes other token ids of a message with media: {found.shape[1]} of them, "
        f"{mine.shape[1]} here. The tokenizer joins the placeholder with its neighbours, so it cannot be exported with "
        "its processor: pass processor=None and prepare inputs yourself."
    )


def _read_back(folder: Path, dtype: torch.dtype, model_class: Any, title: str) -> Any:
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        stock, report = model_class.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"stock {title} cannot read what was written ({cause(error)}).") from error
    finally:
        logging.set_verbosity(verbosity)
    problems = [f"{kind}: {sorted(keys)[0]}" for kind, keys in report.items() if keys and kind.endswith("_keys")]
    if problems:
        raise ModelError(f"stock {title} does not read all tensors as they were written ({'; '.join(problems)}).")
    return stock.eval()


def _prompts(
    ours: AdaptkitForConditionalGeneration, placeholder_id: int, positions: int
) -> tuple[dict[str, Tensor], Tensor]:
    """A row with a medium and a shorter row of text padded on the left; and the next token of both."""
    generator = torch.Generator().manual_seed(0)
    rows = num_rows(ours)
    words = torch.randint(0, rows, (2, 2 * _NUM_WORDS), generator=generator)
    words = words.masked_fill(words == placeholder_id, (placeholder_id + 1) % rows)
    media = torch.full((positions,), placeholder_id)
    longer = torch.cat([words[0, :_NUM_WORDS], media, words[0, _NUM_WORDS:]])
    input_ids = torch.stack([longer, words.new_zeros(longer.shape)])
    attention_mask = torch.ones_like(input_ids)
    input_ids[1, -2 * _NUM_WORDS :] = words[1]
    attention_mask[1, : -2 * _NUM_WORDS] = 0
    if placeholder_id == 0:
        input_ids[1, : -2 * _NUM_WORDS] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}, words[:, :1].to(ours.device)


def _moved(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, dict):
        return {key: _moved(value, device) for key, value in inputs.items()}
    return [_moved(item, device) for item in inputs] if isinstance(inputs, list) else inputs.to(device)


@torch.no_grad()
def _logits(model: Any, inputs: dict[str, Any], next_ids: Tensor) -> list[Tensor]:
    mask = inputs["attention_mask"]
    first = model(**inputs, use_cache=True)
    longer = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    positions = (longer.cumsum(1) - 1)[:, -1:]
    second = model(
        input_ids=next_ids,
        attention_mask=longer,
        position_ids=positions,
        past_key_values=first.past_key_values,
        use_cache=True,
    )
    text = model(input_ids=inputs["input_ids"][1:, -2 * _NUM_WORDS :])
    seen = mask.bool()
    return [first.logits[seen].float(), second.logits.float(), text.logits.float()]
