"""Exports as a program sees them that has never heard of adaptkit."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from adaptkit.export import export_llava
from tests.unit.export.workflows import OUTSIDE, logits, probe, workflow

# Differences of rounding alone; the logits reach about 10
TOLERANCE = 1e-5

FAMILIES = {
    "llama": {"rope_parameters": {"rope_type": "default", "rope_theta": 250.0}},
    "qwen2": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "mistral": {"head_dim": 16},
    "phi3": {},
    "gemma3_text": {},
    "olmo2": {},
    "granite": {"logits_scaling": 3.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5},
    "smollm3": {},
    "cohere": {},
    "gpt_neox": {},
    "qwen3_moe": {},
}

STOCK = """
import json, sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

for job in json.load(open(sys.argv[1])):
    model = AutoModelForImageTextToText.from_pretrained(job["folder"], dtype=torch.float32).eval()
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    inputs = load_file(job["inputs"])
    seen = inputs["attention_mask"].bool()
    with torch.no_grad():
        output = {"logits": model(**inputs).logits[seen]}
        output["ids"] = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    save_file(output, job["outputs"])
assert not [name for name in sys.modules if name.split(".")[0].startswith("adaptkit")]
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """For each family the workflow, its inputs and what a stock process computed of its export."""
    root = tmp_path_factory.mktemp("exports")
    jobs, models = [], {}
    for family, settings in FAMILIES.items():
        model = workflow(family, replace_ends=family != "smollm3", **settings)
        report = export_llava(model, None, root / family)
        save_file(probe(report.placeholder_id), root / f"{family}.inputs")
        models[family] = (model, report)
        names = ("folder", "inputs", "outputs")
        values = (root / family, root / f"{family}.inputs", root / f"{family}.outputs")
        jobs.append({name: str(value) for name, value in zip(names, values, strict=True)})
    (root / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, "-c", STOCK, str(root / "jobs.json")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert run.returncode == 0, run.stderr
    return {family: (*models[family], load_file(root / f"{family}.outputs")) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_workflow(exported, family):
    model, report, theirs = exported[family]
    ours = logits(model, probe(OUTSIDE))
    assert report.added_rows == 1
    torch.testing.assert_close(theirs["logits"][:, : ours.shape[1]], ours, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_generated_ids_are_those_of_the_workflow(exported, family):
    model, _, theirs = exported[family]
    inputs = probe(OUTSIDE)
    width = inputs["input_ids"].shape[1]
    ours = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert torch.equal(theirs["ids"][:, width:], ours[:, width:])


@pytest.mark.parametrize("family", FAMILIES)
def test_older_libraries_find_what_they_look_for(exported, family):
    _, report, _ = exported[family]
    config = json.loads((report.directory / "config.json").read_text())
    text = config["text_config"]
    assert text["architectures"][0].endswith("ForCausalLM")
    if family != "gpt_neox":
        assert {"rope_theta", "head_dim"} <= set(text)
    if family == "llama":
        assert text["rope_theta"] == 250.0
    if family == "gemma3_text":
        assert text["rope_local_base_freq"] == text["rope_parameters"]["sliding_attention"]["rope_theta"]
    names = load_file(report.directory / "model.safetensors")
    tower = [name for name in names if name.startswith("vision_tower.")]
    assert tower
    assert all(name.startswith("vision_tower.vision_model.") for name in tower)
