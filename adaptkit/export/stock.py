"""What all stock multimodal checkpoints share: writing, completing and reading back; the decoder's part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from adaptkit.chat.vocabulary import check_vocabulary
from adaptkit.errors import ModelError
from adaptkit.export.merging import copy_to_write
from adaptkit.export.output import ExportReport, written_whole
from adaptkit.export.trunk import measure_head
from adaptkit.export.verification import Medium, compare_logits
from adaptkit.export.vocabulary import Placeholder, choose_placeholder, with_rows
from adaptkit.files.loading import read_json
from adaptkit.files.writing import write_json
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.integrity import refuse_non_finite
from adaptkit.model.portable_config import portable_text_config
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.model.stock_methods import num_rows
from adaptkit.surgery import structural_copy


@dataclass(frozen=True)
class StockFormat:
    """One kind of stock checkpoint.

    Attributes:
        title: What to call it in messages.
        model_class: Of transformers.
        write: Writes a workflow's model under a folder; `(workflow, placeholder, dtype, folder)`.
        medium: A random medium, as both models take it.
        write_processor: Writes the stock processor and returns the largest difference of what both make of the same
            media, None where there is nothing to compare; `(processor, workflow, placeholder, folder)`.
        placeholder: Text of the placeholder where the vocabulary has none.
    """

    title: str
    model_class: type[PreTrainedModel]
    write: Callable[[AdaptkitForConditionalGeneration, Placeholder, torch.dtype, Path], None]
    medium: Callable[[Any, torch.Generator], Medium]
    write_processor: Callable[[AdaptkitProcessor, AdaptkitForConditionalGeneration, Placeholder, Path], float | None]
    placeholder: str


def export_stock(
    stock: StockFormat,
    problems: Sequence[str],
    model: AdaptkitForConditionalGeneration,
    processor: AdaptkitProcessor | None,
    directory: Path,
    *,
    merge: bool,
    dtype: torch.dtype | None,
) -> ExportReport:
    """Write a workflow, read it back, and compare both.

    Raises:
        ModelError: There are problems, values are non-finite, or what was written computes something else; nothing is
            left behind.
    """
    if problems:
        raise ModelError(f"this workflow cannot become a stock {stock.title}: " + " Also: ".join(problems))
    (entry,) = model.config.modalities.values()
    dtype = dtype or model.base.dtype
    if processor is not None:
        check_vocabulary(processor.tokenizer, num_rows(model))
    ours = copy_to_write(model, dtype, merge=merge)
    where = "the workflow" if dtype == model.base.dtype else f"the workflow in {str(dtype).removeprefix('torch.')}"
    refuse_non_finite(ours.named_parameters(), where)
    rows, tokenizer = num_rows(ours), None if processor is None else processor.tokenizer
    text = entry.get("placeholder")
    placeholder = choose_placeholder(entry["placeholder_id"], text, rows, tokenizer, stock.placeholder)
    if processor is not None:
        ours.stop_at(processor.stop_settings(ours.generation_config))
    with written_whole(directory) as folder:
        stock.write(ours, placeholder, dtype, folder)
        rounded = any(p.dtype != dtype for p in model.parameters() if p.is_floating_point())
        reference = ours if rounded else copy_to_write(model)
        difference = compare_logits(
            reference, folder, placeholder.token_id, dtype, stock.model_class, stock.title, stock.medium
        )
        media = None
        if processor is not None:
            media = stock.write_processor(processor, model, placeholder, folder)
    _, dropped = valid_settings(ours.generation_config)
    return ExportReport(
        directory, difference, placeholder.token_id, placeholder.token, placeholder.num_rows - rows, media, dropped
    )


# -- the decoder -----------------------------------------------------------------------------------------------------


@dataclass
class StockDecoder:
    """A workflow's decoder, as stock models take it.

    Attributes:
        trunk: All but the head, with a row for the placeholder.
        head: Weight of the LM head; the embedding's own where the two are tied.
        tied: Whether they are.
        text_config: Values of its config.
    """

    trunk: PreTrainedModel
    head: nn.Parameter
    tied: bool
    text_config: dict[str, Any]


def stock_decoder(
    ours: AdaptkitForConditionalGeneration, placeholder: Placeholder, *, may_tie: bool = True
) -> StockDecoder:
    """Take a decoder apart, without writing to any of its tensors.

    Args:
        placeholder: Its rows are added where they are missing.
        may_tie: Whether the stock model can tie its head to its embedding; else a tied head becomes a copy.
    """
    language_model = cast(PreTrainedModel, ours.language_model)
    trunk, scale = measure_head(language_model)
    trunk, head = structural_copy(trunk), language_model.get_output_embeddings().weight
    embedding = trunk.get_input_embeddings()
    shared = embedding.weight is head and scale == 1
    tied = shared and may_tie
    scaled = head if scale == 1 else head * scale
    larger = with_rows(embedding.weight, placeholder.num_rows)
    if larger is not embedding.weight:
        embedding.weight, embedding.num_embeddings = _frozen(larger), placeholder.num_rows
    text = language_model.config.get_text_config(decoder=True).to_dict()
    text |= {"vocab_size": placeholder.num_rows, "tie_word_embeddings": tied}
    if tied:
        return StockDecoder(trunk, trunk.get_input_embeddings().weight, True, text)
    rows = with_rows(scaled, placeholder.num_rows)
    return StockDecoder(trunk, _frozen(rows.clone() if shared else rows), False, text)


def _frozen(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach(), requires_grad=False)


def save_stock(
    stock: Any,
    ours: AdaptkitForConditionalGeneration,
    decoder: StockDecoder,
    placeholder: Placeholder,
    dtype: torch.dtype,
    folder: Path,
    sizes: dict[str, Any] | None = None,
) -> None:
    """Write a stock model that has the workflow's encoder and projector, over its decoder.

    Args:
        stock: The model; its decoder has no memory of its own.
        ours: The workflow as it is to be written.
        placeholder: Never generated.
        sizes: Values of the decoder's config where that has no such key.
    """
    stock.model.language_model = decoder.trunk
    stock.lm_head.weight = decoder.head
    stock.config.dtype = dtype
    stock.generation_config = stock_generation_config(ours, placeholder)
    stock.eval().save_pretrained(folder)
    path = folder / "config.json"
    values = read_json(path)
    text = portable_text_config(ours.language_model.config.get_text_config(decoder=True))  # for older libraries
    text = {**(sizes or {}), **text, **values["text_config"], "architectures": text.get("architectures")}
    write_json(path, {**values, "text_config": text}, sort_keys=True)


def stock_generation_config(ours: AdaptkitForConditionalGeneration, placeholder: Placeholder) -> GenerationConfig:
    """The workflow's own, as far as it has an effect, which also never lets the placeholder be generated."""
    config, _ = valid_settings(ours.generation_config)
    config.suppress_tokens = sorted({*(config.suppress_tokens or []), placeholder.token_id})
    if config.pad_token_id is None and placeholder.tokenizer is not None:
        config.pad_token_id = placeholder.tokenizer.pad_token_id
    return config


_MODES = ("do_sample", "num_beams", "use_cache", "return_dict_in_generate")
"""Settings that decide whether others have an effect."""

_NOT_SETTINGS = ("transformers_version", "_from_model_config")


def valid_settings(config: GenerationConfig) -> tuple[GenerationConfig, tuple[str, ...]]:
    """Generation settings that transformers saves, and the names of those that it would not.

    Bases are published with settings that have no effect, such as a temperature without `do_sample`; transformers
    generates with them and refuses to save them.
    """
    given = {key: value for key, value in config.to_diff_dict().items() if key not in _NOT_SETTINGS}
    kept: dict[str, Any] = {}
    for key in sorted(given, key=lambda key: key not in _MODES):
        try:
            GenerationConfig(**kept, **{key: given[key]}).validate(strict=True)
        except (TypeError, ValueError):
            continue
        kept[key] = given[key]
    return GenerationConfig(**kept), tuple(key for key in given if key not in kept)
