"""Checkpoints that are not there, not whole, or not of the family: named, with what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from adaptkit_clip import ClipOptions
from adaptkit_clip.checkpoint import missing
from adaptkit_clip.encoder import load_encoder
from adaptkit_clip.preprocessing import load_preprocessor
from adaptkit_clip.stand_in import write_stand_in
from safetensors.torch import load_file, save_file

from adaptkit.errors import ModelError


@pytest.fixture
def copied(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    """A checkpoint that a test may break."""
    return Path(shutil.copytree(checkpoints["clip_vision_model"], tmp_path / "copied"))


def refusal(path: Path | str) -> str:
    with pytest.raises(ModelError) as caught:
        load_encoder(ClipOptions(path=str(path)))
    return str(caught.value)


@pytest.mark.parametrize("path", ["/no/such/folder", "openai/no-such-clip"])
def test_what_is_not_there_is_named(path: str) -> None:
    for words in (missing(ClipOptions(path=path)), refusal(path)):
        assert path in str(words)
        assert "Set the encoder's `path`" in str(words)


def test_a_model_id_is_found_in_the_hubs_cache(
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import huggingface_hub

    repository = tmp_path / "models--some--clip"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(checkpoints["clip"], snapshot)
    (snapshot / "preprocessor_config.json").write_text('{"size": 24, "crop_size": 24, "image_mean": [0, 0, 0]}')
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert missing(ClipOptions(path="some/clip")) is None
    encoder = load_encoder(ClipOptions(path="some/clip"))
    assert list(encoder.build_preprocessor().processor.image_mean) == [0, 0, 0]
    assert "UNEXPECTED" not in capfd.readouterr().err


def test_a_file_is_not_a_folder(copied: Path) -> None:
    assert "is a file" in refusal(copied / "model.safetensors")


def test_an_unknown_built_in_encoder_comes_with_the_known_one() -> None:
    assert "'encoder'" in refusal("world:decoder")


def test_a_folder_without_config_or_weights_says_which(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    assert "holds no *.safetensors" in refusal(copied)
    (copied / "pytorch_model.bin").touch()
    assert "only pickled *.bin" in refusal(copied)
    assert "only pickled *.bin" in str(missing(ClipOptions(path=str(copied))))
    (copied / "config.json").unlink()
    assert "config.json" in refusal(copied)
    assert f"{copied} holds no config.json" in str(missing(ClipOptions(path=str(copied))))


def test_weights_cut_short_are_refused(copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert f"{copied / 'model.safetensors'} is damaged" in refusal(copied)


def test_absent_tensors_are_refused_not_invented(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    name = next(key for key in weights if "layers.1" in key)
    del weights[name]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 of the vision model's tensors" in refusal(copied)


def test_another_family_is_refused_with_the_known_ones(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    words = refusal(copied)
    assert f"{copied}: model_type 'llama' is not one that 'clip' loads. Known: clip, clip_vision_model" in words
    (copied / "config.json").write_text("{")
    assert str(copied / "config.json") in refusal(copied)


@pytest.mark.parametrize(
    ("options", "family"),
    [
        (ClipOptions(path="openai/clip-vit-large-patch14-336"), "clip_vision_model"),
        (ClipOptions(path="google/siglip-so400m-patch14-384", revision="main"), "siglip_vision_model"),
        (ClipOptions(path="/models/siglip", feature_layer=20, merge_size=3), "siglip_vision_model"),
        (ClipOptions(path="/models/clip", feature_layer=-7, keep_cls=True), "clip_vision_model"),
    ],
)
def test_stand_ins_have_the_family_and_fit_the_options(options: ClipOptions, family: str, tmp_path: Path) -> None:
    stand_in = write_stand_in(options, tmp_path / "new" / "folder")
    assert missing(stand_in) is None
    encoder = load_encoder(stand_in)
    assert encoder.config.model_type == family
    assert stand_in.model_dump(exclude={"path", "revision"}) == options.model_dump(exclude={"path", "revision"})
    assert load_preprocessor(stand_in).settings() == encoder.build_preprocessor().settings()


def test_stand_ins_follow_a_checkpoint_that_is_here(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    unnamed = Path(shutil.copytree(checkpoints["siglip"], tmp_path / "unnamed"))
    stand_in = write_stand_in(ClipOptions(path=str(unnamed)), tmp_path / "stand_in")
    assert load_encoder(stand_in).config.model_type == "siglip_vision_model"


def test_the_built_in_encoder_loads() -> None:
    assert missing(ClipOptions(path="world:encoder")) is None
    encoder = load_encoder(ClipOptions(path="world:encoder", merge_size=2))
    assert encoder.feature_size == encoder.config.hidden_size * 4


def test_registering_and_asking_what_is_missing_load_no_torch() -> None:
    code = (
        "import sys, adaptkit_clip, adaptkit_clip.checkpoint as checkpoint; "
        "checkpoint.missing(adaptkit_clip.ClipOptions(path='/no/such')); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
