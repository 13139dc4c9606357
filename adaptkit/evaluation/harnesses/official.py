"""Official scores beside those of a harness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptkit.evaluation.harnesses.loading import LoadedTask, tasks_in
from adaptkit.evaluation.public_data import official_scores


def add_official(sections: Mapping[str, Any], samples: Mapping[str, Any], loaded: LoadedTask) -> None:
    """Put `official` beside the metrics of tasks whose authors score by a rule of their own.

    Args:
        sections: Of one workflow, as `scores_of` makes them.
        samples: What the harness logged, by task.
        loaded: The task or group; rows of its data are read as they were before the harness changed them.
    """
    is_logged_whole = loaded.task.harness == "lm-eval"
    splits = {} if is_logged_whole else {task.config.task: task.eval_docs for task in tasks_in(loaded.content)}
    for name, official in official_scores(samples, splits).items():
        section = sections.get(name) or (next(iter(sections.values())) if len(sections) == 1 else None)
        for score in section["scores"].values() if section else ():
            score["official"] = official
