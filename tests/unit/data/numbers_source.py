"""A data source for tests, small enough to reason about."""

from __future__ import annotations

from collections.abc import Sequence

from adaptkit.chat.encoding import IGNORE_INDEX, EncodedConversation
from adaptkit.errors import DataError
from adaptkit.interfaces import Sample

PLACEHOLDER = 999


class Numbers:
    """A data source whose sample `i` encodes to `i + 1` positions; the indices in `bad` cannot be read."""

    def __init__(self, length: int, bad: Sequence[int] = ()) -> None:
        self.length = length
        self.bad = bad

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if index in self.bad:
            raise DataError(f"numbers[{index}]: unreadable")
        content = [{"type": "text", "text": "x" * (index + 1)}, {"type": "pic", "pic": f"pic{index}"}]
        return Sample(str(index), [{"role": "user", "content": content}], f"numbers[{index}]")


def encode_number(sample: Sample) -> EncodedConversation:
    """One placeholder, then as many labelled ids as the text has characters."""
    part, medium = sample.messages[0]["content"]
    ids = [len(part["text"])] * len(part["text"])
    return EncodedConversation([PLACEHOLDER, *ids], [IGNORE_INDEX, *ids], [("pic", medium["pic"])], [(0, 1)])
