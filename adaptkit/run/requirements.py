"""What a run needs of this machine, checked before anything is loaded or encoded."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from adaptkit.build import missing_resources
from adaptkit.errors import AdaptkitError, RecipeError, RunError, install_command, join_lines
from adaptkit.files.paths import cache_dir
from adaptkit.model.loss import has_liger
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.prediction.building import load_skeletons
from adaptkit.prediction.stages import PredictionOptions, Predictor
from adaptkit.processes.group import SHARDED, num_processes, require_packages
from adaptkit.recipe import Recipe, StageConfig, components_of
from adaptkit.run.starting import meant_for_gpus
from adaptkit.surgery.quantization import require_bitsandbytes
from adaptkit.training.metrics import require_reporters
from adaptkit.training.preparation import has_compiler

FLASH_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
"""Attention that is a package of its own, and what that is imported as."""


def unmet_requirements(recipe: Recipe, strategy: str = "none") -> list[str]:
    """Say which packages, devices and abilities a recipe's stages and benchmarks need and do not find here.

    Each names the key of the recipe, and what to do.

    Args:
        strategy: How processes share the work.
    """
    found = [*_of_the_run(recipe, strategy), *_of_stages(recipe, strategy), *_of_components(recipe), *_of_tasks(recipe)]
    return list(dict.fromkeys(found))


def require_all(recipe: Recipe, strategy: str = "none") -> None:
    """Refuse a recipe that cannot run here: models, data, packages, and then also GPUs.

    Raises:
        RecipeError: All that is missing, together.
    """
    resources, unmet = missing_resources(recipe), unmet_requirements(recipe, strategy)
    gpus = list(_of_gpus(recipe, strategy, hints=bool(resources)))
    if not resources and not unmet and not gpus:
        return
    lines = [f"recipe {recipe.name!r} cannot run here:", *(f"  {line}" for line in [*resources, *gpus, *unmet])]
    if resources or gpus:
        lines.append(
            "`adaptkit train RECIPE --rehearse` tries the whole recipe now, on tiny stand-ins of what is missing. The "
            "comment at the top of the recipe may say how to make it."
        )
    raise RecipeError(join_lines(lines))


def _of_gpus(recipe: Recipe, strategy: str, *, hints: bool) -> Iterator[str]:
    """That a recipe for large models finds no GPU, if this machine has no memory for it.

    Args:
        hints: Also where it has, since the recipe cannot run for other reasons, which are named beside this.
    """
    if torch.cuda.is_available() or not meant_for_gpus(recipe) or num_processes() > 1:
        return
    needed, here = least_memory(recipe), host_memory()
    if needed is None:
        size = "`adaptkit inspect RECIPE --gpus N` predicts the memory of each, once the config.json of models is here"
    else:
        size = f"by prediction, the largest stage takes {needed / 2**30:,.1f} GiB of one, a sample at a time"
    if hints or (needed is not None and here is not None and needed > here):
        memory = "" if here is None else f", and this machine has {here / 2**30:,.1f} GiB of memory"
        yield f"GPUs: none is visible{memory}; {size}."
    if hints and recipe.accelerator.strategy != strategy:
        missing = _said(require_packages, recipe.accelerator.strategy)
        yield from (f"packages, on several GPUs: {problem}" for problem in missing)


def least_memory(recipe: Recipe) -> int | None:
    """Bytes that a recipe's largest stage takes of one device, a sample at a time; None where that is not known."""
    one = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    try:
        predictor = Predictor(load_skeletons(recipe), PredictionOptions(num_devices=1, batch_size=1))
        return max(predictor.predict(stage.model_copy(update=one)).memory.peak for stage in recipe.stages)
    except AdaptkitError:
        return None


def host_memory() -> int | None:
    """Bytes of this machine's memory, where its system says."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _said(check: object, *arguments: object) -> Iterator[str]:
    """What a check raises, as a problem."""
    try:
        check(*arguments)  # type: ignore[operator]
    except AdaptkitError as error:
        yield str(error)


def _of_the_run(recipe: Recipe, strategy: str) -> Iterator[str]:
    for name in recipe.logging.report_to:
        yield from _said(require_reporters, [name])
    yield from _said(require_packages, strategy)
    if recipe.base.quantization is not None:
        yield from _said(require_bitsandbytes, f"base.quantization: {recipe.base.quantization}")
    wanted = recipe.base.attn_implementation
    package = FLASH_PACKAGES.get(wanted or "")
    if package is not None and importlib.util.find_spec(package) is None:
        yield (
            f"base.attn_implementation: {wanted} needs the package {package.replace('_', '-')}, which is not "
            "installed. Take auto, which uses it where it is there."
        )
    elif package is not None and not torch.cuda.is_available():
        yield f"base.attn_implementation: {wanted} needs a GPU, and none is seen. Take auto or sdpa."


def _of_stages(recipe: Recipe, strategy: str) -> Iterator[str]:
    for stage in recipe.stages:
        where = f"stages.{stage.name}"
        if "adamw_8bit" in stage.optimizer_names():
            yield from _said(require_bitsandbytes, f"{where}.optimizer: adamw_8bit")
        yield from _of_kernels(where, stage, strategy)


def _of_kernels(where: str, stage: StageConfig, strategy: str) -> Iterator[str]:
    if stage.loss == "liger":
        if not has_liger():
            yield (
                f"{where}.loss: liger needs the package liger-kernel ({install_command('liger')}). Take auto, which "
                "does without."
            )
        elif not torch.cuda.is_available():
            yield f"{where}.loss: liger needs a GPU, and none is seen. Take auto, which does without."
        elif strategy in SHARDED:
            yield f"{where}.loss: liger needs the whole head, and accelerator.strategy={strategy} shards it. Take auto."
    if stage.torch_compile and not has_compiler():
        needed = "triton" if torch.cuda.is_available() else "a C++ compiler"
        yield f"{where}.torch_compile needs {needed}, and none is found. Install it, or set it to false."
    if stage.bf16 and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        yield f"{where}.bf16: this GPU cannot compute in bfloat16. Set it to false."


def _of_components(recipe: Recipe) -> Iterator[str]:
    """What plugins report as missing, for the kinds that `missing_resources` does not cover."""
    for config in components_of(recipe):
        if config.kind not in ("encoder", "data source"):
            problem = get_plugin_manager().get(config.kind, config.component).missing(config.options)
            if problem:
                yield f"{config.kind} {config.component}: {problem}"


def _of_tasks(recipe: Recipe) -> Iterator[str]:
    """Benchmarks that the recipe's workflows cannot answer."""
    trained = list(dict.fromkeys(stage.workflow for stage in recipe.stages))
    workflows = {name: recipe.workflows[name].modalities or list(recipe.modalities) for name in trained}
    for index, task in enumerate(recipe.evaluation.tasks):
        component = get_plugin_manager().get("evaluation task", task.name)
        for problem in component.problems(task.options, workflows):
            yield f"evaluation.tasks[{index}] ({task.name}): {problem}"
        yield from _said(component.build, task.options)


# -- places ----------------------------------------------------------------------------------------------------------


def require_places(recipe: Recipe, output_dir: Path) -> None:
    """Make sure that a run can write where it will.

    Raises:
        RecipeError: It cannot; the message names the folder.
    """
    cached = any(modality.cache_features for modality in recipe.modalities.values())
    places = {"--output": output_dir} | ({"ADAPTKIT_CACHE": cache_dir()} if cached else {})
    for name, folder in places.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise RecipeError(
                f"{name}: {folder} cannot be written to: {error.strerror or error}. Name another folder with {name}."
            ) from None


def require_space(output_dir: Path, num_bytes: int, stage: str) -> None:
    """Make sure that a checkpoint fits on the disk.

    Raises:
        RunError: It does not.
    """
    free = shutil.disk_usage(output_dir).free
    if num_bytes > free:
        raise RunError(
            f"a checkpoint of stage {stage!r} takes about {num_bytes / 2**30:,.1f} GiB, and the disk of "
            f"{os.fspath(output_dir)} has {free / 2**30:,.1f} GiB left. Free some space, or name another --output."
        )
