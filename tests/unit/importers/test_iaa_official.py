import json
import shutil
import weakref

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import adaptkit
from adaptkit.cli import cli
from adaptkit.errors import ModelError, PluginError
from adaptkit.importers import iaa_official, import_iaa_official, streaming
from adaptkit.model.integrity import content_hash
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer
from tests.unit.importers import iaa_checkpoints
from tests.unit.importers.iaa_checkpoints import deeper_llama, their_tensors, write


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "theirs")


def logits(model, **inputs):
    with torch.no_grad():
        return model(**inputs).logits


IDS = torch.tensor([[1, 5, 9, 30, 41, 7]])


@pytest.mark.parametrize("workflow", ["vision", "grounding"])
def test_a_workflow_is_the_deeper_llama_that_their_names_describe(source, tmp_path, workflow):
    imported = import_iaa_official(source, tmp_path / "out")
    model = adaptkit.load(imported.workflows[workflow])
    torch.testing.assert_close(logits(model, input_ids=IDS), logits(deeper_llama(workflow), input_ids=IDS))


def test_the_projector_of_each_workflow_is_its_own(source, tmp_path):
    imported = import_iaa_official(source, tmp_path / "out")
    theirs = their_tensors()
    for workflow, name in (("vision", "mm_projector"), ("grounding", "mm_projector_G")):
        projector = adaptkit.load(imported.workflows[workflow]).projectors["image"]
        for key, value in projector.state_dict().items():
            assert torch.equal(value, theirs[f"model.{name}.{key}"])


@pytest.mark.parametrize("num_shards", [2, 5])
@pytest.mark.parametrize("tower", ["inside", "beside"])
def test_sharded_checkpoints_give_the_same_workflows(tmp_path, num_shards, tower):
    expected = import_iaa_official(write(tmp_path / "one"), tmp_path / "a")
    given = import_iaa_official(write(tmp_path / "many", num_shards=num_shards, tower=tower), tmp_path / "b")
    pixel_values = torch.randn(1, 3, 32, 32)
    ids = torch.tensor([[1, *[60] * 16, 5, 6]])
    for workflow, folder in given.workflows.items():
        ours, other = adaptkit.load(folder), adaptkit.load(expected.workflows[workflow])
        inputs = {"input_ids": ids, "pixel_values": pixel_values}
        assert torch.equal(logits(ours, **inputs), logits(other, **inputs))


def test_the_output_may_move(source, tmp_path):
    imported = import_iaa_official(source, tmp_path / "out")
    before = logits(adaptkit.load(imported.workflows["vision"]), input_ids=IDS)
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    shutil.rmtree(source)
    assert torch.equal(logits(adaptkit.load(tmp_path / "elsewhere" / "vision"), input_ids=IDS), before)


def test_a_reloaded_workflow_can_be_saved_elsewhere(source, tmp_path):
    imported = import_iaa_official(source, tmp_path / "out")
    model = adaptkit.load(imported.workflows["vision"])
    model.save_pretrained(tmp_path / "far" / "away")
    again = adaptkit.load(tmp_path / "far" / "away")
    assert torch.equal(logits(again, input_ids=IDS), logits(model, input_ids=IDS))


def test_the_base_is_a_stock_checkpoint_and_is_recognised(source, tmp_path):
    imported = import_iaa_official(source, tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(imported.base)
    theirs = their_tensors()
    assert {name for name, _ in base.named_parameters()} < set(theirs)
    assert all(torch.equal(p, theirs[name]) for name, p in base.named_parameters())
    config = json.loads((imported.workflows["vision"] / "config.json").read_text())
    assert config["base"]["content_hash"] == content_hash(base)
    with torch.no_grad():
        base.lm_head.weight[0, 0] += 1
    with pytest.raises(ModelError, match="another base"):
        adaptkit.load(imported.workflows["vision"], base=base)


def test_older_libraries_find_the_rotary_base(source, tmp_path):
    imported = import_iaa_official(source, tmp_path / "out")
    assert json.loads((imported.base / "config.json").read_text())["rope_theta"] == 20000.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tensors_keep_their_dtype(tmp_path, dtype):
    imported = import_iaa_official(write(tmp_path / "theirs", dtype=dtype), tmp_path / "out")
    for folder in (imported.base, *imported.workflows.values()):
        assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {dtype}
    assert adaptkit.load(imported.workflows["vision"]).base.dtype == dtype


def test_no_more_than_a_shard_is_in_memory(source, tmp_path, monkeypatch):
    limit = 40_000
    alive, peak = {}, 0
    read = streaming.TensorSource.read

    def counted(self, name):
        nonlocal peak
        tensor = read(self, name)
        alive[id(tensor)] = tensor.nbytes
        weakref.finalize(tensor, alive.pop, id(tensor))
        peak = max(peak, sum(alive.values()))
        return tensor

    monkeypatch.setattr(streaming.TensorSource, "read", counted)
    imported = import_iaa_official(source, tmp_path / "out", max_shard_bytes=limit)
    assert 0 < peak <= limit < sum(t.nbytes for t in their_tensors().values()) / 4
    shards = list(imported.base.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert max(sum(t.nbytes for t in load_file(shard).values()) for shard in shards) <= limit
    torch.testing.assert_close(
        logits(adaptkit.load(imported.workflows["vision"]), input_ids=IDS),
        logits(deeper_llama("vision"), input_ids=IDS),
    )


# -- what the config says --------------------------------------------------------------------------------------------


def options(folder):
    return json.loads((folder / "config.json").read_text())["modalities"]["image"]["encoder"]["options"]


def test_features_and_padding_are_those_of_their_config(tmp_path):
    theirs = write(
        tmp_path / "a", mm_vision_select_layer=-1, mm_vision_select_feature="cls_patch", image_aspect_ratio="absent"
    )
    found = options(import_iaa_official(theirs, tmp_path / "out").workflows["vision"])
    assert (found["feature_layer"], found["keep_cls"], found["pad"]) == (-1, True, "none")
    usual = options(import_iaa_official(write(tmp_path / "b"), tmp_path / "usual").workflows["grounding"])
    assert (usual["feature_layer"], usual["keep_cls"], usual["pad"]) == (-2, False, "square")


def test_the_insertion_list_may_be_in_any_order(tmp_path):
    swapped = import_iaa_official(write(tmp_path / "a", ehce_layers=[2, 0]), tmp_path / "out")
    model = adaptkit.load(swapped.workflows["vision"])
    theirs = their_tensors()
    inserted = [
        model.language_model.model.layers[i] for i, (k, _) in enumerate(model.config.layer_map) if k != "frozen"
    ]
    for layer, j in zip(inserted, (1, 0), strict=True):
        assert torch.equal(layer.mlp.up_proj.weight, theirs[f"model.condition_layers.{j}.mlp.up_proj.weight"])


def test_the_insertion_list_is_asked_for_where_nothing_says_it(tmp_path):
    theirs = write(tmp_path / "a", ehce_layers="absent")
    with pytest.raises(ModelError, match=r"ehce_layers.* 32 .* 3.*--insertion-layers"):
        import_iaa_official(theirs, tmp_path / "out")
    imported = import_iaa_official(theirs, tmp_path / "out", insertion_layers=[0, 2])
    torch.testing.assert_close(
        logits(adaptkit.load(imported.workflows["vision"]), input_ids=IDS),
        logits(deeper_llama("vision"), input_ids=IDS),
    )


def test_the_released_list_serves_32_layers():
    order = iaa_official.RELEASED_LAYERS
    names = {f"model.condition_layers.{j}.x": None for j in range(len(order))}
    tensors = type("Tensors", (), {"stored": names, "folder": "theirs"})()
    config = type("Config", (), {"num_hidden_layers": 32})()
    assert iaa_official._insertion_order({}, tensors, config, None) == list(order)


@pytest.mark.parametrize(
    ("layers", "words"), [([0, 3], "has not"), ([0], "2 inserted layers"), ([0, 0], "once"), ([0, 1, 2], "2 inserted")]
)
def test_a_wrong_insertion_list_is_refused(source, tmp_path, layers, words):
    with pytest.raises(ModelError, match=words):
        import_iaa_official(source, tmp_path / "out", insertion_layers=layers)


def small_tokenizer():
    """Fewer tokens than the checkpoint's 60 rows."""
    known = ["<|pad|>", "<|im_start|>", "<|im_end|>", *"abcdefghijklmnopqrstuvwxyzĊĠ"]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(known)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    template = tiny_tokenizer().chat_template.replace("<|im_end|>", "<|eot_id|>")
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<|pad|>", chat_template=template)


def test_a_tokenizer_without_rows_is_refused(source, tmp_path):
    tiny_tokenizer().save_pretrained(source)
    with pytest.raises(ModelError, match=r"259 token ids, .* 60 rows"):
        import_iaa_official(source, tmp_path / "out")


def test_the_placeholder_is_their_reserved_token_where_the_tokenizer_has_it(source, tmp_path):
    tokenizer = small_tokenizer()
    outside = import_iaa_official(source, tmp_path / "without")
    config = json.loads((outside.workflows["vision"] / "config.json").read_text())
    assert config["modalities"]["image"]["placeholder_id"] == 60
    assert config["modalities"]["image"]["placeholder"] is None

    tokenizer.add_special_tokens({"additional_special_tokens": [iaa_official.PLACEHOLDER, "<|eot_id|>"]})
    tokenizer.save_pretrained(source)
    imported = import_iaa_official(source, tmp_path / "with")
    entry = json.loads((imported.workflows["vision"] / "config.json").read_text())["modalities"]["image"]
    assert entry["placeholder"] == iaa_official.PLACEHOLDER
    assert entry["placeholder_id"] == tokenizer.convert_tokens_to_ids(iaa_official.PLACEHOLDER)
    processor = adaptkit.load_processor(imported.workflows["vision"])
    messages = [{"role": "user", "content": [{"type": "image", "image": torch.zeros(9, 5, 3).byte().numpy()}]}]
    batch = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    assert (batch["input_ids"] == entry["placeholder_id"]).sum() == 16
    for folder in (imported.base, imported.workflows["vision"]):
        ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
        assert ends == [2, tokenizer.convert_tokens_to_ids("<|eot_id|>")]


# -- towers and bases that lie elsewhere -----------------------------------------------------------------------------


def test_a_named_encoder_comes_before_the_checkpoints_own(source, tmp_path):
    tower = tiny_clip_vision(seed=7)
    tower.save_pretrained(tmp_path / "clip")
    imported = import_iaa_official(source, tmp_path / "out", encoder=tmp_path / "clip")
    assert imported.encoder == str(tmp_path / "clip")
    assert not (tmp_path / "out" / "encoder").exists()
    pixel_values = torch.randn(1, 3, 32, 32)
    model = adaptkit.load(imported.workflows["vision"])
    expected = tower(pixel_values, output_hidden_states=True).hidden_states[-2][:, 1:]
    torch.testing.assert_close(model.encode("image", pixel_values), expected)


def test_a_config_of_the_tower_is_enough_where_the_checkpoint_has_its_tensors(tmp_path):
    theirs = write(tmp_path / "theirs", mm_vision_tower="some/model-id")
    with pytest.raises(ModelError, match=r"'some/model-id'.*--encoder.*config\.json"):
        import_iaa_official(theirs, tmp_path / "out")
    imported = import_iaa_official(theirs, tmp_path / "out", encoder=theirs / "tower_config")
    pixel_values = torch.randn(1, 3, 32, 32)
    expected = tiny_clip_vision()(pixel_values, output_hidden_states=True).hidden_states[-2][:, 1:]
    torch.testing.assert_close(adaptkit.load(imported.workflows["vision"]).encode("image", pixel_values), expected)


def test_an_encoder_of_another_width_is_refused(source, tmp_path):
    tiny_clip_vision(hidden_size=16).save_pretrained(tmp_path / "clip")
    with pytest.raises(ModelError, match=r"features of width 16.*trained on 32"):
        import_iaa_official(source, tmp_path / "out", encoder=tmp_path / "clip")


def base_of(tensors, folder):
    model = deeper = AutoModelForCausalLM.from_config(iaa_checkpoints.llama_config())
    deeper.load_state_dict({name: tensors[name] for name in model.state_dict()})
    model.save_pretrained(folder)


def test_a_base_of_the_users_own_is_referred_to(source, tmp_path):
    base_of(their_tensors(), tmp_path / "llama")
    imported = import_iaa_official(source, tmp_path / "out", base=tmp_path / "llama")
    assert not (tmp_path / "out" / "base").exists()
    model = adaptkit.load(imported.workflows["vision"])
    assert model.base.name_or_path == str(tmp_path / "llama")
    torch.testing.assert_close(logits(model, input_ids=IDS), logits(deeper_llama("vision"), input_ids=IDS))


def test_another_llm_as_base_is_refused(source, tmp_path):
    tensors = their_tensors()
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + 1
    base_of(tensors, tmp_path / "llama")
    with pytest.raises(ModelError, match=r"model\.norm\.weight"):
        import_iaa_official(source, tmp_path / "out", base=tmp_path / "llama")


def test_a_checkpoint_without_the_llm_needs_a_base(source, tmp_path):
    base_of(their_tensors(), tmp_path / "llama")
    tensors = load_file(source / "model.safetensors")
    kept = {name: t for name, t in tensors.items() if not name.startswith("model.layers.")}
    save_file(kept, source / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks 27 tensors.*--base"):
        import_iaa_official(source, tmp_path / "out")
    imported = import_iaa_official(source, tmp_path / "out", base=tmp_path / "llama")
    torch.testing.assert_close(
        logits(adaptkit.load(imported.workflows["vision"]), input_ids=IDS),
        logits(deeper_llama("vision"), input_ids=IDS),
    )


# -- refusals --------------------------------------------------------------------------------------------------------


def test_pickled_weights_are_refused(source, tmp_path):
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(ModelError, match=r"pickled weights.*could run code"):
        import_iaa_official(source, tmp_path / "out")


def test_another_kind_of_checkpoint_is_refused(tmp_path):
    tiny_decoder("llama").save_pretrained(tmp_path / "llama")
    with pytest.raises(ModelError, match=r"'llama' checkpoint.*IAALlamaForCausalLM"):
        import_iaa_official(tmp_path / "llama", tmp_path / "out")


@pytest.mark.parametrize("name", ["model.norm_condition_grounding.weight", "model.layers.1.mlp.up_proj.weight"])
def test_a_missing_tensor_is_named_and_nothing_is_left_behind(source, tmp_path, name):
    tensors = load_file(source / "model.safetensors")
    del tensors[name]
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(ModelError, match=f"lacks 1 tensors, {name} among them"):
        import_iaa_official(source, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_tensor_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"\(60, 32\).*\(61, 32\)"):
        import_iaa_official(write(tmp_path / "theirs", vocab_size=61), tmp_path / "out")


def test_an_unknown_projector_is_refused(tmp_path):
    with pytest.raises(PluginError, match="no projector named 'identity'"):
        import_iaa_official(write(tmp_path / "theirs", mm_projector_type="identity"), tmp_path / "out")


def test_an_index_that_leaves_the_folder_is_refused(tmp_path):
    theirs = write(tmp_path / "theirs", num_shards=2)
    index = theirs / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001-of", "../model-00001-of"))
    with pytest.raises(ModelError, match="not a file of this folder"):
        import_iaa_official(theirs, tmp_path / "out")


def test_a_damaged_file_is_named(source, tmp_path):
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        import_iaa_official(source, tmp_path / "out")


def test_an_import_does_not_overwrite(source, tmp_path):
    import_iaa_official(source, tmp_path / "out")
    before = (tmp_path / "out" / "vision" / "model.safetensors").read_bytes()
    with pytest.raises(ModelError, match="exists already"):
        import_iaa_official(source, tmp_path / "out")
    assert (tmp_path / "out" / "vision" / "model.safetensors").read_bytes() == before


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_imports(tmp_path):
    theirs = write(tmp_path / "theirs", ehce_layers="absent")
    command = ["import", "iaa-official", str(theirs), "--output", str(tmp_path / "out")]
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 2
    assert "--insertion-layers" in refused.output
    done = CliRunner().invoke(cli, [*command, "--insertion-layers", "0,2"])
    assert done.exit_code == 0, done.output
    for name in ("base", "vision", "grounding", "encoder"):
        assert f"{name}: {tmp_path / 'out' / name}" in done.output


def test_the_command_refuses_what_is_no_list_of_layers(source, tmp_path):
    command = ["import", "iaa-official", str(source), "--output", str(tmp_path / "out"), "--insertion-layers", "0,x"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 2
    assert "separated by commas" in result.output
