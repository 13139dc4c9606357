"""The shipped weights: what they load with, how large they are, and what they can do on held-out items."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionModel,
    LlamaForCausalLM,
)

from adaptkit.world import model_path, scenes
from adaptkit.world.dataset import evaluation_items
from adaptkit.world.language import QUESTION_KINDS
from adaptkit.world.probes import normalize, probe_encoder
from adaptkit.world.scores import score_decoder
from adaptkit.world.tokenizer import build_tokenizer

MAX_BYTES = 12_000_000


@pytest.fixture(scope="module")
def decoder() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(model_path("decoder"), dtype=torch.float32).eval()


def test_models_are_small_and_hold_no_pickle() -> None:
    files = [path for name in ("decoder", "encoder") for path in model_path(name).iterdir()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    assert {path.suffix for path in files} == {".json", ".safetensors", ".jinja"}


def test_the_shipped_tokenizer_is_the_one_that_is_built() -> None:
    shipped, built = AutoTokenizer.from_pretrained(model_path("decoder")), build_tokenizer()
    assert shipped.get_vocab() == built.get_vocab()
    assert shipped.chat_template == built.chat_template
    assert AutoConfig.from_pretrained(model_path("decoder")).vocab_size == len(built)


def test_the_decoder_answers_about_held_out_scenes_and_knows_its_facts() -> None:
    scores = score_decoder(model_path("decoder"), seed=11, num_per_kind=60)
    assert set(scores) == {*QUESTION_KINDS, "fact"}
    # Targets are .95 for facts and .90 for each kind; sixty items scatter by .03.
    assert {kind: score for kind, score in scores.items() if score < 0.9} == {}


def test_greedy_generation_gives_what_the_scores_count(decoder: LlamaForCausalLM) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path("decoder"))
    items = evaluation_items(12, 2)
    hits = 0
    for item in items:
        inputs = tokenizer.apply_chat_template(
            item.text_messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = decoder.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        assert output[-1] == tokenizer.eos_token_id
        hits += tokenizer.decode(output, skip_special_tokens=True).replace(" ", "") == item.answer
    assert hits >= 0.8 * len(items)


def test_linear_probes_read_the_encoder() -> None:
    scores = probe_encoder(model_path("encoder"), seed=11, num_scenes=150)
    assert min(scores["shape"], scores["color"], scores["cell"]) >= 0.97
    assert scores["position_px"] < 1
    assert scores["radius_px"] < 1


def test_the_image_processor_prepares_images_as_in_training() -> None:
    scene = scenes.sample_scenes(0, 1, "test")[0]
    processor = CLIPImageProcessorPil.from_pretrained(model_path("encoder"))
    prepared = processor(scenes.render(scene), return_tensors="pt")["pixel_values"]
    expected = normalize(torch.from_numpy(scenes.render_array(scene))[None])
    torch.testing.assert_close(prepared, expected, atol=1e-5, rtol=0)


def test_the_encoder_has_a_feature_for_every_patch() -> None:
    model = CLIPVisionModel.from_pretrained(model_path("encoder"))
    outputs = model(torch.zeros(1, 3, 64, 64, dtype=model.dtype), output_hidden_states=True)
    assert outputs.hidden_states[-2].shape == (1, 65, 96)


@pytest.mark.parametrize("name", ["decoder", "encoder"])
def test_weights_are_half_precision_safetensors(name: str) -> None:
    from safetensors.torch import load_file

    path: Path = model_path(name) / "model.safetensors"  # type: ignore[arg-type]
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
