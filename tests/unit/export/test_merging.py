import pytest
import torch
from peft.tuners.lora import LoraLayer

from adaptkit.errors import ModelError
from adaptkit.export import export_llava, llava_problems
from adaptkit.export.merging import copy_to_write, low_rank_modules
from tests.unit.export.test_llava import assert_same
from tests.unit.export.workflows import OUTSIDE, logits, probe, workflow

LOW_RANK = {
    "delta": {"policy": "inner_adapter", "delta": {"rank": 2}, "placement": {"layers": [0, 2]}},
    "lora": {"policy": "lora", "rank": 3},
    "part": {"policy": "lora", "rank": 3, "target_modules": ["q_proj", "down_proj"], "placement": {"last": 1}},
}


@pytest.fixture(params=LOW_RANK)
def model(request):
    return workflow("qwen2", insertion=LOW_RANK[request.param])


def test_merged_weights_compute_the_same(model):
    merged = copy_to_write(model, merge=True)
    assert not [m for m in merged.modules() if isinstance(m, LoraLayer)]
    torch.testing.assert_close(logits(merged, probe(OUTSIDE)), logits(model, probe(OUTSIDE)), atol=1e-5, rtol=1e-5)


def test_merging_writes_to_no_tensor_of_the_workflow_or_its_base(model):
    tensors = [*model.parameters(), *model.base.parameters()]
    before = [tensor.clone() for tensor in tensors]
    names = low_rank_modules(model.language_model)
    merged = copy_to_write(model, merge=True)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    assert low_rank_modules(model.language_model).keys() == names.keys()
    owned = {tensor.data_ptr() for tensor in tensors}
    assert names
    assert all(merged.language_model.get_submodule(name).weight.data_ptr() not in owned for name in names)


def test_merged_workflows_export_as_stock(model, tmp_path):
    assert llava_problems(model, merge=True) == []
    export_llava(model, None, tmp_path / "out", merge=True)
    assert_same(model, tmp_path / "out", OUTSIDE)


def test_without_merging_the_reason_names_the_option(model, tmp_path):
    (problem,) = llava_problems(model)
    assert "--merge" in problem
    with pytest.raises(ModelError, match="--merge"):
        export_llava(model, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_merging_changes_nothing_where_there_is_nothing_to_merge(tmp_path):
    model = workflow()
    export_llava(model, None, tmp_path / "out", merge=True)
    assert_same(model, tmp_path / "out", OUTSIDE)


def test_quantised_weights_cannot_be_merged(model):
    wrapped = next(m for m in model.language_model.modules() if isinstance(m, LoraLayer))
    base = wrapped.get_base_layer()
    base.weight = torch.nn.Parameter(torch.zeros(base.weight.shape, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ModelError, match="quantised"):
        copy_to_write(model, merge=True)
