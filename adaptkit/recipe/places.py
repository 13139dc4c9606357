"""Where a setting stands in a recipe, for those who know it by another name or from elsewhere."""

from __future__ import annotations

import difflib

from pydantic import BaseModel

from adaptkit.recipe.keys import keys_at

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
