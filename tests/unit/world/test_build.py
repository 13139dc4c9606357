"""The recipes of the built-in models, run for a step or two on tiny sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionModel

from adaptkit.errors import RecipeError
from adaptkit.world import scenes
from adaptkit.world.build_decoder import DecoderOptions, PhaseOptions, build_decoder
from adaptkit.world.build_encoder import EncoderOptions, build_encoder
from adaptkit.world.documents import SCENE_TASKS, document
from adaptkit.world.facts import list_facts
from adaptkit.world.patch_labels import label_patches
from adaptkit.world.probes import probe_encoder
from adaptkit.world.scores import score_decoder
from adaptkit.world.storage import load_options
from adaptkit.world.tokenizer import build_tokenizer

RECIPES = Path(__file__).parents[3] / "recipes" / "world"
DECODER = DecoderOptions(
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    batch_size=2,
    evaluate_every=100,
    num_evaluation_items=2,
    phases=[
        PhaseOptions(name="first", num_steps=1, shares={"recall": 1}),
        PhaseOptions(name="second", num_steps=2, decay_steps=2, shares={"question": 1, "fact": 1}),
    ],
)
ENCODER = EncoderOptions(
    hidden_size=16, num_hidden_layers=2, num_images=8, num_steps=2, batch_size=4, num_probe_scenes=10
)


def test_the_shipped_recipes_are_valid() -> None:
    assert load_options(RECIPES / "decoder.yaml", DecoderOptions).num_hidden_layers == 8
    assert load_options(RECIPES / "encoder.yaml", EncoderOptions).patch_size == 8


def test_a_wrong_recipe_names_file_and_setting(tmp_path: Path) -> None:
    path = tmp_path / "encoder.yaml"
    path.write_text("num_step: 3\n")
    with pytest.raises(RecipeError, match=r"encoder\.yaml: num_step:"):
        load_options(path, EncoderOptions)
    path.write_text("phases: [{name: a, num_steps: 1, shares: {questions: 1}}]\n")
    with pytest.raises(RecipeError, match=r"phases\.0\.shares: .*Did you mean 'question'"):
        load_options(path, DecoderOptions)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_options(tmp_path / "missing.yaml", EncoderOptions)


def test_a_decoder_is_built_scored_and_the_same_again(tmp_path: Path) -> None:
    lines: list[str] = []
    folders = [build_decoder(DECODER, tmp_path / name, lines.append) for name in ("a", "b")]
    first, second = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(0 <= score <= 1 for score in score_decoder(folders[0], num_per_kind=2).values())
    assert [line.split(":")[0] for line in lines if "held out" in line] == [
        "decoder first step 1, held out",
        "decoder second step 2, held out",
    ] * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_an_encoder_is_built_and_probed(tmp_path: Path) -> None:
    lines: list[str] = []
    folder = build_encoder(ENCODER, tmp_path / "encoder", lines.append)
    assert set(probe_encoder(folder, num_scenes=10)) == {"shape", "color", "cell", "position_px", "radius_px"}
    assert "position_px" in lines[-1]


def test_a_weight_on_their_scale_keeps_features_small(tmp_path: Path) -> None:
    sizes = []
    for weight in (0.0, 100.0):
        options = ENCODER.model_copy(update={"num_steps": 20, "warmup_steps": 1, "scale_loss_weight": weight})
        model = CLIPVisionModel.from_pretrained(build_encoder(options, tmp_path / "encoder", lambda line: None))
        with torch.no_grad():
            outputs = model(torch.zeros(1, 3, scenes.IMAGE_SIZE, scenes.IMAGE_SIZE), output_hidden_states=True)
        sizes.append(outputs.hidden_states[-2][:, 1:].square().mean())
    assert sizes[1] < sizes[0] / 2


def test_building_does_not_disturb_the_callers_random_numbers(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_encoder(ENCODER, tmp_path / "encoder", lambda line: None)
    assert torch.equal(torch.rand(3), expected)


def test_patch_labels_cover_objects() -> None:
    items = scenes.sample_scenes(0, 20, "train")
    labels = label_patches(items, 8)
    for row, scene in enumerate(items):
        for item in scene.objects:
            patch = int(item.y // 8) * 8 + int(item.x // 8)
            assert labels.covered[row, patch]
            assert scenes.SHAPES[labels.shape[row, patch]] == item.shape
            assert scenes.CELLS[labels.cell[row, patch]] == item.cell
            expected = [(item.x - 32) / 16, (item.y - 32) / 16, (item.radius - 10.5) / 16]
            assert np.allclose(labels.location[row, patch], expected)
        assert labels.pairs[row].sum() == len(scene.objects)


@pytest.mark.parametrize("task", SCENE_TASKS)
def test_documents_render_as_the_chat_template_does(task: str) -> None:
    tokenizer = build_tokenizer()
    rng = np.random.default_rng(0)
    for scene in scenes.sample_scenes(0, 10, "train"):
        pieces = document(scene, list_facts("train"), {task: 1, "fact": 1}, rng, 150)
        ids = [token for text, _ in pieces for token in tokenizer(text)["input_ids"]]
        assert len(ids) >= 150
        assert tokenizer.unk_token_id not in ids
        assert any(known for _, known in pieces)
        assert tokenizer.apply_chat_template(_messages(tokenizer.decode(ids)), return_dict=True)["input_ids"] == ids


def _messages(rendered: str) -> list[dict[str, str]]:
    messages = []
    for part in rendered.removeprefix("<|begin|>").split("<|end|>"):
        if part.strip():
            role, content = part.strip().removeprefix("<|").split("|>", 1)
            messages.append({"role": role, "content": content.strip()})
    return messages
