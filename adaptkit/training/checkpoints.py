"""Checkpoint folders that are either whole or not there, as `adaptkit.files.writing` makes them.

Whatever stops the process, `checkpoint-N` is complete where it exists, and the one before is deleted only after that.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerState

from adaptkit.errors import ModelError, RecipeError, RunError
from adaptkit.files.hashing import same_text
from adaptkit.files.loading import read_json, reading
from adaptkit.files.writing import remove_folder, replace_folder, staged_folder
from adaptkit.model.checkpoint import load_tensors

STAGE_FILE = "adaptkit_stage.json"
STATE_FILE = "trainer_state.json"
FILES_FILE = "adaptkit_files.json"
VALIDATION = "ValidationCallback"
"""Under which name the trainer saves the state of the callback that validates: its class's."""
DEFAULTS = "defaults"
"""Key under which a stage's identity names settings that have their default value.

What a checkpoint does not name has been added to adaptkit since, and may only have its default.
"""
DAMAGED = "The checkpoint is damaged: delete it, and --resume auto resumes from the one before."

_HYPERPARAMETERS = (
    *("optimizer.learning_rate", "optimizer.weight_decay", "optimizer.betas", "optimizer.eps"),
    *("optimizer.adamw_learning_rate", "optimizer.groups", "lr_scheduler_type"),
    *("warmup_ratio", "warmup_steps", "max_grad_norm"),
)
_SPLIT = ("per_device_train_batch_size", "gradient_accumulation_steps", "num_processes")
_NAME = re.compile(r"checkpoint-(\d+)")


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was taken; -1 for any other folder."""
    match = _NAME.fullmatch(checkpoint.name)
    return int(match.group(1)) if match else -1


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Complete checkpoints of a stage, oldest first."""
    return sorted(filter(is_checkpoint, output_dir.glob("checkpoint-*")), key=step_of)


def find_newest(output_dir: Path) -> Path | None:
    """The newest complete checkpoint of a stage, if any."""
    return next(reversed(list_checkpoints(output_dir)), None)


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a complete checkpoint of a stage."""
    return (folder / STATE_FILE).is_file() and step_of(folder) >= 0


@contextmanager
def staged_checkpoint(destination: Path) -> Iterator[Path]:
    """Give a folder to write in, which becomes the checkpoint `destination` once the block ends well.

    Raises:
        RunError: Something could not be written; what was at `destination` before is still there.
    """
    others = list_checkpoints(destination.parent)
    kept = f"The checkpoint before it, {others[-1]}, is intact." if others else "There is no earlier checkpoint."
    with staged_folder(destination, hint=f"{kept} Continue with `--resume auto` then.") as folder:
        yield folder


def rotate(output_dir: Path, limit: int) -> None:
    """Delete the oldest checkpoints beyond `limit`, but for those that a newer one calls the best."""
    found = list_checkpoints(output_dir)
    best = {best_of(checkpoint) for checkpoint in found[-limit:]}
    for checkpoint in found[:-limit]:
        if checkpoint not in best:
            remove_folder(checkpoint)


def best_of(checkpoint: Path) -> Path | None:
    """The checkpoint with the lowest validation loss until this one, whether or not it is kept; None without any."""
    step = saved_validation(checkpoint).get("best_step")
    return checkpoint.with_name(f"checkpoint-{step}") if isinstance(step, int) else None


def saved_validation(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint holds of the stage's validation; nothing where it has none."""
    return validation_in(read_json(checkpoint / STATE_FILE, RunError, DAMAGED).get("stateful_callbacks"))


def validation_in(callbacks: Any) -> dict[str, Any]:
    """The same, of what the trainer has saved for its callbacks."""
    found = callbacks.get(VALIDATION) if isinstance(callbacks, dict) else None
    attributes = found.get("attributes") if isinstance(found, dict) else None
    return attributes if isinstance(attributes, dict) else {}


def find_resume_checkpoint(output_dir: Path, resume: Path | str | None) -> Path | None:
    """The checkpoint from which a stage continues, or None for a fresh start.

    Checkpoints newer than one that was asked for by name are renamed to `abandoned-checkpoint-N`.

    Args:
        resume: "auto" for the newest complete checkpoint, if any; a checkpoint; None for a fresh start.

    Raises:
        RecipeError: `resume` is not a complete checkpoint, or a fresh start would overwrite one.
    """
    existing = list_checkpoints(output_dir)
    if resume == "auto":
        return existing[-1] if existing else None
    if resume is None:
        if existing:
            raise RecipeError(
                f"{output_dir} holds checkpoints of an earlier run ({existing[-1].name}). Continue it with "
                "`--resume auto`, choose another `--output`, or delete the folder."
            )
        return None
    checkpoint = Path(resume)
    if not is_checkpoint(checkpoint):
        known = ", ".join(path.name for path in existing) or "none"
        raise RecipeError(f"{checkpoint} is not a complete checkpoint. Checkpoints in {output_dir}: {known}.")
    if checkpoint.resolve().parent == output_dir.resolve():
        for newer in existing:
            if step_of(newer) > step_of(checkpoint):
                replace_folder(newer, newer.with_name(f"abandoned-{newer.name}"))
    return checkpoint


def write_files(folder: Path) -> None:
    """Record what a checkpoint consists of, with checksums, once everything else is written."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor() as executor:
        sums = list(executor.map(_checksum, paths))
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": value}
        for path, value in zip(paths, sums)
    }
    (folder / FILES_FILE).write_text(json.dumps(files, indent=1) + "\n", encoding="utf-8")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_whole(checkpoint: Path) -> None:
    """Make sure that a checkpoint is as it was written.

    Raises:
        RunError: A file is missing or has other content; the message names it and the checkpoint before.
    """
    problem = _damage(checkpoint)
    if problem is None:
        with reading(checkpoint / STATE_FILE, RunError, DAMAGED):
            TrainerState.load_from_json(str(checkpoint / STATE_FILE))
        completed_steps(checkpoint)
        planned_steps(checkpoint)
        return
    earlier = [path for path in list_checkpoints(checkpoint.parent) if step_of(path) < step_of(checkpoint)]
    advice = (
        f"then --resume auto resumes from {earlier[-1].name}" if earlier else "then its stage starts from the beginning"
    )
    raise RunError(f"the checkpoint {checkpoint} is damaged: {problem}. Delete it: {advice}.")


def _damage(checkpoint: Path) -> str | None:
    try:
        files = read_json(checkpoint / FILES_FILE, RunError)
        # Earlier versions recorded sizes alone
        expected = {name: value if isinstance(value, dict) else {"size": value} for name, value in files.items()}
        for name, values in expected.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != values["size"]:
                return f"{name} has {path.stat().st_size:,} of {values['size']:,} bytes"
        hashed = [name for name, values in expected.items() if "sha256" in values]
        with ThreadPoolExecutor() as executor:
            sums = zip(hashed, executor.map(_checksum, (checkpoint / name for name in hashed)))
        changed = [name for name, value in sums if value != expected[name]["sha256"]]
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RunError) as error:
        return f"{FILES_FILE} cannot be read ({error})"
    return f"{changed[0]} is not what was written (checksum)" if changed else None


def completed_steps(checkpoint: Path) -> int:
    """Optimiser steps behind a checkpoint."""
    return _state(checkpoint, "global_step")


def planned_steps(checkpoint: Path) -> int:
    """Optimiser steps that its stage was to have."""
    return _state(checkpoint, "max_steps")


def _state(checkpoint: Path, key: str) -> int:
    path = checkpoint / STATE_FILE
    value = read_json(path, RunError, DAMAGED).get(key)
    if not isinstance(value, int):
        raise RunError(f"{path}: {key} should be a whole number. {DAMAGED}")
    return value


def write_stage(folder: Path, fixed: Mapping[str, Any]) -> None:
    """Record beside a checkpoint what a resumed run must share with this one."""
    (folder / STAGE_FILE).write_text(json.dumps(fixed, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def check_same_stage(checkpoint: Path, fixed: Mapping[str, Any], *, new_rates: bool = False) -> str | None:
    """Make sure that continuing a checkpoint ends in the weights of an uninterrupted run.

    With another number of processes that is so to rounding, where the batches of all processes together are as before.

    Args:
        fixed: What a resumed run must share with the one it continues.
        new_rates: Whether learning rates and the like may differ, since the user wants another run from there on.

    Returns:
        The differences, in words.

    Raises:
        RecipeError: The stage's settings or its data changed; the message names what.
    """
    path = checkpoint / STAGE_FILE
    if not path.is_file():
        raise RecipeError(f"{checkpoint} was not written by a training stage: it has no {STAGE_FILE}")
    before, now = read_json(path, RunError, DAMAGED), json.loads(json.dumps(fixed))
    before, now = _by_step(before), _by_step(now)
    before.pop(DEFAULTS, None)
    defaults = set(now.pop(DEFAULTS, ()))
    before, now = _flat(before), _flat(now)
    known = before.keys() | (now.keys() - defaults)
    changed = sorted(key for key in known if not same_text(before.get(key), now.get(key)))
    differences = "; ".join(f"{key} was {before.get(key)}, is now {now.get(key)}" for key in changed)
    if changed == ["num_samples"] and now.get("packing"):
        raise RecipeError(
            f"cannot resume {checkpoint}: an epoch had {before['num_samples']} packs, and would have "
            f"{now['num_samples']}: all epochs of a stage have as many as its fullest, and another length gave it "
            "another one. Keep the stage's length (num_train_epochs, max_steps), or start a new run with another "
            "`--output`."
        )
    only_rates = all(_is_hyperparameter(key) for key in changed)
    if changed and not (only_rates and new_rates):
        way_on = f", or resume from there with the new ones: --resume {checkpoint}" if only_rates else ""
        raise RecipeError(
            f"cannot resume {checkpoint}: {differences}. Restore these settings to continue{way_on}, or start a "
            "new run with another `--output`."
        )
    return differences or None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _is_hyperparameter(key: str) -> bool:
    """Whether a setting may change from a checkpoint on; what kind an optimiser is goes with its state."""
    is_kind = key.startswith("optimizer.groups.") and key.endswith(".name")
    return not is_kind and any(key == name or key.startswith(f"{name}.") for name in _HYPERPARAMETERS)


def _by_step(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """With the samples of an optimiser step, and the positions of a pack, instead of how the step is split."""
    split = {key: int(fixed.get(key) or 1) for key in _SPLIT}
    packed = fixed.get("packing")
    steps = {"train_batch_size": math.prod(n for key, n in split.items() if not (packed and key == _SPLIT[0]))}
    if packed and "max_length" in fixed:  # older checkpoints do not say
        steps["row_length"] = split[_SPLIT[0]] * int(fixed["max_length"])
    return {**steps, **{key: value for key, value in fixed.items() if key not in _SPLIT}}


def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Copy a checkpoint's tensors into the model they were saved from.

    Raises:
        ModelError: Names, shapes or dtypes differ from those of `model.trainable_state_dict()`.
    """
    saved = load_tensors(checkpoint)
    live: dict[str, Tensor] = model.trainable_state_dict()  # type: ignore[operator]
    if saved.keys() != live.keys():
        missing, unknown = sorted(live.keys() - saved.keys()), sorted(saved.keys() - live.keys())
        raise ModelError(
            f"{checkpoint} is a checkpoint of another model: it lacks {len(missing)} tensors"
            f" ({', '.join(missing[:3]) or 'none'}) and holds {len(unknown)} unknown ones"
            f" ({', '.join(unknown[:3]) or 'none'})"
        )
    for name, tensor in live.items():
        if (saved[name].shape, saved[name].dtype) != (tensor.shape, tensor.dtype):
            raise ModelError(
                f"{checkpoint}: {name} is {tuple(saved[name].shape)} {saved[name].dtype} there and "
                f"{tuple(tensor.shape)} {tensor.dtype} in the model"
            )
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(saved[name])
