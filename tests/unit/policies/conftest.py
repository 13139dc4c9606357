"""Workflows of every policy that changes layers, over several families."""

import pytest

from tests.unit.model.conftest import build

PLACEMENT = {"layers": [1, 3]}
POLICIES = {
    "inner_adapter": {"placement": PLACEMENT},
    "inner_adapter_delta": {"policy": "inner_adapter", "placement": PLACEMENT, "delta": {"rank": 4}},
    "gated_inner_adapter": {"placement": PLACEMENT},
    "controlnet": {"placement": PLACEMENT},
    "lora": {"rank": 4},
    "full": {},
    "projector_only": {},
}
FAMILIES = ("llama", "qwen2", "gpt2")


def insertion_of(name):
    return {"policy": name, **POLICIES[name]}


@pytest.fixture(params=POLICIES)
def policy(request):
    return request.param


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def base_and_model(policy, family):
    return build(family, insertion=insertion_of(policy), replace_ends=False)
