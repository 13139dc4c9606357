"""Options of the benchmarks that adaptkit ships."""

from __future__ import annotations

from pydantic import Field

from adaptkit.hookspecs import Options


class WorldTaskOptions(Options):
    """What a recipe may set for the evaluation task `world`.

    Attributes:
        num_per_kind: Held-out questions of each kind; a `limit` replaces it.
        batch_size: Questions answered at once.
        grounding_workflow: The workflow that answers with boxes, where a run has one of this name.
    """

    num_per_kind: int = Field(default=100, ge=1)
    batch_size: int = Field(default=64, ge=1)
    grounding_workflow: str = "grounding"


class AnswersTaskOptions(Options):
    """What a recipe may set for the evaluation task `answers`.

    Attributes:
        datasets: Held-out datasets of the recipe's `data` section; the last answer of each conversation is asked for.
        workflows: Which workflow answers a dataset; the recipe's first where it does not say.
        training: For a dataset the one whose most frequent answer is the majority baseline; by default its own, which
            is the most that a constant answer can reach. That is also the baseline where `adaptkit eval` does not find
            the other dataset, or nothing usable in it.
        batch_size: Questions answered at once.
    """

    datasets: list[str] = Field(min_length=1)
    workflows: dict[str, str] = Field(default_factory=dict)
    training: dict[str, str] = Field(default_factory=dict)
    batch_size: int = Field(default=64, ge=1)


class TextTaskOptions(Options):
    """What a recipe may set for the evaluation task `text`.

    Attributes:
        num_per_kind: Questions of each kind of the built-in world, in words, which only decoders that were trained on
            it can answer; 0 compares logits alone.
        batch_size: Questions answered at once.
    """

    num_per_kind: int = Field(default=0, ge=0)
    batch_size: int = Field(default=64, ge=1)
