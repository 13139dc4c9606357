"""Requests of one workflow whose decoder or policy no shared pass takes: batches of stock `generate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from adaptkit.inference.engine import BatchGroup
from adaptkit.inference.pending import Pending, take_logits
from adaptkit.inference.request import Request
from adaptkit.model.processor import AdaptkitProcessor

_NEUTRAL = {
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "use_cache": True,
}


class GenerateGroup(BatchGroup):
    """Batches of one workflow, each from its first token to its last; requests wait until the batch before is done.

    Args:
        name: The workflow's name.
        model: The workflow, or the base.
        processor: Of the workflow.
        reason: Why the workflow is in no shared pass.
        between_steps: Called after each step of a batch, so that other groups advance.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        processor: AdaptkitProcessor,
        reason: str,
        between_steps: Callable[[BatchGroup], None],
    ) -> None:
        self.workflows = (name,)
        self.reason = reason
        self._model, self._processor, self._pad = model, processor, processor.pad_token_id
        self._between_steps = between_steps
        self._running: list[Request] = []

    @property
    def running(self) -> Sequence[Request]:
        """Requests of the batch that are not finished."""
        return [request for request in self._running if not request.is_finished]

    def reset(self) -> None:
        """Drop the batch."""
        self._running = []

    def step(self) -> None:
        """Nothing is left to do: `admit` ends with its batch."""

    def admit(self, requests: list[Pending[Any]]) -> None:
        """Answer these requests."""
        asked = [request for request in requests if isinstance(request, Request)]
        scored = [request for request in requests if not isinstance(request, Request)]
        if scored:
            self._score(scored)
        if asked:
            self._answer(asked)

    def _score(self, requests: list[Pending[Any]]) -> None:
        logits = self._model(**self._inputs(requests, left=False), use_cache=False).logits
        for row, request in enumerate(requests):
            length = request.num_prompt_tokens
            request.take_logits(logits[row, length - request.prompt.num_scored : length], -1)

    def _inputs(self, requests: Sequence[Pending[Any]], *, left: bool = True) -> dict[str, Any]:
        """Padded prompts and their media. Without generation, only padding on the right leaves positions alone."""
        length = max(request.num_prompt_tokens for request in requests)
        ids, mask = [], []
        for request in requests:
            pad, own = [self._pad] * (length - request.num_prompt_tokens), request.prompt.input_ids
            ids.append(pad + own if left else own + pad)
            mask.append([0] * len(pad) + [1] * len(own) if left else [1] * len(own) + [0] * len(pad))
        media: dict[str, list[Tensor]] = {}
        for request in requests:
            for modality, inputs in request.prompt.media_from(0).items():
                media.setdefault(modality, []).extend(inputs)
        entries = self._processor.modalities
        features = {modality: entries[modality].preprocessor.collate(inputs) for modality, inputs in media.items()}
        device = self._model.device
        return {
            "input_ids": torch.tensor(ids, device=device),
            "attention_mask": torch.tensor(mask, device=device),
            **({"features": features} if features else {}),
        }

    def _answer(self, requests: list[Request]) -> None:
        self._running = requests
        self._model.generate(
            **self._inputs(requests),
            generation_config=GenerationConfig(
                **_NEUTRAL,
                max_new_tokens=max(request.sampler.config.max_new_tokens for request in requests),
                pad_token_id=self._pad,
            ),
            logits_processor=LogitsProcessorList([_Choose(requests, self._pad)]),
            stopping_criteria=StoppingCriteriaList([_Finished(requests, lambda: self._between_steps(self))]),
        )
        for request in requests:
            if not request.is_finished:
                request.finish("cancelled" if request.is_cancelled else "length")
        self._running = []


class _Choose(LogitsProcessor):  # type: ignore[misc]
    """Lets each row's request choose, and leaves greedy search that token alone."""

    def __init__(self, requests: list[Request], pad_token_id: int) -> None:
        self._requests, self._pad = requests, pad_token_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for request in self._requests:
            if request.is_cancelled and not request.is_finished:
                request.finish("cancelled")
        take_logits(self._requests, scores[:, None])
        chosen = [self._pad if request.is_finished else request.token_ids[-1] for request in self._requests]
        forced = torch.full_like(scores, -torch.inf)
        return forced.scatter(1, torch.tensor(chosen, device=scores.device)[:, None], 0.0)


class _Finished(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, requests: list[Request], between_steps: Callable[[], None]) -> None:
        self._requests, self._between_steps = requests, between_steps

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        done = [request.is_finished or request.is_cancelled for request in self._requests]
        if not all(done):
            self._between_steps()
        return torch.tensor(done, device=input_ids.device)
