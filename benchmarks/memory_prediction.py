"""Predicted peaks of memory beside measured ones.

A decoder of about 1.5 billion parameters and an encoder of CLIP-L's size with random weights are trained for two steps
in several ways. What each step needs is predicted first, by `adaptkit.prediction`, from the same code without memory;
then it is run. On a GPU peaks are torch's `max_memory_allocated`, on a CPU those of torch's profiler.

    python -m benchmarks.memory_prediction                                        # one GPU
    python -m benchmarks.memory_prediction --layers 4 --hidden 256 --length 128 --picture 56 --vocabulary 2000   # a CPU
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel, LlamaConfig

import adaptkit
from adaptkit.prediction.building import pack_base, without_weights
from adaptkit.prediction.memory import predict_step
from adaptkit.stage import OptimizerConfig, StageConfig
from adaptkit.training.parameter_groups import build_optimizer
from adaptkit.training.preparation import prepared
from benchmarks.common import model_options, save

GIB = 2**30
INNER = {"policy": "inner_adapter", "placement": {"count": 4}}


@dataclass(frozen=True)
class Case:
    """What is trained, and how.

    Attributes:
        name: For the table.
        train: Parts that learn.
        settings: Of the stage.
        insertion: Policy and options.
        quantization: Of the base.
    """

    name: str
    train: tuple[str, ...] = ("projector", "insertion", "ends")
    settings: dict[str, Any] = field(default_factory=dict)
    insertion: dict[str, Any] = field(default_factory=lambda: INNER)
    quantization: str | None = None


ADAMW_8BIT = {"optimizer": OptimizerConfig(name="adamw_8bit")}
CASES = (
    Case("projector", ("projector",), {"loss": "plain"}, {"policy": "projector_only"}),
    Case("projector, checkpointing", ("projector",), {"gradient_checkpointing": True}, {"policy": "projector_only"}),
    Case("insertions, ends", settings={"loss": "plain"}),
    Case("insertions, ends, chunked loss", settings={"loss": "chunked"}),
    Case("insertions, ends, checkpointing", settings={"loss": "chunked", "gradient_checkpointing": True}),
    Case("insertions, ends, selective", settings={"loss": "chunked", "gradient_checkpointing": "selective"}),
    Case("insertions, ends, packed", settings={"loss": "chunked", "packing": True}),
    Case("insertions, 2 batches a step", ("insertion",), {"loss": "plain", "gradient_accumulation_steps": 2}),
    Case("lora", ("projector", "insertion"), {"loss": "chunked"}, {"policy": "lora", "rank": 64}),
    Case("insertions on nf4, 8-bit AdamW", ("projector", "insertion"), {"loss": "chunked", **ADAMW_8BIT}, INNER, "nf4"),
)


def build_model(case: Case, options: argparse.Namespace, *, real: bool) -> Any:
    """The workflow of a case: on a device, or without values."""
    config = LlamaConfig(
        hidden_size=options.hidden,
        intermediate_size=options.hidden * 7 // 2,
        num_hidden_layers=options.layers,
        num_attention_heads=max(4, options.hidden // 128),
        num_key_value_heads=max(2, options.hidden // 512),
        vocab_size=options.vocabulary,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    small = options.hidden < 1024
    vision = CLIPVisionConfig(
        hidden_size=64 if small else 1024,
        intermediate_size=128 if small else 4096,
        num_hidden_layers=2 if small else 24,
        num_attention_heads=4 if small else 16,
        image_size=options.picture,
        patch_size=14,
    )
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    base = AutoModelForCausalLM.from_config(config, dtype=dtype)
    encoder = CLIPVisionModel(vision).to(dtype)
    if real and case.quantization is not None:
        base = packed(base, case.quantization, dtype)
    insertion = {"encoder": encoder, "projector": "mlp2x_gelu"}
    return adaptkit.adapt(base, {"image": insertion}, case.insertion, "ends" in case.train)


def packed(base: Any, quantization: str, dtype: torch.dtype) -> Any:
    """Pack the linear maps of a base in memory, as transformers does while it loads one."""
    from transformers.integrations import replace_with_bnb_linear

    from adaptkit.surgery.quantization import bitsandbytes_config

    weights = dict(base.named_parameters())
    packing = bitsandbytes_config(quantization, dtype)
    base = replace_with_bnb_linear(base, modules_to_not_convert=["lm_head"], quantization_config=packing)
    for name, module in base.named_modules():
        if type(module.weight if hasattr(module, "weight") else None).__name__ == "Params4bit":
            old = module.weight
            value = weights.pop(f"{name}.weight").detach()
            module.weight = type(old)(value, requires_grad=False, **old.__dict__).to(value.device)
    return base


def build_batch(model: Any, case: Case, options: argparse.Namespace, pictures: torch.Tensor) -> dict[str, Any]:
    """Conversations of one picture and words; all words are supervised."""
    num_positions = model.encode("image", pictures[:1]).shape[1]
    placeholder = model.config.modalities["image"]["placeholder_id"]
    words = torch.randint(3, options.vocabulary, (options.batch, options.length - num_positions))
    input_ids = torch.cat([torch.full((options.batch, num_positions), placeholder), words], 1)
    labels = input_ids.masked_fill(input_ids == placeholder, -100)
    batch: dict[str, Any] = {"input_ids": input_ids, "labels": labels, "features": {"image": pictures}}
    if case.settings.get("packing"):
        batch |= {name: batch[name].reshape(1, -1) for name in ("input_ids", "labels")}
        return {**batch, "segment_lengths": [options.length] * options.batch}
    mask = torch.ones_like(input_ids)
    mask[1:, -1] = 0  # as if the first were the longest
    return {**batch, "labels": labels.masked_fill(mask == 0, -100), "attention_mask": mask}


def build_settings(case: Case, options: argparse.Namespace) -> StageConfig:
    return StageConfig(name=case.name, train=case.train, bf16=options.bf16, **case.settings)


def predicted_peak(case: Case, options: argparse.Namespace) -> tuple[int, float]:
    """Bytes, and the seconds it took to predict them."""
    started = time.perf_counter()
    with without_weights():
        model = build_model(case, options, real=False)
    if case.quantization is not None:
        pack_base(model, case.quantization)
    pictures = torch.zeros(options.batch, 3, options.picture, options.picture, device="meta")
    batch = build_batch(model, case, options, pictures)
    return predict_step(model, batch, build_settings(case, options)).peak, time.perf_counter() - started


def measured_peak(case: Case, options: argparse.Namespace, device: torch.device) -> int:
    """Bytes that two steps took at most."""
    settings = build_settings(case, options)
    clean(device)
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    with device:
        model = build_model(case, options, real=True)
    model = model.to(device)
    model.set_trainable(case.train)
    batch = build_batch(model, case, options, torch.zeros(options.batch, 3, options.picture, options.picture))
    batch = {name: to_device(value, device) for name, value in batch.items()}
    clean(device)
    weights = allocated_bytes(model)
    optimizer = build_optimizer(model, case.train, settings.optimizer)

    def steps() -> None:
        for _ in range(2):
            for _ in range(settings.gradient_accumulation_steps):
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.bf16):
                    loss = model(**batch, num_items_in_batch=1000).loss
                loss.backward()
                del loss
            optimizer.step()
            optimizer.zero_grad()

    with prepared(model, settings):
        model.train()
        if device.type == "cuda":
            steps()
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - before
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            steps()
    return weights + peak_of_events(profiler)


def peak_of_events(profiler: Any) -> int:
    """The largest sum of what was allocated and freed."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def allocated_bytes(model: Any) -> int:
    modules = (model, model.base, *model.source_encoders.values())
    tensors = {id(t): t for m in modules for t in (*m.parameters(), *m.buffers())}
    return sum(t.nbytes for t in tensors.values())


def to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: to_device(one, device) for name, one in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else value


def clean(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def run(options: argparse.Namespace, cases: tuple[Case, ...] = CASES) -> list[dict[str, Any]]:
    """Predict and measure each case."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    results: list[dict[str, Any]] = []
    print(f"{'case':<34}{'predicted':>10}{'measured':>10}{'off by':>8}   GiB; seconds to predict", flush=True)
    for case in cases:
        if case.quantization is not None and importlib.util.find_spec("bitsandbytes") is None:
            print(f"{case.name:<34}left out: bitsandbytes is not installed", flush=True)
            continue
        if time.perf_counter() - started > options.seconds:
            print(f"{case.name:<34}left out: {options.seconds} s are over", flush=True)
            continue
        torch.manual_seed(0)
        try:
            predicted, seconds = predicted_peak(case, options)
            measured = measured_peak(case, options, device)
        except Exception as error:  # one case out of memory must not cost the others
            results.append({"case": case.name, "error": repr(error)})
            print(f"{case.name:<34}failed", flush=True)
            traceback.print_exc()
            continue
        off = predicted / measured - 1
        results.append({"case": case.name, "predicted": predicted, "measured": measured, "off": round(off, 4)})
        print(
            f"{case.name:<34}{predicted / GIB:>10.3f}{measured / GIB:>10.3f}{off:>8.1%}   {seconds:.1f} s", flush=True
        )
    return results


def main() -> None:
    """Predict and measure the cases in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model_options(parser, layers=24, hidden=2048, vocabulary=64_000, seconds=50)
    parser.add_argument("--batch", type=int, default=4, help="conversations")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="else float32")
    options = parser.parse_args()
    results = run(options)
    if options.output:
        save(options.output, {"command": " ".join(["python -m benchmarks.memory_prediction", *sys.argv[1:]])}, results)


if __name__ == "__main__":
    main()
