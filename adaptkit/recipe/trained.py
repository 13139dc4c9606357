"""Which datasets stages train on, be it under another name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic_core import InitErrorDetails

from adaptkit.recipe.components import DataConfig
from adaptkit.recipe.explain import problem
from adaptkit.stage import StageConfig

_READING = ("question", "answer", "system", "columns", "limit", "move_media_to_front")
"""Options that say how rows are read, and not which."""


def trained_as(data: Mapping[str, DataConfig], name: str, stages: Sequence[StageConfig]) -> str | None:
    """The dataset that some stages train on whose rows another one measures by; None where they were never seen.

    Args:
        data: The recipe's datasets.
        name: What is measured by. Where it has a `holdout`, those rows are held out from training on it.
    """
    measured = data[name]
    for other in dict.fromkeys(other for stage in stages for other in stage.data):
        held_out = other == name and measured.holdout is not None
        if not held_out and _rows_of(data[other]) == _rows_of(measured):
            return other
    return None


def _rows_of(dataset: DataConfig) -> str:
    """What says which rows a dataset has, in words that can be compared."""
    return repr((dataset.format, {key: value for key, value in dataset.values().items() if key not in _READING}))


def validation_problems(data: Mapping[str, DataConfig], stages: Sequence[StageConfig]) -> Iterator[InitErrorDetails]:
    """Datasets by which a stage is validated though it, or one that it starts from, trains on their rows."""
    for index, stage in enumerate(stages):
        validation = stage.validation
        for name in () if validation is None or validation.allow_trained else validation.data:
            other = trained_as(data, name, list(_with_earlier(stages, stage)))
            if other is not None:
                yield problem(("stages", index, "validation", "data", name), _refusal(name, other))


def _refusal(name: str, other: str) -> str:
    trained, instead = ("", "") if other == name else (f" as {other!r}", f", and train on {name!r} instead")
    return (
        f"its rows are trained on{trained}, so that the loss on them says little about new ones. Hold some out by "
        f"data.{name}.holdout: 0.01{instead}, or name another dataset; validation.allow_trained: true takes it as it is"
    )


def _with_earlier(stages: Sequence[StageConfig], stage: StageConfig) -> Iterator[StageConfig]:
    """A stage, and those that it starts from."""
    named = {other.name: other for other in stages}
    yield stage
    while stage.start_from is not None:
        stage = named[stage.start_from]
        yield stage
