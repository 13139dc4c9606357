"""What a family builds from a config: how its modules depend on the number and the position of layers.

Two empty models are built on the meta device, one from the config as it was and one from the config after layers were
inserted, and each layer is compared with the one it came from. What differs is either the layer's number, which can be
renumbered, or something that the family decides by that number and that no copy could have: then the workflow would
not be the deeper stock decoder that its config describes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from adaptkit.errors import ModelError
from adaptkit.files.loading import cause

_SCALARS = (bool, int, float, str, type(None))
_NOT_STRUCTURE = frozenset(("training", "gradient_checkpointing"))


@dataclass(frozen=True)
class Renumbering:
    """A module's attribute that counts layers: a layer's position; beside the layers, their number or a list of some.

    Attributes:
        module: Name of the module in the deeper model.
        attribute: Its attribute.
        value: What the attribute is in the deeper model.
    """

    module: str
    attribute: str
    value: Any


def stock_skeleton(family: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """A stock model as its saved config would build it, on the meta device: structure without memory.

    Raises:
        ModelError: The family builds none from this config.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            twin = type(config).from_dict(config.to_dict())
            twin._attn_implementation = config._attn_implementation
            return cast(PreTrainedModel, family(twin).eval())
    except Exception as error:
        raise ModelError(f"{family.__name__}: no stock model can be built from its config ({cause(error)}).") from error
    finally:
        logging.set_verbosity(verbosity)


def compare_depths(
    shallow: PreTrainedModel, deep: PreTrainedModel, layers_name: str, origin: list[int]
) -> list[Renumbering]:
    """Compare two skeletons of one family, the deeper of which has copies of the other's layers.

    `origin` says of each layer of `deep` which layer of `shallow` it is, or is a copy of.

    Returns:
        Attributes to set so that the copies count as the deeper model does.

    Raises:
        ModelError: Something else than a number differs; the message names it.
    """
    family = type(shallow).__name__
    old_modules, new_modules = _modules(shallow), _modules(deep)
    depth = (len(old_modules[layers_name]), len(new_modules[layers_name]))  # type: ignore[arg-type]
    if depth[1] != len(origin):
        raise ModelError(f"{family}: its config describes {depth[1]} layers where {len(origin)} are needed.")
    prefix = f"{layers_name}."
    renumbered: list[Renumbering] = []
    outside = {name: None for name in new_modules if name != layers_name and not name.startswith(prefix)}
    pairs = [(name, name, depth) for name in outside]
    for new, old in enumerate(origin):
        pairs += [
            (f"{prefix}{old}{name}", f"{prefix}{new}{name}", (old, new))
            for name in _names_below(old_modules, f"{prefix}{old}") | _names_below(new_modules, f"{prefix}{new}")
        ]
    for old_name, new_name, numbers in pairs:
        in_old = old_name in old_modules
        if in_old != (new_name in new_modules):
            raise ModelError(
                f"{family}: what a layer is made of depends on its number: layer {numbers[0]} would be layer "
                f"{numbers[1]}, and only one of the two has {old_name if in_old else new_name!r}."
            )
        for attribute, before, after in _differences(old_modules[old_name], new_modules[new_name]):
            counts = new_name in outside and _is_count(before) and _is_count(after)
            counts = counts or _expands(before, after, origin)
            if not counts and ((before, after) != numbers or isinstance(before, bool)):
                raise ModelError(_refusal(family, old_name, new_name, attribute, before, after, origin))
            renumbered.append(Renumbering(new_name, attribute, after))
    return renumbered


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules by name; one that several places share is in the table at each."""
    return dict(model.named_modules(remove_duplicate=False))


def _names_below(modules: dict[str, nn.Module], name: str) -> dict[str, None]:
    """Names of a module's descendants relative to it, and its own, empty, in order."""
    return {n.removeprefix(name): None for n in modules if n == name or n.startswith(f"{name}.")}


def _differences(old: nn.Module, new: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    if type(old) is not type(new):
        yield "class", type(old).__name__, type(new).__name__
        return
    shapes = [
        {name: tuple(t.shape) for name, t in (*m.named_parameters(recurse=False), *m.named_buffers(recurse=False))}
        for m in (old, new)
    ]
    values = [{n: v for n, v in vars(m).items() if _is_structure(n, v)} for m in (old, new)]
    for before, after in (shapes, values):
        for name in before | after:
            if before.get(name) != after.get(name):
                yield name, before.get(name), after.get(name)


def _is_structure(name: str, value: Any) -> bool:
    plain = isinstance(value, _SCALARS) or (isinstance(value, list) and all(isinstance(v, _SCALARS) for v in value))
    return plain and not name.startswith("_") and name not in _NOT_STRUCTURE


def _expands(before: Any, after: Any, origin: list[int]) -> bool:
    """Whether these are the config's list of something per layer, which some layers keep a copy of."""
    if not isinstance(before, list) or len(before) != max(origin) + 1:
        return False
    return bool([before[old] for old in origin] == after)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | list) and not isinstance(value, bool)


def _refusal(
    family: str, old_name: str, new_name: str, attribute: str, before: Any, after: Any, origin: list[int]
) -> str:
    if old_name == new_name:
        return (
            f"{family}: {new_name or 'the model'} depends on the number of layers: {attribute} is {before} for "
            f"{max(origin) + 1} and {after} for {len(origin)}, so layers cannot be inserted beside frozen ones."
        )
    return (
        f"{family}: a layer depends on its number: {old_name} has {attribute} {before}, but in a stock decoder of "
        f"{len(origin)} layers, as {new_name}, {after}. Choose other layers, if any are without this."
    )
