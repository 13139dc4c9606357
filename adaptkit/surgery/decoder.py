"""A decoder's parts, found in the model itself, and the operations on them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from adaptkit.errors import ModelError
from adaptkit.surgery.context import extend_module
from adaptkit.surgery.copying import structural_copy, trainable_copy

INDEX_ATTRIBUTES = ("layer_idx", "layer_id")
"""Attributes in which modules of a layer keep the layer's position."""

LAYER_NUMBER_LISTS = ("mlp_only_layers", "moe_layers", "full_attn_idxs")
"""Config lists that hold layer numbers rather than one entry a layer."""


@dataclass(frozen=True)
class LayerRecord:
    """One layer of a workflow's decoder.

    Attributes:
        index: Position in the workflow's decoder.
        kind: `frozen`, `inserted`, `adapted` (frozen, with something trainable in it) or `unfrozen`.
        source: Layer of the base: the layer itself, or the one that an inserted layer was copied from.
    """

    index: int
    kind: str
    source: int


class Decoder:
    """A causal LM seen as layers between two ends.

    Args:
        model: A structural copy of the base (or any causal LM that may be changed).

    Attributes:
        model: The causal LM itself.
        config: The text config, which says how many layers there are.
        trunk: The module that holds the list of layers.
        layer_map: A record for each layer, in order.

    Raises:
        ModelError: The layers cannot be found, or the family cannot take insertions; the message says why.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.config: PreTrainedConfig = model.config.get_text_config(decoder=True)
        self._layers_name, self.trunk = _find_layers(model, self.config)
        _check_layer_indices(self.layers, type(model).__name__)
        self.layer_map = [LayerRecord(i, "frozen", i) for i in range(len(self.layers))]
        self.replaced: list[str] = []

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, in order."""
        layers = getattr(self.trunk, self._layers_name)
        assert isinstance(layers, nn.ModuleList)
        return layers

    def insert_copies_after(
        self, layers: list[int], duplicate: Callable[..., nn.Module] = trainable_copy
    ) -> list[nn.Module]:
        """After each of these layers put a copy of it, and make config and indices agree.

        Args:
            layers: Layers of the decoder as it is now, sorted, counted from 0.
            duplicate: Makes each copy, called as `duplicate(layer, configs_of=model)`: `trainable_copy` by default, or
                `structural_copy`, whose copies share the layer's tensors.

        Returns:
            The inserted layers, in order.
        """
        if getattr(self.config, "scale_attn_by_inverse_layer_idx", False):
            raise ModelError(
                f"{type(self.model).__name__}: its attention divides by the layer's number "
                "(scale_attn_by_inverse_layer_idx), so frozen layers would change when others are inserted."
            )
        stack: list[nn.Module] = []
        inserted: list[nn.Module] = []
        records: list[LayerRecord] = []
        for i, layer in enumerate(self.layers):
            stack.append(layer)
            records.append(self.layer_map[i])
            if i in layers:
                inserted.append(duplicate(layer, configs_of=self.model))
                stack.append(inserted[-1])
                records.append(LayerRecord(i, "inserted", self.layer_map[i].source))
        origin = [i for i in range(len(self.layers)) for _ in range(2 if i in layers else 1)]
        _expand_config(self.config, origin)
        setattr(self.trunk, self._layers_name, nn.ModuleList(stack))
        _renumber(stack)
        self.layer_map = [LayerRecord(n, r.kind, r.source) for n, r in enumerate(records)]
        return inserted

    def extend_layers(self, layers: list[int], mixin: type[nn.Module]) -> list[nn.Module]:
        """Make these layers instances of `mixin` too (see `extend_module`), and record them as adapted.

        Args:
            layers: Layers of the decoder as it is now, counted from 0.
            mixin: Methods that come before the layer's own.

        Returns:
            The extended layers, in order.
        """
        self.mark_layers(layers, "adapted")
        return [extend_module(self.layers[i], mixin) for i in layers]

    def mark_layers(self, layers: list[int], kind: str) -> None:
        """Record what layers are, for `adaptkit inspect` and the report."""
        for i in layers:
            self.layer_map[i] = replace(self.layer_map[i], kind=kind)

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states between layers."""
        return int(self.config.hidden_size)

    def keep_first_layer(self) -> None:
        """Drop every layer but the first."""
        _expand_config(self.config, [0])
        setattr(self.trunk, self._layers_name, nn.ModuleList([self.layers[0]]))
        self.layer_map = self.layer_map[:1]

    def replace_ends(self) -> list[str]:
        """Give the decoder its own trainable embedding, final norm and LM head, untied from the base's.

        Returns:
            Names of the replaced modules, as in `model.named_modules()`.
        """
        ends = [self.model.get_input_embeddings(), *final_norms(self.model), self.model.get_output_embeddings()]
        ends = [end for end in ends if end is not None]
        names = [_name_of(self.model, end) for end in ends]
        for name, end in zip(names, ends, strict=True):
            self.model.set_submodule(name, trainable_copy(end, configs_of=self.model))
        self._untie()
        self.replaced = names
        return names

    def _untie(self) -> None:
        for config in {id(c): c for c in (self.model.config, self.config)}.values():
            config.tie_word_embeddings = False
        for module in self.model.modules():
            if getattr(module, "all_tied_weights_keys", None):
                module.all_tied_weights_keys = {}


def locate_decoder(model: PreTrainedModel) -> Decoder:
    """Describe a causal LM without changing it: a `Decoder` over a structural copy."""
    return Decoder(structural_copy(model))


def final_norms(model: PreTrainedModel) -> list[nn.Module]:
    """Modules with parameters that run between the last layer and the head, in order.

    Found by running two tokens through a structural copy that has only the first layer, and watching the trunk's
    children, because their names vary between families. Some families have none (OLMo's norm has no parameters).
    """
    probe = structural_copy(model).eval()
    decoder = Decoder(probe)
    decoder.keep_first_layer()
    names: list[str] = []
    seen_last = False

    def mark_last(*_: Any) -> None:
        nonlocal seen_last
        seen_last = True

    def watch(name: str) -> Any:
        def record(*_: Any) -> None:
            if seen_last and name not in names:
                names.append(name)

        return record

    decoder.layers[-1].register_forward_hook(mark_last)
    for name, child in decoder.trunk.named_children():
        if child is not decoder.layers and any(True for _ in child.parameters()):
            child.register_forward_hook(watch(name))
    device = probe.get_input_embeddings().weight.device
    with torch.no_grad():
        probe(input_ids=torch.zeros(1, 2, dtype=torch.long, device=device), use_cache=False)
    trunk_name = _name_of(probe, decoder.trunk)
    return [model.get_submodule(f"{trunk_name}.{name}" if trunk_name else name) for name in names]


def _find_layers(model: PreTrainedModel, config: PreTrainedConfig) -> tuple[str, nn.Module]:
    num_layers = getattr(config, "num_hidden_layers", None)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers
    ]
    if found:
        depth = min(name.count(".") for name, _ in found)
        found = [(name, module) for name, module in found if name.count(".") == depth]
    if len(found) != 1:
        many = f"{len(found)} lists have" if found else "no list of modules has"
        raise ModelError(
            f"{type(model).__name__}: {many} num_hidden_layers = {num_layers} entries, so its decoder layers cannot be "
            "told. adaptkit adapts decoders whose layers form one list."
        )
    parent, _, name = found[0][0].rpartition(".")
    return name, model.get_submodule(parent)


def _check_layer_indices(layers: nn.ModuleList, family: str) -> None:
    for position, layer in enumerate(layers):
        for module in layer.modules():
            for attribute in INDEX_ATTRIBUTES:
                index = getattr(module, attribute, None)
                if isinstance(index, int) and index != position:
                    raise ModelError(
                        f"{family}: {attribute} is {index} inside layer {position}. Layers that are shared or counted "
                        "otherwise cannot be renumbered, so nothing can be inserted between them."
                    )


def _renumber(layers: list[nn.Module]) -> None:
    for position, layer in enumerate(layers):
        for module in layer.modules():
            for attribute in INDEX_ATTRIBUTES:
                if isinstance(getattr(module, attribute, None), int):
                    setattr(module, attribute, position)


def _expand_config(config: PreTrainedConfig, origin: list[int]) -> None:
    """Set the number of layers and expand what the config lists per layer.

    `origin[n]` is the old position of new layer `n`.
    """
    num_layers = config.num_hidden_layers
    changes: dict[str, Any] = {}
    for name, value in vars(config).items():
        if not isinstance(value, list) or ("layer" not in name and name not in LAYER_NUMBER_LISTS):
            continue
        if name in LAYER_NUMBER_LISTS:
            changes[name] = [n for n, old in enumerate(origin) if old in value]
        elif len(value) == num_layers:
            changes[name] = [copy.deepcopy(value[old]) for old in origin]
    config.num_hidden_layers = len(origin)
    for name, value in changes.items():
        setattr(config, name, value)


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    names: list[str] = [name for name, module in model.named_modules() if module is wanted]
    if names:
        return names[0]
    raise ModelError(f"{type(wanted).__name__} is not part of {type(model).__name__}")
