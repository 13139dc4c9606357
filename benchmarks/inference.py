"""What the benchmarks of inference share: a decoder with 25% more layers for pictures, and prompts for it."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

import adaptkit
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.testing import tiny_tokenizer

INSERTED = {"policy": "inner_adapter", "placement": {"count": 4}}
PICTURE = 336


def options(parser: argparse.ArgumentParser) -> None:
    """Options of every script here."""
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=512, help="a multiple of 64")
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")


def build_base(arguments: argparse.Namespace, layers: int | None = None) -> LlamaForCausalLM:
    """A Llama with random weights, which never ends an answer by itself."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=arguments.hidden,
        intermediate_size=arguments.hidden * 11 // 4,
        num_hidden_layers=layers or arguments.layers,
        num_attention_heads=arguments.hidden // 64,
        num_key_value_heads=arguments.hidden // 64,
        vocab_size=arguments.vocabulary,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def build_workflow(base: LlamaForCausalLM, folder: Path, insertion: Any, *, seed: int = 1) -> Any:
    """A workflow for pictures of 576 positions, its own tensors off their starting point, and its processor."""
    if not folder.exists():
        config = CLIPVisionConfig(
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=6,
            num_attention_heads=4,
            image_size=PICTURE,
            patch_size=14,
        )
        torch.manual_seed(0)
        CLIPVisionModel(config).save_pretrained(folder)
        CLIPImageProcessor(size={"shortest_edge": PICTURE}, crop_size=PICTURE).save_pretrained(folder)
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    modality = {
        "encoder": {"name": "clip", "path": str(folder)},
        "projector": "mlp2x_gelu",
        "placeholder_id": len(tokenizer),  # where an export puts its token, too
    }
    model = adaptkit.adapt(base, {"image": modality}, insertion, replace_ends=insertion is INSERTED)
    with torch.no_grad():
        for tensor in model.trainable_state_dict().values():
            tensor.add_(0.01 * torch.randn_like(tensor))
    return model, AdaptkitProcessor.from_model(model, tokenizer)


def pictures(number: int) -> list[Image.Image]:
    """Pictures of noise, which nobody has seen."""
    return [Image.effect_noise((PICTURE, PICTURE), 60).convert("RGB") for _ in range(number)]


def question(text: str, picture: Image.Image | None = None) -> list[dict[str, Any]]:
    """A turn of a user, about a picture."""
    media = [] if picture is None else [{"type": "image", "image": picture}]
    return [{"role": "user", "content": [*media, {"type": "text", "text": text}]}]


def processor_seconds(action: Callable[[], Any]) -> float:
    """Processor time of all threads that an action takes."""
    started = time.process_time()
    action()
    return time.process_time() - started


def ratios(values: dict[str, list[float]], name: str, of: str) -> tuple[float, float, float]:
    """Median, smallest and largest ratio of two variants, round by round."""
    found = [one / other for one, other in zip(values[name], values[of], strict=True)]
    return statistics.median(found), min(found), max(found)
