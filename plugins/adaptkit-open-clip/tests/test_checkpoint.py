"""Checkpoints that are not there, not whole, or not safe: named, with what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from adaptkit_open_clip import OpenClipOptions
from adaptkit_open_clip.checkpoint import missing
from adaptkit_open_clip.encoder import load_encoder
from PIL import Image
from safetensors.torch import load_file, save_file

from adaptkit.errors import ModelError


class _Cunning:
    def __reduce__(self) -> Any:
        return print, ("this ran",)


@pytest.fixture
def copied(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A checkpoint that a test may break."""
    return Path(shutil.copytree(folders["vit"], tmp_path / "copied"))


def refusal(path: Path | str, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load_encoder(OpenClipOptions(path=str(path), **options))
    return str(caught.value)


def test_files_of_every_kind_give_the_same_features(
    folders: dict[str, Path], whole_models: dict[str, Any], tmp_path: Path, picture: Image.Image
) -> None:
    config = json.loads((folders["vit"] / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny-vit.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-vit.json")
    state = whole_models["vit"].state_dict()
    torch.save(state, tmp_path / "plain.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "run.pt"
    )
    save_file(
        {key: value for key, value in state.items() if key.startswith("visual.")}, tmp_path / "visual.safetensors"
    )
    expected = load_encoder(OpenClipOptions(path=str(folders["vit"])))
    inputs = expected.build_preprocessor()(picture)[None]
    for name in ("plain.pt", "run.pt", "visual.safetensors"):
        path = str(tmp_path / name)
        assert missing(OpenClipOptions(path=path, model="tiny-vit")) is None
        encoder = load_encoder(OpenClipOptions(path=path, model="tiny-vit"))
        assert torch.equal(encoder(inputs), expected(inputs))


def test_what_is_not_there_is_named(copied: Path) -> None:
    for words in (missing(OpenClipOptions(path="/no/such", model=None)), refusal("/no/such")):
        assert words is not None
        assert words.startswith("no file or folder at /no/such. Set the encoder's `path`")
    (copied / "open_clip_config.json").unlink()
    assert "say which architecture it has with `model: NAME`" in refusal(copied)
    (copied / "open_clip_model.safetensors").unlink()
    assert f"{copied} holds no weights" in str(missing(OpenClipOptions(path=str(copied), model="ViT-B-32")))


def test_an_unknown_architecture_comes_with_the_nearest_name(copied: Path) -> None:
    words = refusal(copied / "open_clip_model.safetensors", model="ViT-B32")
    assert "no architecture of open_clip named 'ViT-B32'. Did you mean 'ViT-B-32'" in words


def test_a_hub_id_offline_is_reported_and_not_asked_for() -> None:
    report = missing(OpenClipOptions(path="hf-hub:laion/no-such-model", model=None))
    assert report is not None
    assert report.startswith("laion/no-such-model is not in the cache of the Hugging Face hub, and HF_HUB_OFFLINE")
    assert "laion/no-such-model" in refusal("hf-hub:laion/no-such-model")
    assert "is not a model id" in str(missing(OpenClipOptions(path="hf-hub:a/b/c", model=None)))


def test_a_hub_id_in_the_cache_is_found(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    repository = tmp_path / "models--some--clip"
    shutil.copytree(folders["vit"], repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert missing(OpenClipOptions(path="hf-hub:some/clip", model=None)) is None
    encoder = load_encoder(OpenClipOptions(path="hf-hub:some/clip"))
    assert encoder.build_preprocessor().config["mean"] == [0.1, 0.2, 0.3]


def test_absent_tensors_are_refused_not_invented(copied: Path) -> None:
    file = copied / "open_clip_model.safetensors"
    state = load_file(file)
    del state["visual.transformer.resblocks.1.mlp.c_fc.weight"]
    save_file(state, file)
    assert "lacks 1 of the tower's tensors, transformer.resblocks.1.mlp.c_fc.weight among them" in refusal(copied)


def test_damaged_foreign_and_unsafe_files_are_refused(copied: Path, folders: dict[str, Path], capsys: Any) -> None:
    file = copied / "open_clip_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-50])
    assert f"{file} is damaged" in refusal(copied)
    shutil.copy(folders["coca_like"] / "open_clip_model.safetensors", file)
    assert "is of another architecture: size mismatch" in refusal(copied)
    file.unlink()
    torch.save({"state_dict": _Cunning()}, copied / "model.pt")
    assert "holds more than tensors" in refusal(copied)
    assert "this ran" not in capsys.readouterr().out
    (copied / "open_clip_config.json").write_text("{}")
    assert "has no model_cfg" in refusal(copied)
    (copied / "open_clip_config.json").write_text("{")
    assert "open_clip_config.json" in refusal(copied)


def test_importing_the_hooks_loads_neither_torch_nor_open_clip() -> None:
    import subprocess
    import sys

    code = (
        "import sys, adaptkit_open_clip, adaptkit_open_clip.checkpoint as checkpoint; "
        "checkpoint.missing(adaptkit_open_clip.OpenClipOptions(path='/no/such')); "
        "sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
