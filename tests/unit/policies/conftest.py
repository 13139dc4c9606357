"""Workflows of every policy that changes layers, over several families."""

import pytest

from tests.unit.model.conftest import build

PLACEMENT = {"layers": [1, 3]}
POLICIES = {
    "inner_adapter": {"placement": PLACEMENT},
    "inner_adapter_delta": {"policy": "inner_adapter", "placement": PLACEMENT, "delta": {"rank": 4}},
    "gated_inner_adapter": {"placement": PLACEMENT},
    "controlnet": {"placement": PLACEMENT},
    "gated_cross_attention": {"placement": PLACEMENT, "num_heads": 2, "head_dim": 16, "ff_mult": 2},
    "visual_expert": {},
    "mma": {},
    "lora": {"rank": 4},
    "full": {},
    "projector_only": {},
}
FAMILIES = ("llama", "qwen2", "gpt2", "falcon")


def insertion_of(name):
    return {"policy": name, **POLICIES[name]}


# `inner_adapter` itself has the same tests, on ends of its own, in tests/unit/model/test_workflow_properties.py
@pytest.fixture(params=[name for name in POLICIES if name != "inner_adapter"])
def policy(request):
    return request.param


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def base_and_model(policy, family):
    return build(family, insertion=insertion_of(policy), replace_ends=False)
