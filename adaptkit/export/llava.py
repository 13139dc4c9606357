"""`export_llava`: a workflow as a stock `LlavaForConditionalGeneration` with its processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from adaptkit.export.compatibility import llava_problems, select_strategy
from adaptkit.export.llava_processor import write_llava_processor
from adaptkit.export.output import ExportReport
from adaptkit.export.stock import StockDecoder, StockFormat, export_stock, save_stock, stock_decoder
from adaptkit.export.verification import Medium
from adaptkit.export.vocabulary import Placeholder
from adaptkit.files.loading import read_json
from adaptkit.files.writing import write_json
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.processor import AdaptkitProcessor

_TOWER = "vision_tower."
_OLDER_TOWER = "vision_tower.vision_model."


def export_llava(
    model: AdaptkitForConditionalGeneration,
    processor: AdaptkitProcessor | None,
    directory: str | Path,
    *,
    merge: bool = False,
    dtype: torch.dtype | None = None,
) -> ExportReport:
    """Write a workflow as a stock LLaVA checkpoint, which transformers, vLLM and SGLang read without adaptkit.

    What was written is read back by plain transformers, and its logits are compared with the workflow's; where they
    differ nothing is left behind. A placeholder outside the vocabulary becomes the token `<image>`, with a row more in
    embedding and head where the tokenizer's next id needs one.

    Args:
        model: A workflow for which `llava_problems` finds nothing.
        processor: Its processor, to write a stock `LlavaProcessor`; without it only the model is written.
        directory: Where to write; it must not hold anything yet.
        merge: Whether to fold low-rank differences into the weights, on copies.
        dtype: Of the written weights; the base's where not given.

    Returns:
        What was written and how it compared.

    Raises:
        ModelError: The workflow has no stock equal, or what was written does not compute the same.
    """
    problems = llava_problems(model, merge=merge)
    return export_stock(LLAVA, problems, model, processor, Path(directory), merge=merge, dtype=dtype)


def random_picture(encoder: Any, generator: torch.Generator) -> Medium:
    """Noise as pixel values."""
    side, channels = encoder.config.image_size, encoder.config.num_channels
    pixel_values = torch.randn(1, channels, side, side, generator=generator)
    positions = encoder.build_preprocessor().fixed_positions
    inputs = {"pixel_values": pixel_values.to(next(encoder.parameters()).dtype)}
    return Medium("a picture", positions, inputs, inputs)


# -- the model -------------------------------------------------------------------------------------------------------


def _write_model(
    ours: AdaptkitForConditionalGeneration, placeholder: Placeholder, dtype: torch.dtype, folder: Path
) -> None:
    (encoder,) = (cast(Any, encoder) for encoder in ours.encoders.values())
    (projector,) = (cast(nn.Sequential, projector) for projector in ours.projectors.values())
    decoder = stock_decoder(ours, placeholder)
    config = _config(decoder, encoder, placeholder)
    with torch.device("meta"):
        stock = LlavaForConditionalGeneration(config)
    stock.model.vision_tower = _tower(encoder.model, stock.model.vision_tower)
    adapter = stock.model.multi_modal_projector
    adapter.linear_1, adapter.linear_2 = projector[0], projector[2]
    save_stock(stock, ours, decoder, placeholder, dtype, folder)
    for file in folder.glob("*.safetensors"):
        _rename_tower(file)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        values = read_json(index)
        write_json(index, {**values, "weight_map": {_older_name(k): file for k, file in values["weight_map"].items()}})


def _config(decoder: StockDecoder, encoder: Any, placeholder: Placeholder) -> LlavaConfig:
    options = encoder.options
    return LlavaConfig(
        vision_config=encoder.model.config.to_dict(),
        text_config=decoder.text_config,
        image_token_index=placeholder.token_id,
        image_seq_length=encoder.build_preprocessor().fixed_positions,
        # Stock code takes a plain 0 for "no hidden states asked for"
        vision_feature_layer=options.feature_layer or -encoder.model.config.num_hidden_layers - 1,
        vision_feature_select_strategy=select_strategy(encoder),
        projector_hidden_act="gelu",
        multimodal_projector_bias=True,
        tie_word_embeddings=decoder.tied,
    )


def _tower(vision: nn.Module, empty: nn.Module) -> nn.Module:
    """The stock tower over the encoder's tensors, whichever of its two layouts either has."""
    names = {name.replace("vision_model.", ""): name for name in empty.state_dict()}
    state = {names.get(n.replace("vision_model.", ""), n): t for n, t in vision.state_dict().items()}
    empty.load_state_dict(state, assign=True)
    for (module_name, module), (_, other) in zip(_flat(empty), _flat(vision), strict=True):
        for name, buffer in other.named_buffers(recurse=False):  # buffers that no checkpoint holds
            assert name in dict(module.named_buffers(recurse=False)), f"{module_name}.{name}"
            module.register_buffer(name, buffer, persistent=name not in module._non_persistent_buffers_set)
    return empty


def _flat(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Named modules, without the wrapper that one of the layouts has around all others."""
    inner = getattr(module, "vision_model", module)
    return list(cast(nn.Module, inner).named_modules())


def _rename_tower(file: Path) -> None:
    """Give the tower's tensors the names that every release of transformers reads."""
    tensors = load_file(file)
    if any(name != _older_name(name) for name in tensors):
        save_file({_older_name(name): tensor for name, tensor in tensors.items()}, file, {"format": "pt"})


def _older_name(name: str) -> str:
    if name.startswith(_TOWER) and not name.startswith(_OLDER_TOWER):
        return _OLDER_TOWER + name.removeprefix(_TOWER)
    return name


LLAVA = StockFormat(
    "LLaVA", LlavaForConditionalGeneration, _write_model, random_picture, write_llava_processor, "<image>"
)
