"""Weights that are not there, not whole, or not safe: named, with what to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from adaptkit_timm import TimmOptions
from adaptkit_timm.checkpoint import missing
from adaptkit_timm.encoder import load_encoder
from PIL import Image
from safetensors.torch import load_file, save_file

from adaptkit.errors import ModelError


class _Cunning:
    def __reduce__(self) -> Any:
        return print, ("this ran",)


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A checkpoint that a test may break."""
    return Path(shutil.copytree(folders["resnet"], tmp_path / "copied"))


def refusal(**options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load_encoder(TimmOptions(**options))
    return str(caught.value)


def test_files_of_every_kind_give_the_same_features(
    folders: dict[str, Path], models: dict[str, Any], tmp_path: Path, picture: Image.Image
) -> None:
    expected = load_encoder(TimmOptions(path=str(folders["resnet"])))
    inputs = expected.build_preprocessor()(picture)[None]
    state = models["resnet"].state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save(
        {"epoch": 1, "state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "run.pt"
    )
    save_file(state, tmp_path / "weights.safetensors")
    for name in ("plain.pth", "run.pt", "weights.safetensors"):
        options = TimmOptions(path=str(tmp_path / name), model="test_resnet")
        assert missing(options) is None
        assert torch.equal(load_encoder(options)(inputs), expected(inputs))


def test_what_is_not_there_is_named(copied: Path) -> None:
    for words in (missing(TimmOptions(path="/no/such")), refusal(path="/no/such")):
        assert words is not None
        assert words.startswith("no file or folder at /no/such. Set the encoder's `path`")
    (copied / "config.json").unlink()
    assert "say which architecture it has with `model: NAME`" in refusal(path=str(copied))
    (copied / "model.safetensors").unlink()
    assert f"{copied} holds no weights" in str(missing(TimmOptions(path=str(copied))))


def test_an_unknown_architecture_comes_with_the_nearest_name(copied: Path) -> None:
    for options in ({"path": str(copied / "model.safetensors")}, {"pretrained": True}):
        words = refusal(model="resnet51", **options)
        assert "no architecture of timm named 'resnet51'. Did you mean 'resnet" in words


def test_published_weights_offline_are_reported_and_not_asked_for() -> None:
    options = TimmOptions(model="resnet18.a1_in1k", pretrained=True)
    report = missing(options)
    assert report is not None
    assert report.startswith("model.safetensors of timm/resnet18.a1_in1k is not in the cache")
    assert "HF_HUB_OFFLINE" in report
    assert "timm/resnet18.a1_in1k" in refusal(model="resnet18.a1_in1k", pretrained=True)
    assert "no/such" in str(missing(TimmOptions(model="hf-hub:no/such", pretrained=True)))
    assert "Invalid pretrained tag (no_such) for resnet18" in str(
        missing(TimmOptions(model="resnet18.no_such", pretrained=True))
    )


def test_published_weights_in_the_cache_are_found(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    shutil.copy(folders["resnet"] / "model.safetensors", repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    options = TimmOptions(model="test_resnet.r160_in1k", pretrained=True)
    assert missing(options) is None
    local = load_encoder(TimmOptions(path=str(folders["resnet"])))
    inputs = local.example_inputs()
    assert torch.equal(load_encoder(options)(inputs), local(inputs))


def test_absent_tensors_are_refused_not_invented(copied: Path) -> None:
    file = copied / "model.safetensors"
    state = load_file(file)
    del state["layer1.0.conv1.weight"]
    save_file(state, file)
    assert "lacks 1 of the backbone's tensors, layer1.0.conv1.weight among them" in refusal(path=str(copied))


def test_damaged_foreign_and_unsafe_files_are_refused(copied: Path, folders: dict[str, Path], capsys: Any) -> None:
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    assert f"{file} is damaged" in refusal(path=str(copied))
    shutil.copy(folders["convnext"] / "model.safetensors", file)
    assert "lacks" in refusal(path=str(copied))
    file.unlink()
    torch.save({"state_dict": _Cunning()}, copied / "model.pt")
    assert "holds more than tensors" in refusal(path=str(copied))
    assert "this ran" not in capsys.readouterr().out
    (copied / "config.json").write_text("{")
    assert f"timm builds no local-dir:{copied}" in refusal(path=str(copied))


def test_importing_the_hooks_loads_neither_torch_nor_timm() -> None:
    code = (
        "import sys, adaptkit_timm, adaptkit_timm.checkpoint as checkpoint; "
        "checkpoint.missing(adaptkit_timm.TimmOptions(path='/no/such')); "
        "sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
