"""`export_peft`: a workflow of the policy `lora` as a peft adapter of its base."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, TaskType
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adaptkit.errors import ModelError
from adaptkit.export.merging import low_rank_modules
from adaptkit.export.output import ExportReport, written_whole
from adaptkit.export.verification import difference_of
from adaptkit.export.vocabulary import for_generation
from adaptkit.files.paths import resolve_model_path
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.integrity import refuse_non_finite
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.model.reference import origin_of
from adaptkit.model.stock_methods import num_rows
from adaptkit.surgery import structural_copy

_PREFIX = "base_model.model."
_NUM_WORDS = 12


def export_peft(
    model: AdaptkitForConditionalGeneration, processor: AdaptkitProcessor | None, directory: str | Path
) -> ExportReport:
    """Write the decoder's part of a LoRA workflow as a peft adapter, which `PeftModel.from_pretrained` reads.

    It holds the low-rank differences and, where the workflow has its own, embedding, final norm and LM head. A peft
    adapter has no place for encoders and projectors: programs that read it see the workflow's text alone.

    Args:
        model: A workflow of the policy `lora`.
        processor: Its processor, whose tokenizer is written too; None to skip it.
        directory: Where to write; it must not hold anything yet.

    Raises:
        ModelError: The workflow is not its base with low-rank differences, or peft computes other logits from what was
            written.
    """
    wrapped = low_rank_modules(model.language_model)
    refuse_non_finite(model.named_parameters(), "the workflow")
    problem = _problem(model, wrapped)
    if problem:
        raise ModelError(f"this workflow cannot become a peft adapter: {problem}")
    with written_whole(Path(directory)) as folder:
        _config(model, wrapped).save_pretrained(folder)
        save_file(_tensors(model, wrapped), folder / "adapter_model.safetensors", {"format": "pt"})
        if processor is not None:
            for_generation(processor.tokenizer, processor.chat_template).save_pretrained(folder)
        difference = _compare(model, folder)
    return ExportReport(Path(directory), difference)


def _problem(model: AdaptkitForConditionalGeneration, wrapped: dict[str, LoraLayer]) -> str | None:
    policy = model.config.insertion.get("policy", "projector_only")
    if not wrapped:
        return f"its policy {policy!r} has no low-rank differences; only those of the policy 'lora' are one."
    if any(kind == "inserted" for kind, _ in model.config.layer_map):
        return f"its policy {policy!r} inserts layers, which the base does not have. Export it with --to llava --merge."
    if num_rows(model) != num_rows(model.base):
        return f"its embedding was resized to {num_rows(model)} rows, and the base has {num_rows(model.base)}."
    return None


def _config(model: AdaptkitForConditionalGeneration, wrapped: dict[str, LoraLayer]) -> LoraConfig:
    settings = {(m.r["default"], m.lora_alpha["default"]) for m in wrapped.values()}
    assert len(settings) == 1, settings  # the policy has one rank and one alpha
    ((rank, alpha),) = settings
    layers = [cast(Any, m).get_base_layer() for m in wrapped.values()]
    origin = origin_of(model.base)
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=_target_names(model.base, wrapped),
        fan_in_fan_out=all(isinstance(layer, Conv1D) for layer in layers),
        modules_to_save=list(model.end_names) or None,
        task_type=TaskType.CAUSAL_LM,
        base_model_name_or_path=resolve_model_path(origin.name),
        revision=origin.revision,
        inference_mode=True,
    )


def _target_names(base: nn.Module, wrapped: dict[str, LoraLayer]) -> list[str]:
    """Last parts of the names, which more programs understand, where those mean exactly these modules; else all."""
    short = sorted({name.rpartition(".")[2] for name in wrapped})
    meant = {name for name, _ in base.named_modules() if name.rpartition(".")[2] in short}
    return short if meant == set(wrapped) else sorted(wrapped)


def _tensors(model: AdaptkitForConditionalGeneration, wrapped: dict[str, LoraLayer]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, module in wrapped.items():
        for factor in ("lora_A", "lora_B"):
            weight = cast(Any, module).get_submodule(factor)["default"].weight
            tensors[f"{_PREFIX}{name}.{factor}.weight"] = weight
    for end in model.end_names:
        for name, parameter in model.language_model.get_submodule(end).named_parameters():
            tensors[f"{_PREFIX}{end}.{name}"] = parameter
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


@torch.no_grad()
def _compare(model: AdaptkitForConditionalGeneration, folder: Path) -> float:
    """Put the adapter on a structural copy of the base, as peft would on the base, and compare logits of text."""
    with warnings.catch_warnings():
        # peft asks a property that newer releases of transformers call otherwise
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        # On a tied base the workflow's ends are untied, and are meant to be
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*", category=UserWarning)
        theirs = PeftModel.from_pretrained(structural_copy(model.base), folder).eval()
    input_ids = torch.randint(0, num_rows(model.base), (2, _NUM_WORDS), generator=torch.Generator().manual_seed(0))
    for entry in model.config.modalities.values():
        input_ids = input_ids.masked_fill(input_ids == entry["placeholder_id"], 0 if entry["placeholder_id"] else 1)
    input_ids = input_ids.to(model.device)
    was_training = model.training
    expected = model.eval()(input_ids=input_ids).logits.float()
    model.train(was_training)
    found = theirs(input_ids=input_ids).logits.float()
    return difference_of(expected, found, model.base.dtype, "peft computes other logits from what was written")
