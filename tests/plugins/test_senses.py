"""Sight and hearing on one base: as two workflows that share it, and as one that takes both in a prompt."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, GenerationConfig

import adaptkit
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer

INSERTION = {"policy": "inner_adapter", "placement": {"every": 2}}
RATE = 16_000
PICTURE = {"type": "image", "image": Image.new("RGB", (40, 24), "red")}
TALL = {"type": "image", "image": Image.new("RGB", (24, 40), "blue")}


def sound(seconds: float, seed: int) -> dict[str, Any]:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE)).astype(np.float32)
    return {"type": "audio", "audio": (samples, RATE)}


SHORT, LONG = sound(0.2, 0), sound(1.7, 1)


@pytest.fixture(scope="module")
def hearing(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny encoder of recordings, whose positions follow their length."""
    folder = tmp_path_factory.mktemp("whisper")
    config = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64}
    options = (
        get_plugin_manager()
        .get("encoder", "whisper")
        .create({**config, "num_mel_bins": 80, "max_source_positions": 50}, folder)
    )
    return {"name": "whisper", **options.model_dump(exclude_defaults=True), "pool": 2, "trim": True}


@pytest.fixture(scope="module")
def sight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny encoder of pictures."""
    folder = tmp_path_factory.mktemp("clip")
    encoder = adaptkit.adapt(tiny_decoder("llama"), {"image": {"encoder": tiny_clip_vision()}}).encoders["image"]
    encoder.save_pretrained(folder)
    return {"name": "clip", "path": str(folder)}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    tiny_decoder(request.param, num_hidden_layers=4).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def build(base: Any, **encoders: Any) -> Any:
    torch.manual_seed(1)
    modalities = {name: {"encoder": encoder, "projector": "linear"} for name, encoder in encoders.items()}
    model = adaptkit.adapt(base, modalities, INSERTION, replace_ends=True)
    with torch.no_grad():
        for tensor in model.trainable_state_dict().values():
            tensor.add_(0.02 * torch.randn_like(tensor))
    return model


@pytest.fixture(scope="module")
def senses(base: Any, sight: Any, hearing: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """One workflow with both, saved and loaded again, and its processor."""
    folder = tmp_path_factory.mktemp("senses")
    build(base, image=sight, audio=hearing).save_pretrained(folder)
    return adaptkit.load(folder, base=base), adaptkit.load_processor(folder)


def ask(*parts: Any) -> list[dict[str, Any]]:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return [{"role": "user", "content": content}]


CONVERSATIONS = [
    ask("is ", LONG, " in ", PICTURE, " ?"),
    ask(PICTURE, SHORT, TALL, "which ?"),
    ask("nothing to see or hear"),
    ask(SHORT, LONG, "louder ?"),
]


def encode(processor: Any, conversations: Any, **options: Any) -> Any:
    return processor.apply_chat_template(
        conversations, tokenize=True, return_dict=True, add_generation_prompt=True, **options
    )


def tensors(*models: Any) -> dict[int, torch.Tensor]:
    """Tensors by storage, each once."""
    every: Iterable[torch.Tensor] = (
        t for m in models for t in (*m.parameters(), *m.buffers(), *m.base.parameters(), *m.base.buffers())
    )
    return {t.untyped_storage().data_ptr(): t for t in every}


def num_bytes(found: dict[int, torch.Tensor]) -> int:
    return sum(t.untyped_storage().nbytes() for t in found.values())


def test_two_workflows_share_their_base(base: Any, sight: Any, hearing: Any, tmp_path: Path) -> None:
    for name, encoder in {"image": sight, "audio": hearing}.items():
        build(base, **{name: encoder}).save_pretrained(tmp_path / name)
    seeing = adaptkit.load(tmp_path / "image", base=base)
    listening = adaptkit.load(tmp_path / "audio", base=base)
    assert seeing.base is listening.base is base
    text = torch.tensor([[5, 6, 7]])
    before = base(input_ids=text).logits
    in_turn = [(seeing, "image", PICTURE), (listening, "audio", SHORT), (seeing, "image", TALL)]
    for model, name, part in in_turn:
        batch = encode(adaptkit.load_processor(tmp_path / name), [ask(part, "what ?")])
        assert model.generate(**batch, max_new_tokens=3, do_sample=False).shape[1] > batch["input_ids"].shape[1]
        assert torch.equal(base(input_ids=text).logits, before)
    own = [sum(t.nbytes for t in model.trainable_state_dict().values()) for model in (seeing, listening)]
    encoders = [
        sum(t.untyped_storage().nbytes() for t in (*e.parameters(), *e.buffers()))
        for model in (seeing, listening)
        for e in model.encoders.values()
    ]
    shared = {t.untyped_storage().data_ptr(): t for t in (*base.parameters(), *base.buffers())}
    assert num_bytes(tensors(seeing, listening)) == num_bytes(shared) + sum(own) + sum(encoders)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_a_batch_of_everything_equals_its_rows(senses: tuple[Any, Any], padding_side: str) -> None:
    model, processor = senses
    batch = encode(processor, CONVERSATIONS, padding_side=padding_side)
    with torch.no_grad():
        # Families with learned positions count them from the left unless told where a row begins
        positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        logits = model(**batch, position_ids=positions).logits
        for row, conversation in enumerate(CONVERSATIONS):
            alone = model(**encode(processor, [conversation])).logits[0]
            kept = batch["attention_mask"][row].bool()
            # Sums over another number of padded positions are taken in another order
            torch.testing.assert_close(logits[row][kept], alone, rtol=1e-4, atol=1e-4)


def test_positions_follow_the_length(senses: tuple[Any, Any]) -> None:
    _, processor = senses
    placeholder = processor.placeholder_ids["audio"]
    counts = [(encode(processor, [ask(part)])["input_ids"] == placeholder).sum().item() for part in (SHORT, LONG)]
    # A state is 20 ms, two make a feature; a window of one second ends with a feature of its own
    assert counts == [5, 43]


def test_generation_with_and_without_cache_and_with_beams(senses: tuple[Any, Any]) -> None:
    model, processor = senses
    batch = encode(processor, CONVERSATIONS)
    for settings in ({"num_beams": 1}, {"num_beams": 2}):
        config = GenerationConfig(max_new_tokens=4, do_sample=False, pad_token_id=0, **settings)
        cached, uncached = (model.generate(**batch, generation_config=config, use_cache=flag) for flag in (True, False))
        assert torch.equal(cached, uncached)


def test_media_may_stand_between_tokens_of_their_own(base: Any, sight: Any, hearing: Any, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    start, end = (tokenizer.convert_ids_to_tokens(i) for i in (5, 6))
    modalities = {
        "image": {"encoder": sight, "projector": "linear", "start": start, "end": end},
        "audio": {"encoder": hearing, "projector": "linear"},
    }
    adaptkit.adapt(base, modalities, INSERTION).save_pretrained(tmp_path / "bracketed")
    processor = adaptkit.load_processor(tmp_path / "bracketed")
    ids = encode(processor, [ask("see ", PICTURE, SHORT, " !")])["input_ids"][0].tolist()
    first = ids.index(processor.placeholder_ids["image"])
    last = len(ids) - 1 - ids[::-1].index(processor.placeholder_ids["image"])
    before, after = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (start, end))
    assert ids[first - len(before) : first] == before
    assert ids[last + 1 : last + 1 + len(after)] == after
    assert ids[last + 1 + len(after)] == processor.placeholder_ids["audio"]
    written = processor(images=[PICTURE["image"]], text="see <image> !")["input_ids"][0].tolist()
    assert [i for i in written if i in (*before, processor.placeholder_ids["image"])][: len(before)] == before
    again = adaptkit.load(tmp_path / "bracketed", base=base)
    assert again.config.modalities["image"]["start"] == start
