"""`adaptkit verify` finds whatever has been changed, and says what."""

import json
import os
import shutil

import pytest
import torch
from adaptkit_clip.preprocessing import default_processor
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CLIPVisionModel

import adaptkit
from adaptkit.cli import cli
from adaptkit.model.card.facts import Proof
from adaptkit.run.cards import record_results, scores_of
from adaptkit.run.verify import DIFFERS, HOLDS, UNKNOWN, Finding, verify_checkpoint
from adaptkit.run.verify.text import check_text
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer

BASE_TENSOR = "language_model.model.layers.0.self_attn.q_proj.weight"
RESULTS = {
    "held_out": {"accuracy": 0.75, "blind": 0.25, "n": 8, "harness": {"name": "adaptkit 0.1.0", "task": "answers"}},
    "seconds": 1.0,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base and another one of the same architecture, and two encoders."""
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("base", 0), ("other", 1)):
        tiny_decoder("llama", num_hidden_layers=2, seed=seed).save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    for name, seed in (("clip", 0), ("clip2", 3)):
        encoder = tiny_clip_vision()
        with torch.no_grad():
            next(encoder.parameters()).add_(seed)
        encoder.save_pretrained(folder / name)
        default_processor(tiny_clip_vision().config).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def run(models, tmp_path_factory):
    """A run directory of one workflow, with results."""
    folder = tmp_path_factory.mktemp("run")
    base = AutoModelForCausalLM.from_pretrained(models / "base")
    insertion = {"policy": "inner_adapter", "placement": {"layers": [0]}}
    image = {"encoder": {"name": "clip", "path": str(models / "clip")}, "projector": "linear"}
    model = adaptkit.adapt(base, {"image": image}, insertion, replace_ends=True)
    processor = adaptkit.AdaptkitProcessor.from_model(model)
    model.save_pretrained(folder / "final" / "vision")
    processor.save_pretrained(folder / "final" / "vision")
    (folder / "results.json").write_text(json.dumps(RESULTS))
    record_results(folder, {"vision": (model, processor)}, RESULTS)
    return folder


@pytest.fixture
def workflow(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run" / "final" / "vision"


def prove(base, tokenizer, proof):
    return [Finding("text is unchanged", HOLDS)]


def verify(folder, **options):
    [findings] = verify_checkpoint(folder, prove_text=prove, **options).values()
    return findings


def differing(folder, **options):
    return {
        finding.claim: " ".join(finding.details) for finding in verify(folder, **options) if finding.status == DIFFERS
    }


def rewrite(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_what_is_as_claimed_holds(workflow):
    findings = verify(workflow)
    assert [finding.claim for finding in findings if finding.status == HOLDS] == [
        "nothing else to load", "settings and tokenizer", "tensors", "README.md", "scores", "base", "encoder of image",
        "own tensors only", "sizes of the parts", "text is unchanged",
    ]  # fmt: skip
    assert all(finding.status == HOLDS for finding in findings)
    rewrite(workflow / "README.md", "tags:\n", "license: mit\ntags:\n- mine\n")  # what people write is theirs
    (workflow / "README.md").write_text((workflow / "README.md").read_text() + "\nMine.\n")
    assert not differing(workflow.parents[1])


def flip_a_bit(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def link(folder):
    (folder / "model.safetensors").rename(folder.parents[1] / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(folder.parents[1] / "elsewhere.safetensors")


def edit_readme(old, new):
    return lambda folder: rewrite(folder / "README.md", old, new)


def truncate(name, size):
    return lambda folder: os.truncate(folder / name, size)


def insertion(**changes):
    def change(folder):
        values = json.loads((folder / "config.json").read_text())["insertion"]
        edit_json(folder / "config.json", insertion=values | changes)

    return change


TENSORS = {
    "a bit": (flip_a_bit, "tensors", "other values"),
    "a name": (
        lambda folder: edit_tensors(folder, lambda t: t.update(renamed=t.pop("projectors.image.weight"))),
        "own tensors only",
        "projectors.image.weight: missing renamed: no tensor of it",
    ),
    "a base tensor": (
        lambda folder: edit_tensors(folder, lambda t: t.update({BASE_TENSOR: torch.zeros(2, 2)})),
        "own tensors only",
        f"{BASE_TENSOR}: a tensor of the base",
    ),
    "a dtype": (
        lambda folder: edit_tensors(folder, lambda t: t.update({k: v.half() for k, v in t.items()})),
        "tensors",
        "float16 [",
    ),
    "a shape": (
        lambda folder: edit_tensors(folder, lambda t: t.update({"projectors.image.bias": torch.zeros(3)})),
        "own tensors only",
        "[3] instead of",
    ),
    "truncated": (truncate("model.safetensors", 500), "tensors", "model.safetensors is damaged"),
    "gone": (lambda folder: (folder / "model.safetensors").unlink(), "tensors", "model.safetensors"),
    "another file": (
        lambda folder: save_file({"a": torch.zeros(1)}, folder / "more.safetensors"),
        "nothing else to load",
        "more.safetensors: weights",
    ),
    "a pickle": (
        lambda folder: torch.save({}, folder / "notes.dat"),
        "nothing else to load",
        "notes.dat: a pickle",
    ),
    "code": (lambda folder: (folder / "modeling.py").touch(), "nothing else to load", "modeling.py: code"),
    "a link": (link, "nothing else to load", "model.safetensors: a link"),
}
SAID = {
    "README text": (
        lambda folder: rewrite(folder / "README.md", "| inserted |", "| frozen |"),
        "README.md",
        "| frozen |",
    ),
    "README score": (
        lambda folder: rewrite(folder / "README.md", "value: 0.75", "value: 0.95"),
        "README.md",
        "0.95 instead",
    ),
    "README metadata": (
        lambda folder: rewrite(folder / "README.md", "library_name: adaptkit", "library_name: x"),
        "README.md",
        "library_name: x instead of adaptkit",
    ),
    "README mark": (lambda folder: rewrite(folder / "README.md", "end of what", "x"), "README.md", "README.md"),
    "README gone": (lambda folder: (folder / "README.md").unlink(), "README.md", "missing"),
    "README of another version": (
        lambda folder: [
            edit_json(folder / "adaptkit_card.json", adaptkit_version="0.0.1"),
            rewrite(folder / "README.md", "| inserted |", "| frozen |"),
        ],
        "README.md",
        "adaptkit 0.0.1",
    ),
    "facts gone": (lambda folder: (folder / "adaptkit_card.json").unlink(), "adaptkit_card.json", "missing"),
    "facts damaged": (truncate("adaptkit_card.json", 50), "adaptkit_card.json", "adaptkit_card.json"),
    "facts": (
        lambda folder: rewrite(folder / "adaptkit_card.json", '"value": 0.75', '"value": 0.95'),
        "scores",
        "held_out accuracy: the card says 0.95, and results.json 0.75",
    ),
    "sizes": (
        lambda folder: edit_json(folder / "adaptkit_card.json", components=[]),
        "sizes of the parts",
        "base: the card says no parameters",
    ),
    "results": (
        lambda folder: rewrite(folder.parents[1] / "results.json", "0.75", "0.5"),
        "scores",
        "the card says 0.75, and results.json 0.5",
    ),
    "policy": (insertion(placement={"first": 1}), "settings and tokenizer", "config.json: insertion: changed"),
    "placement": (insertion(placement={"layers": [1]}), "own tensors only", "layers.2"),
    "config": (truncate("config.json", 80), "config.json", "config.json"),
    "tokenizer": (
        lambda folder: edit_json(folder / "tokenizer_config.json", eos_token="x"),
        "settings and tokenizer",
        "tokenizer_config.json: eos_token: changed",
    ),
    "more settings": (
        lambda folder: (folder / "added_tokens.json").write_text("{}"),
        "settings and tokenizer",
        "added_tokens.json: added",
    ),
    "hash": (
        lambda folder: rewrite(folder / "config.json", '"content_hash": "', '"content_hash": "0'),
        "base",
        "instead of 0",
    ),
    "one of two hashes": (
        lambda folder: rewrite(folder / "config.json", '"content_hash_float16": "', '"content_hash_float16": "0'),
        "encoder of image",
        "content hash float16",
    ),
}


@pytest.mark.parametrize("kind", [*TENSORS, *SAID])
def test_tampering_is_found_and_named(workflow, kind):
    change, claim, words = (TENSORS | SAID)[kind]
    change(workflow)
    found = differing(workflow)
    assert words in found[claim], found


def test_another_base_or_encoder_is_found(models, workflow):
    assert "instead of" in differing(workflow, base=str(models / "other"))["base"]
    assert not differing(workflow, base=str(models / "base"))
    rewrite(workflow / "config.json", "/clip", "/clip2")
    assert {"encoder of image", "settings and tokenizer"} <= differing(workflow).keys()
    edit_json(workflow / "config.json", base={"name_or_path": "/nowhere", "dtype": "float32"})
    assert "is not here" in differing(workflow)["base"]


def test_encoders_that_are_in_the_folder_belong_to_it(models, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(models / "base")
    given = {"image": {"encoder": CLIPVisionModel.from_pretrained(models / "clip"), "projector": "linear"}}
    adaptkit.adapt(base, given).save_pretrained(tmp_path, max_shard_size="1KB")
    findings = verify(tmp_path)
    assert {finding.claim for finding in findings if finding.status == UNKNOWN} == set()
    assert not differing(tmp_path)
    shutil.copy(models / "clip2" / "model.safetensors", tmp_path / "encoders" / "image")
    found = differing(tmp_path)
    assert {"encoder of image", "settings and tokenizer"} == found.keys()


def test_a_checkpoint_without_a_card_is_checked_as_far_as_possible(models, workflow):
    adaptkit.load(workflow).save_pretrained(workflow.parent / "bare", model_card=False)
    findings = {finding.claim: finding.status for finding in verify(workflow.parent / "bare")}
    assert (findings["model card"], findings["tensors"]) == (UNKNOWN, UNKNOWN)
    assert (findings["base"], findings["own tensors only"]) == (HOLDS, HOLDS)


def test_a_workflow_of_a_run_that_lost_its_config_is_not_passed_over(workflow):
    shutil.copytree(workflow, workflow.with_name("other"))
    (workflow.with_name("other") / "config.json").unlink()
    found = verify_checkpoint(workflow.parents[1], prove_text=prove)
    assert [*found] == ["vision", "other"]
    assert "config.json" in {finding.claim for finding in found["other"] if finding.status == DIFFERS}


def test_scores_without_their_run_are_not_checked(workflow, tmp_path):
    shutil.copytree(workflow, tmp_path / "alone")
    found = {finding.claim: finding.status for finding in verify(tmp_path / "alone")}
    assert found["scores"] == UNKNOWN


# -- text ----------------------------------------------------------------------------------------------------------


def test_text_is_compared_with_a_process_and_with_the_record(models, workflow):
    base = AutoModelForCausalLM.from_pretrained(models / "base")
    tokenizer = adaptkit.load_processor(workflow).tokenizer
    proof = Proof(
        identical=True, prompts=["1 2 3", "4"], num_written=0, num_positions=4, num_answers=2, logits_sha256="a" * 64,
        answers_sha256="b" * 64, environment={"torch": "0.1", "threads": "1"},
    )  # fmt: skip
    unchanged, record = check_text(base, tokenizer, proof)
    assert (unchanged.status, record.status) == (HOLDS, UNKNOWN)
    assert "2 prompts of the card, 4 positions" in unchanged.details[0]
    assert "torch is" in record.details[0]


def test_the_command_exits_with_1_and_names_what_differs(workflow):
    truncate("config.json", 80)(workflow)
    result = CliRunner().invoke(cli, ["verify", str(workflow.parents[1]), "--json"])
    assert result.exit_code == 1, result.output
    values = json.loads(result.stdout)
    assert values["verified"] is False
    assert {finding["claim"]: finding["status"] for finding in values["workflows"]["vision"]}["tensors"] == HOLDS
    assert "config.json" in result.stderr
    result = CliRunner().invoke(cli, ["verify", str(workflow)])
    assert result.exit_code == 1
    assert "differs" in result.stdout


MISTAKES = ("nowhere", "", "{run} --base ./nowhere", "{run} --workflow none", "{models}", "{run}/results.json")


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes_exit_with_2(models, workflow, arguments):
    run = workflow.parents[1]
    result = CliRunner().invoke(cli, ["verify", *arguments.format(run=run, models=models).split()])
    assert result.exit_code == 2, result.output
    assert "Error" in result.output


def test_scores_of_harnesses_are_of_the_workflow_that_was_asked_or_of_the_base():
    asked = {"vision": 0.5, "other": 0.25, "text": 0.75, "text+vision": 1.0}
    section = {
        "harness": {"name": "lmms_eval 0.7", "limit": None},
        "n": 3,
        "scores": {name: {"metrics": {"acc": value}} for name, value in asked.items()},
    }
    found = scores_of({"benchmarks": {"mme": section}}, "vision", ["vision", "other"])
    assert [(score.dataset, score.metric, score.value, score.rules) for score in found] == [
        ("mme", "acc", 0.5, "lmms_eval 0.7"),
        ("mme", "acc, through the base", 0.75, "lmms_eval 0.7"),
        ("mme", "acc, text through the base", 1.0, "lmms_eval 0.7"),
    ]
