"""From parts and their settings to one optimiser over the trainable parameters, and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from adaptkit.errors import ModelError
from adaptkit.stage import OptimizerConfig, OptimizerGroup
from adaptkit.surgery.quantization import require_bitsandbytes
from adaptkit.training.distributed.strategies import num_dimensions
from adaptkit.training.optimizers import Muon, muon_groups

OPTIMIZERS = ("adamw", "adamw_8bit", "muon")

Group = dict[str, Any]


class WorkflowModel(Protocol):
    """What training needs of a model: an `nn.Module` that names its parts and saves only what is its own."""

    def trainable_parts(self) -> Mapping[str, Sequence[str]]:
        """Parameter names of each part that can be trained."""

    def set_trainable(self, parts: Sequence[str]) -> None:
        """Make these parts trainable, and nothing else."""

    def trainable_state_dict(self) -> dict[str, torch.Tensor]:
        """The live tensors that a checkpoint holds, by the names it holds them under."""

    def scoring_tokens(self) -> AbstractContextManager[None]:
        """Entered while passes with labels are to score each supervised token; needed by stages with validation."""

    def save_pretrained(self, save_directory: str) -> None:
        """Write those tensors as safetensors, and the configuration."""


class CombinedOptimizer(Optimizer):
    """Several optimisers that step as one, with one state and one list of groups.

    The members share this object's group dicts and state, so schedulers, checkpoints and accelerate deal with it
    as with any PyTorch optimiser.

    Args:
        builders: Makes each member from its groups.
        groups: Each member's groups, in the order of `builders`.
    """

    def __init__(self, builders: Sequence[Callable[[list[Group]], Optimizer]], groups: Sequence[list[Group]]) -> None:
        self.members = [build(member_groups) for build, member_groups in zip(builders, groups, strict=True)]
        ends = [0]
        for member in self.members:
            ends.append(ends[-1] + len(member.param_groups))
        self._spans = list(pairwise(ends))
        groups_of_all = [group for member in self.members for group in member.param_groups]
        # Schedules that end at a learning rate, not at a share of it, ask for the one that they begin with
        super().__init__(groups_of_all, {"lr": max(group["lr"] for group in groups_of_all)})
        self._share()

    def _share(self) -> None:
        for member, (start, end) in zip(self.members, self._spans, strict=True):
            member.param_groups = self.param_groups[start:end]
            member.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, from an optimiser with the same groups."""
        super().load_state_dict(state_dict)
        _restore_dtypes(self, state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every member."""
        loss = closure() if closure is not None else None
        for member in self.members:
            member.step()
        return loss


def _restore_dtypes(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Undo the cast of 8-bit states to their parameters' dtype, in which torch loads all that it knows nothing of."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        for key, value in state_dict["state"].get(number, {}).items():
            if isinstance(value, torch.Tensor) and value.dtype == torch.uint8:
                optimizer.state[parameter][key] = value.to(parameter.device, copy=True)


def build_optimizer(model: nn.Module, parts: Sequence[str], settings: OptimizerConfig) -> Optimizer:
    """Make the optimiser of a stage.

    Args:
        parts: The trained parts; each becomes groups of its own, which carry its name under `"part"`.

    Raises:
        ModelError: bitsandbytes is missing and an 8-bit optimiser is asked for.
    """
    parameters = dict(model.named_parameters())
    groups: dict[str, list[Group]] = {name: [] for name in OPTIMIZERS}
    for part in parts:
        for scale, names in _by_rate(model, part, settings).items():
            named = [(name, parameters[name]) for name in names]
            for algorithm, part_groups in _part_groups(named, part, settings).items():
                groups[algorithm] += [{**group, "lr": group["lr"] * scale} for group in part_groups]
    used = [name for name in OPTIMIZERS if groups[name]]
    if not used:
        raise ModelError(f"nothing to train: the parts {', '.join(parts) or '(none)'} hold no parameters")
    builders: dict[str, Callable[[list[Group]], Optimizer]] = {
        "adamw": lambda g: _build_adamw(g, settings),
        "adamw_8bit": lambda g: _build_adamw_8bit(g, settings),
        "muon": Muon,
    }
    if len(used) == 1:
        return builders[used[0]](groups[used[0]])
    return CombinedOptimizer([builders[name] for name in used], [groups[name] for name in used])


def _by_rate(model: Any, part: str, settings: OptimizerConfig) -> dict[float, list[str]]:
    """Parameters of a part by the factor of their learning rate: layer-wise decay (ELECTRA, arXiv 2003.10555, app. A).

    The last block of an encoder has the factor 1, and what comes after it, too.
    """
    names: list[str] = list(model.trainable_parts()[part])
    decay = settings.trained_groups([part]).get(part, OptimizerGroup()).layer_decay
    if decay is None:
        return {1.0: names}
    distances = model.encoder_distances()
    scales: dict[float, list[str]] = {}
    for name in names:
        scales.setdefault(decay ** max(distances[name] - 1, 0), []).append(name)
    return scales


def _part_groups(named: list[tuple[str, nn.Parameter]], part: str, settings: OptimizerConfig) -> dict[str, list[Group]]:
    override = settings.trained_groups([part]).get(part, OptimizerGroup())
    lr = settings.learning_rate if override.learning_rate is None else override.learning_rate
    decay = settings.weight_decay if override.weight_decay is None else override.weight_decay
    name = override.name or settings.name
    if name != "muon":
        return {name: adamw_groups([p for _, p in named], part, lr, decay)}
    adamw_lr = settings.adamw_learning_rate
    if adamw_lr is None:
        adamw_lr = lr / 4 if settings.name == "muon" else settings.learning_rate
    sorted_groups = muon_groups(named, matrix_lr=lr, weight_decay=decay)
    muon = [{**group, "part": part} for group in sorted_groups if group["algorithm"] == "muon"]
    others = [p for group in sorted_groups if group["algorithm"] == "adamw" for p in group["params"]]
    return {"muon": muon, "adamw": adamw_groups(others, part, adamw_lr, decay)}


def adamw_groups(parameters: Sequence[nn.Parameter], part: str, lr: float, decay: float) -> list[Group]:
    """Groups for AdamW: weight decay for matrices alone."""
    matrices = [p for p in parameters if num_dimensions(p) >= 2]
    vectors = [p for p in parameters if num_dimensions(p) < 2]
    groups = [
        {"params": matrices, "lr": lr, "weight_decay": decay, "part": part},
        {"params": vectors, "lr": lr, "weight_decay": 0.0, "part": part},
    ]
    return [group for group in groups if group["params"]]


def _build_adamw(groups: list[Group], settings: OptimizerConfig) -> Optimizer:
    fused = all(p.device.type in ("cpu", "cuda", "mps", "xpu") for group in groups for p in group["params"])
    return AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps, fused=fused)


def _build_adamw_8bit(groups: list[Group], settings: OptimizerConfig) -> Optimizer:
    require_bitsandbytes("optimizer: adamw_8bit")
    from bitsandbytes.optim import AdamW8bit

    built: Optimizer = AdamW8bit(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.eps)
    return built
