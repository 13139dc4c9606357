"""Logits against a fresh process: equal where the base is the same, and caught where one bit is not."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from adaptkit.errors import RunError
from adaptkit.evaluation import text_identity
from adaptkit.evaluation.differences import failures
from adaptkit.evaluation.text_identity import TextProof, compare_logits, identity_prompts, saved_prompts, text_logits
from adaptkit.testing import tiny_decoder
from adaptkit.world.tokenizer import build_tokenizer

from .conftest import save_base


def check_identity(base: Any, tokenizer: Any) -> dict[str, Any]:
    with TextProof(base, tokenizer) as proof:
        return proof.result()[0]


def test_an_untouched_base_is_identical_even_in_training_mode(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "gpt2", resid_pdrop=0.5, embd_pdrop=0.5).train()
    comparison = check_identity(base, build_tokenizer())
    assert comparison["logits_identical"]
    assert comparison["max_logit_difference"] == 0.0
    assert comparison["num_prompts"] > len(saved_prompts())
    assert base.training


def test_one_bit_swapped_on_disk_is_found_with_the_size_of_the_difference(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    weight = base.get_input_embeddings().weight.detach()
    before, token = weight.clone(), build_tokenizer().convert_tokens_to_ids("banana")
    weight[token, 0] = torch.nextafter(weight[token, 0], torch.tensor(torch.inf))
    base.save_pretrained(tmp_path / "base")
    weight.copy_(before)
    comparison = check_identity(base, build_tokenizer())
    assert not comparison["logits_identical"]
    assert 0 < comparison["num_prompts_differing"] < comparison["num_prompts"]
    assert 0 < comparison["max_logit_difference"] < 1e-4
    assert any("tensor model.embed_tokens.weight" in name for name in comparison["differences"])
    assert failures(comparison)


def test_a_failing_process_is_reported_with_its_reason(tmp_path: Path) -> None:
    base = save_base(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(RunError, match="gone"):
        check_identity(base, None)


def test_the_fresh_process_has_nothing_of_adaptkit() -> None:
    tree = ast.parse(Path(text_identity.__file__).with_name("fresh_base.py").read_text())
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not any(name.split(".")[0] == "adaptkit" for name in imported)


def test_prompts_are_the_same_every_time_and_fit_the_decoder() -> None:
    base = tiny_decoder("llama", max_position_embeddings=16)
    prompts = identity_prompts(base, None)
    assert prompts == identity_prompts(base, None)
    assert all(0 < len(ids) <= 16 and max(ids) < 259 for ids in prompts)


def test_autocast_does_not_reach_the_comparison() -> None:
    base = tiny_decoder("llama")
    plain = text_logits(base, [[3, 4, 5]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(text_logits(base, [[3, 4, 5]]), plain)


def test_bits_are_compared_not_values() -> None:
    zero, minus = torch.zeros(2, 3), torch.zeros(2, 3)
    minus[1, 0] = -0.0
    comparison = compare_logits(zero, minus, [1, 1])
    assert (comparison["num_prompts_differing"], comparison["max_logit_difference"]) == (1, 0.0)
    nan = torch.full((1, 3), torch.nan)
    assert compare_logits(nan, nan.clone(), [1])["logits_identical"]
    other = compare_logits(zero, zero.half(), [1, 1])
    assert not other["logits_identical"]
    assert "float16" in other["note"]
