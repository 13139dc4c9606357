"""What earlier versions of adaptkit wrote still loads and resumes.

Each folder holds what one commit wrote from the recipe, base, encoder and data of `before-1`: the run that it left when
it was killed in its third stage, its feature cache, and the workflows of the same run when it was not killed.
`before-1` is of commit b82e811, `before-2` of 7cd847b.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import adaptkit
from adaptkit.cli import cli

FILES = Path(__file__).parent


@pytest.fixture(scope="module", params=["before-1", "before-2"])
def folder(request, tmp_path_factory):
    copy = tmp_path_factory.mktemp("older") / "files"
    shutil.copytree(FILES / "before-1", copy, ignore=shutil.ignore_patterns("run", "cache", "final"))
    shutil.copytree(FILES / request.param, copy, dirs_exist_ok=True)
    return copy


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    """Earlier versions keep paths as they were given, relative to where the run was started."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ADAPTKIT_CACHE", str(folder / "cache"))


def test_a_workflow_computes_what_it_did(folder):
    expected = json.loads((folder / "expected.json").read_text())
    model, processor = adaptkit.load("final/vision").eval(), adaptkit.load_processor("final/vision")
    message = {
        "role": "user",
        "content": [{"type": "image", "image": "data/3.png"}, {"type": "text", "text": "which?"}],
    }
    batch = processor.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert batch["input_ids"][0].tolist() == expected["input_ids"]
    with torch.no_grad():
        logits = model(**batch).logits[0, -1]
    # Other processors sum in another order; the stored values have five decimals.
    assert torch.allclose(logits, torch.tensor(expected["last_logits"]), atol=1e-4)


def test_an_interrupted_run_resumes_to_the_same_weights(folder):
    caches = sorted(path.name for path in (folder / "cache" / "features").iterdir())
    result = CliRunner().invoke(cli, ["train", "recipe.yaml", "--output", "run", "--resume", "auto"])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (folder / "cache" / "features").iterdir()) == caches  # read, not made again
    expected = load_file("final/grounding/model.safetensors")
    weights = load_file("run/final/grounding/model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(torch.allclose(weights[name], value, atol=1e-5) for name, value in expected.items())
