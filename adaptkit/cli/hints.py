"""What to type instead, where a command line was understood by other programs, or nearly by this one."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from adaptkit.errors import nearest_name

_OPTIONS = {
    "batch": "batch_size",
    "benchmark": "tasks",
    "benchmarks": "tasks",
    "checkpoint_path": "resume",
    "data_dir": "data",
    "data_root": "data",
    "devices": "num_processes",
    "fp16": "dtype",
    "gpus": "num_processes",
    "input": "prompt",
    "max_length": "max_new_tokens",
    "max_samples": "limit",
    "max_tokens": "max_new_tokens",
    "modality": "media",
    "n_gpus": "num_processes",
    "nproc": "num_processes",
    "nproc_per_node": "num_processes",
    "num_gpus": "num_processes",
    "num_samples": "limit",
    "o": "output",
    "out": "output",
    "output_dir": "output",
    "p": "prompt",
    "query": "prompt",
    "question": "prompt",
    "resume_from_checkpoint": "resume",
    "run_dir": "output",
    "save_dir": "output",
    "task": "tasks",
    "temp": "temperature",
    "text": "prompt",
    "world_size": "num_processes",
}
"""What other programs call an option, and what it is called here, where a command has it."""

_ARGUMENTS = {
    "RECIPE": ("config", "config_file", "cfg", "c", "recipe", "yaml", "file"),
    "CHECKPOINT": ("checkpoint", "ckpt", "model", "model_path", "model_name_or_path", "run", "path"),
    "DIR": ("dir", "directory", "input", "path"),
}
"""What is an argument here, and no option."""

_VALUE = "VALUE"
"""Stands for what an option was not given."""

_COMMANDS = {
    "ask": "generate",
    "benchmark": "eval",
    "check": "data check",
    "convert": "data convert",
    "env": "doctor",
    "finetune": "train",
    "fit": "train",
    "help": "--help",
    "infer": "generate",
    "info": "doctor",
    "list": "recipes",
    "ls": "recipes",
    "predict": "generate",
    "resume": "train RECIPE --output RUN --resume auto",
    "show": "inspect",
    "test": "eval",
    "validate": "data check",
    "version": "--version",
}
"""What other programs call a command."""

LISTING = ("list", "ls", "show", "all")
"""Words that ask a command to list what it lists without them."""


def command_like(name: str) -> str | None:
    """The command that other programs call so."""
    return _COMMANDS.get(name)


def option_hint(error: click.NoSuchOption, arguments: Sequence[str]) -> str | None:
    """What to write instead of an option that a command does not have."""
    context = error.ctx
    if context is None:
        return None
    word = error.option_name.lstrip("-")
    value = _value(error.option_name, arguments)
    command = context.command
    options = {p.name: p for p in command.params if isinstance(p, click.Option) and p.name}
    metavars = [p.metavar or str(p.name).upper() for p in command.params if isinstance(p, click.Argument)]
    takes_settings = any("a.b.c=value" in metavar for metavar in metavars)
    key = word.replace("-", "_").lower()
    known = options.get(key) or options.get(_OPTIONS.get(key, ""))
    if known is not None:
        return f"Write {known.opts[-1]}."
    if takes_settings and "." in word:
        return f"Settings of the recipe have no dashes: {word}={value}"
    for metavar, names in _ARGUMENTS.items():
        if key in names and any(metavar in one for one in metavars):
            given = metavar if value == _VALUE else value
            return f"It is not an option but the first argument: {context.command_path} {given}"
    if difflib.get_close_matches(error.option_name, error.possibilities or (), cutoff=0.85):
        return None
    if takes_settings:
        return setting_hint(word, value, arguments)
    return _media_hint(key, value, alike=bool(error.possibilities)) if "media" in options else None


def setting_hint(word: str, value: str, arguments: Sequence[str]) -> str | None:
    """The setting of a recipe that a word means, as it is written beside the recipe."""
    from adaptkit.recipe import Recipe, place_of

    place = place_of(Recipe, word)
    if place is None:
        return None
    stages = _stages(arguments)
    where = f" (its stages: {', '.join(stages)})" if stages and "STAGE" in place else ""
    return f"It is a setting of the recipe: {place.replace('STAGE', stages[0] if stages else 'STAGE')}={value}{where}"


def _stages(arguments: Sequence[str]) -> list[str]:
    """Names of the stages of the recipe that was named; none where it cannot be read."""
    from adaptkit.errors import AdaptkitError
    from adaptkit.recipe import find_recipe, load_recipe
    from adaptkit.recipe.finding import SUFFIXES

    for word in arguments[1:]:
        try:
            path = find_recipe(word)
            if path.is_file() and path.suffix in SUFFIXES:
                return [stage.name for stage in load_recipe(path).stages]
        except AdaptkitError:
            return []
    return []


def _media_hint(key: str, value: str, *, alike: bool) -> str | None:
    """How a file of an installed modality is given; of another word only where no option is spelt `alike`."""
    from adaptkit.plugin_manager import get_plugin_manager

    installed = get_plugin_manager().names("modality")
    name = key if key in installed else nearest_name(key, installed)
    if name is not None:
        return f"Write --media {name}={'FILE' if value == _VALUE else value}"
    may_be_file = value != _VALUE and not alike and not re.fullmatch(r"[-+.\d]+", value)
    if may_be_file or Path(value).is_file() or re.search(r"\.[A-Za-z]\w*$", value):
        return f"Media are given as --media NAME=FILE; installed: {', '.join(installed) or 'no modality'}."
    return None


def _value(option: str, arguments: Sequence[str]) -> str:
    """What was given to an option that is not known to take anything."""
    for position, word in enumerate(arguments):
        if word.startswith(f"{option}="):
            return shlex.quote(word.partition("=")[2])
        if word == option and position + 1 < len(arguments) and not arguments[position + 1].startswith("--"):
            return shlex.quote(arguments[position + 1])
    return _VALUE


def argument_hint(error: click.UsageError) -> str | None:
    """What a word too many may have been meant as."""
    if error.ctx is None or not error.message.startswith("Got unexpected extra argument"):
        return None
    options = {p.name: p for p in error.ctx.command.params if isinstance(p, click.Option)}
    if "prompt" in options:
        return "What to ask goes with --prompt, a file with --media NAME=FILE."
    if "tasks" in options:
        return "Benchmarks go with --tasks A,B."
    if "target" in options:
        return "The kind of checkpoint goes with --to, the folder with --output."
    return None
