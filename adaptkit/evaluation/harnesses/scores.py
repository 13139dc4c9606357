"""What a harness computed, as a section of results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from adaptkit.evaluation.harnesses.asks import Note

_OWN_FIELDS = ("alias", "name", "sample_len", "sample_count", "samples", " ")


def scores_of(
    results: Mapping[str, Any], name: str, notes: Mapping[str, Note], described: Mapping[str, Any]
) -> dict[str, Any]:
    """Sections of a task or group, or of the tasks of a tag.

    Args:
        results: Of a harness's evaluator.
        name: What was run.
        notes: What was asked, by task.
        described: What the scores depend on besides.

    Returns:
        For each name `harness` (with task version, examples, first prompt, generation), `n` and `scores`: for each
        workflow that answered `metrics`, `stderr` and, of a group, those of its `tasks`.
    """
    subtasks = results.get("group_subtasks") or {}
    groups = results.get("groups") or {}
    found = {**results["results"], **groups}
    tops = [name] if name in found else [one for one in found if one not in _members(subtasks)]
    return {top: _section(results, top, found, subtasks, notes, described) for top in tops}


def _section(
    results: Mapping[str, Any],
    name: str,
    found: Mapping[str, Any],
    subtasks: Mapping[str, Any],
    notes: Mapping[str, Note],
    described: Mapping[str, Any],
) -> dict[str, Any]:
    leaves = _leaves(name, subtasks)
    counts = {leaf: int(results["n-samples"][leaf]["effective"]) for leaf in leaves if leaf in results["n-samples"]}
    asked = [notes[leaf] for leaf in leaves if leaf in notes]
    first = asked[0] if asked else Note()
    workflow = "+".join(sorted({one for note in asked for one in note.workflows})) or "text"
    score = _metrics(found[name], results.get("higher_is_better", {}).get(name) or {})
    if leaves != [name]:
        score["tasks"] = _parts(name, found, subtasks, counts)
    return {
        "harness": {
            **described,
            "task": name,
            "version": _version(results, [name, *leaves]),
            "num_fewshot": _first(results.get("n-shot", {}), leaves),
            "prompt": first.prompt,
            "generation": first.generation,
            **({"ignored": first.ignored} if first.ignored else {}),
            **({"answers": first.answers} if first.answers else {}),
        },
        "n": sum(counts.values()),
        "scores": {workflow: score},
    }


def _parts(
    name: str, found: Mapping[str, Any], subtasks: Mapping[str, Any], counts: Mapping[str, int]
) -> dict[str, Any]:
    """Scores of a group's members, and of theirs."""
    parts = {}
    for member in map(_name_of, subtasks.get(name, ())):
        if member in found:
            parts[member] = _metrics(found[member], {}) | {
                "n": sum(counts.get(o, 0) for o in _leaves(member, subtasks))
            }
            if inner := _parts(member, found, subtasks, counts):
                parts[member]["tasks"] = inner
    return parts


def _metrics(row: Mapping[str, Any], higher: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics and their standard errors, by name; with the filter's where it is not `none`."""
    metrics: dict[str, float] = {}
    errors: dict[str, float] = {}
    for key, value in row.items():
        metric, _, chosen = key.partition(",")
        if metric in _OWN_FIELDS or not _is_number(value):
            continue
        is_error = metric.endswith(("_stderr", "_stderr_clt", "_stderr_clustered"))
        plain = metric.removesuffix("_stderr") if is_error else metric
        label = plain if chosen in ("", "none") else f"{plain} ({chosen})"
        if not is_error:
            metrics[label] = float(value)
        elif metric.endswith("_stderr"):
            errors[label] = float(value)
    lower = [name for name in metrics if higher.get(name.split(" (")[0]) is False]
    return {"metrics": metrics, "stderr": errors, **({"lower_is_better": lower} if lower else {})}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not math.isnan(value)


def _below(name: str, subtasks: Mapping[str, Any]) -> list[str]:
    """Members of a group, and theirs."""
    found: list[str] = []
    for member in map(_name_of, subtasks.get(name, ())):
        found += [member, *_below(member, subtasks)]
    return list(dict.fromkeys(found))


def _leaves(name: str, subtasks: Mapping[str, Any]) -> list[str]:
    below = _below(name, subtasks)
    return [one for one in below if not subtasks.get(one)] if below else [name]


def _members(subtasks: Mapping[str, Any]) -> set[str]:
    return {_name_of(member) for members in subtasks.values() for member in members}


def _name_of(member: Any) -> str:
    return str(getattr(member, "group_name", member))


def _version(results: Mapping[str, Any], names: list[str]) -> Any:
    """A task's version; lmms-eval leaves it in the metadata, which may be a list."""
    found = _first(results.get("versions", {}), names)
    if found not in (None, "Yaml"):
        return found
    for name in names:
        metadata = (results.get("configs") or {}).get(name, {}).get("metadata") or {}
        for entry in metadata if isinstance(metadata, list) else [metadata]:
            if isinstance(entry, Mapping) and "version" in entry:
                return entry["version"]
    return None


def _first(values: Mapping[str, Any], names: list[str]) -> Any:
    return next((values[name] for name in names if values.get(name) not in (None, "N/A")), None)
