"""How a stage is spread over processes: what each strategy needs, does, and must prove to have done.

`ddp` copies the model to every process; `zero2` (DeepSpeed) also shares gradients and optimiser state out; `zero3`
(DeepSpeed) and `fsdp` (PyTorch's `fully_shard`) share out all weights, those of the frozen base included.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError, RecipeError, RunError
from adaptkit.files.hashing import hash_tensors
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.reference import record_content
from adaptkit.processes.group import ENGINES, SHARDED, ZERO_STAGES, any_process, is_main_process
from adaptkit.stage import StageConfig
from adaptkit.surgery import InsertionPolicy, decoder_layers


def check_optimizers(strategy: str, settings: StageConfig) -> None:
    """Make sure that every optimiser of a stage works on what a process has of the parameters.

    Raises:
        RecipeError: One does not: Muon needs whole matrices, and others are untried on parts.
    """
    if strategy not in ENGINES:
        return
    for name in settings.optimizer_names():
        if name != "adamw":
            raise RecipeError(
                f"stage {settings.name!r}: the optimizer {name} does not work with accelerator.strategy={strategy}, "
                "where a process holds parts of the matrices that it updates. Take adamw, or accelerator.strategy=ddp."
            )


def check_policy(strategy: str, policy: InsertionPolicy | None) -> None:
    """Make sure that a workflow's layers can be gathered as a whole, which FSDP does.

    Raises:
        ModelError: They cannot.
    """
    if strategy == "fsdp" and policy is not None and not policy.layers_are_closed:
        raise ModelError(
            f"accelerator.strategy: fsdp does not work with the policy of this workflow ({type(policy).__name__}): its "
            "layers hand on more than their outputs. Take zero3, zero2 or ddp."
        )


# -- DeepSpeed -----------------------------------------------------------------------------------------------------


def deepspeed_config(strategy: str, settings: StageConfig) -> dict[str, Any] | None:
    """What `TrainingArguments(deepspeed=…)` takes; None where the strategy is not DeepSpeed's."""
    if strategy not in ZERO_STAGES:
        return None
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": {"stage": ZERO_STAGES[strategy]},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's own AdamW, also on a CPU: it needs no compiler
    }
    if settings.bf16:  # the engine switches off an autocast that it was not told of; an empty list: weights stay whole
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return config


@contextmanager
def deepspeed_state() -> Iterator[None]:
    """Keep what DeepSpeed's integration leaves behind in a process from what comes after the stage."""
    before = os.environ.get("ACCELERATE_USE_DEEPSPEED")
    _quiet_deepspeed()
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()


def _quiet_deepspeed() -> None:
    """Load DeepSpeed without its routine messages and, on a CPU, without what it would compile."""
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    for name in (
        "DeepSpeed",
        "accelerate.accelerator",
    ):  # the latter finds accumulation, which it leaves to others, odd
        logging.getLogger(name).setLevel(logging.ERROR)
    if not torch.accelerator.is_available():
        # Reductions through shared memory would need a compiler; gloo does them as well
        vars(deepspeed.ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False


# -- sharding ------------------------------------------------------------------------------------------------------


def shard(model: nn.Module, strategy: str) -> None:
    """Share out the weights of a model that is whole, where the strategy is one of `SHARDED`.

    Raises:
        ModelError: Its layers cannot be gathered as a whole, which FSDP does.
    """
    policy = getattr(model, "policy", None)
    check_policy(strategy, policy)
    if strategy in SHARDED and is_main_process():
        _remember_sources(model)
    if strategy == "fsdp":
        _shard_with_fsdp(model)
    elif strategy == "zero3":
        import deepspeed
        from deepspeed.utils import set_z3_leaf_module

        deepspeed.init_distributed(dist_init_required=False)
        for unit in _units(model) if getattr(policy, "layers_are_closed", True) else ():
            set_z3_leaf_module(unit, True)  # else processes wait where the way through a layer depends on the data
        minimal = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}
        deepspeed.zero.Init(module=model, config_dict_or_path=minimal)
        _place_buffers(model)


def _place_buffers(model: nn.Module) -> None:
    """Bring buffers to where DeepSpeed takes the parameters."""
    if torch.cuda.is_available():
        for module in model.modules():
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.cuda()


def _remember_sources(model: nn.Module) -> None:
    """Take down what a checkpoint says of base and encoders, which nobody can tell once they are shared out."""
    if not isinstance(model, AdaptkitForConditionalGeneration):
        return
    for name, encoder in model.source_encoders.items():
        if "adopted_by" in model.config.modalities[name]["encoder"]:  # a checkpoint holds a copy of such a one
            model.source_encoders[name] = copy.deepcopy(encoder)
    record_content(model)


def _shard_with_fsdp(model: nn.Module) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    before = dict(model.named_parameters(remove_duplicate=False))
    for unit in _units(model):
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh)
    after = dict(model.named_parameters(remove_duplicate=False))
    renewed = {id(parameter): after[name] for name, parameter in before.items()}
    for other in [getattr(model, "base", None), *getattr(model, "source_encoders", {}).values()]:
        if isinstance(other, nn.Module):
            _retie(other, renewed)


def _units(model: nn.Module) -> Iterator[nn.Module]:
    """Modules whose weights are gathered together: layers of the decoder and of encoders; the rest is one unit."""
    decoder = getattr(model, "language_model", None)
    lists = [decoder_layers(decoder)] if decoder is not None else []
    for encoder in getattr(model, "encoders", {}).values():
        lists += _outermost_lists(encoder)
    for modules in lists:
        for module in modules:
            if any(True for _ in module.parameters()):
                yield module


def _outermost_lists(module: nn.Module) -> list[nn.ModuleList]:
    if isinstance(module, nn.ModuleList):
        return [module]
    return [found for child in module.children() for found in _outermost_lists(child)]


def _retie(module: nn.Module, renewed: Mapping[int, nn.Parameter]) -> None:
    """Let the base share its tensors with the workflow still, so that no process keeps a whole copy."""
    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None and id(parameter) in renewed:
                child._parameters[name] = renewed[id(parameter)]


def local_part(parameter: Tensor) -> Tensor:
    """What this process holds of a parameter's values."""
    from torch.distributed.tensor import DTensor

    if hasattr(parameter, "ds_tensor"):
        return cast(Tensor, parameter.ds_tensor.detach())
    return parameter.to_local().detach() if isinstance(parameter, DTensor) else parameter.detach()


def num_dimensions(parameter: Tensor) -> int:
    """Dimensions of a parameter as the model knows it, whatever is left of it in this process."""
    return len(getattr(parameter, "ds_shape", parameter.shape))


def whole(parameter: Tensor) -> Tensor:
    """All values of a parameter, gathered from all processes, which must all ask."""
    from torch.distributed.tensor import DTensor

    if hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()
    return parameter.full_tensor().detach() if isinstance(parameter, DTensor) else parameter.detach()


def whole_tensors(model: nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """The model's own tensors by name, gathered one after the other; all processes must ask.

    Args:
        model: A `WorkflowModel`, whole or shared out.
        keep: Whether this process wants them, on the CPU; else it only takes part and gets nothing.
    """
    parameters = dict(model.named_parameters())
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.trainable_state_dict().items():  # type: ignore[operator]
        gathered = whole(parameters.get(name, tensor))
        if keep:
            tensors[name] = gathered.cpu()
    return tensors


# -- proof ---------------------------------------------------------------------------------------------------------


def assert_spread(strategy: str, model: nn.Module, wrapped: Any) -> None:
    """Make sure that what was asked for is what runs.

    Args:
        strategy: What the recipe asks for.
        model: The workflow.
        wrapped: What accelerate made of it.

    Raises:
        RunError: It is something else, such as plain data parallelism.
    """
    problem = _CHECKS[strategy](model, wrapped)
    if problem:
        raise RunError(
            f"accelerator.strategy: {strategy} was asked for, and {problem}. The run is stopped, since nothing else "
            "is to take its place; please report this with the versions that `adaptkit doctor` shows."
        )


def _not_alone(model: nn.Module, wrapped: Any) -> str:
    return "" if wrapped is model else f"the model was wrapped in {type(wrapped).__name__}"


def _not_ddp(model: nn.Module, wrapped: Any) -> str:
    fits = isinstance(wrapped, nn.parallel.DistributedDataParallel)
    return "" if fits else f"the model is in {type(wrapped).__name__} instead of DistributedDataParallel"


def _not_zero2(model: nn.Module, wrapped: Any) -> str:
    stage = _stage_of(wrapped)
    return "" if stage == 2 else f"the model is in {type(wrapped).__name__} at ZeRO stage {stage}"


def _not_zero3(model: nn.Module, wrapped: Any) -> str:
    stage = _stage_of(wrapped)
    if stage != 3:
        return f"the model is in {type(wrapped).__name__} at ZeRO stage {stage}"
    return _unsharded(model, lambda parameter: hasattr(parameter, "ds_tensor"))


def _not_fsdp(model: nn.Module, wrapped: Any) -> str:
    from torch.distributed.tensor import DTensor

    if wrapped is not model:
        return f"the model was wrapped in {type(wrapped).__name__}"
    return _unsharded(model, lambda parameter: isinstance(parameter, DTensor))


_CHECKS: dict[str, Callable[[nn.Module, Any], str]] = {
    "none": _not_alone,
    "ddp": _not_ddp,
    "zero2": _not_zero2,
    "zero3": _not_zero3,
    "fsdp": _not_fsdp,
}


def _stage_of(wrapped: Any) -> int | None:
    stage = getattr(wrapped, "zero_optimization_stage", None)
    return int(stage()) if callable(stage) else None


def _unsharded(model: nn.Module, is_shared_out: Callable[[nn.Parameter], bool]) -> str:
    whole_ones = [name for name, parameter in model.named_parameters() if not is_shared_out(parameter)]
    return f"{len(whole_ones)} parameters are not shared out ({', '.join(whole_ones[:3])})" if whole_ones else ""


class FrozenShards:
    """Fingerprint of the frozen weights of a model that is shared out, each process of its own part.

    Args:
        model: After `shard`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._fingerprint = hash_tensors(self._parts())

    def _parts(self) -> Iterable[tuple[str, Tensor]]:
        return [(name, local_part(p)) for name, p in self._model.named_parameters() if not p.requires_grad]

    def check(self, stage: str) -> None:
        """Compare with the beginning, in all processes.

        Raises:
            RunError: Some frozen weight changed in some process.
        """
        if any_process(hash_tensors(self._parts()) != self._fingerprint):
            raise RunError(
                f"stage {stage!r} changed tensors of the frozen base or of an encoder. The run is stopped, and its "
                "result must not be used; please report this with the recipe."
            )
