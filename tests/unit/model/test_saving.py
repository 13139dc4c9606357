"""What save_pretrained and push_to_hub write, where they refuse to, and what they take."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from adaptkit_clip.preprocessing import default_processor
from click.testing import CliRunner
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, CLIPVisionModel

import adaptkit
from adaptkit.build import build_processor
from adaptkit.cli import cli
from adaptkit.errors import AdaptkitError, ModelError
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer

COMMITS = ["a" * 40, "b" * 40]


def adapt(base, encoder):
    return adaptkit.adapt(
        base,
        {"image": {"encoder": encoder, "projector": "linear"}},
        {"policy": "inner_adapter", "placement": {"count": 1}},
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny_decoder("llama", num_hidden_layers=2).save_pretrained(folder / "base")
    tiny_clip_vision().save_pretrained(folder / "clip")
    default_processor(tiny_clip_vision().config).save_pretrained(folder / "clip")
    return folder


@pytest.fixture(scope="module")
def model(models):
    return adapt(AutoModelForCausalLM.from_pretrained(models / "base"), {"name": "clip", "path": str(models / "clip")})


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def processor_of(model):
    return build_processor(dict(model.config.modalities), tiny_tokenizer())


# -- where -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["plain", "relative", "dots", "new", "link", "clip", "unnamed"])
def test_frozen_models_are_not_overwritten(models, model, tmp_path, monkeypatch, way):
    (tmp_path / "link").symlink_to(models / "base")
    monkeypatch.chdir(models)
    places = {
        "relative": Path("base"),
        "dots": models / "clip" / ".." / "base",
        "new": models / "nothing" / ".." / "base",  # a folder that saving would make
        "link": tmp_path / "link",
    }
    place = places.get(way, models / ("clip" if way == "clip" else "base"))
    before = contents(models)
    unnamed = adapt(tiny_decoder("llama", num_hidden_layers=2), tiny_clip_vision())  # it does not know the folder
    for what in (unnamed if way == "unnamed" else model, processor_of(model)):
        with pytest.raises(ModelError, match="would be overwritten"):
            what.save_pretrained(place)
    assert contents(models) == before


def test_weights_without_a_config_are_not_overwritten(models, model, tmp_path):
    shutil.copy(models / "base" / "model.safetensors", tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ModelError, match="weights of another model"):
        model.save_pretrained(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("command", [["train", "iaa_vision_tiny"], ["world", "build", "decoder"]])
def test_commands_leave_the_folder_of_a_model_alone(models, command):
    before = contents(models)
    result = CliRunner().invoke(cli, [*command, "--output", str(models / "base")])
    assert result.exit_code == 2
    assert str(models / "base") in result.output.replace("\n", "")
    assert contents(models) == before


def test_what_links_lead_to_is_left_alone(models, model, tmp_path):
    stored = models / "base" / "model.safetensors"
    before = stored.read_bytes()
    (tmp_path / "hard").mkdir()
    (tmp_path / "soft").mkdir()
    os.link(stored, tmp_path / "hard" / "model.safetensors")
    (tmp_path / "soft" / "model.safetensors").symlink_to(stored)
    for folder in (tmp_path / "hard", tmp_path / "soft"):
        model.save_pretrained(folder)
        assert stored.read_bytes() == before
        assert adaptkit.load(folder).base.name_or_path == str(models / "base")
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_folders_that_links_lead_to_are_left_alone(models, model, tmp_path):
    shutil.copytree(models / "clip", tmp_path / "encoders" / "image")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "encoders").symlink_to(tmp_path / "encoders")
    before = contents(tmp_path / "encoders")
    encoder = CLIPVisionModel.from_pretrained(models / "clip")
    with torch.no_grad():
        next(encoder.parameters()).add_(1)
    adapt(model.base, encoder).save_pretrained(tmp_path / "out")
    assert contents(tmp_path / "encoders") == before
    assert (tmp_path / "out" / "encoders" / "image" / "model.safetensors").is_file()


# -- keyword by keyword ----------------------------------------------------------------------------------------------


def test_shards_are_as_large_as_asked_for_and_leave_nothing_of_the_last_save(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    own = model.trainable_state_dict()
    again = adaptkit.load(tmp_path, base=model.base).trainable_state_dict()
    assert all(torch.equal(value, own[name]) for name, value in again.items())
    model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    with pytest.raises(ModelError, match="max_shard_size='large'"):
        model.save_pretrained(tmp_path / "other", max_shard_size="large")
    model.save_pretrained(tmp_path, max_shard_size=None)


def test_tensors_that_are_given_are_the_workflows(model, tmp_path):
    model.save_pretrained(tmp_path / "whole", state_dict=model.state_dict())  # as trainers gather it
    own = model.trainable_state_dict()
    assert load_file(tmp_path / "whole" / "model.safetensors").keys() == own.keys()
    missing = dict(list(own.items())[1:])
    for given in (missing, {**own, "another": torch.ones(1)}):
        with pytest.raises(ModelError, match=next(iter(own.keys() - given.keys() or {"another"}))):
            model.save_pretrained(tmp_path / "out", state_dict=given)
    assert not (tmp_path / "out").exists()


def test_other_processes_write_nothing(model, tmp_path):
    model.save_pretrained(tmp_path / "other", is_main_process=False, push_to_hub=True)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variant": "fp16"}, "variant is not supported"),
        ({"distributed_checkpoint": True}, "distributed_checkpoint is not supported"),
        ({"safe_serialization": False}, "safetensors only"),
        ({"repo_id": "org/name"}, "needs push_to_hub=True"),
        ({"max_shard_size": -1}, "max_shard_size=-1"),
        ({"max_shard_sise": 3}, "Did you mean 'max_shard_size'"),
        ({"push_to_hub": True, "privat": True}, "Did you mean 'private'"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(model, tmp_path, options, words):
    with pytest.raises(AdaptkitError, match=words):
        model.save_pretrained(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# -- the hub's models ------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(models, model, tmp_path, monkeypatch):
    """A cache of the hub with two commits of a base, and one of an encoder."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for commit, seed in zip(COMMITS, (0, 7), strict=True):
        write(tmp_path / "hub", "org/base", commit, tiny_decoder("llama", seed=seed, num_hidden_layers=2))
    clip = write(tmp_path / "hub", "org/clip", COMMITS[0], tiny_clip_vision())
    default_processor(tiny_clip_vision().config).save_pretrained(clip)
    return tmp_path / "hub"


def write(hub, name, commit, model):
    folder = hub / f"models--{name.replace('/', '--')}"
    model.save_pretrained(folder / "snapshots" / commit)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return folder / "snapshots" / commit


@pytest.mark.parametrize("revision", [None, *COMMITS])
def test_commits_of_base_and_encoder_are_recorded_and_loaded(cache, tmp_path, revision):
    base = AutoModelForCausalLM.from_pretrained("org/base", revision=revision)
    adapt(base, {"name": "clip", "path": "org/clip"}).save_pretrained(tmp_path / "out")
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (values["base"]["name_or_path"], values["base"]["revision"]) == ("org/base", revision or COMMITS[1])
    assert values["modalities"]["image"]["encoder"]["options"]["revision"] == COMMITS[0]
    write(cache, "org/base", "c" * 40, tiny_decoder("llama", seed=9, num_hidden_layers=2))  # the branch moves on
    loaded = adaptkit.load(tmp_path / "out")
    assert torch.equal(loaded.base.lm_head.weight, base.lm_head.weight)
    loaded.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["base"] == values["base"]
    other = next(commit for commit in COMMITS if commit != (revision or COMMITS[1]))
    with pytest.raises(ModelError, match="its weights differ"):
        adaptkit.load(tmp_path / "out", revision=other)


def test_a_folder_of_the_cache_is_named_by_id(cache, tmp_path):
    snapshot = cache / "models--org--base" / "snapshots" / COMMITS[0]
    encoder = CLIPVisionModel.from_pretrained(cache / "models--org--clip" / "snapshots" / COMMITS[0])
    adapt(AutoModelForCausalLM.from_pretrained(snapshot), encoder).save_pretrained(tmp_path / "out")
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (values["base"]["name_or_path"], values["base"]["revision"]) == ("org/base", COMMITS[0])
    assert values["modalities"]["image"]["encoder"]["revision"] == COMMITS[0]


def test_a_workflow_is_loaded_by_id_with_the_hubs_options(cache, model, tmp_path):
    model.save_pretrained(tmp_path / "out")
    processor_of(model).save_pretrained(tmp_path / "out")
    for commit in COMMITS:
        folder = cache / "models--org--flow" / "snapshots" / commit
        folder.mkdir(parents=True)
        for file in (tmp_path / "out").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    (cache / "models--org--flow" / "refs").mkdir()
    (cache / "models--org--flow" / "refs" / "main").write_text(COMMITS[0])
    for load in (adaptkit.load, AutoModelForImageTextToText.from_pretrained):
        assert load("org/flow").config.layer_map == model.config.layer_map
        load("org/flow", revision=COMMITS[1], local_files_only=True, cache_dir=cache)
    assert adaptkit.load_processor("org/flow", revision=COMMITS[1]).modalities.keys() == {"image"}
    for command in (["inspect", "org/flow"], ["generate", "org/flow", "--prompt", "Say", "--max-new-tokens", "1"]):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, result.output
    for name in ("org/nothing", "nothing"):
        assert f"Error: {name} " in CliRunner().invoke(cli, ["eval", name]).output
    with pytest.raises(ModelError, match=r"org/nothing.*downloaded"):
        adaptkit.load("org/nothing")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"revision": "main"}, "revision='main' has nothing to apply to"),
        ({"revision": "main", "base": True}, "revision"),
        ({"dtype": torch.float16, "base": True}, "dtype"),
        ({"device_map": "cpu", "base": True}, "device_map"),
    ],
)
def test_arguments_that_apply_to_nothing_are_refused(model, tmp_path, options, words):
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=words):
        adaptkit.load(tmp_path, **{**options, "base": model.base if "base" in options else None})


@pytest.mark.parametrize("load", [adaptkit.load, adaptkit.load_processor])
def test_an_unknown_key_of_a_modality_is_named(model, tmp_path, load):
    model.save_pretrained(tmp_path)
    processor_of(model).save_pretrained(tmp_path)
    for path in (tmp_path / "config.json", tmp_path / "processor_config.json"):
        values = json.loads(path.read_text())
        values["modalities"]["image"]["placeholder_ids"] = [3]
        path.write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"config\.json.*image\.placeholder_ids.*_id'"):
        load(tmp_path)
