"""Optimiser state in one file, whatever it is spread over: the `state_dict` that one process would have written.

So a checkpoint goes on with any number of processes and any strategy. State is gathered tensor by tensor; the main
process holds all of it in memory for a moment while it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

State = dict[str, Any]

_SCALAR = "step"


@dataclass(frozen=True)
class Spread:
    """An optimiser, and what it was built over before an engine rearranged that.

    Attributes:
        optimizer: What updates the parameters.
        groups: Parameters of each of its groups.
        engine: The DeepSpeed engine; None where the optimiser updates the parameters themselves.
    """

    optimizer: Optimizer
    groups: list[list[nn.Parameter]]
    engine: Any = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters, in the order by which a state numbers them."""
        return list(chain.from_iterable(self.groups))


def whole_state(spread: Spread, *, keep: bool) -> State:
    """Gather the state of an optimiser; all processes must ask.

    Args:
        spread: The optimiser.
        keep: Whether this process wants the state; else it only takes part.
    """
    if spread.engine is not None:
        _link(spread.engine)
    states: dict[int, State] = {}
    for index, parameter in enumerate(spread.parameters):
        gathered = _state_of(spread, parameter)
        if keep and gathered:
            states[index] = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in gathered.items()}
    return {"state": states, "param_groups": _numbered(spread, spread.optimizer.param_groups)}


def _numbered(spread: Spread, groups: Sequence[State]) -> list[State]:
    """Groups with numbers for their parameters, as in a `state_dict`."""
    numbers = count()
    return [
        {**group, "params": [next(numbers) for _ in parameters]} for group, parameters in zip(groups, spread.groups)
    ]


def _state_of(spread: Spread, parameter: nn.Parameter) -> State:
    if spread.engine is not None:
        return _zero_state(spread.engine, parameter)
    from torch.distributed.tensor import DTensor

    state = spread.optimizer.state.get(parameter, {})
    return {key: value.full_tensor() if isinstance(value, DTensor) else value for key, value in state.items()}


def load_whole_state(spread: Spread, saved: State) -> None:
    """Give each process its part of a state that `whole_state`, or one process alone, has saved."""
    groups = _numbered(spread, saved["param_groups"])
    if spread.engine is None:
        spread.optimizer.load_state_dict({"state": _cut(spread, saved["state"]), "param_groups": groups})
        return
    for group, values in zip(spread.optimizer.param_groups, groups):
        group.update({key: value for key, value in values.items() if key != "params"})
    if saved["state"]:
        _load_into_zero(spread, saved["state"])


def _cut(spread: Spread, states: dict[int, State]) -> dict[int, State]:
    """The same states, with those of a parameter that is a DTensor cut as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    parts = {index: dict(state) for index, state in states.items()}
    for index, parameter in enumerate(spread.parameters):
        if not isinstance(parameter, DTensor):
            continue
        mesh, placements = parameter.device_mesh, parameter.placements
        for key, value in parts.get(index, {}).items():
            if key != _SCALAR:
                value = value.to(mesh.device_type)
                parts[index][key] = distribute_tensor(value, mesh, placements, src_data_rank=None)
    return parts


# -- DeepSpeed -----------------------------------------------------------------------------------------------------


def _zero_state(engine: Any, parameter: nn.Parameter) -> State:
    from deepspeed.utils import safe_get_full_optimizer_state

    states = _flat_states(engine)
    if not states:
        return {}
    state: State = {_SCALAR: states[0][_SCALAR].clone()}  # one for each, as they are counted up one by one
    for key in states[0]:
        if key != _SCALAR:
            state[key] = safe_get_full_optimizer_state(parameter, key)
    return state


def _link(engine: Any) -> None:
    """Let ZeRO-2 find its state by parameter: by itself it looks once, when only the first group has any."""
    zero = engine.optimizer
    if hasattr(zero, "_lazy_init_hp_params_optimizer_state"):
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()


def _flat_states(engine: Any) -> list[State]:
    """State of the flat tensors that ZeRO made of this process's parts; empty before the first step."""
    return [state for state in engine.optimizer.optimizer.state.values() if state]


def _flat_tensors(engine: Any) -> list[Tensor]:
    zero = engine.optimizer
    flat = getattr(zero, "fp32_partitioned_groups_flat", None)
    return cast(list[Tensor], zero.single_partition_of_fp32_groups if flat is None else flat)


def _load_into_zero(spread: Spread, states: dict[int, State]) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    first = next(iter(states.values()))
    keys = [key for key in first if key != _SCALAR]
    zero = spread.engine.optimizer
    for flat in _flat_tensors(spread.engine):
        zero.optimizer.state[flat] = {
            _SCALAR: first[_SCALAR].clone(),
            **{key: torch.zeros_like(flat, requires_grad=False) for key in keys},
        }
    _link(spread.engine)
    parameters = spread.parameters
    for index, state in states.items():
        parameter = parameters[index]
        for key in keys:
            if hasattr(parameter, "ds_id"):
                safe_set_local_optimizer_state(parameter, _own_part(parameter, state[key]), key)
            else:
                safe_set_full_optimizer_state(parameter, state[key], key)


def _own_part(parameter: Any, value: Tensor) -> Tensor:
    """This process's part of a tensor that ZeRO-3 cuts into equal pieces, padded at the end."""
    size = parameter.ds_tensor.ds_numel
    rank = torch.distributed.get_rank()
    part = torch.zeros(size, dtype=value.dtype)
    piece = value.flatten()[size * rank : size * (rank + 1)]
    part[: piece.numel()] = piece
    return part
