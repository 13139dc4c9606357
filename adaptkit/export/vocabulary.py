"""The placeholder of a stock model: a token of the tokenizer, with a row in embedding and head."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adaptkit.errors import ModelError


@dataclass
class Placeholder:
    """What stands for a picture in the exported model.

    Attributes:
        token_id: Its id.
        token: Its text; None without a tokenizer.
        tokenizer: The tokenizer that has it; None where none was given.
        num_rows: Rows that embedding and head need.
    """

    token_id: int
    token: str | None
    tokenizer: Any
    num_rows: int


def choose_placeholder(
    placeholder_id: int, text: str | None, num_rows: int, tokenizer: Any, default: str
) -> Placeholder:
    """Keep a placeholder that the vocabulary has; for one outside it, take the next free id of the tokenizer.

    Args:
        tokenizer: The workflow's; it is not modified.
        default: Text of a placeholder that has none.

    Raises:
        ModelError: The tokenizer gives the placeholder's text another id.
    """
    if tokenizer is None:
        token_id = placeholder_id if placeholder_id < num_rows else num_rows
        return Placeholder(token_id, None, None, max(num_rows, token_id + 1))
    tokenizer = for_generation(tokenizer)
    inside = placeholder_id < num_rows
    token = text or (tokenizer.convert_ids_to_tokens(placeholder_id) if inside else None) or default
    tokenizer.add_special_tokens({"additional_special_tokens": [token]}, replace_extra_special_tokens=False)
    (token_id,) = tokenizer.encode(token, add_special_tokens=False)
    if inside and token_id != placeholder_id:
        raise ModelError(
            f"placeholder_id is {placeholder_id}, but the tokenizer makes {token!r} {token_id}: model and processor do "
            "not belong together, or the tokenizer lacks that id."
        )
    return Placeholder(token_id, token, tokenizer, max(num_rows, token_id + 1))


def for_generation(tokenizer: Any, chat_template: str | None = None) -> Any:
    """A copy of a tokenizer that pads a batch so that each row can be continued: on the left, with some token."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "left"
    tokenizer.init_kwargs["padding_side"] = "left"  # of what was not given at first save_pretrained writes nothing
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def with_rows(weight: Tensor, num_rows: int) -> Tensor:
    """The weight, with copies of its mean appended as further rows.

    As rows of a head they give the mean of all logits, so that they are never the most likely token.
    """
    missing = num_rows - weight.shape[0]
    if missing <= 0:
        return weight
    mean = weight.detach().float().mean(0, keepdim=True).to(weight.dtype)
    return torch.cat([weight.detach(), mean.expand(missing, -1)])
