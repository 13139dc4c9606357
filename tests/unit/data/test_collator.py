"""Collation: padding on either side, and media in reading order."""

from __future__ import annotations

import pytest
import torch

from adaptkit.data.collator import Collator


def item(ids: list[int], media: list[tuple[str, str]] = ()) -> dict:
    return {"input_ids": ids, "labels": [-100, *ids[1:]], "media": list(media), "length": len(ids)}


def refuse(modality, sources):
    raise AssertionError("there are no media")


@pytest.mark.parametrize(
    ("side", "ids", "mask", "labels"),
    [
        ("right", [[1, 2, 3], [4, 0, 0]], [[1, 1, 1], [1, 0, 0]], [[-100, 2, 3], [-100, -100, -100]]),
        ("left", [[1, 2, 3], [0, 0, 4]], [[1, 1, 1], [0, 0, 1]], [[-100, 2, 3], [-100, -100, -100]]),
    ],
)
def test_padding(side, ids, mask, labels):
    batch = Collator(0, refuse, side)([item([1, 2, 3]), item([4])])
    assert batch["input_ids"].tolist() == ids
    assert batch["attention_mask"].tolist() == mask
    assert batch["labels"].tolist() == labels
    assert batch["features"] == {}


def test_media_are_gathered_by_modality_row_after_row():
    asked = []

    def load(modality, sources):
        asked.append((modality, sources))
        return torch.zeros(len(sources), 2)

    rows = [item([1], [("pic", "a"), ("snd", "b"), ("pic", "c")]), item([1]), item([1], [("pic", "d")])]
    batch = Collator(0, load)(rows)
    assert asked == [("pic", ["a", "c", "d"]), ("snd", ["b"])]
    assert batch["features"]["pic"].shape == (3, 2)
