"""A tiny random workflow on the built-in world's vocabulary, kept on disk as a run would keep it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import adaptkit
from adaptkit.evaluation.scores import Evaluation, Question, TextEvaluation

RECIPE = """
name: scored
base: {{path: {folder}/base}}
modalities:
  image:
    encoder: {{name: clip, path: {folder}/encoder}}
    projector: linear
    placeholder: <image>
workflows:
  vision: {{insertion: {{policy: inner_adapter, placement: {{every: 1}}}}, replace_ends: true}}
  grounding: {{like: vision}}
data_root: {folder}/data
data:
  told: {{format: table, path: labels.jsonl, question: "what is this ?", answer: "{{{{ color }}}}"}}
  placed: {{format: table, path: labels.jsonl, question: "where ?", answer: "{{{{ bbox | padded_box(64, 32) }}}}"}}
stages: [{{name: only, workflow: vision, train: [projector], data: {{told: 1}}, optimizer: {{learning_rate: 1}}}}]
evaluation:
  seed: 5
  tasks:
    - {{name: world, num_per_kind: 2}}
    - {{name: answers, datasets: [told, placed], workflows: {{placed: grounding}}}}
"""


def evaluate_text(model: Any, processor: Any, questions: Sequence[Question]) -> Evaluation:
    with TextEvaluation(model, processor, questions) as text:
        return text.finish()


def write_dataset(directory: Path) -> None:
    """Six pictures of one colour each, 64 by 32 pixels; the last is missing."""
    import json

    from PIL import Image

    directory.mkdir()
    colors = ["red", "red", "red", "blue", "green", "green"]
    rows = [{"image": f"{i}.png", "color": color, "bbox": [0, 0, 8 * i + 8, 32]} for i, color in enumerate(colors)]
    (directory / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows[:-1]:
        Image.new("RGB", (64, 32), row["color"]).save(directory / row["image"])


def save_base(directory: Path, family: str = "llama", **config: Any) -> Any:
    """Write a tiny base over the world's vocabulary, and load it from there."""
    from transformers import AutoModelForCausalLM

    from adaptkit.testing import tiny_decoder
    from adaptkit.world.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
    base = tiny_decoder(family, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **ids, **config)
    base.save_pretrained(directory)
    return AutoModelForCausalLM.from_pretrained(directory)


def save_encoder(directory: Path) -> Path:
    """Write a tiny image encoder for the world's 64 by 64 pixels."""
    from adaptkit.testing import tiny_clip_vision
    from adaptkit.world.build_encoder import image_processor

    tiny_clip_vision(image_size=64, patch_size=16).save_pretrained(directory)
    image_processor().save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the workflows `vision` and `grounding` on one base."""
    import torch

    from adaptkit.model.processor import AdaptkitProcessor, modality_inputs
    from adaptkit.world.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("evaluation")
    base = save_base(folder / "base")
    encoder = {"name": "clip", "path": str(save_encoder(folder / "encoder"))}
    tokenizer = build_tokenizer()
    image = {
        "encoder": encoder,
        "projector": "linear",
        "placeholder_id": tokenizer.convert_tokens_to_ids("<image>"),
    }
    for seed, name in enumerate(("vision", "grounding")):
        torch.manual_seed(seed)
        model = adaptkit.adapt(
            base, {"image": dict(image)}, {"policy": "inner_adapter", "placement": {"every": 1}}, True
        )
        model.save_pretrained(folder / "run" / "final" / name)
        inputs = {"image": modality_inputs("image", model.config.modalities["image"])}
        AdaptkitProcessor(tokenizer, inputs).save_pretrained(folder / "run" / "final" / name)
    write_dataset(folder / "data")
    (folder / "run" / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    return folder / "run"


@pytest.fixture(scope="session")
def workflow(run_directory: Path) -> tuple[Any, Any]:
    """Model and processor of the workflow `vision`."""
    folder = run_directory / "final" / "vision"
    return adaptkit.load(folder), adaptkit.load_processor(folder)
