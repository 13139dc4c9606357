"""Whole runs through the command line, on tiny random models."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

import adaptkit
from adaptkit.build import (
    MediaStore,
    asked_sources,
    build_base,
    build_processor,
    build_sources,
    build_stage_data,
    build_tokenizer,
    modality_specs,
)
from adaptkit.cli import cli
from adaptkit.errors import RunError
from adaptkit.recipe import load_recipe
from adaptkit.run import scoring as evaluating
from adaptkit.run.resuming import locked
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer

REPOSITORY = Path(__file__).resolve().parents[3]


def invoke(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny_decoder("llama", num_hidden_layers=2).save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    tiny_clip_vision().save_pretrained(folder / "encoder")
    rows = []
    for number in range(12):
        Image.new("RGB", (30, 20 + number), (20 * number, 90, 60)).save(folder / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nwhich?"}, {"from": "gpt", "value": f"number {number}"}]
        rows.append({"id": number, "image": f"{number}.png", "conversations": turns})
    (folder / "data.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(autouse=True)
def proof(monkeypatch):
    """The proof without its process, which takes as long as a run here; gives the section `text` of later runs."""
    text = {"logits_identical": True, "num_prompts": 80, "num_positions": 900, "differences": []}
    monkeypatch.setattr(evaluating, "prove_text", lambda workflows, reporter: text)
    return text


@pytest.fixture
def recipe(models, tmp_path, monkeypatch):
    """A recipe of two stages and two workflows; a function writes variants of it."""
    monkeypatch.setenv("ADAPTKIT_CACHE", str(tmp_path / "cache"))
    stage = {
        "data": {"pictures": 1.0}, "max_steps": 3, "per_device_train_batch_size": 4, "save_steps": 1,
        "logging_steps": 1, "optimizer": {"learning_rate": 1e-3},
    }  # fmt: skip
    everything = ["projector", "insertion", "ends"]
    values = {
        "name": "small",
        "base": {"path": str(models / "base"), "dtype": "float32"},
        "modalities": {
            "image": {"encoder": {"name": "clip", "path": str(models / "encoder")}, "projector": {"name": "mlp2x_gelu"},
                      "cache_features": True}
        },
        "workflows": {
            "vision": {"insertion": {"policy": "inner_adapter", "placement": {"count": 2}}, "replace_ends": True},
            "grounding": {"like": "vision"},
        },
        "data": {"pictures": {"format": "llava", "path": str(models / "data.json")}},
        "stages": [
            {"name": "align", "workflow": "vision", "train": ["projector"], **stage},
            {"name": "instruct", "workflow": "vision", "train": everything, "start_from": "align", **stage},
            {"name": "ground", "workflow": "grounding", "train": everything, "start_from": "instruct", **stage},
        ],
    }  # fmt: skip

    def write(**changes):
        path = tmp_path / "recipe.yaml"
        path.write_text("# A small run.\n" + yaml.safe_dump(values | changes, sort_keys=False))
        return path

    write.values = values
    return write


def test_a_run_ends_with_every_promised_file_and_answers(recipe, models, tmp_path):
    result = invoke("train", recipe(), "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    stops = json.loads((tmp_path / "run/final/vision/generation_config.json").read_text())["eos_token_id"]
    assert tiny_tokenizer().eos_token_id in stops  # what the chat template ends a turn with
    run = tmp_path / "run"
    for name in ("recipe.yaml", "metrics.jsonl", "results.json", "report.html", "final/vision", "final/grounding",
                 "align/checkpoint-3", "instruct/checkpoint-3", "ground/checkpoint-3"):  # fmt: skip
        assert (run / name).exists(), name
    stages = [json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(stages)) == ["align", "instruct", "ground"]

    # The first stage has neither insertions nor ends; the second starts with its projector
    aligned = load_file(run / "align/checkpoint-3/model.safetensors")
    assert all(name.startswith("projectors.") for name in aligned)
    vision, grounding = (load_file(run / "final" / name / "model.safetensors") for name in ("vision", "grounding"))
    assert vision.keys() == grounding.keys() > aligned.keys()
    assert all(not torch.equal(vision[name], grounding[name]) for name in vision if name.endswith("weight"))

    answer = invoke("generate", run, "--image", models / "3.png", "--prompt", "which?", "--max-new-tokens", 3)
    assert answer.exit_code == 0, answer.output
    text = invoke("generate", run, "--prompt", "which?", "--max-new-tokens", 3)
    base = LlamaForCausalLM.from_pretrained(models / "base")
    ids = tiny_tokenizer().apply_chat_template(
        [{"role": "user", "content": "which?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    expected = base.generate(**ids, max_new_tokens=3, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert text.output.strip() == tiny_tokenizer().decode(expected, skip_special_tokens=True).strip()
    assert adaptkit.load(run / "final/vision").config.layer_map == [
        ["frozen", 0], ["inserted", 0], ["frozen", 1], ["inserted", 1],
    ]  # fmt: skip


def test_cached_features_train_the_same_weights(recipe, tmp_path):
    weights = []
    for cached in (True, False):
        output = tmp_path / f"cached-{cached}"
        result = invoke("train", recipe(), f"modalities.image.cache_features={cached}", "--output", output)
        assert result.exit_code == 0, result.output
        weights.append(load_file(output / "final/grounding/model.safetensors"))
    for name, tensor in weights[0].items():
        # Features are encoded in batches of another size, which changes the order of float32 sums
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_a_killed_run_resumes_to_the_same_bits(recipe, tmp_path):
    train = ["train", recipe(), "stages.instruct.packing=true", "stages.instruct.max_length=128"]
    assert invoke(*train, "--output", tmp_path / "whole").exit_code == 0
    killer = (
        "import os, signal, sys\n"
        "from transformers import TrainerCallback\n"
        "import adaptkit.training.stage as stage\n"
        "class Kill(TrainerCallback):\n"
        "    def on_step_begin(self, args, state, control, **kwargs):\n"
        "        if 'instruct' in args.output_dir and state.global_step == 2:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "original = stage.MetricsCallback\n"
        "class Both(original, Kill):\n"
        "    on_step_begin = Kill.on_step_begin\n"
        "stage.MetricsCallback = Both\n"
        "from adaptkit.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", killer, *map(str, train), "--output", str(tmp_path / "killed")]
    killed = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    refused = invoke(*train, "--output", tmp_path / "killed")
    assert refused.exit_code == 2
    assert "holds a run already. Continue it with --resume auto" in refused.output
    resumed = invoke(*train, "--output", tmp_path / "killed", "--resume", "auto")
    assert resumed.exit_code == 0, resumed.output
    for name in ("vision", "grounding"):
        whole, again = (load_file(tmp_path / run / "final" / name / "model.safetensors") for run in ("whole", "killed"))
        assert all(torch.equal(whole[key], again[key]) for key in whole)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """Where `finished` keeps the run that it copies."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def finished(recipe, finished_run, tmp_path):
    """A finished run in `run`, and the command that made it."""
    command = ["train", recipe(evaluation={"tasks": []}), "--output"]
    if not finished_run.exists():
        assert invoke(*command, finished_run).exit_code == 0
    shutil.copytree(finished_run, tmp_path / "run")
    return [*command, tmp_path / "run"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["stages.instruct.max_length=64"], "max_length was 2048, is now 64"),
        (["stages.instruct.group_by_length=true"], "group_by_length was False, is now True"),
        (["data.pictures.move_media_to_front=true"], "data.pictures.move_media_to_front was False, is now True"),
        (["modalities.image.start=x"], "modalities.image.start was None, is now x"),
        (["base.dtype=bfloat16"], "base.dtype was float32, is now bfloat16"),
        (["stages.ground.start_from=null"], "start_from was instruct, is now None"),
        (["stages.ground.max_steps=2"], "it is past the 2 steps that stage 'ground' has now"),
        (["stages.align.max_steps=5"], "stage 'instruct' began from its step 3. Delete"),
    ],
)
def test_a_run_that_would_end_otherwise_is_not_resumed(finished, tmp_path, settings, words):
    before = (tmp_path / "run" / "recipe.yaml").read_text()
    result = invoke(*finished, "--resume", "auto", *settings)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())
    assert (tmp_path / "run" / "recipe.yaml").read_text() == before
    assert not (tmp_path / "run" / "align" / "checkpoint-5").exists()


def test_data_that_moved_are_the_same_data(finished, models, tmp_path):
    shutil.copytree(models, tmp_path / "moved")
    (tmp_path / "run" / "ground" / "checkpoint-3" / "trainer_state.json").unlink()
    places = [f"data.pictures.path={tmp_path / 'moved' / 'data.json'}", f"base.path={tmp_path / 'moved' / 'base'}"]
    result = invoke(*finished, "--resume", "auto", *places)
    assert result.exit_code == 0, result.output


def test_a_batch_that_is_split_otherwise_is_said(finished, tmp_path):
    earlier = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    earlier["accelerator"]["num_processes"] = 2
    (tmp_path / "run" / "recipe.yaml").write_text(yaml.safe_dump(earlier))
    for stage in earlier["stages"]:
        shutil.rmtree(tmp_path / "run" / stage["name"], ignore_errors=True)
    result = invoke(*finished, "--resume", "auto")
    assert result.exit_code == 0, result.output
    assert "stage 'align': gradient_accumulation_steps is 2 instead of 1, so that" in " ".join(result.output.split())


@pytest.mark.parametrize("what", ["base", "encoder"])
def test_other_weights_of_a_frozen_model_are_not_gone_on_with(finished, models, tmp_path, what):
    shutil.copytree(models / what, tmp_path / "other")
    weights = tmp_path / "other" / "model.safetensors"
    tensors = load_file(weights)
    name = max(tensors, key=lambda name: tensors[name].numel())
    save_file({**tensors, name: tensors[name] + 1}, weights, {"format": "pt"})
    place = {"base": "base.path", "encoder": "modalities.image.encoder.path"}[what]
    result = invoke(*finished, "--resume", "auto", f"{place}={tmp_path / 'other'}", "stages.ground.max_steps=5")
    assert result.exit_code == 2, result.output
    said = {"base": "base.path", "encoder": "modalities.image.encoder"}[what]
    assert f"{said} has other weights now than it had" in " ".join(result.output.split())


def test_another_configuration_of_the_base_is_not_gone_on_with(finished, models, tmp_path):
    shutil.copytree(models / "base", tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rms_norm_eps": 0.1}))
    result = invoke(*finished, "--resume", "auto", f"base.path={tmp_path / 'other'}", "stages.ground.max_steps=5")
    assert result.exit_code == 2, result.output
    assert all(words in " ".join(result.output.split()) for words in ("base.path", "rms_norm_eps (0.1 instead of"))


@pytest.mark.parametrize("place", ["run", "run/aline/checkpoint-3", "nowhere/align/checkpoint-3"])
def test_what_is_no_checkpoint_is_not_taken_for_auto(finished, tmp_path, place):
    result = invoke(*finished, "--resume", tmp_path / place)
    assert result.exit_code == 2
    assert "--resume" in result.output
    existing = [tmp_path / "run" / stage / f"checkpoint-{n}" for stage in ("align", "instruct") for n in (2, 3)]
    assert ", ".join(map(str, existing)) in result.output


def test_a_checkpoint_of_another_run_is_not_gone_on_from(finished, tmp_path):
    result = invoke(*finished[:-1], tmp_path / "other", "--resume", tmp_path / "run" / "align" / "checkpoint-2")
    assert result.exit_code == 2
    assert "a checkpoint of another run. Resume that run: --output" in " ".join(result.output.split())


def test_two_runs_in_one_folder_are_kept_apart(tmp_path):
    second = locked(tmp_path / "run", patience=0.0)
    with locked(tmp_path / "run"), pytest.raises(RunError, match="another run is writing to"), second:
        pass
    with locked(tmp_path / "run", patience=0.0):
        pass


def test_grouped_batches_are_those_of_one_process(recipe):
    loaded = load_recipe(recipe())
    stage = loaded.stages[0].model_copy(update={"group_by_length": True})
    orders = []
    for size, processes in ((4, 1), (2, 2), (1, 4)):
        split = stage.model_copy(update={"per_device_train_batch_size": size})
        sources = build_sources(loaded, stage.data)
        tokenizer = build_tokenizer(loaded.base)
        base = build_base(loaded.base)
        media = MediaStore(build_processor(modality_specs(loaded, stage.workflow, tokenizer, base), tokenizer))
        orders.append(list(build_stage_data(loaded, split, sources, media, None, processes).sampler))
    assert orders[0] == orders[1] == orders[2] != sorted(orders[0])


def test_a_stage_that_changes_the_base_stops_the_run(recipe, tmp_path, monkeypatch):
    import adaptkit.run.runner as runner

    original = runner.train_stage

    def spoil(model, *arguments, **options):
        result = original(model, *arguments, **options)
        with torch.no_grad():
            next(model.base.parameters()).view(-1)[0] += 1
        return result

    monkeypatch.setattr(runner, "train_stage", spoil)
    result = invoke("train", recipe(), "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "stage 'align' changed tensors of the frozen base" in result.output


def test_a_policy_that_reaches_for_the_base_stops_the_run_before_its_first_step(recipe, tmp_path, monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaMLP

    from adaptkit.policies.inner_adapter import InnerAdapter

    original = InnerAdapter.apply

    def apply(self, decoder, *arguments, **options):
        monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: 2 * x)
        return original(self, decoder, *arguments, **options)

    monkeypatch.setattr(InnerAdapter, "apply", apply)
    result = invoke("train", recipe(), "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "LlamaMLP.forward" in " ".join(result.output.split())
    assert not list((tmp_path / "run").rglob("checkpoint-*"))


def test_a_run_whose_proof_fails_leaves_its_results_and_exits_with_1(recipe, tmp_path, proof):
    result = invoke("train", recipe(), "--output", tmp_path / "kept")
    assert result.exit_code == 0, result.output
    assert result.output.count("the base is unchanged") == 3
    assert "bit-identical" in result.output
    assert json.loads((tmp_path / "kept/results.json").read_text())["text"] == proof
    proof.update(logits_identical=False, num_prompts_differing=3, max_logit_difference=0.5)
    result = invoke("train", recipe(), "--output", tmp_path / "kept", "--resume", "auto")
    assert result.exit_code == 1
    assert "logits differ on 3 of 80 prompts" in result.stderr
    assert json.loads((tmp_path / "kept/results.json").read_text())["text"]["logits_identical"] is False
    assert "3 prompts differ" in (tmp_path / "kept/report.html").read_text()


DATED = (
    "{{ strftime_now('%d %b %Y') }}\n{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_a_template_that_prints_the_date_prints_that_of_the_runs_start(recipe, tmp_path):
    (tmp_path / "dated.jinja").write_text(DATED)
    constant = "stages.ground.lr_scheduler_type=constant"  # so that a lengthened stage has the same rates
    train = ["train", recipe(), f"base.chat_template={tmp_path / 'dated.jinja'}", constant]
    first = invoke(*train, "date=2020-01-05T10:00:00", "--output", tmp_path / "run", "stages.ground.max_steps=2")
    assert first.exit_code == 0, first.output
    assert "2020-01-05" in (tmp_path / "run" / "recipe.yaml").read_text()
    resumed = invoke(*train, "--output", tmp_path / "run", "--resume", "auto")
    assert resumed.exit_code == 0, resumed.output
    whole = invoke(*train, "date=2020-01-05T10:00:00", "--output", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    one, other = (load_file(tmp_path / name / "final/grounding/model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    another = invoke(*train, "date=2021-01-05", "--output", tmp_path / "run", "--resume", "auto")
    assert another.exit_code == 2
    assert "date was 2020-01-05" in " ".join(another.output.split())


def test_another_tokenizer_at_the_same_place_is_not_gone_on_with(recipe, models, tmp_path):
    shutil.copytree(models / "base", tmp_path / "base")
    train = ["train", recipe(), f"base.path={tmp_path / 'base'}", "--output", tmp_path / "run"]
    assert invoke(*train).exit_code == 0
    other = tiny_tokenizer()
    other.chat_template = other.chat_template + " "
    other.save_pretrained(tmp_path / "base")
    result = invoke(*train, "stages.ground.max_steps=4", "--resume", "auto")
    assert result.exit_code == 2
    assert "tokenizer.chat_template was" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("logging.report_to=[wandb]", "wandb"),
        ("stages.ground.loss=liger", "stages.ground.loss: liger"),
        ("stages.ground.optimizer.name=adamw_8bit", "stages.ground.optimizer: adamw_8bit"),
        ("base.attn_implementation=flash_attention_3", "flash-attn-interface"),
        ("stages.ground.torch_compile=true", "stages.ground.torch_compile"),
        ("evaluation.tasks=[{name: answers, datasets: [pictures], workflows: {pictures: spare}}]", "'spare'"),
        ("stages.ground.packing=true", "stage 'ground': "),
    ],
)
def test_what_can_be_known_before_the_first_step_is_checked_before_it(recipe, tmp_path, monkeypatch, override, words):
    import importlib.util

    import adaptkit.model.packing as packing
    import adaptkit.run.runner as runner

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    monkeypatch.setattr("adaptkit.run.requirements.has_liger", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda *arguments: None)
    monkeypatch.setattr(packing, "_problem", lambda workflow: "it carries a state")

    def encode(*arguments):
        raise AssertionError("features are encoded")

    monkeypatch.setattr(runner, "cache_features", encode)
    path = recipe(workflows={**recipe.values["workflows"], "spare": {"like": "vision"}}, logging={"report_to": []})
    for mode in (["--output", tmp_path / "run"], ["--dry-run"]):
        result = invoke("train", path, override, *mode)
        assert result.exit_code == 2, result.output
        assert words in " ".join(result.output.split())


def test_an_output_that_cannot_be_written_is_refused(recipe, models):
    result = invoke("train", recipe(), "--output", models / "data.json" / "run")
    assert result.exit_code == 2
    assert "--output" in result.output


def test_a_checkpoint_larger_than_the_disk_is_refused_before_training(recipe, tmp_path, monkeypatch):
    import types

    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    result = invoke("train", recipe(), "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "stage 'align'" in result.output


def test_a_dry_run_shows_what_would_train_and_writes_nothing(recipe, tmp_path):
    result = invoke("train", recipe(), "--dry-run", "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    for words in ("Stage 1/3: align", "trained", "frozen", "Predicted memory", "green is what is learned", "number"):
        assert words in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("base.path=no/such/folder", "there is no folder 'no/such/folder'"),
        ("base.path=someone/some-model-8b", "nor in the Hugging Face cache"),
        ("data.pictures.path=nowhere.json", "nowhere.json"),
        ("modalities.image.encoder.path=no/such", "no/such"),
        ("stages.align.optimizer.learning_rat=1", "Did you mean 'learning_rate'"),
        ("workflows.vision.insertion.placement={layers: [7]}", "numbered 0 to 1; 7 is more than 1"),
        ("workflows.vision.insertion={policy: mma} stages.instruct.packing=true", "needs a row for each conversation"),
        ("accelerator.strategy=none accelerator.num_processes=2", "strategy is none, and this run has 2 processes"),
        ("modalities.image.placeholder=<nothing>", "is not a token of the tokenizer"),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_code_2(recipe, tmp_path, override, words):
    result = invoke("train", recipe(), *re.split(r" (?=\w+\.)", override), "--output", tmp_path / "run")
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_missing_resources_are_named_together_with_the_rehearsal(recipe, tmp_path):
    result = invoke("train", recipe(), "base.path=no/such", "data.pictures.path=nowhere.json")
    assert result.exit_code == 2
    for words in ("base.path", "data.pictures", "--rehearse"):
        assert words in result.output


def test_what_was_left_out_is_said_by_dataset(recipe, models, tmp_path):
    rows = json.loads((models / "data.json").read_text())[:4]
    for row in rows[2:]:
        row["image"] = "gone.png"
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    data = {
        **recipe.values["data"],
        "mine": {"format": "llava", "path": str(tmp_path / "mine.json"), "media": str(models)},
    }
    stages = [{**stage, "data": {"pictures": 1.0, "mine": 2.0}} for stage in recipe.values["stages"][:2]]
    path = recipe(data=data, stages=stages, max_bad_fraction=0.4)
    result = invoke("train", path, "modalities.image.cache_features=false", "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "skipped samples: mine 2 of 4; see" in " ".join(result.output.split())
    refused = invoke("train", path, "max_bad_fraction=0.1", "--output", tmp_path / "another")
    assert "2 of 16 samples are bad (mine: 2)" in " ".join(refused.output.split())


def test_conversations_are_no_longer_than_the_base_has_positions(recipe, models, tmp_path):
    tiny_decoder("gpt2", num_hidden_layers=2, n_positions=64).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    rows = json.loads((models / "data.json").read_text())
    for row in rows:
        row["conversations"][1]["value"] = "long " * 50
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    data = {"pictures": {"format": "llava", "path": str(tmp_path / "rows.json"), "media": str(models)}}
    path = recipe(data=data, stages=recipe.values["stages"][:1], evaluation={"tasks": []})
    place = f"base.path={tmp_path / 'base'}"
    result = invoke("train", path, place, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    said = "stage 'align': conversations are cut at 64 positions, since the base has no more; max_length is 2,048"
    assert said in " ".join(result.output.split())
    assert invoke("inspect", path, place).exit_code == 0
    result = invoke("inspect", path, place, "--length", 65)
    assert (result.exit_code, "the base has 64 positions, and no more" in result.output) == (2, True)


def test_what_a_later_stage_cannot_have_is_refused_before_the_first(recipe):
    workflows = {"vision": {"insertion": "mma", "replace_ends": True}, "grounding": {"like": "vision"}}
    path = recipe(workflows=workflows)
    settings = ["modalities.image.cache_features=false", "accelerator.strategy=fsdp"]
    result = invoke("train", path, *settings, "--dry-run", "--gpus", 2)
    assert result.exit_code == 2
    assert "fsdp does not work with the policy of this workflow (Mma)" in result.output
    assert "Stage 1" not in result.output


def test_an_empty_dataset_is_refused(recipe, models, tmp_path):
    (models / "empty.json").write_text("[]")
    result = invoke("train", recipe(), f"data.pictures.path={models / 'empty.json'}", "--output", tmp_path / "run")
    assert result.exit_code == 2
    assert "empty" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", "x", "--image", "nowhere.png"], "nowhere.png"),
        (["--prompt", "x", "--audio", "a.wav"], "named 'audio'"),
        (["--prompt", "<image> <image>", "--media", "image=3.png"], "more than there are image files"),
        (["--prompt", "x", "--media", "image"], "write NAME=FILE"),
        (["--prompt", "x", "--workflow", "visoin"], "Did you mean 'vision'"),
    ],
)
def test_generate_refuses_wrong_input_in_words(trained, monkeypatch, arguments, words):
    monkeypatch.chdir(trained.parent)
    result = invoke("generate", trained, *arguments)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())


@pytest.fixture(scope="module")
def trained(models, tmp_path_factory):
    """A run directory with one untrained workflow in it."""
    folder = tmp_path_factory.mktemp("trained")
    base = LlamaForCausalLM.from_pretrained(models / "base")
    encoder = {"name": "clip", "path": str(models / "encoder")}
    model = adaptkit.adapt(base, {"image": {"encoder": encoder, "projector": "linear"}})
    model.save_pretrained(folder / "run/final/vision")
    adaptkit.load_processor(folder / "run/final/vision").save_pretrained(folder / "run/final/vision")
    Image.new("RGB", (8, 8)).save(folder / "3.png")
    return folder / "run"


def test_real_conversations_photographs_and_tokenizer_run_all_stages(shared, recipe, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(shared / "data/tokenizers/llama3")
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                    num_attention_heads=2, num_key_value_heads=1, bos_token_id=128000, eos_token_id=128009)
    )  # fmt: skip
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    vision = CLIPVisionModel(
        CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                         image_size=56, patch_size=14)
    )  # fmt: skip
    vision.save_pretrained(tmp_path / "encoder")
    overrides = [
        f"base.path={tmp_path / 'base'}",
        f"modalities.image.encoder.path={tmp_path / 'encoder'}",
        "modalities.image.placeholder=<|reserved_special_token_44|>",
        f"data_root={shared / 'data'}",
        "data.pictures.path=formats/llava_conversations.json",
        "max_bad_fraction=0.5",
    ]
    result = invoke("train", recipe(), *overrides, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    photograph = shared / "data/images/readpanda.jpg"
    answer = invoke(
        "generate", tmp_path / "run", "--image", photograph, "--prompt", "What animal?", "--max-new-tokens", 4
    )
    assert answer.exit_code == 0, answer.output
    assert answer.output.strip()


def test_the_papers_recipe_rehearses_all_four_stages():
    result = invoke("train", REPOSITORY / "recipes/iaa_vision_llama3.yaml", "--rehearse")
    assert result.exit_code == 0, result.output
    for stage in ("align", "pretrain", "instruct", "ground"):
        assert f"{stage}" in result.output
    assert "Every stage ran on stand-ins" in result.output


def test_media_beside_the_text_train_from_cached_features_and_answer(recipe, models, tmp_path):
    modality = recipe.values["modalities"]["image"]
    resampler = {"name": "perceiver_resampler", "depth": 1, "num_latents": 3, "num_heads": 2, "head_dim": 8}
    insertion = {"policy": "gated_cross_attention", "placement": {"every": 2}, "num_heads": 2, "head_dim": 8}
    stage = {**recipe.values["stages"][0], "train": ["projector", "insertion"], "max_steps": 2}
    path = recipe(
        modalities={"image": {**modality, "projector": resampler}},
        workflows={"vision": {"insertion": insertion}},
        stages=[stage],
    )
    result = invoke("train", path, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    trained = load_file(tmp_path / "run/final/vision/model.safetensors")
    assert {name.split(".")[0] for name in trained} == {"projectors", "language_model"}
    processor = adaptkit.load_processor(tmp_path / "run/final/vision")
    messages = [{"role": "user", "content": [{"type": "image", "image": models / "3.png"}]}]
    assert processor.encode(messages).input_ids.count(processor.placeholder_ids["image"]) == 1
    prompt = ["--prompt", "<image> <image> which?", "--image", models / "3.png", "--image", models / "4.png"]
    answer = invoke("generate", tmp_path / "run", *prompt, "--max-new-tokens", 3)
    assert answer.exit_code == 0, answer.output


def rows_in(path, numbers):
    turns = [{"from": "human", "value": "<image>\nwhich?"}, {"from": "gpt", "value": "it is red"}]
    rows = [{"id": f"{place}-{n}", "image": f"{n}.png", "conversations": turns} for place, n in enumerate(numbers)]
    path.write_text(json.dumps(rows))
    return str(path)


def validated(recipe, data, validation, **changes):
    """The recipe with one dataset and with validation in its second stage."""
    values = recipe.values
    stages = [{**stage, "data": {name: 1.0 for name in data if name != "dev"}} for stage in values["stages"][:2]]
    stages[1] |= {"validation": validation, **changes}
    return {"data": data, "stages": stages}


def validation_lines(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "validation/loss" in line]


def test_a_stage_is_validated_on_held_out_rows_and_resumes_with_the_same_ones(recipe, models, tmp_path):
    path = rows_in(models / "twice.json", [*range(12), *range(12)])
    held_out = {"format": "llava", "path": path, "holdout": 0.4}
    path = recipe(**validated(recipe, {"pictures": held_out}, {"data": {"pictures": "all"}, "every": 2}))
    result = invoke("train", path, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    found = int(re.search(r"data.pictures: (\d+) of 24 samples are held out", result.output)[1])
    assert 0 < found < 24
    assert found % 2 == 0  # every sample stands there twice
    assert f"{24 - found} conversations an epoch" in result.output
    lines = validation_lines(tmp_path / "run")
    assert [line["step"] for line in lines] == [0, 2, 3]
    assert {line["validation/rows"] for line in lines} == {found}
    assert "<svg" in (tmp_path / "run/report.html").read_text()

    whole = (tmp_path / "run/final/vision/model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run/instruct/checkpoint-3")
    assert invoke("train", path, "--output", tmp_path / "run", "--resume", "auto").exit_code == 0
    assert (tmp_path / "run/final/vision/model.safetensors").read_bytes() == whole
    assert [line["validation/loss"] for line in validation_lines(tmp_path / "run")] == [
        line["validation/loss"] for line in lines
    ]
    shutil.rmtree(tmp_path / "run/instruct/checkpoint-3")
    other = invoke("train", path, "data.pictures.holdout=0.6", "--output", tmp_path / "run", "--resume", "auto")
    assert other.exit_code == 2
    assert "data.pictures.holdout was 0.4, is now 0.6" in other.output.replace("\n", " ")


def test_packed_stages_are_validated_alike(recipe, models, tmp_path):
    dev = {"format": "llava", "path": rows_in(models / "dev.json", [3, 5, 7])}
    scores = []
    for packing in (False, True):
        data = {**recipe.values["data"], "dev": dev}
        path = recipe(**validated(recipe, data, {"data": ["dev"]}, packing=packing, max_length=128))
        result = invoke("train", path, "--output", tmp_path / str(packing))
        assert result.exit_code == 0, result.output
        scores.append(validation_lines(tmp_path / str(packing))[0]["validation/loss"])
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_answers_are_asked_of_held_out_rows(recipe, models, tmp_path):
    path = rows_in(models / "once.json", range(12))
    data = {"pictures": {"format": "llava", "path": path, "holdout": 0.4}}
    tasks = {"evaluation": {"tasks": [{"name": "answers", "datasets": ["pictures"]}]}}
    path = recipe(**validated(recipe, data, None), **tasks)
    result = invoke("train", path, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    found = int(re.search(r"data.pictures: (\d+) of 12 samples are held out", result.output)[1])
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["pictures"]["n"] == found
    assert "trained_on" not in results["pictures"]
    task = load_recipe(path).evaluation.tasks[0]
    again = asked_sources(load_recipe(tmp_path / "run/recipe.yaml"), task)["sources"]
    assert len(again["pictures"]) == found


@pytest.mark.parametrize(
    ("data", "validation", "words"),
    [
        ({"holdout": 1e-6}, {"data": {"pictures": "all"}}, ("data.pictures.holdout", "0 of the 12")),
        ({"holdout": 0.5}, {"data": {"pictures": {"count": 100}}}, ("instruct.validation.data.pictures.count", "100")),
    ],
)
@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_too_few_held_out_rows_are_named_before_anything_trains(recipe, tmp_path, data, validation, words, option):
    pictures = {"pictures": {**recipe.values["data"]["pictures"], **data}}
    output = option or ["--output", tmp_path / "run"]
    result = invoke("train", recipe(**validated(recipe, pictures, validation)), *output)
    assert result.exit_code == 2
    assert all(word in result.output.replace("\n", " ") for word in words), result.output
    assert not (tmp_path / "run/align").exists()


def test_a_validated_recipe_can_be_planned_and_rehearsed(recipe, tmp_path):
    pictures = {"pictures": {**recipe.values["data"]["pictures"], "holdout": 0.5}}
    validation = {"data": {"pictures": {"count": 2}}, "every": 2, "patience": 9, "load_best": True}
    path = recipe(**validated(recipe, pictures, validation))
    planned = invoke("train", path, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "validated on 2 of pictures, every 2 steps" in planned.output
    assert "2 rows, 3 times" in planned.output
    rehearsed = invoke("train", path, "--rehearse")
    assert rehearsed.exit_code == 0, rehearsed.output
    assert "validation loss" in rehearsed.output
