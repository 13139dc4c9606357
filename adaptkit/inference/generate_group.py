"""Requests of one workflow whose decoder or policy no shared pass takes: batches of stock `generate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from adaptkit.inference.engine import BatchGroup
from adaptkit.inference.request import Request, take_tokens
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

    def admit(self, requests: list[Request]) -> None:
        """Answer these requests."""
        self._running = requests
        length = max(request.num_prompt_tokens for request in requests)
        padding = [length - request.num_prompt_tokens for request in requests]
        ids = [[self._pad] * pad + request.prompt.input_ids for pad, request in zip(padding, requests, strict=True)]
        mask = [[0] * pad + [1] * (length - pad) for pad in padding]
        media: dict[str, list[Tensor]] = {}
        for request in requests:
            for modality, inputs in request.prompt.media_from(0).items():
                media.setdefault(modality, []).extend(inputs)
        entries = self._processor.modalities
        features = {modality: entries[modality].preprocessor.collate(inputs) for modality, inputs in media.items()}
        device = self._model.device
        self._model.generate(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=GenerationConfig(
                **_NEUTRAL,
                max_new_tokens=max(request.sampler.config.max_new_tokens for request in requests),
                pad_token_id=self._pad,
            ),
            logits_processor=LogitsProcessorList([_Choose(requests, self._pad)]),
            stopping_criteria=StoppingCriteriaList([_Finished(requests, lambda: self._between_steps(self))]),
            **({"features": features} if features else {}),
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
        take_tokens(self._requests, scores)
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
