"""Stage 2 on the built-in world, on a CPU: adaptkit against stock transformers, switch by switch.

    python -m benchmarks.world_cpu --output benchmarks/results/world_cpu.json

The built-in decoder with an insertion layer after each second layer, embedding, norm and head of its own, and the
built-in encoder at 64 positions a picture. Conversations have a log-normal number of questions (median 6, up to 60), as
LLaVA's differ in length. `--vocabulary 32000` gives the decoder random weights and the vocabulary of an LLM.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import adaptkit
from adaptkit.build import build_base, build_tokenizer
from adaptkit.chat.encoding import encode_conversation
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.recipe import BaseConfig
from adaptkit.world.language import conversation, iter_questions
from adaptkit.world.scenes import render, sample_scenes
from benchmarks.common import MODALITY, Data, Result, Variant, conversations, measure, save, show

NUM_PICTURES = 64

VARIANTS = {
    "stock": Variant("stock Trainer", stock=True),
    "stock_grouped": Variant("stock Trainer, batches of like length", stock=True, group_by_length=True),
    "padded": Variant("adaptkit, padded, all logits", all_logits=True),
    "grouped": Variant("… batches of like length", all_logits=True, group_by_length=True),
    "logits": Variant("… logits at supervised positions"),
    "cached": Variant("… cached features", cached=True, all_logits=True),
    "packed": Variant("… packed rows", rows=1, all_logits=True),
    "packed_logits": Variant("… packed rows, supervised logits", rows=1),
    "all": Variant("… all three", rows=1, cached=True),
    "checkpointed": Variant(
        "… all three, checkpointing", rows=1, cached=True, settings={"gradient_checkpointing": True}
    ),
    "selective": Variant(
        "… all three, selective checkpointing", rows=1, cached=True, settings={"gradient_checkpointing": "selective"}
    ),
    "compiled": Variant("… all three, compiled layers", rows=1, cached=True, settings={"torch_compile": True}),
}


def build(vocabulary: int | None) -> tuple[AdaptkitForConditionalGeneration, Any, int]:
    """The workflow, its tokenizer and the id of its placeholder."""
    config = BaseConfig(path="world:decoder", dtype="float32")
    base, tokenizer = build_base(config), build_tokenizer(config)
    placeholder = tokenizer.convert_tokens_to_ids("<image>")
    if vocabulary is not None:
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_config(
            LlamaConfig(**{**base.config.to_dict(), "vocab_size": vocabulary})
        ).eval()
    encoder = {"name": "clip", "path": "world:encoder", "feature_layer": -2, "dtype": "float32"}
    modality = {"encoder": encoder, "projector": "mlp2x_gelu", "placeholder_id": placeholder}
    insertion = {"policy": "inner_adapter", "placement": {"every": 2}}
    model = adaptkit.adapt(base, modalities={MODALITY: modality}, insertion=insertion, replace_ends=True)
    return model, tokenizer, placeholder


def world_conversations(num_samples: int, num_positions: int, tokenizer: Any, placeholder: int) -> list[dict[str, Any]]:
    """Questions about scenes, some short and some long."""
    rng = np.random.default_rng(0)
    items = []
    for number, scene in enumerate(sample_scenes(0, num_samples, "train")):
        count = int(np.clip(rng.lognormal(np.log(6), 0.9), 1, 60))
        questions = [question for question, _ in zip(iter_questions(scene, rng, None), range(count))]
        messages = [
            {"role": m["role"], "content": [{"type": "text", "text": m["content"]}]}
            for m in conversation("\n", questions)
        ]
        messages[0]["content"].insert(0, {"type": MODALITY, MODALITY: number % NUM_PICTURES})
        encoded = encode_conversation(
            tokenizer, messages, placeholder_ids={MODALITY: placeholder}, num_positions=lambda *_: num_positions
        )
        ids, labels = np.array(encoded.input_ids), np.array(encoded.labels)
        items.append({"input_ids": ids, "labels": labels, "media": encoded.media, "length": len(ids)})
    return items


def make_data(
    model: AdaptkitForConditionalGeneration, tokenizer: Any, placeholder: int, num_samples: int, vocabulary: int | None
) -> Data:
    """The conversations, and pictures of scenes."""
    preprocess: Any = model.encoders[MODALITY].build_preprocessor()
    scenes = sample_scenes(1, NUM_PICTURES, "train")
    pixels = torch.stack([preprocess(render(scene)) for scene in scenes])
    features = model.encode(MODALITY, pixels)
    positions = features.shape[1]
    if vocabulary is None:
        items = world_conversations(num_samples, positions, tokenizer, placeholder)
    else:
        items = conversations(
            num_samples, num_positions=positions, vocab_size=vocabulary, placeholder_id=placeholder, median_text=70,
            spread=0.9, longest_text=600, num_pictures=NUM_PICTURES,
        )  # fmt: skip
        for item in items:
            text = item["input_ids"] != placeholder
            item["input_ids"][text] = np.random.default_rng(0).integers(300, vocabulary, int(text.sum()))
            item["labels"] = np.where(item["labels"] == -100, -100, item["input_ids"])
    return Data(items, pixels, features, positions)


def main(arguments: list[str] | None = None) -> None:
    """Measure the chosen variants in turn, several rounds, and take each one's best round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", default=",".join(VARIANTS), help="compiled needs a C++ compiler")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2, help="the machine's other work disturbs one less than all")
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    model, tokenizer, placeholder = build(options.vocabulary)
    num_samples = options.batch_size * options.steps
    data = make_data(model, tokenizer, placeholder, num_samples, options.vocabulary)
    lengths = [item["length"] for item in data.items]
    about = f"lengths {min(lengths)} to {max(lengths)}, mean {np.mean(lengths):.0f}"
    rounds: dict[str, list[Result]] = {name: [] for name in options.variants.split(",")}
    for _ in range(options.rounds):
        for name, results in rounds.items():
            result = measure(
                model, data, VARIANTS[name], batch_size=options.batch_size, warmup=options.warmup, bf16=False
            )
            print(result, file=sys.stderr, flush=True)
            results.append(result)
    best = [max(results, key=lambda result: result.samples_per_second) for results in rounds.values()]
    show(f"Stage 2 on the built-in world, {options.batch_size} conversations a step, {about}", best)
    if options.output is not None:
        command = " ".join(["python -m benchmarks.world_cpu", *sys.argv[1:]])
        save(
            options.output,
            {"command": command, "threads": torch.get_num_threads(), "data": about},
            [
                {**asdict(result), "seconds_per_step_of_rounds": [each.seconds_per_step for each in results]}
                for result, results in zip(best, rounds.values())
            ],
        )


if __name__ == "__main__":
    main()
