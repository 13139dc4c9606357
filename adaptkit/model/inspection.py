"""What a workflow is made of: its layers, and parameters and bytes of each component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from adaptkit.surgery.quantization import num_bytes, num_values


@dataclass(frozen=True)
class ComponentSize:
    """One component of a workflow.

    Attributes:
        name: What it is.
        state: `frozen` (shared with the base), `frozen encoder`, `inserted`, `replaced` or `projector`.
        num_parameters: Tensor elements, each counted once.
        num_bytes: Their size in memory.
    """

    name: str
    state: str
    num_parameters: int
    num_bytes: int


def describe_layers(model: Any) -> list[dict[str, Any]]:
    """The layer map of a workflow, ends included.

    Rows have `index`, `name`, `source` and `kind`, which is a `LayerRecord`'s or `replaced`.
    """
    shared = {id(p) for p in model.base.parameters()}
    unfrozen = all(id(p) not in shared for p in model.get_input_embeddings().parameters())
    ends = "replaced" if model.end_names else "unfrozen" if unfrozen else "frozen"
    rows: list[dict[str, Any]] = [{"index": None, "kind": ends, "name": "embedding", "source": None}]
    for index, (kind, source) in enumerate(model.config.layer_map):
        rows.append({"index": index, "kind": kind, "name": f"layer {index}", "source": source})
    rows.append({"index": None, "kind": ends, "name": "norm and head", "source": None})
    return rows


def describe_components(model: Any) -> list[ComponentSize]:
    """Parameters and bytes of each component of a workflow, frozen ones first."""
    rows = [_size("base", "frozen", list(model.base.parameters()))]
    rows += [_size(f"encoder {n}", "frozen encoder", list(e.parameters())) for n, e in model.source_encoders.items()]
    parameters = dict(model.named_parameters())
    states = {"projector": "projector", "insertion": "inserted", "ends": "replaced", "encoder": "trained"}
    for part, names in model.trainable_parts().items():
        rows.append(_size(part, states[part], [parameters[name] for name in names]))
    return rows


def _size(name: str, state: str, parameters: list[nn.Parameter]) -> ComponentSize:
    unique = {id(p): p for p in parameters}.values()
    return ComponentSize(name, state, sum(map(num_values, unique)), sum(map(num_bytes, unique)))
