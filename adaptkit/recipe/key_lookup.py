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
    word: key
    for key, words in {
        "learning_rate": "lr max_lr",
        "weight_decay": "wd",
        "num_train_epochs": "epochs num_epochs",
        "max_steps": "steps num_steps iterations",
        "train_batch_size": "global_batch_size total_batch_size effective_batch_size",
        "per_device_train_batch_size": "bs batch_size micro_batch_size train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps": "grad_accum accumulation",
        "warmup_ratio": "warmup",
        "lr_scheduler_type": "scheduler lr_scheduler",
        "max_grad_norm": "clip",
        "max_length": "cutoff_len max_seq_length max_seq_len model_max_length",
        "dataloader_num_workers": "num_workers workers",
        "gradient_checkpointing": "checkpointing",
        "torch_compile": "compile",
        "path": "model base_model model_name_or_path",
        "attn_implementation": "attention flash_attn",
        "quantization": "load_in_4bit load_in_8bit",
        "strategy": "zero deepspeed fsdp",
        "num_processes": "gpus num_gpus devices",
        "report_to": "wandb",
        "data_root": "data_dir",
        "tasks": "eval_tasks",
    }.items()
    for word in words.split()
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
