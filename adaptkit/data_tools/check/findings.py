"""What a check finds: problems by kind, and figures of the samples without any."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

BAD: dict[str, str] = {
    "missing_media": "media that are not there",
    "outside_media": "media outside the folders of the data",
    "unread_media": "unused media",
    "unreadable_media": "media that cannot be read",
    "tag_count": "tags and media that differ in number",
    "empty_answer": "nothing answered",
    "malformed": "malformed rows",
    "conversation": "conversations that cannot be encoded",
    "not_rendered": "messages with keys that the chat template ignores",
    "too_large": "more text than a conversation may have",
    "too_long": "no answer within max_length",
    "unreadable_file": "data files that cannot be read",
    "other": "other errors",
    "crash": "errors that would stop training",
}
"""Kinds of problems for which training skips a sample, and what to call them."""

NOTED: dict[str, str] = {
    "cut": "longer than max_length, and cut",
    "unknown_words": "words that the tokenizer does not know",
    "doubtful_media": "media that may not be what was meant",
    "special_tokens": "special tokens in the text of messages",
    "box_range": "boxes with coordinates outside 0 to 1",
    "box_order": "boxes with reversed corners",
    "box_area": "boxes without an area",
    "same_id": "ids that another sample has",
    "same_content": "copies of another sample",
}
"""Kinds of problems of samples that are trained on as they are."""

KINDS = BAD | NOTED


@dataclass(frozen=True)
class Problem:
    """One problem of one sample.

    Attributes:
        kind: One of `KINDS`.
        dataset: The recipe's name of its dataset, or its file.
        index: Its number there.
        id: As the data has it; None where the row could not be read so far.
        message: What is wrong, with place and id.
    """

    kind: str
    dataset: str
    index: int
    id: str | None
    message: str


@dataclass
class Findings:
    """What was found in some samples of one dataset. Arrays are parallel, with an entry for each good sample.

    Attributes:
        num_samples: Samples looked at.
        num_bad: Samples that training skips.
        counts: Problems by kind.
        examples: The first problems of each kind.
        num_bad_first_rows: How many of the dataset's first rows cannot be read as conversations.
        indices: Number of each good sample.
        lengths: Its length before anything is cut, in tokens, or in characters where there is no tokenizer.
        num_tokens: Tokens that training sees.
        num_labelled: Those of them that are learned.
        media: Media by modality.
        max_media: Most media of one sample.
        id_hashes: 64 bits of each id.
        content_hashes: 64 bits of each conversation; 0 where its media were not looked at.
    """

    num_samples: int = 0
    num_bad: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Problem]] = field(default_factory=dict)
    num_bad_first_rows: int = 0
    indices: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    num_tokens: int = 0
    num_labelled: int = 0
    media: Counter[str] = field(default_factory=Counter)
    max_media: int = 0
    id_hashes: array[int] = field(default_factory=lambda: array("Q"))
    content_hashes: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, problem: Problem, num_examples: int) -> None:
        """Note a problem."""
        self.counts[problem.kind] += 1
        self.num_bad += problem.kind in BAD
        examples = self.examples.setdefault(problem.kind, [])
        if len(examples) < num_examples:
            examples.append(problem)

    def merge(self, other: Findings, num_examples: int) -> None:
        """Take over what was found in further samples."""
        for name in ("num_samples", "num_bad", "num_bad_first_rows", "num_tokens", "num_labelled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("indices", "lengths", "id_hashes", "content_hashes"):
            getattr(self, name).extend(getattr(other, name))
        self.counts += other.counts
        self.media += other.media
        self.max_media = max(self.max_media, other.max_media)
        for kind, problems in other.examples.items():
            self.examples[kind] = (self.examples.get(kind, []) + problems)[:num_examples]
