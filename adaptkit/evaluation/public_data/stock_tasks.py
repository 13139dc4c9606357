"""What the task files of the harnesses ask for, read without importing a harness: which dataset, configuration, splits.

A harness takes seconds to import and has thousands of task files. Only the files that can define a name are parsed.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from adaptkit.errors import DataError
from adaptkit.files.loading import reading

HARNESSES = {"lm-eval": "lm_eval", "lmms-eval": "lmms_eval"}
"""Name of each harness, and its package."""
OWN_TASKS = Path(__file__).parent / "tasks"
"""Our own task files, in one folder a harness, named like its package."""

_LINE = re.compile(r"""^\s*(?:-\s+)?(?:["']?(?:task|group|tag)["']?\s*:)?\s*(.*)$""", re.MULTILINE)
_DATASET = re.compile(r"""^["']?dataset_path["']?\s*:\s*["']?([^\s"'#]+)""", re.MULTILINE)
_SEPARATORS = re.compile(r"[\[\],{}]")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads task files without running what they name."""


_Loader.add_multi_constructor("!", lambda loader, tag, node: None)


@dataclass(frozen=True)
class StockTask:
    """One task, and what it reads.

    Attributes:
        name: As the harness knows it.
        harness: A key of `HARNESSES`.
        dataset: Id of the dataset, or name of a builder; None where code of the task's own loads it.
        config: The dataset's configuration, if any.
        splits: Splits that the task needs: what is asked, and where examples come from.
        local: Whether the task file names files of its own.
        has_media: Whether its questions come with pictures, sounds or videos.
    """

    name: str
    harness: str
    dataset: str | None = None
    config: str | None = None
    splits: tuple[str, ...] = ()
    local: bool = False
    has_media: bool = False


@dataclass(frozen=True)
class TaskFiles:
    """The task files of one harness, and ours for it."""

    harness: str
    texts: Mapping[Path, str]
    candidates: Mapping[str, Sequence[Path]] = field(repr=False)
    """For each word that may be a name, the files that hold it."""
    datasets: Mapping[str, Sequence[Path]] = field(repr=False)
    """For each dataset, the files that name it."""

    def find(self, name: str) -> list[StockTask]:
        """The tasks that a name stands for: itself, or those of a group or tag, however deep; none if unknown."""
        return list(dict.fromkeys(self._find(name, set())))

    def of_dataset(self, dataset: str) -> list[StockTask]:
        """Tasks whose own file, or a template that it includes, names a dataset."""
        naming = self.datasets.get(dataset, [])
        templates = {(path.parent, path.name) for path in naming if path.suffix != ".yaml"}
        files = [
            path
            for path, text in self.texts.items()
            if path in naming or any(path.is_relative_to(folder) and name in text for folder, name in templates)
        ]
        configs = (self._config(path) for path in files if path.suffix == ".yaml")
        tasks = (self._task(config) for config in configs if isinstance(config.get("task"), str))
        return [task for task in tasks if task.dataset == dataset]

    def _find(self, name: str, seen: set[str]) -> Iterator[StockTask]:
        if name in seen:
            return
        seen.add(name)
        members = []
        for path in self.candidates.get(name, ()):
            if path.suffix != ".yaml":
                continue
            config = self._config(path)
            if config.get("task") == name:
                yield self._task(config)
                return
            if config.get("group") == name and isinstance(config.get("task"), list):
                members += config["task"]
            elif name in _names(config.get("tag")) + _names(config.get("group")):
                members.append(config.get("task"))
        for member in members:
            yield from self._member(member, seen)

    def _member(self, member: Any, seen: set[str]) -> Iterator[StockTask]:
        """A task's or group's name, or one that is defined in place."""
        if isinstance(member, dict) and isinstance(member.get("task"), list):
            for one in member["task"]:
                yield from self._member(one, seen)
        elif isinstance(member, dict) and "dataset_path" in member:
            yield self._task(member)
        else:
            yield from self._find(str(member.get("task") if isinstance(member, dict) else member), seen)

    def _task(self, config: Mapping[str, Any]) -> StockTask:
        needed = (config.get("test_split") or config.get("validation_split"), config.get("fewshot_split"))
        splits = tuple(dict.fromkeys(str(split).strip() for split in needed if split))
        options = config.get("dataset_kwargs")
        return StockTask(
            name=str(config["task"]),
            harness=self.harness,
            dataset=config.get("dataset_path"),
            config=config.get("dataset_name"),
            splits=splits,
            local=isinstance(options, dict) and bool({"data_files", "data_dir", "load_from_disk"} & set(options)),
            has_media=bool({"doc_to_visual", "doc_to_image", "doc_to_audio"} & set(config)),
        )

    def _config(self, path: Path, depth: int = 0) -> dict[str, Any]:
        """A task file with what it includes; empty where it is not a task file."""
        try:
            config = yaml.load(self._text(path), Loader=_Loader)
        except (yaml.YAMLError, OSError, UnicodeError):
            return {}  # the harness says what is wrong with it, if it is asked for
        if not isinstance(config, dict):
            return {}
        included: dict[str, Any] = {}
        for other in reversed(_names(config.pop("include", None)) if depth < 8 else []):
            included |= self._config(Path(os.path.normpath(path.parent / other)), depth + 1)
        return {**included, **config}

    def _text(self, path: Path) -> str:
        return self.texts[path] if path in self.texts else path.read_text(encoding="utf-8")


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(one) for one in value] if isinstance(value, list) else []


@lru_cache(maxsize=4)
def task_files(harness: str, include: tuple[Path, ...] = ()) -> TaskFiles:
    """The task files of a harness, and those in further folders; ours alone where it is not installed."""
    texts = {path: text for folder in [*task_folders(harness), *include] for path, text in _texts(folder)}
    candidates: dict[str, list[Path]] = defaultdict(list)
    for path, text in texts.items():
        words = {w.strip(" \t\"'") for line in _LINE.findall(text) for w in _SEPARATORS.split(line.split(" #")[0])}
        for word in words:
            candidates[word].append(path)
    datasets: dict[str, list[Path]] = defaultdict(list)
    for path, text in texts.items():
        for name in _DATASET.findall(text):
            datasets[name].append(path)
    return TaskFiles(harness, texts, dict(candidates), dict(datasets))


def task_folders(harness: str) -> list[Path]:
    """Folders with the task files of a harness: its own, if it is installed, and ours."""
    package = HARNESSES[harness]
    spec = find_spec(package)
    places = [Path(place) / "tasks" for place in (spec.submodule_search_locations or ())] if spec else []
    return [*places, OWN_TASKS / package]


def _texts(folder: Path) -> Iterator[tuple[Path, str]]:
    for root, _, names in os.walk(folder):
        for name in sorted(names):
            if name.endswith("yaml"):  # templates have no dot before it
                path = Path(root) / name
                with reading(path, DataError):
                    yield path, path.read_text(encoding="utf-8")


def find_tasks(name: str, harness: str | None = None, include: Sequence[Path] = ()) -> list[StockTask]:
    """The tasks that the name of a task, group or tag stands for.

    Args:
        name: As a harness knows it.
        harness: One of `HARNESSES`; by default the one that has the name. Where both have it, text is lm-eval's, and
            what comes with media is lmms-eval's.
        include: Folders with further task files.

    Returns:
        The tasks, without groups; none where the name is unknown.
    """
    found = [task_files(one, tuple(include)).find(name) for one in ([harness] if harness else HARNESSES)]
    text = [tasks for tasks in found if tasks and not any(task.has_media for task in tasks)]
    return next(iter(text), next((tasks for tasks in reversed(found) if tasks), []))
