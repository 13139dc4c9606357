"""Hub ids where folders may stand: in Python, in transformers' classes, in commands; and what goes wrong with them."""

import json
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import HfApi, constants
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, pipeline

import adaptkit
from adaptkit.build import build_base
from adaptkit.cli import cli
from adaptkit.data_tools.check.plan import open_tokenizer
from adaptkit.errors import AdaptkitError, ModelError
from adaptkit.inference import Session
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.recipe.schema import BaseConfig
from tests.hub.client import environment
from tests.hub.models import same_tensors, workflow_on_the_hub

# huggingface_hub sends large files that way without Xet
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def new_cache(monkeypatch, tmp_path):
    """Nothing is downloaded yet."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "new"))
    return tmp_path / "new"


# -- by id and revision ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", [None, "v1", "main"])
def test_python_loads_a_revision(hub, flow, revision):
    loaded = adaptkit.load("user/flow", revision=revision)
    assert same_tensors(loaded, flow[revision])
    assert loaded.base.name_or_path == "user/base"
    for load in (AutoModelForImageTextToText.from_pretrained, AdaptkitForConditionalGeneration.from_pretrained):
        assert same_tensors(load("user/flow", revision=revision or "main"), flow[revision])
    named = f"user/flow@{revision}" if revision else "user/flow"
    with Session.open(named, prefix_cache_bytes=0) as session:
        assert session.workflows.keys() == {"text", "flow"}
        assert same_tensors(session.workflows["flow"], flow[revision])
    assert adaptkit.load_processor(named).modalities.keys() == {"image"}


def test_a_session_takes_the_hubs_options(hub, flow, tmp_path):
    options = {"revision": "v1", "cache_dir": tmp_path / "elsewhere", "prefix_cache_bytes": 0}
    with Session.open("user/flow", **options) as session:
        assert same_tensors(session.workflows["flow"], flow["v1"])
    found = {path.name for path in (tmp_path / "elsewhere").glob("models--*")}
    assert found == {"models--user--flow", "models--user--base"}
    with pytest.raises(ModelError, match="revision='v1'"):
        Session.open(tmp_path / "elsewhere", revision="v1")


def test_stock_classes_and_pipelines_load_by_id(hub, flow):
    assert AutoConfig.from_pretrained("user/flow", revision="v1").model_type == "adaptkit"
    assert AutoProcessor.from_pretrained("user/flow", revision="v1").modalities.keys() == {"image"}
    made = pipeline("image-text-to-text", model="user/flow", revision="v1")
    assert same_tensors(made.model, flow["v1"])
    answer = made(text=[{"role": "user", "content": [{"type": "text", "text": "Hello"}]}], max_new_tokens=2)
    assert "generated_text" in answer[0]


def test_a_run_is_one_repository(hub):
    for name, value in (("vision", 0.0), ("grounding", 1.0)):
        model, processor = workflow_on_the_hub(value=value)
        model.push_to_hub("user/run", subfolder=f"final/{name}")
        processor.push_to_hub("user/run", subfolder=f"final/{name}")
    assert {"README.md", "final/vision/model.safetensors"} <= hub.files("user/run").keys()
    loaded = adaptkit.load("user/run", subfolder="final/grounding")
    assert same_tensors(loaded, model)
    assert AutoProcessor.from_pretrained("user/run", subfolder="final/grounding").modalities.keys() == {"image"}
    stock = AutoModelForImageTextToText.from_pretrained("user/run", subfolder="final/grounding")
    assert same_tensors(stock, model)
    with Session.open("user/run", prefix_cache_bytes=0) as session:
        assert session.workflows.keys() == {"text", "vision", "grounding"}
    with pytest.raises(ModelError, match=r'load\("user/run", subfolder="final/grounding"\)'):
        adaptkit.load("user/run")


def test_the_base_of_a_recipe_has_a_revision(hub, flow, new_cache):
    commit = hub.repositories["user/base"].refs["main"]
    base = build_base(BaseConfig(path="user/base", revision=commit))
    assert base.config.num_hidden_layers == 2
    for wrong, words in ((BaseConfig(path="user/base", revision="v9"), "revision"), (BaseConfig(path="user/bas"), "")):
        with pytest.raises(ModelError, match=f"user/bas.*the hub has no such {words}"):
            build_base(wrong)
    with pytest.raises(ModelError, match="`revision`"):
        build_base(BaseConfig(path="user/base@main"))


def test_a_tokenizer_of_the_base_is_that_of_its_commit(hub, flow, new_cache):
    """A workflow without a tokenizer of its own, whose base has moved on."""
    model, _ = workflow_on_the_hub()
    model.push_to_hub("user/bare")
    api = HfApi()
    before = hub.repositories["user/base"].refs["main"]
    api.delete_files("user/base", delete_patterns=["tokenizer*"])
    try:
        assert adaptkit.load_processor("user/bare").tokenizer("Hello").input_ids
    finally:
        hub.repositories["user/base"].refs["main"] = before


def test_a_tokenizer_is_named_by_id(hub, flow):
    expected = adaptkit.load_processor("user/flow").tokenizer("Hello").input_ids
    assert open_tokenizer("user/flow@v1")("Hello").input_ids == expected
    with pytest.raises(ModelError, match=r"user/floww.*no such model"):
        open_tokenizer("user/floww")


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "CHECKPOINT", "--prompt", "Say", "--max-new-tokens", "1"],
        ["chat", "CHECKPOINT", "--max-new-tokens", "1"],
        ["inspect", "CHECKPOINT"],
        ["eval", "CHECKPOINT", "--tasks", "nothing"],
        ["export", "CHECKPOINT", "--to", "llava", "--output", "out"],
    ],
    ids=lambda command: command[0],
)
def test_commands_take_ids_with_revisions(hub, flow, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, [word.replace("CHECKPOINT", "user/flow@v1") for word in command], input="Hi\n")
    later = {"export": "the projector is 'linear'", "eval": "no task 'nothing'"}
    assert result.exit_code == 0 or later[command[0]] in result.output, result.output
    wrong = CliRunner().invoke(cli, [word.replace("CHECKPOINT", "user/flow@v2") for word in command], input="Hi\n")
    assert wrong.exit_code == 2
    assert "user/flow@v2 is not a folder here, and revision 'v2'" in wrong.output
    assert "There are main, v1." in wrong.output


def test_a_process_of_its_own_follows_the_environment(hub, flow, tmp_path):
    code = "from adaptkit.files.hub import download; print(download('user/flow', {'revision': 'v1'}))"
    command = [sys.executable, "-c", code]
    variables = {**os.environ, **environment(hub, tmp_path)}
    result = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert adaptkit.load(result.stdout.strip()).base.name_or_path == "user/base"


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_folder_comes_before_an_id(hub, flow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flow["v1"].save_pretrained("user/flow")
    assert same_tensors(adaptkit.load("user/flow"), flow["v1"])
    with pytest.raises(ModelError, match="revision='main'"):
        Session.open("user/flow", revision="main")


@pytest.mark.parametrize("load", [adaptkit.load, adaptkit.load_processor, Session.open])
def test_what_is_not_there_is_said_with_what_to_do(hub, flow, load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user" / "flows").mkdir(parents=True)
    hub.repositories["user/secret"] = type(hub.repositories["user/flow"])(private=True)
    hub.repositories["user/gated"] = type(hub.repositories["user/flow"])(gated=True)
    for name, options, words in (
        ("user/flowss", {}, r"user/flowss is not a folder here .*'user/flows'.*no such model.*hf auth login"),
        ("user/secret", {"token": False}, "no such model, or it is private.*hf auth login"),
        ("user/gated", {}, "licence"),
        ("user/flow", {"token": "hf_wrong", "cache_dir": tmp_path / "new"}, "hub refuses the token"),
        ("user/flow", {"revision": "v11"}, "Did you mean 'v1'"),
        ("user/flow@v1", {"revision": "main"}, "two revisions"),
        ("user/other", {"local_files_only": True}, "local_files_only"),
    ):
        with pytest.raises(ModelError, match=words):
            load(name, **options)


def test_without_a_network_the_cache_is_enough_and_else_it_is_said(hub, flow, monkeypatch):
    adaptkit.load("user/flow@v1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same_tensors(adaptkit.load("user/flow@v1"), flow["v1"])
    with pytest.raises(ModelError, match=r"user/other is not a folder here.*HF_HUB_OFFLINE.*unset"):
        adaptkit.load("user/other")


def test_an_interrupted_download_leaves_no_broken_checkpoint(hub, flow, new_cache, monkeypatch):
    hub.cut_off.add("model.safetensors")
    try:
        with pytest.raises(ModelError, match=r"user/flow.*cannot be downloaded"):
            adaptkit.load("user/flow@v1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match="user/flow"):
            adaptkit.load("user/flow@v1")
    finally:
        hub.cut_off.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert same_tensors(adaptkit.load("user/flow@v1"), flow["v1"])


def test_a_base_that_moved_on_or_is_gone_is_named(hub, flow, new_cache):
    base = hub.repositories.pop("user/base")
    try:
        with pytest.raises(ModelError, match=r"user/base.*no such model.*pass it"):
            adaptkit.load("user/flow")
    finally:
        hub.repositories["user/base"] = base
    other = adaptkit.load("user/flow").base
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(ModelError, match="its weights differ"):
        adaptkit.load("user/flow", base=other)


def test_code_that_a_config_names_is_refused_before_anything_else_is_fetched(hub, flow, new_cache):
    from huggingface_hub import CommitOperationAdd

    values = json.loads(hub.files("user/base")["config.json"])
    content = json.dumps({**values, "attn_implementation": "someone/kernel"}).encode()
    commit = HfApi().create_commit(
        "user/base", [CommitOperationAdd("config.json", content)], commit_message="x", create_pr=True
    )
    with pytest.raises(AdaptkitError, match=r"someone/kernel.*trust_remote_code"):
        build_base(BaseConfig(path="user/base", revision=commit.pr_revision))
