"""Checkpoints that are not there, not whole, or not of the family: named, with what to do."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from adaptkit_whisper import WhisperOptions
from adaptkit_whisper.checkpoint import missing
from adaptkit_whisper.loading import load_encoder
from safetensors.torch import load_file, save_file

from adaptkit.errors import ModelError


@pytest.fixture
def copied(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A checkpoint that a test may break."""
    return Path(shutil.copytree(checkpoints["model"], tmp_path / "copied"))


def refusal(path: Path | str, **values: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load_encoder(WhisperOptions(path=str(path), **values))
    return str(caught.value)


def report(path: Path | str, **values: Any) -> str:
    return str(missing(WhisperOptions(path=str(path), **values)))


@pytest.mark.parametrize("path", ["/no/such/folder", "openai/no-such-whisper"])
def test_what_is_not_there_is_named(path: str) -> None:
    for words in (report(path), refusal(path)):
        assert path in words
        assert "Set the encoder's `path`" in words


def test_a_model_id_is_found_in_the_hubs_cache(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    repository = tmp_path / "models--some--whisper"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(checkpoints["generation"], snapshot)
    (snapshot / "preprocessor_config.json").write_text('{"n_fft": 256, "feature_size": 80}')
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert missing(WhisperOptions(path="some/whisper")) is None
    encoder = load_encoder(WhisperOptions(path="some/whisper"))
    assert '"n_fft": 256' in encoder.build_preprocessor().settings()
    assert "UNEXPECTED" not in capfd.readouterr().err


def test_a_folder_without_config_or_weights_says_which(copied: Path) -> None:
    assert "is a file, which only backend: openai-whisper reads" in refusal(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    assert "holds no *.safetensors" in refusal(copied)
    (copied / "pytorch_model.bin").touch()
    assert "only pickled *.bin" in report(copied)
    (copied / "config.json").unlink()
    assert "config.json" in refusal(copied)
    assert f"{copied} holds no config.json" in report(copied)


def test_weights_cut_short_or_incomplete_are_refused(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    lacking = {name: tensor for name, tensor in weights.items() if "encoder.layers.1.fc1" not in name}
    save_file(lacking, copied / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 2 of the encoder's tensors, layers.1.fc1.bias among them" in refusal(copied)
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{copied / 'model.safetensors'} is damaged" in refusal(copied)


def test_another_family_is_refused(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    assert f"{copied}: model_type 'llama' is not 'whisper'" in refusal(copied)
    for broken in ("{", json.dumps({**config, "d_model": "wide"})):
        (copied / "config.json").write_text(broken)
        assert str(copied / "config.json") in refusal(copied)


class Hostile:
    """Runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran-code"),)


def test_files_of_the_openai_package_are_found_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from whisper.model import ModelDimensions, Whisper

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    backend: dict[str, Any] = {"backend": "openai-whisper"}
    words = report("large", **backend)
    assert f"no openai-whisper model at large, nor {tmp_path}/cache/whisper/large-v3.pt in its cache" in words
    assert refusal("large", **backend) == words
    dims = ModelDimensions(80, 24, 24, 2, 2, 20, 8, 24, 2, 1)
    whisper = Whisper(dims)
    file = tmp_path / "cache" / "whisper" / "large-v3.pt"
    file.parent.mkdir(parents=True)
    torch.save({"dims": dims.__dict__, "model_state_dict": whisper.state_dict()}, file)
    assert missing(WhisperOptions(path="large", **backend)) is None
    assert missing(WhisperOptions(path=str(file), **backend)) is None
    assert load_encoder(WhisperOptions(path="large", **backend)).feature_size == 24
    assert "is a folder, which backend: transformers reads" in refusal(file.parent, **backend)
    state = {name: tensor for name, tensor in whisper.state_dict().items() if "ln_post" not in name}
    torch.save({"dims": dims.__dict__, "model_state_dict": state}, file)
    assert "does not hold a whole Whisper encoder" in refusal(file, **backend)
    for content in (pickle.dumps(Hostile(), protocol=2), b"no checkpoint", b""):
        file.write_bytes(content)
        assert str(file) in refusal(file, **backend)
        assert "a checkpoint of the openai-whisper package" in refusal(file, **backend)
    torch.save({"dims": Hostile(), "model_state_dict": {}}, file)
    assert "a checkpoint of the openai-whisper" in refusal(file, **backend)
    assert not Path("ran-code").exists()


def test_without_the_openai_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaptkit_whisper.checkpoint.find_spec", lambda name: None)
    assert "pip install 'adaptkit-whisper[openai]'" in report("small", backend="openai-whisper")
