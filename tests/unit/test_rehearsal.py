"""Rehearsals build a base of the recipe's family, whichever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adaptkit.recipe import load_recipe
from adaptkit.rehearsal import rehearsal_of

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


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
