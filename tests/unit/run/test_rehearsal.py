"""Rehearsals build a base of the recipe's family, whichever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adaptkit.recipe import BaseConfig, load_recipe
from adaptkit.run.rehearsal import family_of, rehearsal_of

RECIPES = Path(__file__).resolve().parents[3] / "recipes"


def test_the_family_of_a_base_that_is_here_is_read(tmp_path, monkeypatch):
    recipe = load_recipe(RECIPES / "iaa_vision_tiny.yaml", ["base.model_type=null"])
    assert rehearsal_of(recipe, tmp_path).base.model_type == "llama"
    cached = tmp_path / "hub/models--some--base"
    (cached / "snapshots/abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("abc")
    (cached / "snapshots/abc/config.json").write_text('{"model_type": "olmo2"}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert family_of(BaseConfig(path="some/base")) == "olmo2"


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "qwen3_next", "mamba", "opt"])
def test_any_family_has_a_stand_in(family, tmp_path):
    recipe = load_recipe(RECIPES / "iaa_vision_llama3.yaml", [f"base.model_type={family}"])
    rehearsal = rehearsal_of(recipe, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(rehearsal.base.path)
    tokenizer = AutoTokenizer.from_pretrained(rehearsal.base.path)
    assert base.config.model_type == family
    assert base.config.num_hidden_layers >= 4
    assert sum(p.numel() for p in base.parameters()) < 1_000_000
    input_ids = tokenizer("a red circle " * 300, return_tensors="pt").input_ids[:, :2000]
    with torch.no_grad():
        logits = base(input_ids).logits
    assert logits.shape == (1, input_ids.shape[1], len(tokenizer))
