"""Which datasets stages train on, be it under another name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from adaptkit.recipe.components import DataConfig
from adaptkit.stage import StageConfig

if TYPE_CHECKING:
    from adaptkit.recipe.schema import Recipe

_READING = ("question", "answer", "system", "columns", "limit", "move_media_to_front")
"""Options that say how rows are read, and not which."""


def trained_as(recipe: Recipe, name: str, stages: Sequence[StageConfig]) -> str | None:
    """The dataset that some stages train on whose rows another one measures by; None where they were never seen.

    Args:
        name: What is measured by. Where it has a `holdout`, those rows are held out from training on it.
    """
    measured = recipe.data[name]
    for other in dict.fromkeys(other for stage in stages for other in stage.data):
        held_out = other == name and measured.holdout is not None
        if not held_out and _rows_of(recipe.data[other]) == _rows_of(measured):
            return other
    return None


def _rows_of(dataset: DataConfig) -> str:
    """What says which rows a dataset has, in words that can be compared."""
    return repr((dataset.format, {key: value for key, value in dataset.values().items() if key not in _READING}))


def validation_problems(recipe: Recipe) -> Iterator[str]:
    """Datasets by which a stage is validated though it, or one that it starts from, trains on their rows."""
    for stage in recipe.stages:
        validation = stage.validation
        for name in () if validation is None or validation.allow_trained else validation.data:
            other = trained_as(recipe, name, list(_with_earlier(recipe, stage)))
            if other is not None:
                also = "" if other == name else f" as {other!r}"
                yield (
                    f"stages.{stage.name}.validation.data.{name}: its rows are trained on{also}, so that the loss on "
                    f"them says little about new ones. Hold some out with data.{name}.holdout: 0.01"
                    f"{'' if other == name else f', and train on {name!r} instead of {other!r}'}, name another "
                    "dataset, or set validation.allow_trained: true"
                )


def _with_earlier(recipe: Recipe, stage: StageConfig) -> Iterator[StageConfig]:
    """A stage, and those that it starts from."""
    yield stage
    while stage.start_from is not None:
        stage = recipe.stage(stage.start_from)
        yield stage
