"""A decoder's parts, found in the model itself, and the operations on them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from adaptkit.errors import ModelError, wrong_type
from adaptkit.files.loading import cause
from adaptkit.surgery.context import extend_module, with_first_output
from adaptkit.surgery.copying import structural_copy, trainable_copy
from adaptkit.surgery.stock import Renumbering, compare_depths, stock_skeleton

INDEX_ATTRIBUTES = ("layer_idx", "layer_id")
"""Attributes in which modules of a layer keep the layer's position."""

PER_LAYER_LISTS = (
    *("activation_sparsity_pattern", "indexer_types", "intermediate_size", "moe_intermediate_size"),
    *("moe_topk", "num_experts", "num_shared_expert"),
)
"""Config lists with one entry a layer, beside those whose name says so (`layer_types`, `no_rope_layers`, ...)."""

LAYER_NUMBER_LISTS = ("mlp_only_layers", "moe_layers", "full_attn_idxs", "attn_layer_indices", "cross_attention_layers")
"""Config lists that hold layer numbers rather than one entry a layer."""

LEADING_LAYERS = ("first_k_dense_replace", "num_dense_layers", "max_window_layers", "moe_layer_start_index")
"""Config numbers that say how many of the first layers are of another kind."""

LAST_LAYERS = ("moe_layer_end_index",)
"""Config numbers of the last layer of a kind."""

DECODER_DEPTHS = ("num_decoder_layers", "decoder_layers")
"""How families that also come as encoder and decoder call the number of decoder layers."""

DERIVED_SETTINGS: dict[str, Callable[[PreTrainedConfig], Any]] = {
    "attention_types": lambda config: [[[kind], 1] for kind in config.attention_layers],
}
"""Config settings from which a family derives a per-layer list when its config is read again."""

DEPTH_DEPENDENT = {
    "scale_attn_by_inverse_layer_idx": "its attention divides by the layer's number",
    "rescale_every": "its forward divides weights, in place, by powers of two that grow with the layer's number",
    "num_kv_shared_layers": "its last layers read keys and values that earlier layers have kept for them",
}
"""Settings under which a frozen layer computes something else when others are inserted before it."""

_EXPERTS_NOISE = 0.05
"""By how much of the largest logit rounding may change them, in half precision."""


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
        self.config = text_config(model)
        self.model = model
        self._untouched = structural_copy(model)  # a policy's modules may run only inside a workflow
        self._layers_name, self.trunk = _find_layers(model, self.config)
        _check_layers(self.layers, type(model).__name__)
        self.layer_map = [LayerRecord(i, "frozen", i) for i in range(len(self.layers))]

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

        Raises:
            ModelError: The family's layers depend on their number or their position; the message says how.
        """
        self._check_numbers(layers)
        for setting, reason in DEPTH_DEPENDENT.items():
            if getattr(self.config, setting, None):
                raise ModelError(
                    f"{type(self.model).__name__}: {reason} ({setting}), so frozen layers would change when others are "
                    "inserted."
                )
        stack: list[nn.Module] = []
        inserted: list[nn.Module] = []
        records: list[LayerRecord] = []
        for layer, record in zip(self.layers, self.layer_map, strict=True):
            stack.append(layer)
            records.append(record)
            if record.index in layers:
                inserted.append(duplicate(layer, configs_of=self.model))
                stack.append(inserted[-1])
                records.append(replace(record, kind="inserted"))
        self._arrange(stack, [record.index for record in records])
        self.layer_map = [replace(record, index=n) for n, record in enumerate(records)]
        return inserted

    def arrange(self, stack: Sequence[nn.Module], origin: Sequence[int]) -> None:
        """Make these layers the decoder's, and config and indices agree.

        Args:
            stack: Layers in their new order: the decoder's own, each once, and copies of them.
            origin: For each the layer of the decoder as it is now that it is, or is a copy of.

        Raises:
            ModelError: The family's layers depend on their number or their position; the message says how.
        """
        self._arrange(stack, origin)
        self.layer_map = [LayerRecord(n, "frozen", self.layer_map[old].source) for n, old in enumerate(origin)]

    def _arrange(self, stack: Sequence[nn.Module], origin: Sequence[int]) -> None:
        renumbering = self._expand_config(list(origin))
        setattr(self.trunk, self._layers_name, nn.ModuleList(stack))
        for entry in renumbering:
            setattr(self.model.get_submodule(entry.module), entry.attribute, entry.value)

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
        """Record what layers are, for `adaptkit inspect` and the report.

        Raises:
            ModelError: There is no such layer.
        """
        self._check_numbers(layers)
        for i in layers:
            self.layer_map[i] = replace(self.layer_map[i], kind=kind)

    def _check_numbers(self, layers: list[int]) -> None:
        if not isinstance(layers, Collection) or not all(type(i) is int for i in layers):
            raise ModelError(wrong_type("layers", "a list of layer numbers", layers))
        beyond = [i for i in layers if not 0 <= i < len(self.layers)]
        if beyond:
            raise ModelError(f"layers: there is no layer {beyond[0]}; they are numbered 0 to {len(self.layers) - 1}.")

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states between layers."""
        return int(self.config.hidden_size)

    @property
    def layers_name(self) -> str:
        """Name of the list of layers, as in `model.named_modules()`."""
        trunk = _name_of(self.model, self.trunk)
        return f"{trunk}.{self._layers_name}" if trunk else self._layers_name

    def _expand_config(self, origin: list[int]) -> list[Renumbering]:
        """Make the config describe layers of which number `n` is, or is a copy of, layer `origin[n]`."""
        family = type(self.model)
        shallow = stock_skeleton(family, self.model.config)
        expand_config(self.config, origin)
        return compare_depths(shallow, stock_skeleton(family, self.model.config), self.layers_name, origin)

    def replace_ends(self) -> list[str]:
        """Give the decoder its own trainable embedding, final norm and LM head, untied from the base's.

        Returns:
            Names of the replaced modules, as in `model.named_modules()`.
        """
        names = [_name_of(self.model, self.model.get_input_embeddings()), *final_norms(self._untouched)]
        head = self.model.get_output_embeddings()
        if head is not None and not _name_of(self.model, head).startswith(tuple(f"{name}." for name in names)):
            names.append(_name_of(self.model, head))
        for name in names:
            self.model.set_submodule(name, trainable_copy(self.model.get_submodule(name), configs_of=self.model))
        self._untie()
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


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The list of a causal LM's decoder layers, as it is.

    Raises:
        ModelError: It cannot be determined.
    """
    name, trunk = _find_layers(model, text_config(model))
    return cast(nn.ModuleList, getattr(trunk, name))


def final_norms(model: PreTrainedModel) -> list[str]:
    """Names of the modules with parameters that run between the last layer and the head, in order.

    Found by running two tokens through a structural copy of which only the first layer computes anything, and watching
    which modules run after the last, because their names vary between families. Some families have none (OLMo's norm
    has no parameters).
    """
    probe, layers = _probe(model)
    head = probe.get_output_embeddings()
    ran: list[str] = []
    finished = False

    def finish(*_: Any) -> None:
        nonlocal finished
        finished = True
        ran.clear()

    def record(name: str) -> None:
        if finished and name not in ran and not name.startswith(tuple(f"{parent}." for parent in ran)):
            ran.append(name)

    for layer in layers:
        layer.register_forward_hook(finish)
    inside = {module for layer in layers for module in layer.modules()}
    for name, module in probe.named_modules():
        if module not in inside and module is not head and any(True for _ in module.parameters(recurse=False)):
            module.register_forward_pre_hook(lambda *_, name=name: record(name))
    _run_two_tokens(probe)
    return ran


def _probe(model: PreTrainedModel) -> tuple[PreTrainedModel, list[nn.Module]]:
    """A structural copy of which only the first layer computes anything, and its layers.

    The others return their input in the form of the first one's output.
    """
    probe = structural_copy(model).eval()
    layers_name, trunk = _find_layers(probe, text_config(probe))
    layers = list(getattr(trunk, layers_name))
    form: list[Any] = []
    layers[0].register_forward_hook(lambda module, arguments, output: form.append(output))

    def skip(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return with_first_output(form[-1], hidden_states)

    for layer in layers[1:]:
        layer.forward = skip
    return probe, layers


@torch.no_grad()
def _run_two_tokens(probe: PreTrainedModel, last: int = 0, embedded: bool = False) -> Tensor:
    """Logits at the first of two tokens, `(vocab,)`, given by id or by embedding."""
    embedding = probe.get_input_embeddings()
    pad = probe.config.get_text_config(decoder=True).pad_token_id
    words = [token for token in range(4) if token != pad]  # some families count positions by what is not padding
    input_ids = torch.tensor([[words[0], words[last]]], device=embedding.weight.device)
    inputs = {"inputs_embeds": embedding(input_ids)} if embedded else {"input_ids": input_ids}
    logits: Tensor = probe(**inputs, use_cache=False).logits
    return logits[0, 0]


def check_forward(model: PreTrainedModel) -> None:
    """Refuse what does not run on embeddings, and an encoder among the families that can be either.

    Needs whole tensors: skipped where they are on the meta device or sharded.

    Args:
        model: A base as loaded, which is not changed.

    Raises:
        ModelError: It cannot be the base of a workflow; the message says why.
    """
    config = text_config(model)
    if any(p.is_meta or p.numel() == 0 for p in model.parameters()):
        return
    family = type(model).__name__
    probe, _ = _probe(model)
    logits = _run_two_tokens(probe)
    try:
        same = torch.allclose(logits, _run_two_tokens(probe, embedded=True))
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{family}: it does not run on inputs_embeds, through which features reach a decoder ({cause(error)})."
        ) from error
    if not same:
        raise ModelError(f"{family}: it computes something else from inputs_embeds than from the ids they stand for.")
    _refuse_sight_of_later_tokens(logits, _run_two_tokens(probe, last=1), config, family)


def _refuse_sight_of_later_tokens(logits: Tensor, otherwise: Tensor, config: PreTrainedConfig, family: str) -> None:
    """Raise where logits at a token depend on the one after it."""
    # Only families that can be either have the setting; some of them are decoders whatever it says. Of the others,
    # experts sum in another order where the tokens beside them are others.
    says_encoder = not getattr(config, "is_decoder", True)
    noise = 0.0 if says_encoder else _EXPERTS_NOISE * float(logits.abs().max())
    if float((logits - otherwise).abs().max()) > noise:
        remedy = " Load it with is_decoder=True." if says_encoder else ""
        raise ModelError(
            f"{family}: a token changes the logits of those before it, so it is not a causal decoder.{remedy}"
        )


def text_config(model: PreTrainedModel) -> PreTrainedConfig:
    """The config, within the model's, that says how many layers the decoder has.

    It is the model's own where `get_text_config` makes a new one, as for the decoder half of an encoder-decoder.

    Raises:
        ModelError: It is not a model of transformers.
    """
    if not isinstance(model, PreTrainedModel):
        raise ModelError(wrong_type("decoder", "a causal LM of transformers", model))
    config = model.config.get_text_config(decoder=True)
    return config if any(value is config for value in vars(model.config).values()) else model.config


def depth_setting(config: PreTrainedConfig) -> str:
    """Name of the setting that says how many decoder layers there are."""
    return next((name for name in DECODER_DEPTHS if name in vars(config)), "num_hidden_layers")


def _find_layers(model: PreTrainedModel, config: PreTrainedConfig) -> tuple[str, nn.Module]:
    setting = depth_setting(config)
    num_layers = getattr(config, setting, None)
    found = {
        name: model.get_submodule(name.rpartition(".")[0])
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers
    }
    depth = min((name.count(".") for name in found), default=0)
    found = {name: parent for name, parent in found.items() if name.count(".") == depth}
    # Encoders beside the decoder, and other lists beside its layers, can be as long
    for better in (
        {name for name, parent in found.items() if getattr(parent, "config", None) is config},
        {name for name in found if isinstance(model.get_submodule(f"{name}.0"), GradientCheckpointingLayer)},
    ):
        if len(found) > 1 and better & found.keys():
            found = {name: parent for name, parent in found.items() if name in better}
    if len(found) != 1:
        many = f"{len(found)} lists have" if found else "no list of modules has"
        raise ModelError(
            f"{type(model).__name__}: {many} {setting} = {num_layers} entries, so its decoder layers cannot be "
            "determined. adaptkit adapts decoders whose layers form one list."
        )
    ((name, parent),) = found.items()
    return name.rpartition(".")[2], parent


def _check_layers(layers: nn.ModuleList, family: str) -> None:
    holders: dict[int, int] = {}
    for position, layer in enumerate(layers):
        for module in layer.modules():
            for attribute in INDEX_ATTRIBUTES:
                index = getattr(module, attribute, None)
                if isinstance(index, int) and index != position:
                    raise ModelError(
                        f"{family}: {attribute} is {index} inside layer {position}. Layers that are shared or counted "
                        "otherwise cannot be renumbered, so nothing can be inserted between them."
                    )
        for name, parameter in layer.named_parameters():
            first = holders.setdefault(id(parameter), position)
            if first != position:
                raise ModelError(
                    f"{family}: layers {first} and {position} share {name}, so neither can be copied or moved alone."
                )


def expand_config(config: PreTrainedConfig, origin: list[int]) -> None:
    """Set the number of layers and expand what the config lists per layer.

    Args:
        config: A decoder's text config, changed in place.
        origin: For each new layer the old one that it is, or is a copy of.
    """
    setting = depth_setting(config)
    num_layers = getattr(config, setting)
    changes = _listed_layers(config, origin, num_layers)
    for name in LEADING_LAYERS:
        value = vars(config).get(name)
        if isinstance(value, int) and value > 0:
            changes[name] = sum(old < value for old in origin) + max(value - num_layers, 0)
    for name in LAST_LAYERS:
        value = vars(config).get(name)
        if isinstance(value, int) and value >= 0:
            changes[name] = sum(old <= value for old in origin) - 1
    # Families whose layers differ in any setting keep the differences by layer, read and written through a view
    overrides = config.to_dict().get("per_layer_config") or {}
    by_layer = {int(old): values for old, values in overrides.items()}
    if by_layer:
        config.per_layer_config = None
    setattr(config, setting, len(origin))
    encoder_setting = setting.replace("decoder", "encoder")
    if encoder_setting in vars(config):
        # Such a decoder alone still sizes its cache by the encoder's depth
        setattr(config, encoder_setting, len(origin))
    for name, value in changes.items():
        setattr(config, name, value)
    for name, derive in DERIVED_SETTINGS.items():
        if name in vars(config):
            setattr(config, name, derive(config))
    if by_layer:
        config.per_layer_config = {n: dict(by_layer[old]) for n, old in enumerate(origin) if old in by_layer}


def _listed_layers(config: PreTrainedConfig, origin: list[int], num_layers: int) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name, value in vars(config).items():
        if not isinstance(value, list | tuple):
            continue
        if name in LAYER_NUMBER_LISTS:
            changes[name] = [n for n, old in enumerate(origin) if old in value]
        elif len(value) == num_layers and ("layer" in name or name in PER_LAYER_LISTS):
            changes[name] = [copy.deepcopy(value[old]) for old in origin]
    if getattr(config, "decoder_sparse_step", 1) > 1:
        # Every so many layers: the same list, written out
        changes["decoder_sparse_step"] = 1
        step, dense = config.decoder_sparse_step, config.mlp_only_layers
        changes["mlp_only_layers"] = [n for n, old in enumerate(origin) if old in dense or (old + 1) % step]
    return changes


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    names: list[str] = [name for name, module in model.named_modules() if module is wanted]
    if names:
        return names[0]
    raise ModelError(f"{type(wanted).__name__} is not part of {type(model).__name__}")
