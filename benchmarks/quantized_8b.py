"""Memory of training and generation on a 4-bit base, beside the same on a bfloat16 one.

A decoder of Llama-3-8B's size and an encoder of CLIP-L's (336 pixels, 576 positions) with random weights; one
conversation of 1024 positions with one picture, the last 256 of them supervised; gradient checkpointing. Peaks are
torch's `max_memory_allocated`.

    python -m benchmarks.quantized_8b                              # one GPU
    python -m benchmarks.quantized_8b --layers 4 --hidden 128 --length 80 --picture 56   # tried on a CPU
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, PreTrainedModel

import adaptkit
from adaptkit.stage import OptimizerConfig, StageConfig
from adaptkit.surgery.quantization import bitsandbytes_config
from adaptkit.training.parameter_groups import build_optimizer
from adaptkit.training.preparation import prepared
from benchmarks.common import model_options, save

GIB = 2**30
NUM_STEPS = 3
NUM_NEW_TOKENS = 32


@dataclass(frozen=True)
class Variant:
    """What is trained, and on what.

    Attributes:
        name: For the table.
        base: `nf4` or `bf16`.
        optimizer: Name of the optimiser.
        insertion: Policy and options, without placement.
        ends: Whether embedding, final norm and head are the workflow's own.
    """

    name: str
    base: str
    optimizer: str
    insertion: dict[str, Any] = field(default_factory=lambda: {"policy": "inner_adapter"})
    ends: bool = False


MMA = {"policy": "mma"}
DELTA = {"policy": "inner_adapter", "delta": {"rank": 64}}
VARIANTS = (
    Variant("projector alone", "nf4", "adamw_8bit", {"policy": "projector_only"}),
    Variant("mma", "nf4", "adamw_8bit", MMA),
    Variant("8 low-rank insertions", "nf4", "adamw_8bit", DELTA),
    Variant("8 insertions", "nf4", "adamw_8bit"),
    Variant("8 insertions, ends", "nf4", "adamw_8bit", ends=True),
    Variant("8 insertions, ends", "nf4", "adamw", ends=True),
    Variant("mma", "bf16", "adamw", MMA),
    Variant("8 low-rank insertions", "bf16", "adamw", DELTA),
    Variant("8 insertions, ends", "bf16", "adamw", ends=True),
)


def build_base(kind: str, options: argparse.Namespace, device: torch.device) -> PreTrainedModel:
    """A random decoder, made module by module so that no more than one is ever there unpacked."""
    config = LlamaConfig(
        hidden_size=options.hidden,
        intermediate_size=options.hidden * 7 // 2,
        num_hidden_layers=options.layers,
        num_attention_heads=max(1, options.hidden // 128),
        num_key_value_heads=max(1, options.hidden // 512),
        head_dim=128,
        vocab_size=options.vocabulary,
        max_position_embeddings=8192,
        rope_theta=500_000.0,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    if kind == "nf4":
        from transformers.integrations import replace_with_bnb_linear

        packing = bitsandbytes_config(kind, torch.bfloat16)
        base = replace_with_bnb_linear(base, modules_to_not_convert=["lm_head"], quantization_config=packing)
    base.model.rotary_emb = type(base.model.rotary_emb)(config=config).to(device)
    for module in base.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            value = torch.ones if parameter.ndim == 1 else torch.randn
            tensor = value(_shape(module, parameter), device=device, dtype=torch.bfloat16)
            setattr(module, name, _parameter(parameter, tensor * (1.0 if parameter.ndim == 1 else 0.02)))
    return base.eval()


def _shape(module: nn.Module, parameter: nn.Parameter) -> Any:
    return (module.out_features, module.in_features) if isinstance(module, nn.Linear) else parameter.shape


def _parameter(like: nn.Parameter, tensor: torch.Tensor) -> nn.Parameter:
    if type(like).__name__ == "Params4bit":
        packed: nn.Parameter = type(like)(tensor, requires_grad=False, **like.__dict__).to(tensor.device)
        return packed
    return nn.Parameter(tensor, requires_grad=False)


def build_encoder(options: argparse.Namespace, device: torch.device) -> CLIPVisionModel:
    """CLIP-L/14 with random weights; smaller where the decoder is."""
    small = options.hidden < 1024
    config = CLIPVisionConfig(
        hidden_size=64 if small else 1024,
        intermediate_size=128 if small else 4096,
        num_hidden_layers=2 if small else 24,
        num_attention_heads=4 if small else 16,
        image_size=options.picture,
        patch_size=14,
    )
    with device:
        return CLIPVisionModel(config).to(torch.bfloat16).eval()


def build_model(variant: Variant, base: Any, encoder: Any) -> Any:
    insertion = dict(variant.insertion)
    if insertion["policy"] == "inner_adapter":
        insertion["placement"] = {"count": min(8, base.config.num_hidden_layers)}
    modalities = {"image": {"encoder": encoder, "projector": "mlp2x_gelu"}}
    model = adaptkit.adapt(base, modalities, insertion, variant.ends)
    return model.to(next(base.parameters()).device)


def build_batch(model: Any, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """One picture in front of words; the last quarter is supervised."""
    picture = torch.randn(1, 3, options.picture, options.picture, device=device)
    num_positions = model.encode("image", picture).shape[1]
    if num_positions >= options.length:
        raise SystemExit(f"--length {options.length} leaves no room beside {num_positions} positions of the picture.")
    placeholder = model.config.modalities["image"]["placeholder_id"]
    words = torch.randint(3, options.vocabulary, (1, options.length - num_positions), device=device)
    input_ids = torch.cat([torch.full((1, num_positions), placeholder, device=device), words], 1)
    labels = input_ids.clone()
    labels[:, : options.length - min(options.length // 4, words.shape[1])] = -100
    return {"input_ids": input_ids, "labels": labels, "features": {"image": picture}}


def measure(variant: Variant, base: Any, encoder: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Peaks and times of a few training steps, then of a short generation."""
    device = next(base.parameters()).device
    torch.manual_seed(0)
    model = build_model(variant, base, encoder)
    parts = tuple(model.trainable_parts())
    model.set_trainable(parts)
    batch = build_batch(model, options, device)
    settings = StageConfig(
        name="benchmark",
        train=parts,
        optimizer=OptimizerConfig(name=variant.optimizer, learning_rate=1e-5),
        gradient_checkpointing=True,
    )
    optimizer = build_optimizer(model, parts, settings.optimizer)
    result: dict[str, Any] = {
        "base": variant.base,
        "variant": variant.name,
        "optimizer": variant.optimizer,
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    reset_peak(device)
    with prepared(model, settings):
        model.train()
        for _ in range(NUM_STEPS):
            started = now(device)
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            result["step_s"] = round(now(device) - started, 3)
        result["loss"] = round(loss.item(), 3)
        result["train_gib"] = peak_gib(device)
    del optimizer, loss
    reset_peak(device)
    prompt = batch["input_ids"][:, : -options.length // 4]
    started = now(device)
    with torch.no_grad():
        model.generate(
            input_ids=prompt, features=batch["features"], do_sample=False,
            max_new_tokens=NUM_NEW_TOKENS, min_new_tokens=NUM_NEW_TOKENS,
        )  # fmt: skip
    result["tokens_per_s"] = round(NUM_NEW_TOKENS / (now(device) - started), 1)
    result["generate_gib"] = peak_gib(device)
    return result


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reset_peak(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: torch.device) -> float | None:
    return round(torch.cuda.max_memory_allocated() / GIB, 2) if device.type == "cuda" else None


def print_row(cells: list[Any]) -> None:
    widths = (5, 23, 11, 11, 10, 7, 9, 6)
    print("".join(f"{'-' if cell is None else cell!s:<{w}}" for cell, w in zip(cells, widths, strict=True)), flush=True)


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All variants, those on one base after each other."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    started = time.perf_counter()
    results: list[dict[str, Any]] = []
    base, base_kind = None, None
    encoder = build_encoder(options, device)
    print_row(["base", "what is trained", "optimizer", "parameters", "train GiB", "s/step", "gen. GiB", "tok/s"])
    for variant in VARIANTS:
        if options.only and variant.base not in options.only:
            continue
        if time.perf_counter() - started > options.seconds:
            print(f"{variant.base} {variant.name}: left out, {options.seconds} s are over", flush=True)
            continue
        try:
            if base_kind != variant.base:
                base = None
                reset_peak(device)
                base, base_kind = build_base(variant.base, options, device), variant.base
            result = measure(variant, base, encoder, options)
        except Exception as error:  # one variant out of memory must not cost the others
            results.append({"base": variant.base, "variant": variant.name, "error": repr(error)})
            print(f"{variant.base} {variant.name}: failed", flush=True)
            traceback.print_exc()
            continue
        finally:
            reset_peak(device)
        results.append(result)
        trained = f"{result['trained'] / 1e6:,.1f} M"
        keys = ("train_gib", "step_s", "generate_gib", "tokens_per_s")
        print_row([variant.base, variant.name, variant.optimizer, trained, *(result[key] for key in keys)])
    return results


def main() -> None:
    """Measure the variants in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model_options(parser, layers=32, hidden=4096, vocabulary=128_256, seconds=75)
    parser.add_argument("--only", nargs="*", choices=("nf4", "bf16"), help="bases to measure")
    options = parser.parse_args()
    results = run(options)
    if options.output:
        save(options.output, {"command": " ".join(["python -m benchmarks.quantized_8b", *sys.argv[1:]])}, results)


if __name__ == "__main__":
    main()
