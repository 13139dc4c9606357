"""The keys that a recipe may have at a place, by its pydantic models, and the place of a setting by its name."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

_SECTIONS: tuple[tuple[str, tuple[int | str, ...]], ...] = (
    ("", ()),
    ("stages.STAGE.", ("stages", 0)),
    ("stages.STAGE.optimizer.", ("stages", 0, "optimizer")),
    ("accelerator.", ("accelerator",)),
    ("logging.", ("logging",)),
    ("base.", ("base",)),
    ("evaluation.", ("evaluation",)),
)
_ELSEWHERE = {
    "lr": "learning_rate",
    "max_lr": "learning_rate",
    "wd": "weight_decay",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "steps": "max_steps",
    "num_steps": "max_steps",
    "iterations": "max_steps",
    "bs": "per_device_train_batch_size",
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "grad_accum": "gradient_accumulation_steps",
    "accumulation": "gradient_accumulation_steps",
    "warmup": "warmup_ratio",
    "scheduler": "lr_scheduler_type",
    "lr_scheduler": "lr_scheduler_type",
    "clip": "max_grad_norm",
    "cutoff_len": "max_length",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "model_max_length": "max_length",
    "num_workers": "dataloader_num_workers",
    "workers": "dataloader_num_workers",
    "checkpointing": "gradient_checkpointing",
    "compile": "torch_compile",
    "model": "path",
    "base_model": "path",
    "model_name_or_path": "path",
    "attention": "attn_implementation",
    "flash_attn": "attn_implementation",
    "load_in_4bit": "quantization",
    "load_in_8bit": "quantization",
    "zero": "strategy",
    "deepspeed": "strategy",
    "fsdp": "strategy",
    "gpus": "num_processes",
    "num_gpus": "num_processes",
    "devices": "num_processes",
    "wandb": "report_to",
    "data_dir": "data_root",
    "eval_tasks": "tasks",
}
"""What other trainers call a setting."""


def keys_at(model: type[BaseModel], location: Iterable[int | str]) -> list[str]:
    """The keys of the model at a location inside another; none where there is no model."""
    annotation: Any = model
    for step in location:
        annotation = _inside(_bare(annotation), step)
    bare = _bare(annotation)
    return _keys(bare) if _is_model(bare) else []


def place_of(recipe: type[BaseModel], word: str) -> str | None:
    """The dotted key of a setting by its name alone, `stages.STAGE.max_steps`; None where a recipe has none like it.

    Args:
        recipe: The model of recipes.
        word: As somebody wrote it, with dashes or underscores.
    """
    places: dict[str, str] = {}
    for prefix, location in _SECTIONS:
        for key in keys_at(recipe, location):
            places.setdefault(key, prefix + key)
    name = word.strip("-").replace("-", "_").lower()
    near = difflib.get_close_matches(_ELSEWHERE.get(name, name), places, n=1, cutoff=0.8)
    return places[near[0]] if near else None


def _inside(annotation: Any, step: int | str) -> Any:
    if _is_model(annotation):
        field = annotation.model_fields.get(str(step))
        return field.annotation if field is not None else None
    arguments = get_args(annotation)
    if isinstance(get_origin(annotation), type) and issubclass(get_origin(annotation), Mapping):
        return arguments[-1]
    return arguments[0] if arguments else None


def _bare(annotation: Any) -> Any:
    """Without `Annotated` and `| None`: of several alternatives the first that has an inside."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        alternatives = [_bare(a) for a in get_args(annotation)]
        return next((a for a in alternatives if _is_model(a) or get_args(a)), None)
    return annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _keys(model: type[BaseModel]) -> list[str]:
    shorthand: Iterable[str] = getattr(model, "shorthand", ())
    return [*(field.alias or name for name, field in model.model_fields.items()), *shorthand]
