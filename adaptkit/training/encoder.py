"""Training of an encoder from nothing: which words does the answer to an item have?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptkit.errors import DataError, RunError
from adaptkit.interfaces import Encoder
from adaptkit.stage import EncoderTrainingConfig
from adaptkit.training.lr_schedule import warmup_cosine
from adaptkit.training.parameter_groups import adamw_groups

MAX_GRAD_NORM = 1.0
EVALUATION_BATCH_SIZE = 64

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class LabelledItem:
    """One item and its answer.

    Attributes:
        load: Makes the loaded item, or, given a random generator, a variation of it.
        answer: Words; an encoder learns which of all answers' words it has.
    """

    load: Callable[[np.random.Generator | None], object]
    answer: str


@dataclass(frozen=True)
class EncoderResult:
    """The outcome of training.

    Attributes:
        words: What is predicted, sorted.
        losses: Mean training loss between scores.
        train_accuracy: Share of training items, without variation, whose words were all predicted.
        held_out_accuracy: The same of held-out items; None where there are none.
    """

    words: list[str]
    losses: list[float]
    train_accuracy: float
    held_out_accuracy: float | None


def train_encoder(
    encoder: Encoder,
    items: Sequence[LabelledItem],
    held_out: Sequence[LabelledItem],
    settings: EncoderTrainingConfig,
    progress: Progress = lambda done, total, what: None,
) -> EncoderResult:
    """Train all of an encoder's weights, through the features that it gives.

    Where every answer is one word the words exclude each other, and the loss is cross-entropy; else each word counts by
    itself. Equal arguments give equal weights on the same machine.

    Args:
        encoder: Changed in place, and frozen again at the end.
        held_out: Only scored.
        progress: Called with steps done, steps in all, and the last loss and accuracy.

    Raises:
        DataError: All answers are the same, or there is none.
        RunError: The loss is not finite.
    """
    words = sorted({word for item in items for word in item.answer.split()})
    if len(words) < 2:
        raise DataError(f"the answers have {len(words)} different word(s): there is nothing to tell apart.")
    rng = np.random.default_rng(settings.seed)
    learner = _Learner(encoder, words)
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(adamw_groups(trained, "encoder", settings.learning_rate, settings.weight_decay))
    scheduler = warmup_cosine(optimizer, settings.warmup_steps, settings.num_steps)
    losses: list[float] = []
    recent: list[float] = []
    state = ""
    for step, batch in enumerate(_batches(items, settings, rng), start=1):
        loss = learner.loss(batch, rng if settings.augment else None)
        if not bool(loss.isfinite()):
            raise RunError(f"step {step}: the loss is {float(loss)}. Lower the learning rate.")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learner.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        scheduler.step()
        recent.append(float(loss.detach()))
        if step % settings.evaluate_every == 0 or step == settings.num_steps:
            losses.append(sum(recent) / len(recent))
            recent = []
            state = f"loss {losses[-1]:.3f}" + (f", held out {learner.accuracy(held_out):.3f}" if held_out else "")
        progress(step, settings.num_steps, state)
    scores = learner.accuracy(items), learner.accuracy(held_out) if held_out else None
    encoder.requires_grad_(False)
    encoder.eval()
    return EncoderResult(words, losses, *scores)


class _Learner(nn.Module):
    """An encoder that is trained, and the words that are read from the mean of an item's features.

    What reads the words is thrown away after training.
    """

    def __init__(self, encoder: Encoder, words: list[str]) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(True)
        self.norm = nn.LayerNorm(encoder.feature_size)
        self.read_out = nn.Linear(encoder.feature_size, len(words))
        self._preprocessor = encoder.build_preprocessor()
        self._words = words
        self.train()

    def loss(self, batch: Sequence[LabelledItem], rng: np.random.Generator | None) -> Tensor:
        logits, targets = self._logits(batch, rng), _targets(batch, self._words)
        if _exclusive(batch):
            return F.cross_entropy(logits, targets)
        return F.binary_cross_entropy_with_logits(logits, targets) * len(self._words)

    @torch.no_grad()
    def accuracy(self, items: Sequence[LabelledItem]) -> float:
        """Share of items for which exactly the right words are predicted."""
        self.eval()
        exclusive, right = _exclusive(items), 0
        for start in range(0, len(items), EVALUATION_BATCH_SIZE):
            batch = items[start : start + EVALUATION_BATCH_SIZE]
            logits = self._logits(batch, None)
            chosen = F.one_hot(logits.argmax(1), len(self._words)).bool() if exclusive else logits > 0
            predicted = [{word for word, flag in zip(self._words, row) if flag} for row in chosen.tolist()]
            right += sum(found == set(item.answer.split()) for found, item in zip(predicted, batch))
        self.train()
        return right / len(items)

    def _logits(self, batch: Sequence[LabelledItem], rng: np.random.Generator | None) -> Tensor:
        inputs = self._preprocessor.collate([self._preprocessor(item.load(rng)) for item in batch])
        means = torch.stack([features.mean(0) for features in self.encoder(inputs)])
        logits: Tensor = self.read_out(self.norm(means))
        return logits


def _batches(
    items: Sequence[LabelledItem], settings: EncoderTrainingConfig, rng: np.random.Generator
) -> Iterator[list[LabelledItem]]:
    """Batches of items, each of which comes once before any comes again."""
    order: list[int] = []
    for _ in range(settings.num_steps):
        while len(order) < settings.batch_size:
            order += rng.permutation(len(items)).tolist()
        yield [items[i] for i in order[: settings.batch_size]]
        del order[: settings.batch_size]


def _targets(batch: Sequence[LabelledItem], words: Sequence[str]) -> Tensor:
    """Which words each answer has, `(num_items, num_words)`."""
    answers = [set(item.answer.split()) for item in batch]
    return torch.tensor([[float(word in answer) for word in words] for answer in answers])


def _exclusive(batch: Sequence[LabelledItem]) -> bool:
    return all(len(item.answer.split()) == 1 for item in batch)
