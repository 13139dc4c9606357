"""The state of a sharded optimizer, saved as the `state_dict` that one process would save.

A run therefore resumes on any number of processes, with any strategy. State is gathered tensor by tensor, and only the
main process keeps it, in CPU memory.

`set_optimizer_state_dict` of `torch.distributed.checkpoint` cannot be used: it takes a step with zero gradients before
it loads, so that a parameter which has had no gradient yet resumes at step 1 instead of 0. Its next update differs
from that of an uninterrupted run, measured at a quarter of the learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, count
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adaptkit.training.distributed.strategies import full_tensor

State = dict[str, Any]

_SCALAR = "step"


@dataclass(frozen=True)
class ShardedOptimizer:
    """An optimizer, and its parameters as they were before an engine rearranged them.

    Attributes:
        optimizer: Updates the parameters.
        groups: Parameters of each of its groups.
        engine: The DeepSpeed engine; None for `fsdp`, whose optimizer updates the parameters themselves.
    """

    optimizer: Optimizer
    groups: list[list[nn.Parameter]]
    engine: Any = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters, in the order in which a `state_dict` numbers them."""
        return list(chain.from_iterable(self.groups))


def gather_state(sharded: ShardedOptimizer, *, keep: bool) -> State:
    """Gather the state of an optimizer; a collective operation."""
    if sharded.engine is not None:
        _link(sharded.engine)
    states: dict[int, State] = {}
    for index, parameter in enumerate(sharded.parameters):
        gathered = _full_state(sharded, parameter)
        if keep and gathered:
            states[index] = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in gathered.items()}
    numbers = count()
    groups = [
        {**group, "params": [next(numbers) for _ in parameters]}
        for group, parameters in zip(sharded.optimizer.param_groups, sharded.groups)
    ]
    return {"state": states, "param_groups": groups}


def _full_state(sharded: ShardedOptimizer, parameter: nn.Parameter) -> State:
    if sharded.engine is not None:
        return _zero_state(sharded.engine, parameter)
    state = sharded.optimizer.state.get(parameter, {})
    return {key: full_tensor(value) if isinstance(value, Tensor) else value for key, value in state.items()}


def load_state(sharded: ShardedOptimizer, saved: State) -> None:
    """Load this process's shards of a state from `gather_state` or from a `state_dict` of one process."""
    if sharded.engine is None:
        parameters = sharded.parameters
        shards = {index: _shards(state, parameters[index]) for index, state in saved["state"].items()}
        sharded.optimizer.load_state_dict({**saved, "state": shards})
        return
    for group, values in zip(sharded.optimizer.param_groups, saved["param_groups"]):
        group.update({key: value for key, value in values.items() if key != "params"})
    if saved["state"]:
        _load_into_zero(sharded, saved["state"])


def _shards(state: State, parameter: Any) -> State:
    """A parameter's state, sharded as the parameter."""
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = parameter.device_mesh, parameter.placements
    return {
        key: value
        if key == _SCALAR
        else distribute_tensor(value.to(mesh.device_type), mesh, placements, src_data_rank=None)
        for key, value in state.items()
    }


# -- DeepSpeed -----------------------------------------------------------------------------------------------------


def _zero_state(engine: Any, parameter: nn.Parameter) -> State:
    from deepspeed.utils import safe_get_full_optimizer_state

    states = _flat_states(engine)
    if not states:
        return {}
    state: State = {_SCALAR: states[0][_SCALAR].clone()}  # one for each parameter, since each counts its own steps
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
    """State of the flat tensors that ZeRO made of this process's shards; empty before the first step."""
    return [state for state in engine.optimizer.optimizer.state.values() if state]


def _flat_tensors(engine: Any) -> list[Tensor]:
    zero = engine.optimizer
    flat = getattr(zero, "fp32_partitioned_groups_flat", None)
    return cast(list[Tensor], zero.single_partition_of_fp32_groups if flat is None else flat)


def _load_into_zero(sharded: ShardedOptimizer, states: dict[int, State]) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    first = next(iter(states.values()))
    keys = [key for key in first if key != _SCALAR]
    zero = sharded.engine.optimizer
    for flat in _flat_tensors(sharded.engine):
        zero.optimizer.state[flat] = {
            _SCALAR: first[_SCALAR].clone(),
            **{key: torch.zeros_like(flat, requires_grad=False) for key in keys},
        }
    _link(sharded.engine)
    parameters = sharded.parameters
    for index, state in states.items():
        parameter = parameters[index]
        for key in keys:
            if hasattr(parameter, "ds_id"):
                safe_set_local_optimizer_state(parameter, _local_shard(parameter, state[key]), key)
            else:
                safe_set_full_optimizer_state(parameter, state[key], key)


def _local_shard(parameter: Any, value: Tensor) -> Tensor:
    """This process's shard of a tensor: ZeRO-3 makes equal ones, with padding at the end."""
    size = parameter.ds_tensor.ds_numel
    rank = torch.distributed.get_rank()
    shard = torch.zeros(size, dtype=value.dtype)
    values = value.flatten()[size * rank : size * (rank + 1)]
    shard[: values.numel()] = values
    return shard
