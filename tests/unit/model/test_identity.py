"""A checkpoint recognises its frozen models in every dtype, and says what they hold when it is saved."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

import adaptkit
from adaptkit.errors import ModelError
from adaptkit.model.integrity import content_hash, frozen_content
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from adaptkit.training.checkpoints import staged_folder

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def build(base, **changes):
    image = {"encoder": tiny_clip_vision(), "projector": "linear", **changes}
    return adaptkit.adapt(base, {"image": image}, {"policy": "inner_adapter", "placement": {"count": 1}})


def recorded(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Bases stored in three dtypes, with values that half precision rounds, flushes or overflows."""
    folder = tmp_path_factory.mktemp("stored")
    for dtype in DTYPES:
        base = tiny_decoder("llama", num_hidden_layers=2)
        with torch.no_grad():
            weight = base.model.layers[0].mlp.up_proj.weight
            weight[0, :4] = torch.tensor([1e-7, 3e-9, 1.0009765, 0.33325195])
        base.to(dtype).save_pretrained(folder / str(dtype).removeprefix("torch."))
    return folder


@pytest.mark.parametrize("trained", DTYPES)
@pytest.mark.parametrize("file", ["float32", "bfloat16"])
def test_the_base_is_recognised_in_every_dtype(stored, tmp_path, file, trained):
    build(AutoModelForCausalLM.from_pretrained(stored / file, dtype=trained)).save_pretrained(tmp_path)
    for dtype in (*DTYPES, torch.float64):
        assert adaptkit.load(tmp_path, dtype=dtype).base.dtype == dtype


def test_a_base_without_files_is_recognised_after_one_rounding(tmp_path):
    base = tiny_decoder("llama", num_hidden_layers=2)
    build(base).save_pretrained(tmp_path)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        again = tiny_decoder("llama", num_hidden_layers=2).to(dtype)
        assert adaptkit.load(tmp_path, base=again).base is again


def test_files_vouch_for_what_they_hold_alone(stored, tmp_path):
    build(AutoModelForCausalLM.from_pretrained(stored / "float32", dtype=torch.bfloat16)).save_pretrained(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(stored / "float32", dtype=torch.float16)
    with torch.no_grad():
        base.lm_head.weight[3, 3] += 0.01
    with pytest.raises(ModelError, match="its weights differ"):
        adaptkit.load(tmp_path, base=base)


@pytest.mark.parametrize("change", [lambda p: p.data.add_(1), lambda p: p.data.__setitem__(0, p.data[1].clone())])
def test_what_is_saved_again_is_what_is_there(stored, tmp_path, change):
    base = AutoModelForCausalLM.from_pretrained(stored / "float32", dtype=torch.float32)
    model = build(base)
    model.save_pretrained(tmp_path / "before")
    change(base.model.layers[1].mlp.down_proj.weight)
    model.save_pretrained(tmp_path / "after")
    model.to(torch.bfloat16).save_pretrained(tmp_path / "cast")
    before, after, cast = (recorded(tmp_path / name) for name in ("before", "after", "cast"))
    assert before["base"]["content_hash"] != after["base"]["content_hash"] == content_hash(base)
    assert (after["base"]["dtype"], cast["base"]["dtype"]) == ("float32", "bfloat16")
    with pytest.raises(ModelError, match="its weights differ"):
        adaptkit.load(tmp_path / "after")
    change(model.source_encoders["image"].model.encoder.layers[0].mlp.fc1.weight)
    model.save_pretrained(tmp_path / "encoder")
    with pytest.raises(ModelError, match="another encoder for 'image'"):
        adaptkit.load(tmp_path / "before", encoders={"image": model.source_encoders["image"]})


def test_checkpoints_of_one_stage_share_what_was_hashed_once(tmp_path):
    base = tiny_decoder("llama", num_hidden_layers=2)
    model = build(base)
    with frozen_content(model):
        model.save_pretrained(tmp_path / "inside")
        base.model.norm.weight.data += 1  # a stage that does so is stopped
        model.save_pretrained(tmp_path / "again")
    model.save_pretrained(tmp_path / "after")
    inside, again, after = (recorded(tmp_path / name)["base"] for name in ("inside", "again", "after"))
    assert inside == again
    assert after["content_hash"] == content_hash(base) != inside["content_hash"]


def test_saved_buffers_count_and_older_checkpoints_did_without(tmp_path):
    base = tiny_decoder("llama", num_hidden_layers=2)
    without = content_hash(base)
    base.model.register_buffer("correction", torch.ones(3))
    build(base).save_pretrained(tmp_path)
    base.model.correction.zero_()
    with pytest.raises(ModelError, match="its weights differ"):
        adaptkit.load(tmp_path, base=base)
    older = recorded(tmp_path)
    older["base"] = {**older["base"], "content_hash": without}
    del older["base"]["content_hash_float16"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    assert adaptkit.load(tmp_path, base=base).base is base


# -- places ----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_works_from_any_directory_and_moves_with_its_base(stored, tmp_path, monkeypatch):
    project = tmp_path / "project"
    tiny_clip_vision().save_pretrained(project / "models" / "clip")
    tiny_decoder("llama", num_hidden_layers=2).save_pretrained(project / "models" / "base")
    monkeypatch.chdir(project)
    model = build(AutoModelForCausalLM.from_pretrained("models/base"), encoder={"name": "clip", "path": "models/clip"})
    with staged_folder(project / "runs" / "final" / "vision") as folder:
        monkeypatch.chdir(tmp_path)
        model.save_pretrained(folder)
    for move in (None, "moved"):
        if move:
            project.rename(tmp_path / move)
            project = tmp_path / move
        loaded = adaptkit.load(project / "runs" / "final" / "vision")
        assert loaded.base.name_or_path == str(project / "models" / "base")
        assert loaded.config.modalities["image"]["encoder"]["options"]["path"] == str(project / "models" / "clip")
    (project / "runs" / "final" / "vision").rename(tmp_path / "alone")
    project.rename(tmp_path / "project")  # where the absolute paths lead
    assert adaptkit.load(tmp_path / "alone").base.name_or_path == str(tmp_path / "project" / "models" / "base")


def test_generation_settings_come_back_whatever_they_are(tmp_path):
    base = tiny_decoder("llama", num_hidden_layers=2)
    base.generation_config = GenerationConfig(temperature=0.9, top_p=0.6, eos_token_id=[5, 6])
    model = build(base)
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(tmp_path)
    loaded = adaptkit.load(tmp_path, base=base).generation_config
    assert (loaded.temperature, loaded.eos_token_id, loaded.max_new_tokens) == (0.9, [5, 6], 7)
    (tmp_path / "generation_config.json").write_text("[3")
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        adaptkit.load(tmp_path, base=base)


# -- bases that are not in memory ------------------------------------------------------------------------------------


def test_a_base_without_values_is_refused(stored, tmp_path):
    offloaded = AutoModelForCausalLM.from_pretrained(
        stored / "float32",
        device_map={"model.embed_tokens": "cpu", "model.layers.0": "disk", "model.layers.1": "cpu", "model.norm": "cpu",
                    "model.rotary_emb": "cpu", "lm_head": "cpu"},
        offload_folder=tmp_path / "offload",
    )  # fmt: skip
    with torch.device("meta"):
        outline = tiny_decoder("llama", num_hidden_layers=2)
    build(tiny_decoder("llama", num_hidden_layers=2)).save_pretrained(tmp_path / "saved")
    for base, words in ((offloaded, "offloaded to cpu and disk"), (outline, "meta device")):
        for make in (lambda: build(base), lambda: adaptkit.load(tmp_path / "saved", base=base)):  # noqa: B023
            with pytest.raises(ModelError, match=words):
                make()
    with torch.device("meta"):
        clip = tiny_clip_vision()
    with pytest.raises(ModelError, match="encoder of 'image'"):
        build(tiny_decoder("llama", num_hidden_layers=2), encoder=clip)
    with pytest.raises(ModelError, match="meta device"):  # ends are found by running the base
        adaptkit.adapt(outline, {"image": {"encoder": clip}}, "projector_only", replace_ends=True)
