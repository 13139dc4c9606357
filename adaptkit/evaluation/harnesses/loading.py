"""Tasks of the harnesses, loaded: their files, what scores them, and their data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from adaptkit.errors import AdaptkitError, DataError, RunError
from adaptkit.evaluation.harnesses.asks import kind_of
from adaptkit.evaluation.harnesses.catalog import HarnessTask, static_variant
from adaptkit.evaluation.harnesses.judges import CalledOutError, judge_of
from adaptkit.evaluation.harnesses.quiet import quiet_harness
from adaptkit.evaluation.public_data.stock_tasks import OWN_TASKS
from adaptkit.files.loading import cause

_SCORED = ("loglikelihood", "multiple_choice")
_LOOKED_AT = 32
_NO_KEY = ("api_key", "API key", "OPENAI", "credentials")


@dataclass(frozen=True)
class LoadedTask:
    """A task with its data.

    Attributes:
        task: What it is.
        manager: The harness's task manager.
        content: What the manager loaded.
        is_chat: Whether lmms-eval gives conversations; else, and where given answers are scored, texts and media.
    """

    task: HarnessTask
    manager: Any
    content: Any
    is_chat: bool = True


@lru_cache(maxsize=4)
def manager_of(harness: str, include: tuple[Path, ...] = ()) -> Any:
    """The task manager of a harness, with our task files and a user's."""
    with quiet_harness():
        if harness == "lm-eval":
            from lm_eval.tasks import TaskManager
        else:
            from lmms_eval.tasks import TaskManager
        package = harness.replace("-", "_")
        own = [str(folder) for folder in (OWN_TASKS / package, *include) if folder.is_dir()]
        return TaskManager(include_path=own or None)


def without_judge(task: HarnessTask, include: Sequence[Path] = ()) -> HarnessTask:
    """A task that asks no service to score its answers: this one, or its static variant.

    Raises:
        DataError: There is none, or what the task needs is not installed.
    """
    found = judges(task, include)
    if not found:
        return task
    leaf, way = next(iter(found.items()))
    variant = static_variant(task, include)
    if variant is not None:
        return HarnessTask(task.asked, variant.name, variant.harness, variant.leaves, f"{task.name} asks a judge")
    others = [one.name for one in task.leaves if one.name not in found]
    rest = f" The others of {task.name} do not: {', '.join(others[:8])}." if others else ""
    raise DataError(
        f"the task {leaf} cannot run: a service on another machine would score its answers ({way}), and answers are "
        f"never sent away.{rest}"
    )


def judges(task: HarnessTask, include: Sequence[Path] = ()) -> dict[str, str]:
    """What tasks would ask to score their answers, by name; tasks that ask nobody are not among them."""
    if task.name.endswith("_static"):  # it shares its code with a variant that asks; a call would be refused
        return {}
    manager = manager_of(task.harness, tuple(include))
    found: dict[str, str] = {}
    for leaf in task.leaves:
        with quiet_harness(), _explained(task.harness, leaf.name):
            way = _import_refusal_or_judge(manager, task.harness, leaf.name)
        if way:
            found[leaf.name] = way
    return found


def _import_refusal_or_judge(manager: Any, harness: str, name: str) -> str | None:
    try:
        config = _config_of(manager, harness, name)
    except Exception as error:  # clients of services want their key as soon as they are made
        if any(word in str(error) for word in _NO_KEY):
            return cause(error)
        raise
    return judge_of(config)


def _config_of(manager: Any, harness: str, name: str) -> Mapping[str, Any]:
    """A task's configuration with its functions; empty where it is defined within a group."""
    if name not in manager.task_index:
        return {}
    if harness == "lmms-eval":
        config: Mapping[str, Any] = manager._get_config(name)
        return config
    from lm_eval.tasks._yaml_loader import load_yaml

    path = manager.task_index[name].yaml_path
    return {} if path is None else load_yaml(path)


def load_task(task: HarnessTask, include: Sequence[Path] = ()) -> LoadedTask:
    """Load a task's data.

    Raises:
        DataError: They are missing or unreadable.
    """
    manager = manager_of(task.harness, tuple(include))
    with quiet_harness(), _explained(task.harness, task.name):
        if task.harness == "lm-eval":
            return LoadedTask(task, manager, manager.load([task.name]))
        is_chat = not any(
            _config_of(manager, task.harness, leaf.name).get("output_type") in _SCORED for leaf in task.leaves
        )
        content = manager.load_task_or_group([task.name], "chat" if is_chat else "simple")
        return LoadedTask(task, manager, content, is_chat)


def media_kinds(loaded: LoadedTask) -> set[str]:
    """Kinds of the media that a task asks with, as its first documents have them."""
    if loaded.task.harness == "lm-eval":
        configs = [task.config for task in loaded.content["tasks"].values()]
        kinds = {"image": "doc_to_image", "audio": "doc_to_audio"}
        return {kind for kind, key in kinds.items() if any(getattr(config, key, None) for config in configs)}
    with quiet_harness(), _explained(loaded.task.harness, loaded.task.name):
        return {kind for task in tasks_in(loaded.content) for kind in _kinds_of(task)}


def tasks_in(content: Any) -> Iterator[Any]:
    """The harness's own tasks, of what lmms-eval's manager loaded: a task, or groups of them."""
    for value in content.values() if isinstance(content, Mapping) else [content]:
        if isinstance(value, Mapping):
            yield from tasks_in(value)
        else:
            yield value[1] if isinstance(value, tuple) else value


def _kinds_of(task: Any) -> set[str]:
    from adaptkit.evaluation.harnesses.lmms import flat, kinds_in, turns_of

    if not (task.config.doc_to_visual or task.config.doc_to_messages):
        return set()
    for document in itertools.islice(task.eval_docs, _LOOKED_AT):
        if callable(task.config.doc_to_messages) and hasattr(task, "doc_to_messages"):
            kinds = kinds_in(turns_of(task.config.task, task.doc_to_messages(document)))
        else:
            kinds = {kind_of(source) for source in flat(task.doc_to_visual(document))}
        if kinds:
            return kinds
    return set()


@contextmanager
def _explained(harness: str, name: str) -> Iterator[None]:
    """Name the task in what a harness raises.

    Raises:
        DataError: Its files, its packages or its data are missing or broken.
    """
    try:
        yield
    except AdaptkitError:
        raise
    except Exception as error:
        found = root_cause(error)
        if isinstance(found, AdaptkitError):
            raise found from None
        hint = ""
        if isinstance(found, ModuleNotFoundError):
            hint = " Install that package."
        elif any(
            word in str(found).lower() for word in ("offline", "couldn't reach", "connection", "cannot find", "hub")
        ):
            hint = " Without a network, give local copies of the data with --data."
        raise DataError(f"the task {name} of {harness} cannot be loaded: {cause(found)}.{hint}") from error


def root_cause(error: BaseException) -> BaseException:
    """What went wrong, where a harness has tried several times."""
    attempt = getattr(error, "last_attempt", None)
    inner = attempt.exception() if attempt is not None else None
    return error if inner is None else root_cause(inner)


@contextmanager
def explained_run(harness: str, name: str) -> Iterator[None]:
    """Name the task in what a harness raises while it asks and scores.

    Raises:
        RunError: It failed, or tried to reach another machine.
    """
    try:
        yield
    except CalledOutError as error:
        raise RunError(
            f"the task {name} of {harness} tried to reach {error.host} while it was scored. Nothing was sent: a score "
            "that a service elsewhere decides is none that others can repeat, and answers are never sent away."
        ) from error
    except AdaptkitError:
        raise
    except Exception as error:
        found = root_cause(error)
        if isinstance(found, AdaptkitError):
            raise found from None
        raise RunError(f"{harness} failed on the task {name}: {cause(found)}") from error
