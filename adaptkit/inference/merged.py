"""One decoder for rows of several workflows.

It holds every layer of the base once. What a workflow has of its own (inserted layers, layers that its policy adapted,
final norm and head) computes that workflow's rows alone, and keeps keys and values of those rows alone, in a cache slot
of its own. All other rows pass it unchanged.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from adaptkit.errors import ModelError
from adaptkit.inference.routing import TEXT
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.surgery import (
    AdapterContext,
    Decoder,
    decoder_layers,
    extend_module,
    first_output,
    provide_context,
    structural_copy,
    with_first_output,
)
from adaptkit.surgery.decoder import text_config

Rows = slice | Tensor

_WHOLE = slice(None)


def refuse_decoder(base: PreTrainedModel) -> None:
    """Refuse a decoder whose rows cannot join and leave a batch.

    Raises:
        ModelError: It says why.
    """
    family, config = type(base).__name__, base.config.get_text_config(decoder=True)
    kinds = {type(layer) for layer in DynamicCache(config=config).layers}
    takes = inspect.signature(base.forward).parameters
    if not kinds <= {DynamicLayer, DynamicSlidingWindowLayer} or "past_key_values" not in takes:
        raise ModelError(f"{family} keeps a state that is not one of positions, so rows cannot join a batch.")
    if "position_ids" not in takes:
        raise ModelError(f"{family} counts positions from the start of a batch, so rows cannot join it.")
    if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
        raise ModelError(f"{family} attends in chunks of positions, which padding on the left would move.")
    if getattr(config, "alibi", False):
        raise ModelError(f"{family} biases attention by head for a whole batch (ALiBi), so rows cannot join it.")


def refusal_of_workflow(model: AdaptkitForConditionalGeneration) -> str:
    """Why a workflow cannot share a pass with others; empty where it can."""
    if model.policy.feature_mode == "context":
        return "its policy attends to media that stand beside the batch"
    if model.policy.carried:
        return f"its policy keeps values beside the KV cache ({', '.join(model.policy.carried)})"
    shared = {id(tensor) for tensor in chain(model.base.parameters(), model.base.buffers())}
    places = [f"{place}." for place in model.end_names]
    inside = {id(parameter) for parameter in decoder_layers(model.language_model).parameters()}
    for name, parameter in model.language_model.named_parameters():
        if id(parameter) not in shared | inside and not name.startswith(tuple(places)):
            return f"it trains more than layers and ends ({name})"
    return ""


class RowPlan:
    """Which rows of the present pass are whose.

    Attributes:
        form: An output of a layer, by whose form the layers that have no rows return their input.
        contexts: Adapter contexts of the workflows whose policies use one, for their rows.
    """

    def __init__(self) -> None:
        self.form: Any = None
        self.contexts: dict[str, AdapterContext] = {}
        self._names: list[str] = []
        self._found: dict[Collection[str], Rows | None] = {}

    def set(self, names: Sequence[str], contexts: Mapping[str, AdapterContext]) -> None:
        """Begin a pass, row `i` of which is of workflow `names[i]`."""
        self.contexts = dict(contexts)
        if self._names != list(names):
            self._names = list(names)
            self._found = {}

    def of(self, owners: frozenset[str]) -> Rows | None:
        """Rows of these workflows; None where there are none."""
        if owners not in self._found:
            rows = [row for row, name in enumerate(self._names) if name in owners]
            self._found[owners] = _as_index(rows, len(self._names))
        return self._found[owners]

    def cut(self, value: Any, rows: Rows) -> Any:
        """These rows of whatever a layer is given: tensors `(batch, …)`, and tuples, lists and mappings of them."""
        if isinstance(value, Tensor):
            return value[rows] if value.ndim > 1 and value.shape[0] == len(self._names) else value
        if isinstance(value, tuple | list):
            return type(value)(self.cut(entry, rows) for entry in value)
        if isinstance(value, dict):
            return {name: self.cut(entry, rows) for name, entry in value.items()}
        return value


def _as_index(rows: list[int], num_rows: int) -> Rows | None:
    if not rows:
        return None
    if len(rows) == num_rows:
        return _WHOLE
    if rows == list(range(rows[0], rows[-1] + 1)):
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows)


Scope = Callable[[], AbstractContextManager[Any]]


class RowsLayer(nn.Module):
    """Mixin of a decoder layer that computes the rows of its owners; the others pass it unchanged."""

    plan: RowPlan
    owners: frozenset[str]
    scope: Scope

    def __call__(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the layer on its rows."""
        rows = self.plan.of(self.owners)
        if rows is None:
            return with_first_output(self.plan.form, hidden_states)
        with self.scope():
            if rows is _WHOLE:
                output = super().__call__(hidden_states, *args, **kwargs)
                return with_first_output(output, first_output(output).to(hidden_states.dtype))
            output = super().__call__(hidden_states[rows], *self.plan.cut(args, rows), **self.plan.cut(kwargs, rows))
        joined = hidden_states.clone()
        joined[rows] = first_output(output).to(joined.dtype)
        return with_first_output(output, joined)


class RowsSwitch(nn.Module):
    """One module for each workflow that has its own in a place, and the base's for the others.

    Each computes its rows, `(batch, …)`, and gives them in the dtype of what it was given.
    """

    def __init__(self, plan: RowPlan, shared: nn.Module, owners: frozenset[str]) -> None:
        super().__init__()
        self.plan = plan
        self.branches: list[tuple[frozenset[str], nn.Module, Scope]] = [(owners, shared, nullcontext)]

    def add(self, name: str, module: nn.Module, scope: Scope) -> None:
        """Let a workflow's rows go through a module of its own."""
        owners, shared, _ = self.branches[0]
        self.branches[0] = (owners - {name}, shared, nullcontext)
        self.branches.append((frozenset((name,)), module, scope))

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Outputs of all rows, in their order."""
        joined: Tensor | None = None
        for owners, module, scope in self.branches:
            rows = self.plan.of(owners)
            if rows is None:
                continue
            with scope():
                output = cast(Tensor, module(hidden_states[rows], *args, **kwargs)).to(hidden_states.dtype)
            if rows is _WHOLE:
                return output
            if joined is None:
                joined = output.new_empty(hidden_states.shape[0], *output.shape[1:])
            joined[rows] = output
        assert joined is not None, "every row has an owner"
        return joined


class MergedDecoder:
    """A causal LM over the layers of a base and of several workflows on it.

    Args:
        base: The base.
        workflows: Those that share the pass, by name.

    Attributes:
        model: The causal LM.
        plan: Says before each pass which rows are whose.
        takes_logits_to_keep: Whether the model computes logits at some positions alone, as transformers names it.
        owners: For each layer, and so for each slot of the cache, the workflows whose rows it computes.
    """

    def __init__(self, base: PreTrainedModel, workflows: Mapping[str, AdaptkitForConditionalGeneration]) -> None:
        self.plan = RowPlan()
        self.everyone = frozenset((TEXT, *workflows))
        decoder = Decoder(structural_copy(base))
        self.model = decoder.model
        self.takes_logits_to_keep = "logits_to_keep" in inspect.signature(base.forward).parameters
        self.owners: list[frozenset[str]] = []
        self._workflows = dict(workflows)
        self._arrange(decoder)
        self._switch_ends()
        self._learn_form(decoder.layers[0])

    def _arrange(self, decoder: Decoder) -> None:
        """Each base layer, then the layers that workflows have in its place, and those that they have after it."""
        stack: list[nn.Module] = []
        origin: list[int] = []

        def put(layer: nn.Module, source: int, owners: frozenset[str]) -> None:
            stack.append(layer)
            origin.append(source)
            self.owners.append(owners)

        for source, layer in enumerate(list(decoder.layers)):
            found = {name: _layers_at(model, source) for name, model in self._workflows.items()}
            others = {name for name, (instead, _) in found.items() if not _is_same(instead, layer)}
            put(layer, source, self.everyone - others)
            for name, (instead, after) in found.items():
                for own in ([instead] if name in others else []) + after:
                    put(self._copy(own, name), source, frozenset((name,)))
        decoder.arrange(stack, origin)
        for layer, owners in zip(decoder.layers, self.owners, strict=True):
            if owners != self.everyone:
                extend_module(layer, RowsLayer, plan=self.plan, owners=owners, scope=self._scope(owners))

    def _copy(self, layer: nn.Module, name: str) -> nn.Module:
        """A layer of a workflow over the same tensors, which refers to the merged model's config."""
        language_model = self._workflows[name].language_model
        duplicate = structural_copy(layer, configs_of=language_model)
        configs = {
            id(theirs): ours
            for theirs, ours in (
                (language_model.config, self.model.config),
                (text_config(language_model), text_config(self.model)),
            )
        }
        for module in duplicate.modules():
            for attribute, value in list(vars(module).items()):
                if id(value) in configs:
                    setattr(module, attribute, configs[id(value)])
        return duplicate

    def _scope(self, owners: frozenset[str]) -> Scope:
        """In which a workflow's own modules run: its precision, and the adapter context of its rows."""
        if TEXT in owners or len(owners) > 1:
            return nullcontext
        (name,) = owners
        model = self._workflows[name]
        if not model.policy.uses_context:
            return model.compute_dtype

        def scope() -> AbstractContextManager[Any]:
            stack = ExitStack()
            stack.enter_context(model.compute_dtype())
            stack.enter_context(provide_context(self.plan.contexts[name]))
            return stack

        return scope

    def _switch_ends(self) -> None:
        for name, model in self._workflows.items():
            embedding = model.get_input_embeddings()
            for place in model.end_names:
                own = model.language_model.get_submodule(place)
                if own is embedding:
                    continue  # rows come embedded
                present = self.model.get_submodule(place)
                if not isinstance(present, RowsSwitch):
                    present = RowsSwitch(self.plan, present, self.everyone)
                    self.model.set_submodule(place, present)
                present.add(name, own, model.compute_dtype)

    @torch.no_grad()
    def _learn_form(self, first_layer: nn.Module) -> None:
        def remember(module: nn.Module, arguments: Any, output: Any) -> None:
            self.plan.form = output

        hook = first_layer.register_forward_hook(remember)
        self.plan.set([TEXT], {})
        try:
            embedding = self.model.get_input_embeddings()
            ids = torch.zeros(1, 1, dtype=torch.long, device=embedding.weight.device)
            self.model(inputs_embeds=embedding(ids), use_cache=False)
        finally:
            hook.remove()


def _layers_at(model: AdaptkitForConditionalGeneration, source: int) -> tuple[nn.Module, list[nn.Module]]:
    """The layer that a workflow has in the place of a base layer, and those that it inserted after it."""
    layers = decoder_layers(model.language_model)
    here = [(kind, layer) for (kind, of), layer in zip(model.config.layer_map, layers, strict=True) if of == source]
    (instead,) = [layer for kind, layer in here if kind != "inserted"]
    return instead, [layer for kind, layer in here if kind == "inserted"]


def _is_same(layer: nn.Module, of_base: nn.Module) -> bool:
    """Whether two layers are made of equal modules over the same tensors."""

    def structure(module: nn.Module) -> tuple[Any, ...]:
        tensors = chain(module.named_parameters(), module.named_buffers())
        return [(name, type(m)) for name, m in module.named_modules()], [(name, id(t)) for name, t in tensors]

    return structure(layer) == structure(of_base)
