"""Strategies for several processes: what each needs and does, and a check that it runs.

`ddp` copies the model to every process; `zero2` (DeepSpeed) also shards gradients and optimizer state; `zero3`
(DeepSpeed) and `fsdp` (PyTorch's `fully_shard`) shard all weights, including those of the frozen base.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from adaptkit.errors import ModelError, RecipeError, RunError
from adaptkit.files.hashing import hash_tensors
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.encoders import is_sharded
from adaptkit.model.integrity import record_content
from adaptkit.processes.group import ENGINES, SHARDED, ZERO_STAGES, any_process, is_main_process
from adaptkit.stage import StageConfig
from adaptkit.surgery import InsertionPolicy, decoder_layers


def check_optimizers(strategy: str, settings: StageConfig) -> None:
    """Check that every optimizer of a stage works on sharded parameters.

    Raises:
        RecipeError: One does not: Muon needs whole matrices, and others are untested on shards.
    """
    if strategy not in ENGINES:
        return
    for name in settings.optimizer_names():
        if name != "adamw":
            raise RecipeError(
                f"stage {settings.name!r}: the optimizer {name} does not work with accelerator.strategy={strategy}, "
                "which shards the matrices that it updates. Use adamw, or accelerator.strategy=ddp."
            )


def check_policy(strategy: str, policy: InsertionPolicy | None) -> None:
    """Check that FSDP can gather the layers of a workflow one by one.

    Raises:
        ModelError: It cannot.
    """
    if strategy == "fsdp" and policy is not None and not policy.layers_are_closed:
        raise ModelError(
            f"accelerator.strategy: fsdp does not work with the policy of this workflow ({type(policy).__name__}): its "
            "layers pass on more than their outputs. Use zero3, zero2 or ddp."
        )


# -- DeepSpeed -----------------------------------------------------------------------------------------------------


def deepspeed_config(strategy: str, settings: StageConfig) -> dict[str, Any] | None:
    """The argument of `TrainingArguments(deepspeed=…)`; None if the strategy is not DeepSpeed's."""
    if strategy not in ZERO_STAGES:
        return None
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": {"stage": ZERO_STAGES[strategy]},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW needs no compiler, also on a CPU
    }
    if settings.bf16:  # otherwise the engine disables autocast; an empty list: weights stay float32
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return config


@contextmanager
def deepspeed_state() -> Iterator[None]:
    """Remove the global state that DeepSpeed's integration leaves in a process after the stage."""
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
    """Load DeepSpeed without its routine messages and, on a CPU, without extensions that it compiles."""
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    for name in ("DeepSpeed", "accelerate.accelerator"):  # the latter warns of gradient accumulation
        logging.getLogger(name).setLevel(logging.ERROR)
    if not torch.accelerator.is_available():
        # Reductions through shared memory need a compiler; gloo does not
        vars(deepspeed.ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False


# -- sharding ------------------------------------------------------------------------------------------------------


def shard(model: nn.Module, strategy: str) -> None:
    """Shard the weights of a model, if the strategy is one of `SHARDED`.

    Raises:
        ModelError: FSDP cannot gather its layers one by one.
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
            set_z3_leaf_module(unit, True)  # otherwise processes deadlock in layers with data-dependent branches
        minimal = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}
        deepspeed.zero.Init(module=model, config_dict_or_path=minimal)
        _place_buffers(model)


def _place_buffers(model: nn.Module) -> None:
    """Move buffers to the device to which DeepSpeed moves parameters."""
    if torch.cuda.is_available():
        for module in model.modules():
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.cuda()


def _remember_sources(model: nn.Module) -> None:
    """Record what a checkpoint says about base and encoders, which cannot be determined once they are sharded."""
    if not isinstance(model, AdaptkitForConditionalGeneration):
        return
    for name, encoder in model.source_encoders.items():
        if "adopted_by" in model.config.modalities[name]["encoder"]:  # a checkpoint holds a copy of it
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
    """Let the base share the sharded tensors of the workflow, so that no process keeps a full copy."""
    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None and id(parameter) in renewed:
                child._parameters[name] = renewed[id(parameter)]


def local_shard(parameter: Tensor) -> Tensor:
    """This process's shard of a parameter."""
    from torch.distributed.tensor import DTensor

    if hasattr(parameter, "ds_tensor"):
        return cast(Tensor, parameter.ds_tensor.detach())
    return parameter.to_local().detach() if isinstance(parameter, DTensor) else parameter.detach()


def num_dimensions(parameter: Tensor) -> int:
    """Dimensions of a parameter before sharding."""
    return len(getattr(parameter, "ds_shape", parameter.shape))


def full_tensor(parameter: Tensor) -> Tensor:
    """Gather a tensor, such as a parameter, from all processes; a collective operation."""
    from torch.distributed.tensor import DTensor

    if hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().clone()
    return parameter.full_tensor().detach() if isinstance(parameter, DTensor) else parameter.detach()


def gather_tensors(model: nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """Gather the model's own tensors by name; a collective operation.

    `get_model_state_dict` of `torch.distributed.checkpoint` would gather all weights, including those of the base, or
    only those that this stage trains.

    Args:
        keep: Whether this process keeps them, in CPU memory; otherwise the result is empty.
    """
    parameters = dict(model.named_parameters())
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.trainable_state_dict().items():  # type: ignore[operator]
        gathered = full_tensor(parameters.get(name, tensor))
        if keep:
            tensors[name] = gathered.cpu()
    return tensors


# -- checks --------------------------------------------------------------------------------------------------------


def assert_strategy(strategy: str, model: nn.Module, wrapped: Any) -> None:
    """Check that the requested strategy runs.

    Raises:
        RunError: Something else runs, such as plain data parallelism.
    """
    problem = _mismatch(strategy, model, wrapped)
    if problem:
        raise RunError(
            f"accelerator.strategy: {strategy} was requested, and {problem}. The run is stopped; please report this "
            "with the versions that `adaptkit doctor` shows."
        )


def _mismatch(strategy: str, model: nn.Module, wrapped: Any) -> str:
    if strategy == "ddp":
        fits = isinstance(wrapped, nn.parallel.DistributedDataParallel)
    elif strategy in ZERO_STAGES:
        fits = getattr(wrapped, "zero_optimization_stage", lambda: 0)() == ZERO_STAGES[strategy]
    else:
        fits = wrapped is model
    if not fits:
        return f"the model is a {type(wrapped).__name__}"
    if strategy not in SHARDED:
        return ""
    full = [name for name, parameter in model.named_parameters() if not is_sharded(parameter)]
    return f"{len(full)} parameters are not sharded ({', '.join(full[:3])})" if full else ""


class FrozenShards:
    """Fingerprint of the frozen weights of a sharded model; each process hashes its own shards.

    Args:
        model: After `shard`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._fingerprint = hash_tensors(self._shards())

    def _shards(self) -> Iterable[tuple[str, Tensor]]:
        return [(name, local_shard(p)) for name, p in self._model.named_parameters() if not p.requires_grad]

    def check(self, stage: str) -> None:
        """Compare with the beginning; a collective operation.

        Raises:
            RunError: A frozen weight changed in any process.
        """
        if any_process(hash_tensors(self._shards()) != self._fingerprint):
            raise RunError(
                f"stage {stage!r} changed tensors of the frozen base or of an encoder. The run is stopped, and its "
                "result must not be used; please report this with the recipe."
            )
