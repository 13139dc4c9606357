import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, LlavaForConditionalGeneration

import adaptkit
from adaptkit.errors import ModelError
from adaptkit.export import export_llava, llava, llava_problems, verification
from adaptkit.export.stock import export_stock
from adaptkit.interfaces import Encoder
from adaptkit.testing import tiny_clip_vision
from tests.unit.export.workflows import (
    INNER,
    INSIDE,
    OUTSIDE,
    base_of,
    logits,
    probe,
    save_towers,
    workflow,
)


def read(folder, **options):
    return LlavaForConditionalGeneration.from_pretrained(folder, **options).eval()


def assert_same(model, folder, placeholder_id, **inputs):
    ours = logits(model, probe(model.config.modalities["image"]["placeholder_id"], **inputs))
    theirs = logits(read(folder), probe(placeholder_id, **inputs))[:, : ours.shape[1]]
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


# -- encoders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("feature_layer", [-2, -1, 0, 2])
@pytest.mark.parametrize(("tower", "keep_cls"), [("clip", False), ("clip", True), ("siglip", False)])
def test_features_of_every_layer_and_family(tmp_path, tower, keep_cls, feature_layer):
    path = save_towers(tmp_path)[tower]
    encoder = {"name": "clip", "path": path, "feature_layer": feature_layer, "keep_cls": keep_cls}
    model = workflow(encoder=encoder)
    report = export_llava(model, None, tmp_path / "out")
    assert_same(model, tmp_path / "out", report.placeholder_id, positions=17 if keep_cls else 16)


def test_only_the_chosen_features_are_exported_as_such(tmp_path):
    """The comparison that the exporter makes would notice another layer."""
    export_llava(workflow(), None, tmp_path / "out")
    config = tmp_path / "out" / "config.json"
    config.write_text(config.read_text().replace('"vision_feature_layer": -2', '"vision_feature_layer": -1'))
    with pytest.raises(ModelError, match="other logits with a picture"):
        verification.compare_logits(
            workflow(),
            tmp_path / "out",
            OUTSIDE,
            torch.float32,
            LlavaForConditionalGeneration,
            "LLaVA",
            llava.random_picture,
        )


# -- the placeholder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replace_ends", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_placeholder_inside_the_vocabulary_stays(tmp_path, family, replace_ends):
    model = workflow(family, placeholder_id=INSIDE, replace_ends=replace_ends)
    report = export_llava(model, None, tmp_path / "out")
    assert (report.placeholder_id, report.added_rows) == (INSIDE, 0)
    assert_same(model, tmp_path / "out", INSIDE)


@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": True}])
@pytest.mark.parametrize("placeholder_id", [OUTSIDE, 5000])
def test_a_placeholder_outside_gets_a_row_and_is_never_most_likely(tmp_path, placeholder_id, settings):
    model = workflow(placeholder_id=placeholder_id, replace_ends=False, **settings)
    rows = model.base.get_input_embeddings().weight.clone()
    report = export_llava(model, None, tmp_path / "out")
    assert (report.placeholder_id, report.added_rows) == (OUTSIDE, 1)
    assert_same(model, tmp_path / "out", OUTSIDE)
    stock = read(tmp_path / "out")
    assert stock.get_input_embeddings().weight.shape[0] == stock.lm_head.weight.shape[0] == OUTSIDE + 1
    found = logits(stock, probe(OUTSIDE))
    assert bool((found[:, OUTSIDE] < found[:, :OUTSIDE].max(1).values).all())
    assert stock.generation_config.suppress_tokens == [OUTSIDE]
    assert torch.equal(model.base.get_input_embeddings().weight, rows)
    assert model.get_input_embeddings().weight.shape[0] == OUTSIDE


def test_a_tied_base_stays_tied_and_replaced_ends_do_not(tmp_path):
    tied = workflow(replace_ends=False, tie_word_embeddings=True)
    export_llava(tied, None, tmp_path / "tied")
    assert not [n for n in load_file(tmp_path / "tied" / "model.safetensors") if "lm_head" in n]
    untied = workflow(replace_ends=True, tie_word_embeddings=True)
    report = export_llava(untied, None, tmp_path / "untied")
    assert [n for n in load_file(tmp_path / "untied" / "model.safetensors") if "lm_head" in n]
    assert_same(untied, tmp_path / "untied", report.placeholder_id)


# -- what it leaves alone and behind ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "cohere"])
def test_the_workflow_and_its_base_are_untouched(tmp_path, family):
    model = workflow(family)
    state = {id(t): (t.clone(), t.requires_grad) for t in (*model.parameters(), *model.base.parameters())}
    names = [(name, type(module)) for name, module in model.named_modules()]
    model.train()
    export_llava(model, None, tmp_path / "out")
    assert model.training
    assert [(name, type(module)) for name, module in model.named_modules()] == names
    after = {id(t): t for t in (*model.parameters(), *model.base.parameters())}
    assert after.keys() == state.keys()
    for key, (value, requires_grad) in state.items():
        assert torch.equal(after[key], value)
        assert after[key].requires_grad == requires_grad


def test_half_precision_is_written_and_masters_are_rounded(tmp_path):
    base_of("llama").save_pretrained(tmp_path / "base")
    model = workflow(base=AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16, torch.float32}
    report = export_llava(model, None, tmp_path / "half")
    assert {t.dtype for t in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.bfloat16}
    assert report.logits_difference < 0.02 * logits(read(tmp_path / "half"), probe(OUTSIDE)).abs().max()
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16, torch.float32}
    export_llava(model, None, tmp_path / "full", dtype=torch.float32)
    assert {t.dtype for t in load_file(tmp_path / "full" / "model.safetensors").values()} == {torch.float32}


def test_shards_are_renamed_with_their_index(tmp_path, monkeypatch):
    save = LlavaForConditionalGeneration.save_pretrained
    monkeypatch.setattr(
        LlavaForConditionalGeneration, "save_pretrained", lambda self, folder: save(self, folder, max_shard_size="50KB")
    )
    model = workflow()
    export_llava(model, None, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 1
    for file in set(index.values()):
        assert set(load_file(tmp_path / "out" / file)) == {name for name, at in index.items() if at == file}
    assert_same(model, tmp_path / "out", OUTSIDE)


def export_spoilt(directory, spoil):
    """Export a workflow whose tensors are changed after they were written."""

    def write(ours, placeholder, dtype, folder):
        llava.LLAVA.write(ours, placeholder, dtype, folder)
        file = folder / "model.safetensors"
        save_file(spoil(load_file(file)), file, {"format": "pt"})

    export_stock(replace(llava.LLAVA, write=write), [], workflow(), None, directory, merge=False, dtype=None)


def test_an_export_that_computes_something_else_leaves_nothing(tmp_path):
    with pytest.raises(ModelError, match=r"logits with a picture.* differ by"):
        export_spoilt(tmp_path / "out", lambda tensors: {name: t * 1.01 for name, t in tensors.items()})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tensor_is_noticed(tmp_path):
    with pytest.raises(ModelError, match="linear_2"):
        export_spoilt(
            tmp_path / "out", lambda tensors: {n.replace("linear_2.bias", "linear_2.b"): tensors[n] for n in tensors}
        )


@pytest.mark.parametrize("whose", ["own", "base"])
def test_values_that_are_no_numbers_or_become_none_are_named(tmp_path, whose):
    model = workflow(replace_ends=False)
    owner = model.base if whose == "base" else model
    name, tensor = [(n, p) for n, p in owner.named_parameters() if p.requires_grad == (whose == "own")][-1]
    tensor.data.view(-1)[0] = 1e6 if whose == "base" else float("nan")  # 1e6 is infinite in float16
    with pytest.raises(ModelError, match=f"{'float16' if whose == 'base' else ''}.*{name}"):
        export_llava(model, None, tmp_path / "out", dtype=torch.float16 if whose == "base" else None)
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ModelError, match="not empty"):
        export_llava(workflow(), None, tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


# -- what has no stock equal -----------------------------------------------------------------------------------------


def refused(model, words, tmp_path):
    (problem,) = llava_problems(model)
    assert words in problem
    with pytest.raises(ModelError, match="cannot become a stock LLaVA"):
        export_llava(model, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("replace_ends", [True, False])
@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("gemma2", "soft-cap (final_logit_softcapping 30.0)"),
        ("gpt2", "language_model.embed_tokens"),
        ("opt", "language_model.embed_tokens"),
        ("falcon", "language_model.embed_tokens"),
        ("phi", "LM head has a bias"),
    ],
)
def test_families_that_stock_llava_computes_otherwise(tmp_path, family, words, replace_ends):
    refused(workflow(family, replace_ends=replace_ends), words, tmp_path)


@pytest.mark.parametrize(
    "insertion",
    [
        {"policy": "gated_inner_adapter", "placement": {"layers": [1]}},
        {"policy": "controlnet", "placement": {"layers": [1]}},
        {"policy": "visual_expert"},
    ],
)
def test_policies_that_end_as_no_stock_decoder(tmp_path, insertion):
    refused(workflow(insertion=insertion), f"policy '{insertion['policy']}'", tmp_path)


@pytest.mark.parametrize("insertion", [{"policy": "full"}, {"policy": "projector_only"}])
def test_policies_that_insert_nothing(tmp_path, insertion):
    model = workflow(insertion=insertion)
    assert llava_problems(model) == []
    export_llava(model, None, tmp_path / "out")
    assert_same(model, tmp_path / "out", OUTSIDE)


@pytest.mark.parametrize(
    "projector", ["linear", "mlp3x_gelu", {"name": "mlp2x_gelu", "intermediate_size": 48}, nn.Linear(32, 32)]
)
def test_other_projectors(tmp_path, projector):
    refused(workflow(projector=projector), "mlp2x_gelu", tmp_path)


@pytest.mark.parametrize("option", [{"merge_size": 2}, {"tokens": "cls"}, {"feature_layers": [1, 2]}, {"tiles": {}}])
def test_features_that_stock_llava_cannot_choose(tmp_path, option):
    encoder = {"name": "clip", "path": save_towers(tmp_path)["clip"], **option}
    refused(workflow(encoder=encoder), next(iter(option)), tmp_path)


class Averages(Encoder):
    feature_size = 3

    def forward(self, inputs):
        return inputs.flatten(2).mean(2).unsqueeze(1)

    def build_preprocessor(self):
        raise NotImplementedError


def test_other_encoders(tmp_path):
    refused(workflow(encoder=Averages()), "Averages", tmp_path)


def test_several_modalities(tmp_path):
    encoders = {"left": tiny_clip_vision(), "right": tiny_clip_vision(seed=1)}
    model = adaptkit.adapt(base_of("llama"), {name: {"encoder": e} for name, e in encoders.items()}, INNER)
    refused(model, "2 modalities (left, right)", tmp_path)


def test_a_quantised_base(tmp_path):
    model = workflow()
    model.language_model.extra = nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
    refused(model, "quantised", tmp_path)
