"""What is read back is what was written, and holds numbers."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import adaptkit
from adaptkit.errors import ModelError
from adaptkit.export.peft import export_peft
from adaptkit.model.integrity import is_finite, read_tensors, refuse_non_finite, write_tensors
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from tests.unit.model.conftest import build


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workflow")
    base, model = build("llama")
    model.save_pretrained(folder)
    return folder, base, dict(model.source_encoders)


def damaged(path, offset):
    content = bytearray(path.read_bytes())
    content[offset : offset + 16] = bytes(16)
    path.write_bytes(content)


def copy_of(folder, tmp_path):
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize("place", [0.5, 0.99])
def test_zeros_in_a_file_of_weights_are_noticed(saved, tmp_path, place):
    folder, base, encoders = saved
    path = copy_of(folder, tmp_path) / "model.safetensors"
    damaged(path, int(path.stat().st_size * place))
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        adaptkit.load(tmp_path, base=base, encoders=encoders)


def test_shards_have_checksums_too(saved, tmp_path):
    folder, base, encoders = saved
    model = adaptkit.load(folder, base=base, encoders=encoders)
    model.save_pretrained(tmp_path, max_shard_size=60_000)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    again = adaptkit.load(tmp_path, base=base, encoders=encoders).trainable_state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.trainable_state_dict().items())
    damaged(shards[-1], shards[-1].stat().st_size - 40)
    with pytest.raises(ModelError, match=shards[-1].name):
        adaptkit.load(tmp_path, base=base, encoders=encoders)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_weights_are_refused_by_name(saved, tmp_path, value):
    folder, base, encoders = saved
    path = copy_of(folder, tmp_path) / "model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[1]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path)  # as another program, or adaptkit before, would write it: without a checksum
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        adaptkit.load(tmp_path, base=base, encoders=encoders)


@pytest.mark.parametrize("part", ["base", "encoder"])
def test_frozen_models_with_non_finite_weights_are_refused_by_name(part):
    base, encoder = tiny_decoder("llama"), tiny_clip_vision()
    name, parameter = list((base if part == "base" else encoder).named_parameters())[3]
    parameter.data.view(-1)[0] = float("nan")
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        adaptkit.adapt(base, {"image": {"encoder": encoder, "projector": "linear"}})


def test_export_refuses_non_finite_weights(tmp_path):
    _, model = build("llama")
    name, tensor = next(iter(model.trainable_state_dict().items()))
    tensor.view(-1)[0] = float("nan")
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        export_peft(model, None, tmp_path / "out")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.complex64])
def test_finite_is_told_in_every_dtype(dtype):
    values = torch.zeros(3, 5, dtype=torch.complex64 if dtype.is_complex else torch.float32)
    assert is_finite(values.to(dtype))
    values[1, 2] = float("nan")
    assert not is_finite(values.to(dtype))
    refuse_non_finite(nn.Linear(2, 2, device="meta").named_parameters(), "a model that is not loaded")


def test_files_without_checksum_are_read(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert read_tensors(tmp_path / "a.safetensors")["a"].tolist() == [1, 1]


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    tensors = {"ä.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(3)}
    for number in range(12):
        write_tensors(tensors, tmp_path / f"{number}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert torch.equal(read_tensors(tmp_path / "0.safetensors")["ä.weight"], tensors["ä.weight"])
