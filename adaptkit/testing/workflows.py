"""Checks of a part inside a workflow through a tiny decoder: one backward pass, and saving and loading."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adaptkit.errors import AdaptkitError
from adaptkit.hookspecs import Options
from adaptkit.interfaces import Encoder, Preprocessor
from adaptkit.model.assembly import adapt
from adaptkit.model.checkpoint import load
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.plugin_manager import PluginManager, get_plugin_manager
from adaptkit.testing.requirements import ContractError, require
from adaptkit.testing.tiny import tiny_decoder

_MODALITY = "item"
_BEFORE, _AFTER = [5, 6], [7, 8, 9]
"""Token ids around the placeholders."""


def check_encoder_in_workflow(
    name: str,
    options: Options,
    encoder: Encoder,
    preprocessor: Preprocessor,
    inputs: Sequence[Tensor],
    manager: PluginManager,
) -> None:
    """A loss reaches the projector and not the encoder, and a saved workflow answers as before.

    Args:
        name: Of the encoder.
        options: Its options.
        encoder: As built with them.
        preprocessor: Likewise.
        inputs: Encoder inputs of one item or more, which stand in one prompt.
        manager: Where the encoder is registered; elsewhere than among the installed plugins, workflows are loaded with
            the object itself.
    """
    installed = manager is get_plugin_manager()
    spec: Any = {"name": name, **options.model_dump(mode="json")} if installed else encoder
    base = tiny_decoder("llama", num_hidden_layers=1, num_positions=1 << 15)
    model = adapt(base, modalities={_MODALITY: {"encoder": spec, "projector": "linear", "type": None}})
    batch = _batch(model, preprocessor, inputs)
    _check_gradients(model, batch)
    with torch.no_grad():
        expected = model(**batch).logits
        with tempfile.TemporaryDirectory() as directory:
            model.save_pretrained(directory)
            again = load(directory, base=base, encoders=None if installed else {_MODALITY: encoder})
        require(torch.equal(again(**batch).logits, expected), "a saved and loaded workflow gives other logits")


def _batch(
    model: AdaptkitForConditionalGeneration, preprocessor: Preprocessor, inputs: Sequence[Tensor]
) -> dict[str, Any]:
    placeholder = model.config.modalities[_MODALITY]["placeholder_id"]
    ids = list(_BEFORE)
    for item in inputs:
        ids += [placeholder] * preprocessor.num_positions(item) + _AFTER
    input_ids = torch.tensor([ids])
    return {"input_ids": input_ids, "labels": input_ids, "features": {_MODALITY: preprocessor.collate(inputs)}}


def _check_gradients(model: AdaptkitForConditionalGeneration, batch: dict[str, Any]) -> None:
    before = {name: parameter.clone() for name, parameter in model.encoders.named_parameters()}
    model.train()
    try:
        loss = model(**batch).loss
        loss.backward()
    except (AdaptkitError, RuntimeError) as error:
        raise ContractError(f"a workflow with this encoder cannot be trained: {error}") from error
    finally:
        model.eval()
    require(bool(loss.isfinite()), "the loss of a workflow with this encoder is not finite")
    reached = [name for name, p in model.encoders.named_parameters() if p.grad is not None or p.requires_grad]
    require(not reached, f"a gradient reaches the frozen encoder: {reached[:1]}")
    changed = [name for name, p in model.encoders.named_parameters() if not torch.equal(p, before[name])]
    require(not changed, f"the encoder's weights change while a workflow is trained: {changed[:1]}")
    projector = model.projectors[_MODALITY]
    idle = [name for name, p in projector.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    require(not idle, f"no gradient reaches {', '.join(idle)} of the projector behind this encoder")
    model.zero_grad()
