"""What a recipe needs before it can train: each dataset and model, where it lives, and whether it is here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adaptkit.build import data_context, task_datasets
from adaptkit.data_tools.plan.registry import PublicDataset, PublicModel, Registry
from adaptkit.errors import AdaptkitError, RecipeError
from adaptkit.files.hub import is_cached, is_hub_id
from adaptkit.files.paths import WORLD_PREFIX, missing_model, resolve_model_path
from adaptkit.interfaces import DataContext
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.recipe import DataConfig, Recipe

State = Literal["present", "missing", "unknown", "damaged"]
COUNTED_BYTES = 100 * 1024**2
"""Files up to so large are read to count their rows."""

_COUNTED = ("llava", "sharegpt", "messages", "table", "parquet")


@dataclass(frozen=True)
class PlannedModel:
    """A model that a recipe loads.

    Attributes:
        role: `base`, or the modality's encoder.
        path: Folder or id.
        state: Whether its weights are on this machine.
        known: What is published about it.
        command: What fetches it; empty where nothing has to be.
        problem: Why it is not here.
    """

    role: str
    path: str
    state: State
    known: PublicModel | None = None
    command: str = ""
    problem: str | None = None


@dataclass(frozen=True)
class PlannedDataset:
    """A dataset of a recipe's stages.

    Attributes:
        name: In the recipe.
        stages: That train on it, and benchmarks that ask about it.
        format: That it is read in.
        path: File, as the recipe names it below data_root; empty where it has none.
        media: Folder of its media, likewise.
        state: Whether it is there; `unknown` where data_root is not set.
        source: The public dataset's name; None where the recipe names none.
        known: What is published about it.
        commands: That make the file; remarks begin with `#`.
        rows: In the file, where counting them is cheap.
        num_bytes: Of the file.
        problem: What is missing or damaged.
    """

    name: str
    stages: tuple[str, ...]
    format: str
    path: str
    media: str
    state: State
    source: str | None = None
    known: PublicDataset | None = None
    commands: tuple[str, ...] = ()
    rows: int | None = None
    num_bytes: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class DataPlan:
    """What a recipe needs.

    Attributes:
        recipe: Its name.
        data_root: Folder of relative paths, as written.
        root_problem: Why that folder cannot be looked into.
        models: Base and encoders.
        datasets: Of its stages and benchmarks.
    """

    recipe: str
    data_root: str
    root_problem: str | None
    models: tuple[PlannedModel, ...]
    datasets: tuple[PlannedDataset, ...]

    def missing_models(self) -> list[PlannedModel]:
        """Those that are not here."""
        return [model for model in self.models if model.state != "present"]

    def missing_datasets(self) -> list[PlannedDataset]:
        """Those that are not here, or not whole."""
        return [dataset for dataset in self.datasets if dataset.state != "present"]

    def missing_gb(self) -> float:
        """Size of the downloads that are missing, as far as it is published; each release counts once."""
        homes = {d.known.home: d.known.get_gb for d in self.missing_datasets() if d.known and d.known.get_gb}
        models = {m.path: m.known.get_gb for m in self.missing_models() if m.known and m.known.get_gb}
        return sum(size for size in [*homes.values(), *models.values()] if size is not None)


def plan_data(recipe: Recipe, registry: Registry) -> DataPlan:
    """Say what a recipe needs, and which parts are here. Nothing is fetched.

    Raises:
        DataError: A dataset's `source` is not in the registry.
    """
    context, problem = None, None
    try:
        context = data_context(recipe)
    except RecipeError as error:
        problem = str(error)
    used: dict[str, list[str]] = {}
    for stage in recipe.stages:
        for name in stage.data:
            used.setdefault(name, []).append(stage.name)
    for task in recipe.evaluation.tasks:
        for name in task_datasets(task):
            used.setdefault(name, []).append(f"evaluation ({task.name})")
    datasets = [_dataset(name, recipe, tuple(stages), context, registry) for name, stages in used.items()]
    models = tuple(_models(recipe, registry))
    return DataPlan(recipe.name, recipe.data_root or "", problem, models, tuple(datasets))


def _dataset(
    name: str, recipe: Recipe, stages: tuple[str, ...], context: DataContext | None, registry: Registry
) -> PlannedDataset:
    config = recipe.data[name]
    values = config.values()
    path, media = (values.get(key) if isinstance(values.get(key), str) else "" for key in ("path", "media"))
    known = registry.dataset(config.source) if config.source is not None else None
    state, rows, size, problem = _state(config, context)
    return PlannedDataset(
        name=name,
        stages=stages,
        format=config.format,
        path=str(path),
        media=str(media),
        state=state,
        source=config.source,
        known=known,
        commands=() if known is None else _commands(known, recipe.data_root or ".", str(path), str(media), values),
        rows=rows,
        num_bytes=size,
        problem=problem,
    )


def _commands(known: PublicDataset, root: str, path: str, media: str, values: dict[str, Any]) -> tuple[str, ...]:
    limit = values.get("limit")
    places = {
        "{path}": f"{root}/{path}",
        "{media}": f"{root}/{media or str(Path(path).parent)}",
        "{root}": root,
        "{limit}": f"--limit {limit}" if limit else "",
    }
    filled = []
    for command in known.prepare:
        for mark, place in places.items():
            command = command.replace(mark, place)
        filled.append(command if command.startswith("#") else " ".join(command.split()))
    return tuple(filled)


def _state(config: DataConfig, context: DataContext | None) -> tuple[State, int | None, int | None, str | None]:
    """Whether a dataset is there, its rows and bytes where they are cheap to know, and what is wrong."""
    source = get_plugin_manager().get("data source", config.format)
    if context is None:
        return "unknown", None, None, None
    missing = source.missing(config.options, context)
    if missing:
        return "missing", None, None, missing
    path = config.values().get("path")
    file = context.data_root / path if isinstance(path, str) else None
    size = file.stat().st_size if file is not None and file.is_file() else None
    if size is None or config.format not in _COUNTED or (size > COUNTED_BYTES and config.format != "parquet"):
        return "present", None, size, None
    try:
        return "present", len(source.build(config.options, context)), size, None
    except AdaptkitError as error:
        return "damaged", None, size, str(error)


def _models(recipe: Recipe, registry: Registry) -> Iterator[PlannedModel]:
    yield _model("base", recipe.base.path, recipe.base.revision, registry)
    for name, modality in recipe.modalities.items():
        values = modality.encoder.values()
        path, revision = values.get("path"), values.get("revision")
        if isinstance(path, str):
            yield _model(f"encoder of {name}", path, revision if isinstance(revision, str) else None, registry)


def _model(role: str, path: str, revision: str | None, registry: Registry) -> PlannedModel:
    known = registry.models.get(path)
    resolved = resolve_model_path(path)
    if path.startswith(WORLD_PREFIX) or Path(resolved).is_dir():
        problem = missing_model(path, revision)
        return PlannedModel(role, path, "missing" if problem else "present", known, problem=problem)
    if is_hub_id(path) and is_cached(path, revision):
        return PlannedModel(role, path, "present", known)
    if not is_hub_id(path) or "/" not in path:
        return PlannedModel(role, path, "missing", known, problem=missing_model(path, revision))
    command = f"hf download {path}" + (f" --revision {revision}" if revision else "")
    return PlannedModel(role, path, "missing", known, command, "not in the Hugging Face cache of this machine")
