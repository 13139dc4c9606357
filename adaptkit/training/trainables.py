"""Which parameters are trainable, and the check that they are the right ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from adaptkit.errors import ModelError


@dataclass(frozen=True)
class Trainables:
    """How many parameters are trainable, and how many are frozen.

    Attributes:
        trainable: Parameters of each part that is trained.
        frozen: All others.
    """

    trainable: dict[str, int]
    frozen: int

    def __str__(self) -> str:
        parts = ", ".join(f"{part} {number:,}" for part, number in self.trainable.items())
        return f"trains {parts} ({sum(self.trainable.values()):,} in all); frozen {self.frozen:,}"


def assert_trainable(model: nn.Module, parts: Sequence[str]) -> Trainables:
    """Make sure that exactly the parameters of `parts` are trainable.

    Args:
        model: A `WorkflowModel` after `set_trainable`.
        parts: The parts to train.

    Raises:
        ModelError: A part is empty or unknown, or the trainable parameters are not those of the parts.
    """
    known = model.trainable_parts()  # type: ignore[operator]
    missing = [part for part in parts if not known.get(part)]
    if missing:
        have = ", ".join(part for part, names in known.items() if names) or "none"
        raise ModelError(f"the model has no parameters in the part {missing[0]!r}. Parts it has: {have}.")
    expected = {name for part in parts for name in known[part]}
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    actual = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if expected != actual:
        idle, stray = sorted(expected - actual), sorted(actual - expected)
        raise ModelError(
            f"the wrong parameters are trainable: {len(idle)} of the parts {', '.join(parts)} are frozen"
            f" ({', '.join(idle[:3]) or 'none'}) and {len(stray)} others are not ({', '.join(stray[:3]) or 'none'})"
        )
    trainable = {part: sum(sizes[name] for name in known[part]) for part in parts}
    return Trainables(trainable, sum(sizes.values()) - sum(trainable.values()))
