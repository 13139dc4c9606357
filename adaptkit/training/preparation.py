"""What a stage switches on in a model before it trains, and off again afterwards."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from adaptkit.errors import ModelError
from adaptkit.model.packing import TrainingTraits
from adaptkit.stage import StageConfig
from adaptkit.surgery import decoder_layers

_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._flash_attention_forward.default,
}
"""Operations whose results selective checkpointing keeps: to make them again would cost what they cost at first."""


@contextmanager
def prepared(model: nn.Module, settings: StageConfig, traits: TrainingTraits | None = None) -> Iterator[None]:
    """Set up a model for a stage; afterwards it is as before, but for its weights.

    Args:
        traits: Of its decoder, where the model has no values by which to find them.

    Raises:
        ModelError: The model cannot do what the stage asks for, as packing.
    """
    with ExitStack() as stack:
        stack.callback(_restore, model, getattr(getattr(model, "config", None), "use_cache", None))
        if hasattr(model, "prepared_for_training"):
            options = {"packing": settings.packing, "loss": settings.loss, "traits": traits}
            stack.enter_context(cast(Any, model).prepared_for_training(**options))
        if settings.gradient_checkpointing:
            stack.enter_context(_checkpointed(model, selective=settings.gradient_checkpointing == "selective"))
        if settings.torch_compile:
            stack.enter_context(_compiled_layers(model))
        yield


def _restore(model: nn.Module, use_cache: Any) -> None:
    config: Any = getattr(model, "config", None)
    if config is not None and use_cache is None:
        vars(config).pop("use_cache", None)
    elif config is not None:
        config.use_cache = use_cache
    model.zero_grad()
    model.eval()


@contextmanager
def _checkpointed(model: Any, *, selective: bool) -> Iterator[None]:
    options: dict[str, Any] = {"use_reentrant": False}  # the other kind loses gradients where all inputs are frozen
    if selective:
        options["context_fn"] = _selective_contexts
    if hasattr(model, "activation_checkpointing_enable"):  # transformers' name for it since 5.23
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    try:
        yield
    finally:
        (getattr(model, "activation_checkpointing_disable", None) or model.gradient_checkpointing_disable)()


def _selective_contexts() -> Any:
    return create_selective_checkpoint_contexts(_keep)  # type: ignore[no-untyped-call]


def _keep(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def has_compiler(device: str | None = None) -> bool:
    """Whether layers can be compiled: by a C++ compiler on a CPU, by Triton on a GPU, taken where there is one."""
    if (device or ("cuda" if torch.cuda.is_available() else "cpu")) != "cpu":
        return importlib.util.find_spec("triton") is not None
    return any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "c++")))


@contextmanager
def _compiled_layers(model: Any) -> Iterator[None]:
    """Compile each decoder layer by itself: equal layers share a graph, which takes any number of positions."""
    if model.device.type == "cpu" and not has_compiler("cpu"):
        raise ModelError(
            "torch_compile on a CPU needs a C++ compiler, and none is found: install g++, or switch it off."
        )
    layers = list(decoder_layers(model.language_model))
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None
