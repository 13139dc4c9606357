"""Checkpoints of encoders that are not there, not whole, or of another architecture: named, with what to do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from torch import nn

from adaptkit.errors import ModelError
from adaptkit.files.checkpoints import (
    advice_for,
    fetch,
    find_checkpoint,
    find_weights,
    has_processor,
    load_part,
    missing_checkpoint,
)
from adaptkit.testing import tiny_clip_vision

MODEL_ID = "openai/no-such-model"
ADVICE = advice_for("a test model")


def missing(path: str) -> str | None:
    return missing_checkpoint(find_checkpoint(path, ADVICE), path, None, ADVICE)


@pytest.mark.parametrize("path", ["/no/such/folder", "./no-such", "~/no-such", "no/such/deep/folder", "C:\\clip"])
def test_a_path_that_is_not_there_is_named(path: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_checkpoint(path, ADVICE)
    assert path in str(caught.value)
    assert ADVICE in str(caught.value)


def test_a_model_id_that_is_not_here_is_named_offline() -> None:
    report = str(missing(MODEL_ID))
    assert repr(MODEL_ID) in report
    assert "HF_HUB_OFFLINE" in report
    assert ADVICE in report
    with pytest.raises(ModelError, match=MODEL_ID):
        fetch(MODEL_ID, "config.json", ADVICE)


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: Any, *args: Any, timeout: float, **kwargs: Any) -> None:
        assert timeout <= 10
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    assert "ConnectionError" in str(missing(MODEL_ID))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **kwargs: None)
    assert missing(MODEL_ID) is None


def test_a_folder_lacks_config_weights_or_nothing(tmp_path: Path) -> None:
    tiny_clip_vision().save_pretrained(tmp_path)
    assert missing(str(tmp_path)) is None
    assert not has_processor(tmp_path, None, ADVICE)
    with pytest.raises(ModelError, match="is a file"):
        find_checkpoint(str(tmp_path / "config.json"), ADVICE)
    assert find_weights(tmp_path, ["config.json"], ADVICE).name == "config.json"
    assert find_weights(tmp_path, ["other.bin"], ADVICE).name == "model.safetensors"
    shutil.move(tmp_path / "model.safetensors", tmp_path / "model.bin")
    assert "pickled" in str(missing(str(tmp_path)))
    assert find_weights(tmp_path, [], ADVICE).name == "model.bin"
    (tmp_path / "model.bin").unlink()
    with pytest.raises(ModelError, match="no weights"):
        find_weights(tmp_path, [], ADVICE)


def test_a_part_is_loaded_whole_or_not_at_all() -> None:
    module, file = nn.Linear(2, 2), Path("weights.pt")
    state = dict(nn.Linear(2, 2).state_dict())
    load_part(module, {**state, "unused": state["bias"]}, file, "part")
    assert module.bias.equal(state["bias"])
    with pytest.raises(ModelError, match=r"weights\.pt lacks 1 of the part's tensors, bias"):
        load_part(module, {"weight": state["weight"]}, file, "part")
    with pytest.raises(ModelError, match=r"weights\.pt is of another architecture"):
        load_part(module, dict(nn.Linear(2, 3).state_dict()), file, "part")
