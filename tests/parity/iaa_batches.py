"""Prompts of the authors' IAA as adaptkit takes them: one placeholder a position instead of their -200 a picture."""

import torch

THEIR_PLACEHOLDER = -200
PLACEHOLDER_ID = 96  # just outside the recording's vocabulary
POSITIONS = 9
PAD_ID = 0


def expand(row):
    """One row of their ids."""
    return [i for t in row for i in ([PLACEHOLDER_ID] * POSITIONS if t == THEIR_PLACEHOLDER else [t])]


def right_pad(rows):
    return _pad(rows, lambda width, length: slice(0, length))


def left_pad(rows):
    return _pad(rows, lambda width, length: slice(width - length, width))


def _pad(rows, place):
    width = max(map(len, rows))
    input_ids = torch.full((len(rows), width), PAD_ID)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(rows):
        input_ids[row, place(width, len(ids))] = torch.tensor(ids)
        attention_mask[row, place(width, len(ids))] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}
