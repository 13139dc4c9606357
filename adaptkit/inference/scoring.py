"""How likely a model finds given continuations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from adaptkit.errors import RunError
from adaptkit.inference.answer import FinishReason, Score
from adaptkit.inference.pending import Pending, Prompt


class ScoreRequest(Pending[list[Score]]):
    """How likely continuations of a prompt are, all of which end one position after it.

    Args:
        workflow: Which workflow scores them.
        prompt: A context and all of the longest continuation but its last token.
        continuations: Their token ids.
    """

    def __init__(self, workflow: str, prompt: Prompt, continuations: Sequence[Sequence[int]]) -> None:
        super().__init__(workflow, prompt)
        self._continuations = continuations

    def take_logits(self, logits: Tensor, likeliest: int) -> None:
        """Score the continuations; in the precision of the logits, as lm-eval does."""
        logprobs = logits.log_softmax(-1)
        greedy = logits.argmax(-1).tolist()
        scores = []
        for ids in self._continuations:
            found = logprobs[-len(ids) :].gather(1, torch.tensor([ids], device=logits.device).T)
            scores.append(Score(float(found.sum()), greedy[-len(ids) :] == list(ids), len(ids)))
        self._end(scores)

    def finish(self, reason: FinishReason) -> None:
        """Nobody waits for it."""
        self.fail(RunError("the request was cancelled before it was scored."))


def score_requests(
    workflow: str, pairs: Sequence[tuple[Prompt, Sequence[int]]]
) -> Iterator[tuple[ScoreRequest, list[int]]]:
    """Requests that score contexts' continuations, and which pairs each answers, in the order of their prompts.

    Continuations that differ in their last token alone, as the letters of a multiple choice do, share a request.

    Args:
        pairs: A context and a continuation each; neither is empty.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, (context, continuation) in enumerate(pairs):
        digests = tuple(digest for _, _, digest in context.media)
        groups.setdefault((digests, (*context.input_ids, *continuation[:-1])), []).append(number)
    for (_, ids), numbers in sorted(groups.items()):
        context = pairs[numbers[0]][0]
        continuations = [list(pairs[number][1]) for number in numbers]
        longest = max(map(len, continuations))
        yield (
            ScoreRequest(
                workflow, replace(context, input_ids=list(ids), num_scored=longest, is_patient=True), continuations
            ),
            numbers,
        )
