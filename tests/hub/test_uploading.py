"""What `push_to_hub` sends to a hub, and what the hub then holds."""

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModelForCausalLM, CLIPVisionModel

import adaptkit
from adaptkit.errors import ArgumentError, ModelError
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.model.run_folders import located
from adaptkit.run.verify import DIFFERS, HOLDS, verify_checkpoint
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from tests.hub.models import adapt, same_tensors, workflow_on_the_hub
from tests.hub.server import TOKEN

# huggingface_hub sends large files that way without Xet
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def names_of(folder):
    """A folder as it may be written in a file."""
    return [str(folder).encode(), str(Path.home()).encode(), str(folder.resolve()).encode()]


def test_a_workflow_of_local_folders_is_uploaded_whole_and_names_none(hub, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    tiny_decoder("llama", num_hidden_layers=2).save_pretrained(tmp_path / "base")
    tiny_clip_vision().save_pretrained(tmp_path / "clip")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = adapt(base, CLIPVisionModel.from_pretrained(tmp_path / "clip"))
    options = {"token": TOKEN, "private": True, "revision": "next", "tags": ["mine"]}
    words = {"commit_message": "What it is", "commit_description": "How it came about"}
    with pytest.warns(UserWarning, match=f"folder {tmp_path / 'base'}, which is not uploaded.*name_or_path"):
        model.save_pretrained(tmp_path / "local", push_to_hub=True, **options, **words)
    repository = hub.repositories["user/local"]
    commit = repository.at("next")
    assert {"config.json", "model.safetensors", "encoders/image/model.safetensors"} <= commit.files.keys()
    assert not [n for n, content in commit.files.items() if any(word in content for word in names_of(tmp_path))]
    assert (commit.summary, commit.description) == tuple(words.values())
    assert repository.private
    assert "model.safetensors" not in repository.at("main").files
    assert ("PUT", None) in {(method, token) for method, path, token in hub.requests if path.startswith("/lfs/")}
    card = ModelCard(commit.files["README.md"].decode()).data
    assert "mine" in card.tags
    assert card.library_name == "adaptkit"
    again = adaptkit.load("user/local", base=base, revision="next", token=TOKEN)
    assert same_tensors(again, model)
    with pytest.raises(ModelError, match="Pass it"):
        adaptkit.load("user/local@next", token=TOKEN)


def test_an_encoder_in_a_folder_is_not_uploaded_as_a_path(hub, tmp_path):
    tiny_clip_vision().save_pretrained(tmp_path / "clip")
    model = adapt(AutoModelForCausalLM.from_pretrained("user/base"), {"name": "clip", "path": str(tmp_path / "clip")})
    before = set(hub.repositories)
    with pytest.raises(ModelError, match=r"'image'.*/clip"):
        model.push_to_hub("user/named")
    with pytest.raises(ModelError, match=r"model\.push_to_hub"):
        model.config.push_to_hub("user/named")
    assert set(hub.repositories) == before


@pytest.mark.parametrize("named", [False, True])
def test_frozen_models_of_the_hub_keep_their_ids_and_commits(hub, tmp_path, named):
    model, processor = workflow_on_the_hub(named=named)
    name = f"user/flow-{named}"
    model.push_to_hub(name)
    processor.push_to_hub(name)
    loaded, prepared = adaptkit.load(name), adaptkit.load_processor(name)
    assert same_tensors(loaded, model)
    assert prepared.modalities["image"].preprocessor is not None
    loaded.save_pretrained(tmp_path)
    prepared.save_pretrained(tmp_path)
    files = hub.files(name)
    for file in ("config.json", "processor_config.json"):
        kept, uploaded = json.loads((tmp_path / file).read_text()), json.loads(files[file])
        assert (kept.get("base"), kept["modalities"]) == (uploaded.get("base"), uploaded["modalities"])
    base, encoder = kept_config(tmp_path)["base"], kept_config(tmp_path)["modalities"]["image"]["encoder"]
    assert (base["name_or_path"], base["revision"]) == ("user/base", hub.repositories["user/base"].refs["main"])
    assert encoder.get("revision", encoder["options"].get("revision")) == hub.repositories["user/clip"].refs["main"]


def kept_config(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_second_upload_replaces_all_of_the_first(hub):
    model, processor = workflow_on_the_hub()
    model.push_to_hub("user/twice", max_shard_size="20KB", tags=["first"])
    assert "model.safetensors.index.json" in hub.files("user/twice")
    assert same_tensors(adaptkit.load("user/twice"), model)
    sharded = hub.repositories["user/twice"].refs["main"]
    other, _ = workflow_on_the_hub(value=1.0)
    other.push_to_hub("user/twice")
    processor.push_to_hub("user/twice", tags=["second"])
    weights = [name for name in hub.files("user/twice") if name.startswith("model")]
    assert weights == ["model.safetensors"]
    assert "second" in ModelCard(hub.files("user/twice")["README.md"].decode()).data.tags
    assert same_tensors(adaptkit.load("user/twice"), other)
    assert same_tensors(adaptkit.load("user/twice", revision=sharded), model)


def test_what_a_person_wrote_in_the_card_there_is_kept(hub):
    model, processor = workflow_on_the_hub()
    model.push_to_hub("card", revision="next")  # of the user who is logged in
    files = hub.files("user/card", "next")
    assert b'"user/card"' in files["README.md"]
    files["README.md"] = files["README.md"].replace(b"---\n\n", b"---\n\nBeware of the dog.\n\n", 1)
    model.push_to_hub("user/card", revision="next")
    processor.push_to_hub("user/card", revision="next")
    assert hub.files("user/card", "next")["README.md"].count(b"Beware of the dog.") == 1
    assert "README.md" not in hub.files("user/card")


def test_another_model_is_not_overwritten(hub):
    before = dict(hub.files("user/base"))
    for what in workflow_on_the_hub():
        with pytest.raises(ModelError, match=r"user/base holds a model that is not a workflow \(llama\)"):
            what.push_to_hub("user/base")
    assert hub.files("user/base") == before


def test_a_pull_request_leaves_the_branch_alone(hub):
    model, _ = workflow_on_the_hub()
    model.push_to_hub("user/pull")
    before = hub.repositories["user/pull"].refs["main"]
    other, _ = workflow_on_the_hub(value=1.0)
    answer = other.push_to_hub("user/pull", create_pr=True)
    assert answer.pr_revision == "refs/pr/1"
    assert hub.repositories["user/pull"].refs["main"] == before
    assert same_tensors(adaptkit.load("user/pull", revision="refs/pr/1"), other)
    assert same_tensors(adaptkit.load("user/pull@refs/pr/1"), other)


def test_a_processor_is_uploaded_alone(hub):
    _, processor = workflow_on_the_hub(named=True)
    processor.push_to_hub("user/processor")
    assert adaptkit.load_processor("user/processor").modalities.keys() == {"image"}
    assert AdaptkitProcessor.from_pretrained("user/processor", revision="main").tokenizer is not None


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a/b/c", {}, "repo_id='a/b/c'"),
        ("user/flow", {"subfolder": "../x"}, "subfolder"),
        ("user/flow", {"token": "hf_wrong"}, r"user/flow.*token.*hf auth login"),
        ("user/flow", {"token": False}, r"user/flow.*hf auth login"),
    ],
)
def test_what_the_hub_would_not_take_is_said_with_what_to_do(hub, name, options, words):
    model, _ = workflow_on_the_hub()
    with pytest.raises((ModelError, ArgumentError), match=words):
        model.push_to_hub(name, **options)


def test_the_card_names_the_repository_and_keeps_what_people_wrote_there(hub):
    model, processor = workflow_on_the_hub(named=True)
    model.push_to_hub("user/card")
    processor.push_to_hub("user/card")
    text = hub.files("user/card")["README.md"].decode()
    assert (ModelCard(text).data.base_model, ModelCard(text).data.base_model_relation) == ("user/base", "adapter")
    assert 'checkpoint = "user/card"' in text
    written = text.replace("tags:\n", "license: mit\ntags:\n").encode() + b"\nMine.\n"
    HfApi().upload_file(path_or_fileobj=written, path_in_repo="README.md", repo_id="user/card")
    model.push_to_hub("user/card", tags=["more"])
    text = hub.files("user/card")["README.md"].decode()
    assert "\nMine.\n" in text
    assert ModelCard(text).data.license == "mit"
    assert {"more", "adaptkit"} <= {*ModelCard(text).data.tags}
    folder = located(Path("user/card"))
    [findings] = verify_checkpoint(folder, prove_text=lambda *given: []).values()
    assert not [finding for finding in findings if finding.status != HOLDS]
    (folder / "README.md").unlink()  # a link, as the cache has them
    (folder / "README.md").write_text(text.replace("user/base", "user/other"), encoding="utf-8")
    [findings] = verify_checkpoint(folder, prove_text=lambda *given: []).values()
    assert [finding.claim for finding in findings if finding.status == DIFFERS] == ["README.md"]
