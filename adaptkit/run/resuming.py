"""What a resumed run must share with the run that it continues, and what keeps two runs apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel
from transformers.utils import CONFIG_NAME

from adaptkit.chat.template import prints_date, resolve_template
from adaptkit.data.holdout import digest_of_rows
from adaptkit.errors import RecipeError, RunError
from adaptkit.evaluation.fresh_base import config_settings, describe_tokenizer
from adaptkit.files.loading import read_json, read_text, reading
from adaptkit.files.writing import make_folder, write_text
from adaptkit.hookspecs import Options
from adaptkit.interfaces import DataSource
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.integrity import holds_content
from adaptkit.processes.group import on_main_process
from adaptkit.recipe import Recipe, StageConfig, load_values, without_variables
from adaptkit.training.checkpoints import (
    DAMAGED,
    DEFAULTS,
    completed_steps,
    find_newest,
    is_checkpoint,
    list_checkpoints,
)
from adaptkit.training.validation import has_stopped_early

RECIPE_FILE = "recipe.yaml"
LOCK_FILE = ".training.lock"

PATIENCE = 15.0
"""Seconds for which workers of a killed run may hold its directory."""

_PLACES = ("path", "media", "media_roots", "data_files", "revision", "cache_features", "cache_mb")


def check_resume(recipe: Recipe, output_dir: Path, resume: str | None) -> None:
    """Make sure that a run resumes from a checkpoint of its own, and that its folder does not hold a model.

    Raises:
        RecipeError: It is not.
    """
    if (output_dir / CONFIG_NAME).exists():
        raise RecipeError(
            f"{output_dir} holds a model ({CONFIG_NAME}), and a run needs a folder of its own. Name another one with "
            "--output."
        )
    if resume in (None, "auto"):
        return
    path = Path(str(resume))
    stages = [stage.name for stage in recipe.stages]
    if path.resolve().parent.name not in stages or not is_checkpoint(path):
        found = [str(checkpoint) for stage in stages for checkpoint in list_checkpoints(output_dir / stage)]
        raise RecipeError(
            f"--resume {resume}: not a checkpoint of a stage of this recipe. Give auto, or "
            f"RUN/STAGE/checkpoint-N. Found: {', '.join(found) or f'none, in {output_dir}'}."
        )
    run = path.resolve().parent.parent
    if run != output_dir.resolve():
        raise RecipeError(f"--resume {resume}: that is a checkpoint of another run. Resume that run: --output {run}.")


@contextmanager
def locked(output_dir: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Keep other runs out of a run directory, where its file system can.

    Raises:
        RunError: There is one, also after so many seconds.
    """
    lock = FileLock(output_dir / LOCK_FILE, timeout=patience)

    def acquire() -> None:
        make_folder(output_dir)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                f"another run is writing to {output_dir}. Wait for its end, stop it, or name another folder with "
                "--output."
            ) from None
        except (OSError, NotImplementedError):  # no locks here, as on some network file systems
            pass

    on_main_process(acquire)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def recorded(text: str, output_dir: Path) -> Iterator[None]:
    """Write the resolved recipe; a run that is refused leaves the one before."""
    path = output_dir / RECIPE_FILE
    before = read_text(path, RunError) if path.exists() else None
    write_text(path, text)
    try:
        yield
    except RecipeError:
        if before is not None:
            write_text(path, before)
        raise


def earlier_recipe(output_dir: Path, resume: str | None) -> dict[str, Any] | None:
    """The resolved recipe of the run that is resumed, if there is one.

    Raises:
        RecipeError: There is a run, and it is not resumed.
    """
    path = output_dir / RECIPE_FILE
    if resume is None and path.exists():
        raise RecipeError(
            f"{output_dir} holds a run already. Continue it with --resume auto, or name another folder with --output."
        )
    if not path.exists():
        return None
    with reading(
        path, RunError, "Restore the recipe of the run that is resumed, or start a new run with another --output."
    ):
        return load_values(path)


def stage_resume(resume: str | None, stage: StageConfig) -> str | Path | None:
    """Where a stage resumes: a checkpoint of its own that was asked for, else its newest one, if any."""
    if resume in (None, "auto"):
        return resume
    path = Path(str(resume))
    return path if path.resolve().parent.name == stage.name else "auto"


def refuse_other_models(
    model: AdaptkitForConditionalGeneration, output_dir: Path, stage: StageConfig, resume: str | None
) -> None:
    """A stage resumes only with the frozen models that it began with; their places may change.

    Raises:
        RecipeError: The base or an encoder has other weights than when its checkpoint was trained, or the
            base has another configuration.
    """
    newest = _resumes_from(output_dir, stage, resume)
    path = None if newest is None else newest / CONFIG_NAME
    if path is None or not path.is_file():
        return
    trained = read_json(path, RunError, DAMAGED)
    records = {"base.path": (model.base, trained.get("base", {}))}
    for name, encoder in model.source_encoders.items():
        record = trained.get("modalities", {}).get(name, {}).get("encoder", {})
        records[f"modalities.{name}.encoder"] = (encoder, record)
    for key, (module, record) in records.items():
        if not holds_content(module, record):
            raise RecipeError(
                f"cannot resume {newest}: {key} has other weights now than it had. Restore them to continue, or start "
                "a new run with another `--output`."
            )
    here, there = (config_settings(values) for values in (model.config.text_config.to_dict(), trained["text_config"]))
    # Of both, since releases of transformers add keys
    changed = [f"{key} ({here[key]} instead of {there[key]})" for key in here if here[key] != there.get(key, here[key])]
    if changed:
        raise RecipeError(
            f"cannot resume {newest}: the configuration of base.path has other values now than it had: "
            f"{', '.join(changed)}. Restore them to continue, or start a new run with another `--output`."
        )


def _resumes_from(output_dir: Path, stage: StageConfig, resume: str | None) -> Path | None:
    given = stage_resume(resume, stage)
    return given if isinstance(given, Path) else find_newest(output_dir / stage.name)


def refuse_outdated(recipe: Recipe, output_dir: Path, stage: StageConfig, num_steps: int, resume: str | None) -> None:
    """A stage must not train further once a later stage has started from it.

    Raises:
        RecipeError: There are such.
    """
    newest = _resumes_from(output_dir, stage, resume)
    if newest is None or completed_steps(newest) >= num_steps or has_stopped_early(newest, stage):
        return
    for other in recipe.stages:
        if other.start_from == stage.name and find_newest(output_dir / other.name) is not None:
            raise RecipeError(
                f"stage {stage.name!r} would continue to step {num_steps}, but stage {other.name!r} began from its "
                f"step {completed_steps(newest)}. Delete {output_dir / other.name} to train that again "
                f"afterwards, or restore the length of {stage.name!r}."
            )


def dated(recipe: Recipe, earlier: Mapping[str, Any] | None) -> Recipe:
    """The recipe with the date of its run: the one it gives, else that of the run that is resumed, else now."""
    if recipe.date is not None:
        return recipe
    recorded = (earlier or {}).get("date")
    now = on_main_process(lambda: datetime.now().replace(microsecond=0))
    return recipe.model_copy(update={"date": datetime.fromisoformat(str(recorded)) if recorded else now})


def recipe_identity(
    recipe: Recipe,
    stage: StageConfig,
    tokenizer: Any,
    sources: Mapping[str, DataSource],
    held_out: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Any]:
    """What determines a stage's weights besides its settings; paths are not part of it, since data may move.

    Args:
        tokenizer: Of the base, with the template that is used: both may be other ones at the same place.
        held_out: Rows of datasets that no stage trains on.
    """
    template = resolve_template(tokenizer, None)
    words = {key.removeprefix("tokenizer: "): value[:16] for key, value in describe_tokenizer(tokenizer).items()}
    values = without_variables(recipe)
    workflow = recipe.workflows[stage.workflow]
    names = workflow.modalities or list(recipe.modalities)
    sections: dict[str, BaseModel] = {
        **{f"data.{name}": recipe.data[name] for name in stage.data},
        **{f"modalities.{name}": recipe.modalities[name] for name in names},
        "workflow": workflow,
    }
    in_text = {"special_tokens_in_text": True} if recipe.base.special_tokens_in_text else {}
    rows_held_out = {name: digest_of_rows(rows) for name, rows in (held_out or {}).items() if name in stage.data}
    defaults = [key for place, section in sections.items() for key in _at_default(place, section)]
    recorded_later = {  # absent in older checkpoints, which may be resumed all the same
        "tokenizer": words,
        "date": str(recipe.date) if prints_date(template) else None,
        "rows": {name: len(source) for name, source in sources.items()},
        **({"held_out": rows_held_out} if rows_held_out else {}),
    }
    return {
        "start_from": stage.start_from,
        "max_length": stage.max_length,
        "group_by_length": stage.group_by_length,
        "mixture": {name: _plain(share) for name, share in stage.data.items()},
        "data": {name: _plain(values["data"][name]) for name in stage.data},
        "workflow": _plain(values["workflows"][stage.workflow]),
        "modalities": {name: _plain(values["modalities"][name]) for name in names},
        "base": {key: values["base"][key] for key in ("dtype", "quantization", "chat_template")} | in_text,
        **recorded_later,
        DEFAULTS: sorted([*defaults, *_keys(recorded_later)]),
    }


def _at_default(place: str, section: BaseModel) -> Iterator[str]:
    """Settings of a section that have their default value, by dotted key; options stand beside their name."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _at_default(place if isinstance(value, Options) else f"{place}.{name}", value)
        elif not field.is_required() and value == field.get_default(call_default_factory=True):
            yield f"{place}.{name}"


def _keys(values: Mapping[str, Any]) -> list[str]:
    """Dotted keys of sections of plain values."""
    return [
        f"{key}.{name}" if name else key for key, v in values.items() for name in (v if isinstance(v, dict) else [""])
    ]


def _plain(value: Any) -> Any:
    """Settings as JSON values, without where something is and how fast it is read."""
    value = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items() if key not in _PLACES}
    return value
