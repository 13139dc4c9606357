"""Stage 2 of the paper at its real sizes, randomly initialised, on one GPU: adaptkit against stock transformers.

    python -m benchmarks.llama3_8b --output benchmarks/results/llama3_8b.json

Llama-3-8B in bfloat16, CLIP-L at 336 pixels, 8 insertion layers, embedding, norm and head trained with float32 masters
(2.8B parameters). A step is 16 conversations of one picture (576 positions) and a text of log-normal length (median 220
tokens, up to 1400, half of it answers), the same for all. `--small` tries the script on a CPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel, LlamaConfig

import adaptkit
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from benchmarks.common import MODALITY, Data, Result, Variant, conversations, measure, save, show

LLAMA3_8B = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_theta": 500000.0,
}  # fmt: skip
CLIP_L = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
SMALL = {
    "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 8, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
SMALL_CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": 56, "patch_size": 14}  # fmt: skip
CHECKPOINTING = {"gradient_checkpointing": True}

VARIANTS = {
    "stock": Variant("stock Trainer, checkpointing", stock=True, settings=CHECKPOINTING),
    "logits": Variant("adaptkit, padded", settings=CHECKPOINTING),
    "packed": Variant("+ packed into 1 row", rows=1, settings=CHECKPOINTING),
    "rows": Variant("+ 4 rows, no checkpointing", rows=4),
    "rows8": Variant("+ 8 rows, no checkpointing", rows=8),
    "selective": Variant("+ 2 rows, selective checkpointing", rows=2, settings={"gradient_checkpointing": "selective"}),
    "compiled": Variant("+ 4 rows, compiled layers", rows=4, settings={"torch_compile": True}),
    "compiled8": Variant("+ 8 rows, compiled layers", rows=8, settings={"torch_compile": True}),
    "cached": Variant("+ 8 rows, compiled, cached features", rows=8, cached=True, settings={"torch_compile": True}),
}


def build(small: bool, device: torch.device) -> tuple[AdaptkitForConditionalGeneration, dict[str, Any]]:
    """The workflow, and its sizes."""
    text, vision = (SMALL, SMALL_CLIP) if small else (LLAMA3_8B, CLIP_L)
    torch.manual_seed(0)
    with torch.device(device):
        base = AutoModelForCausalLM.from_config(LlamaConfig(**text), dtype=torch.bfloat16).eval()
        encoder = CLIPVisionModel(CLIPVisionConfig(**vision)).to(torch.bfloat16).eval()
    placeholder = text["vocab_size"] - 207
    modality = {"encoder": encoder, "projector": "mlp2x_gelu", "placeholder_id": placeholder}
    insertion = {"policy": "inner_adapter", "placement": {"count": text["num_hidden_layers"] // 4}}
    model = adaptkit.adapt(base, modalities={MODALITY: modality}, insertion=insertion, replace_ends=True)
    return model.to(device), {**text, "placeholder_id": placeholder, "side": vision["image_size"]}


def make_data(model: AdaptkitForConditionalGeneration, sizes: dict[str, Any], num_samples: int, small: bool) -> Data:
    """Random pictures and texts."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(8, 3, sizes["side"], sizes["side"], generator=generator).to(torch.bfloat16)
    with torch.no_grad():
        features = torch.cat([model.encode(MODALITY, pixels[i : i + 4].to(model.device)) for i in (0, 4)]).cpu()
    items = conversations(
        num_samples, num_positions=features.shape[1], vocab_size=sizes["vocab_size"],
        placeholder_id=sizes["placeholder_id"], median_text=22 if small else 220, spread=0.9,
        longest_text=140 if small else 1400, num_pictures=len(pixels),
    )  # fmt: skip
    return Data(items, pixels, features, features.shape[1] + 1)


def main(arguments: list[str] | None = None) -> None:
    """Measure the chosen variants in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="some of: " + ", ".join(VARIANTS))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    model, sizes = build(options.small, device)
    data = make_data(model, sizes, options.batch_size * options.steps, options.small)
    lengths = [item["length"] for item in data.items]
    print(f"built in {time.perf_counter() - started:.0f} s; lengths {min(lengths)} to {max(lengths)}, "
          f"mean {sum(lengths) / len(lengths):.0f}", flush=True)  # fmt: skip
    results: list[Result] = []
    for name in options.variants.split(","):
        results.append(
            measure(model, data, VARIANTS[name], batch_size=options.batch_size, warmup=options.warmup, bf16=True)
        )
        print(f"{time.perf_counter() - started:.0f} s", results[-1], flush=True)
        if options.output is not None:
            command = " ".join(["python -m benchmarks.llama3_8b", *sys.argv[1:]])
            save(options.output, {"command": command}, [asdict(result) for result in results])
    show(f"Stage 2, {options.batch_size} conversations a step", results)


if __name__ == "__main__":
    main()
