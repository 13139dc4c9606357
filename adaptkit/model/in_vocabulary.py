"""Token ids as generation's utilities may index with them: a placeholder id can lie outside the vocabulary.

What a utility reads of a prompt, it looks up in scores or embeddings of vocabulary size. So whatever it is handed holds
ids of the vocabulary only, and as many of them as the prompt has positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList
from transformers.generation.candidate_generator import CandidateGenerator
from transformers.generation.logits_process import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

_COMPARE_SEQUENCES = (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    SequenceBiasLogitsProcessor,
)
"""Processors for which a placeholder must not equal any word; they take scores of any width."""


def nearest_words(input_ids: Tensor, vocab_size: int) -> Tensor:
    """Ids with each placeholder outside the vocabulary replaced by the word before it, or the first after it.

    Such a word is in the row anyhow, so that the set of words in a row stays as it is.
    """
    inside = input_ids < vocab_size
    if bool(inside.all()):
        return input_ids
    columns = torch.arange(input_ids.shape[1], device=input_ids.device)
    before = columns.expand_as(input_ids).masked_fill(~inside, -1).cummax(1).values
    first = inside.long().argmax(1, keepdim=True)
    words = input_ids.gather(1, torch.where(before < 0, first, before))
    return words.masked_fill(words >= vocab_size, 0)  # rows of placeholders alone


def appended_words(input_ids: Tensor, vocab_size: int, placeholder_ids: Sequence[int]) -> Tensor:
    """Ids with the placeholders outside the vocabulary numbered from its end on."""
    for number, placeholder_id in enumerate(placeholder_ids):
        input_ids = input_ids.masked_fill(input_ids == placeholder_id, vocab_size + number)
    return input_ids


class ProcessorsInVocabulary(LogitsProcessorList):  # type: ignore[misc]
    """Logits processors that are handed ids of the vocabulary, of which the placeholders are outside."""

    def __init__(self, processors: LogitsProcessorList, vocab_size: int, placeholder_ids: Sequence[int]) -> None:
        super().__init__(processors)
        self.vocab_size = vocab_size
        self.placeholder_ids = placeholder_ids

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        words = nearest_words(input_ids, self.vocab_size)
        for processor in self:
            one = LogitsProcessorList([processor])
            if words is input_ids or not isinstance(processor, _COMPARE_SEQUENCES):
                scores = one(words, scores, **kwargs)
                continue
            appended = appended_words(input_ids, self.vocab_size, self.placeholder_ids)
            wider = F.pad(scores, (0, len(self.placeholder_ids)), value=-torch.inf)
            scores = one(appended, wider, **kwargs)[:, : scores.shape[1]]
        return scores


class CriteriaInVocabulary(StoppingCriteriaList):  # type: ignore[misc]
    """Stopping criteria that are handed ids of the vocabulary."""

    vocab_size: int

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return cast(Tensor, super().__call__(nearest_words(input_ids, self.vocab_size), scores, **kwargs))


class CandidatesInVocabulary(CandidateGenerator):  # type: ignore[misc]
    """A generator of candidates, such as prompt lookup, that is handed ids of the vocabulary."""

    def __init__(self, generator: CandidateGenerator, vocab_size: int) -> None:
        self._generator = generator
        self._vocab_size = vocab_size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def get_candidates(self, input_ids: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        candidates, logits = self._generator.get_candidates(nearest_words(input_ids, self._vocab_size), **kwargs)
        return torch.cat([input_ids, candidates[:, input_ids.shape[1] :]], 1), logits

    def update_candidate_strategy(self, input_ids: Tensor, scores: Tensor, num_matches: int) -> None:
        self._generator.update_candidate_strategy(nearest_words(input_ids, self._vocab_size), scores, num_matches)
