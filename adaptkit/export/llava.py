"""`export_llava`: a workflow as a stock `LlavaForConditionalGeneration` with its processor."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GenerationConfig, LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel

from adaptkit.errors import ModelError
from adaptkit.export.checks import compare_llava
from adaptkit.export.copies import copy_to_write
from adaptkit.export.llava_processor import compare_processors, write_processor
from adaptkit.export.output import ExportReport, written_whole
from adaptkit.export.parts import measure_head
from adaptkit.export.problems import llava_problems, select_strategy
from adaptkit.export.vocabulary import Placeholder, choose_placeholder, with_rows
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.portable import portable_text_config
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.surgery import structural_copy

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
    if problems:
        raise ModelError("this workflow cannot become a stock LLaVA: " + " Also: ".join(problems))
    (name,) = model.encoders
    dtype = dtype or model.base.dtype
    ours = copy_to_write(model, dtype, merge=merge)
    entry = model.config.modalities[name]
    rows = int(cast(Tensor, ours.get_input_embeddings().weight).shape[0])
    tokenizer = None if processor is None else processor.tokenizer
    placeholder = choose_placeholder(entry["placeholder_id"], entry.get("placeholder"), rows, tokenizer)
    with written_whole(Path(directory)) as folder:
        _write_model(ours, placeholder, dtype, folder)
        rounded = any(p.dtype != dtype for p in model.parameters() if p.is_floating_point())
        reference = ours if rounded else copy_to_write(model)
        difference = compare_llava(reference, folder, placeholder.token_id, dtype)
        pixels = None
        if processor is not None:
            encoder = cast(Any, model.encoders[name])
            write_processor(processor, encoder, placeholder, folder)
            pixels = compare_processors(processor, name, folder)
    return ExportReport(
        Path(directory), difference, placeholder.token_id, placeholder.token, placeholder.num_rows - rows, pixels
    )


# -- the model -------------------------------------------------------------------------------------------------------


def _write_model(
    ours: AdaptkitForConditionalGeneration, placeholder: Placeholder, dtype: torch.dtype, folder: Path
) -> None:
    stock = _build_stock(ours, placeholder, dtype)
    stock.save_pretrained(folder)
    _finish_config(ours, folder)
    for file in folder.glob("*.safetensors"):
        _rename_tower(file)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        values = json.loads(index.read_text(encoding="utf-8"))
        values["weight_map"] = {_older_name(key): file for key, file in values["weight_map"].items()}
        index.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _build_stock(
    ours: AdaptkitForConditionalGeneration, placeholder: Placeholder, dtype: torch.dtype
) -> LlavaForConditionalGeneration:
    """A stock model over the workflow's tensors, made without memory of its own."""
    (encoder,) = (cast(Any, encoder) for encoder in ours.encoders.values())
    (projector,) = (cast(nn.Sequential, projector) for projector in ours.projectors.values())
    language_model = cast(PreTrainedModel, ours.language_model)
    facts = measure_head(language_model)
    trunk, head = structural_copy(facts.trunk), language_model.get_output_embeddings().weight
    embedding = trunk.get_input_embeddings()
    tied = embedding.weight is head and facts.scale == 1
    scaled = head if facts.scale == 1 else head * facts.scale
    _enlarge(embedding, placeholder.num_rows)
    config = _config(ours, encoder, placeholder, tied)
    with torch.device("meta"):
        stock = LlavaForConditionalGeneration(config)
    stock.model.language_model = trunk
    embedded = trunk.get_input_embeddings().weight
    stock.lm_head.weight = embedded if tied else _frozen(with_rows(scaled, placeholder.num_rows))
    stock.model.vision_tower = _tower(encoder.model, stock.model.vision_tower)
    adapter = stock.model.multi_modal_projector
    adapter.linear_1, adapter.linear_2 = projector[0], projector[2]
    stock.config.dtype = dtype
    stock.generation_config = _generation_config(ours, placeholder)
    return stock.eval()


def _config(ours: AdaptkitForConditionalGeneration, encoder: Any, placeholder: Placeholder, tied: bool) -> LlavaConfig:
    text = ours.language_model.config.get_text_config(decoder=True).to_dict()
    text |= {"vocab_size": placeholder.num_rows, "tie_word_embeddings": tied}
    options = encoder.options
    return LlavaConfig(
        vision_config=encoder.model.config.to_dict(),
        text_config=text,
        image_token_index=placeholder.token_id,
        image_seq_length=encoder.build_preprocessor().fixed_positions,
        # Stock code takes a plain 0 for "no hidden states asked for"
        vision_feature_layer=options.feature_layer or -encoder.model.config.num_hidden_layers - 1,
        vision_feature_select_strategy=select_strategy(encoder),
        projector_hidden_act="gelu",
        multimodal_projector_bias=True,
        tie_word_embeddings=tied,
    )


def _enlarge(embedding: nn.Module, num_rows: int) -> None:
    """Append the rows that an embedding of a structural copy lacks."""
    weight = cast(Tensor, embedding.weight)
    larger = with_rows(weight, num_rows)
    if larger is not weight:
        cast(Any, embedding).weight = _frozen(larger)
        cast(Any, embedding).num_embeddings = num_rows


def _frozen(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach(), requires_grad=False)


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


def _generation_config(ours: AdaptkitForConditionalGeneration, placeholder: Placeholder) -> GenerationConfig:
    """The workflow's own, which also never lets the placeholder be generated."""
    config = copy.deepcopy(ours.generation_config)
    config._from_model_config = False
    config.suppress_tokens = sorted({*(config.suppress_tokens or []), placeholder.token_id})
    return config


def _finish_config(ours: AdaptkitForConditionalGeneration, folder: Path) -> None:
    """Complete the decoder's config with what older libraries need."""
    path = folder / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    text = portable_text_config(ours.language_model.config.get_text_config(decoder=True))
    values["text_config"] = {**text, **values["text_config"], "architectures": text.get("architectures")}
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _rename_tower(file: Path) -> None:
    """Give the tower's tensors the names that every release of transformers reads."""
    tensors = load_file(file)
    if any(name != _older_name(name) for name in tensors):
        save_file({_older_name(name): tensor for name, tensor in tensors.items()}, file, {"format": "pt"})


def _older_name(name: str) -> str:
    if name.startswith(_TOWER) and not name.startswith(_OLDER_TOWER):
        return _OLDER_TOWER + name.removeprefix(_TOWER)
    return name
