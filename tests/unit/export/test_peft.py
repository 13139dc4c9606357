import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from adaptkit.errors import ModelError
from adaptkit.export import export_peft
from adaptkit.testing import tiny_decoder, tiny_tokenizer
from tests.unit.export.workflows import processor_of, save_towers, workflow

IDS = torch.tensor([[5, 9, 30, 41, 7], [8, 100, 3, 77, 12]])
# peft asks properties that newer releases of transformers call otherwise; ties that the workflow has undone
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*:UserWarning"),
]


def lora(family, *, replace_ends=False, base=None, **options):
    base = base or tiny_decoder(family)
    return workflow(insertion={"policy": "lora", "rank": 3, **options}, replace_ends=replace_ends, base=base)


@torch.no_grad()
def text_logits(model):
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("replace_ends", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_peft_on_a_fresh_base_gives_the_workflows_text_logits(tmp_path, family, replace_ends):
    model = lora(family, replace_ends=replace_ends, alpha=5)
    assert export_peft(model, None, tmp_path / "out").logits_difference < 1e-5
    theirs = PeftModel.from_pretrained(tiny_decoder(family), tmp_path / "out").eval()
    torch.testing.assert_close(text_logits(theirs), text_logits(model), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(text_logits(model), text_logits(model.base), atol=1e-2)


def test_chosen_layers_and_maps_alone_are_adapted(tmp_path):
    model = lora("llama", target_modules=["q_proj"], placement={"layers": [1]})
    export_peft(model, None, tmp_path / "out")
    names = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {name.split(".lora_")[0] for name in names} == {"base_model.model.model.layers.1.self_attn.q_proj"}
    everywhere = lora("llama", target_modules=["q_proj", "up_proj"])
    export_peft(everywhere, None, tmp_path / "all")
    config = json.loads((tmp_path / "all" / "adapter_config.json").read_text())
    assert sorted(config["target_modules"]) == ["q_proj", "up_proj"]


def test_the_base_stays_as_it_is(tmp_path):
    base = tiny_decoder("llama")
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    modules = [type(module) for module in base.modules()]
    export_peft(lora("llama", base=base, replace_ends=True), None, tmp_path / "out")
    assert [type(module) for module in base.modules()] == modules
    assert all(torch.equal(before[name], tensor) for name, tensor in base.state_dict().items())


def test_the_tokenizer_goes_with_it(tmp_path):
    encoder = {"name": "clip", "path": save_towers(tmp_path)["clip"]}
    model = workflow(insertion={"policy": "lora", "rank": 2}, encoder=encoder)
    export_peft(model, processor_of(model), tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == tiny_tokenizer().backend_tokenizer.to_str(pretty=True)


def test_an_adapter_that_computes_something_else_leaves_nothing(tmp_path, monkeypatch):
    load = PeftModel.from_pretrained

    def load_others(base, folder):
        adapted = load(base, folder)
        for name, parameter in adapted.named_parameters():
            parameter.data *= 1.01 if "lora_A" in name else 1
        return adapted

    monkeypatch.setattr(PeftModel, "from_pretrained", load_others)
    with pytest.raises(ModelError, match="peft computes other logits"):
        export_peft(lora("llama"), None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("insertion", "words"),
    [
        ({"policy": "inner_adapter", "placement": {"every": 2}}, "has no low-rank differences"),
        ({"policy": "inner_adapter", "placement": {"every": 2}, "delta": {"rank": 2}}, "--to llava --merge"),
    ],
)
def test_other_workflows_are_no_peft_adapters(tmp_path, insertion, words):
    with pytest.raises(ModelError, match=words):
        export_peft(workflow(insertion=insertion), None, tmp_path / "out")
