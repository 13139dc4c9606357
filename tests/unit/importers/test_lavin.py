"""Adapter checkpoints of LaVIN, written under its names and imported again."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor

import adaptkit
from adaptkit.cli import cli
from adaptkit.importers import import_lavin
from adaptkit.importers.lavin import tensor_names
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer

FEATURES = {"feature_layers": [4], "tokens": "cls", "pad": "stretch", "normalization": "imagenet"}
PROMPT = [5, 6, 999, 7]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base` and `encoder`."""
    root = tmp_path_factory.mktemp("lavin")
    tiny_decoder("llama").save_pretrained(root / "base")
    tiny_tokenizer().save_pretrained(root / "base")
    tiny_clip_vision(num_hidden_layers=4).save_pretrained(root / "encoder")
    return root


def workflow(places: Path, **options: Any) -> Any:
    """What a checkpoint is made of: its adapters moved off their starting point."""
    from transformers import AutoModelForCausalLM

    image = {
        "encoder": {"name": "clip", "path": str(places / "encoder"), **FEATURES},
        "projector": {"name": "mlp_silu", "hidden_size": 12},
        "placeholder_id": 999,
    }
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(places / "base")
    model = adaptkit.adapt(base, {"image": image}, {"policy": "mma", **options})
    with torch.no_grad():
        for tensor in model.trainable_state_dict().values():
            tensor.add_(0.1 * torch.randn_like(tensor))
    return model


def under_their_names(model: Any, prefix: str = "") -> dict[str, Tensor]:
    own = model.trainable_state_dict()
    tensors = {theirs: own[ours].clone() for theirs, ours in tensor_names(model).items()}
    conv = {name for name in tensors if "adapter_proj" not in name and ".conv_" in name and name.endswith("weight")}
    return {prefix + name: value.unsqueeze(-1) if name in conv else value for name, value in tensors.items()}


@pytest.fixture(scope="module")
def tensors(places: Path) -> dict[str, Tensor]:
    """A checkpoint's tensors, by their names."""
    return under_their_names(workflow(places))


def logits_of(model: Any, placeholder_id: int = 999) -> Tensor:
    ids = torch.tensor([[placeholder_id if token == 999 else token for token in PROMPT]])
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, features={"image": pixels}).logits
    return logits


def as_safetensors(tensors: dict[str, Tensor], folder: Path) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "adapters.safetensors")
    return folder


def as_pth(tensors: dict[str, Tensor], folder: Path) -> Path:
    """As LaVIN's training script saves it, arguments and all."""
    folder.mkdir()
    arguments = argparse.Namespace(adapter_scale=0.7, temperature=5.0, llm_model="7B")
    content = {"model": tensors, "optimizer": {"state": {}}, "epoch": 19, "scaler": None, "args": arguments}
    torch.save(content, folder / "checkpoint-19.pth")
    return folder / "checkpoint-19.pth"


@pytest.mark.parametrize("before_ffn", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_imported_workflow_computes_the_same(places: Path, tmp_path: Path, before_ffn: bool, prefix: str) -> None:
    model = workflow(places, hidden_size=6, groups=1, before_ffn=before_ffn)
    source = as_safetensors(under_their_names(model, prefix), tmp_path / "source")
    imported = import_lavin(source, tmp_path / "out", places / "base", places / "encoder")
    assert imported.workflows == {"vision": tmp_path / "out" / "vision"}
    loaded = adaptkit.load(imported.workflows["vision"])
    insertion = loaded.config.insertion
    assert (insertion["hidden_size"], insertion["groups"], insertion["before_ffn"]) == (6, 1, before_ffn)
    assert (insertion["scale"], insertion["temperature"]) == (1.0, 10.0)
    placeholder_id = loaded.config.modalities["image"]["placeholder_id"]
    assert torch.equal(logits_of(loaded, placeholder_id), logits_of(model))


def test_a_pickled_checkpoint_brings_its_arguments(places: Path, tmp_path: Path) -> None:
    model = workflow(places, scale=0.7, temperature=5.0)
    source = as_pth(under_their_names(model, "module."), tmp_path / "source")
    imported = import_lavin(source, tmp_path / "out", places / "base", places / "encoder")
    loaded = adaptkit.load(imported.workflows["vision"])
    placeholder_id = loaded.config.modalities["image"]["placeholder_id"]
    assert torch.equal(logits_of(loaded, placeholder_id), logits_of(model))
    again = import_lavin(source, tmp_path / "again", places / "base", places / "encoder", temperature=1.0)
    assert adaptkit.load(again.workflows["vision"]).config.insertion["temperature"] == 1.0


def test_relative_places_are_found_from_any_directory(
    places: Path, tensors: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = as_safetensors(tensors, tmp_path / "source")
    monkeypatch.chdir(places)
    imported = import_lavin(source, tmp_path / "out", "base", "encoder")
    monkeypatch.chdir(tmp_path)
    assert adaptkit.load(imported.workflows["vision"]).base.name_or_path == str(places / "base")
    assert adaptkit.load_processor("out/vision").modalities


def test_the_processor_writes_lavins_prompts(places: Path, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    source = as_safetensors(tensors, tmp_path / "source")
    imported = import_lavin(source, tmp_path / "out", places / "base", places / "encoder")
    processor = adaptkit.load_processor(imported.workflows["vision"])
    messages = [{"role": "user", "content": [{"type": "text", "text": "Question: why?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == f"{processor.tokenizer.bos_token or ''}Question: why?\nResponse:"


def test_the_command_line(places: Path, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    source = as_safetensors(tensors, tmp_path / "source")
    arguments = ["import", "lavin", source, "--output", tmp_path / "out", "--base", places / "base"]
    result = CliRunner().invoke(cli, [str(a) for a in [*arguments, "--encoder", places / "encoder"]])
    assert result.exit_code == 0, result.output
    assert f"vision: {tmp_path / 'out' / 'vision'}" in result.output
    result = CliRunner().invoke(cli, [str(a) for a in [*arguments, "--encoder", places / "encoder"]])
    assert result.exit_code == 2
    assert "exists already" in result.output


class Runs:
    """What an attacker would pickle."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return print, ("code of the file runs",)


def test_code_in_a_pickled_checkpoint_never_runs(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": Runs()}, tmp_path / "checkpoint.pth")
    with pytest.raises(adaptkit.ModelError, match="holds more than tensors"):
        import_lavin(tmp_path, tmp_path / "out", places / "base", places / "encoder")
    assert "runs" not in capsys.readouterr().out


def without_router(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t for n, t in tensors.items() if not ("backbone" in n and ("conv_D" in n or "expert" in n))}


def with_stranger(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "layers.0.adapter_attn.gate": torch.zeros(1)}


def without_layer(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t for n, t in tensors.items() if not n.startswith("layers.2.")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {"x": torch.zeros(1)}, "adapter checkpoint of LaVIN.*it lacks adapter_modality_embedding"),
        (
            without_router,
            r"visual adapters are of the type 'normal' \(visual_adapter_type\); mma has those of the type",
        ),
        (with_stranger, "holds layers.0.adapter_attn.gate, which has no place"),
        (without_layer, "base has 3 layers of width 32; the checkpoint was trained on 2 of width 32"),
        (lambda t: {n: v for n, v in t.items() if n != "layers.1.adapter_attn.conv_B.bias"}, "lacks layers.1.adapter"),
    ],
)
def test_what_does_not_fit_is_refused(
    places: Path,
    tensors: dict[str, Tensor],
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    message: str,
) -> None:
    source = as_safetensors(change(tensors), tmp_path / "source")
    with pytest.raises(adaptkit.ModelError, match=message):
        import_lavin(source, tmp_path / "out", places / "base", places / "encoder")
    assert not (tmp_path / "out" / "vision").exists()


def test_another_base_is_refused(places: Path, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    source = as_safetensors(tensors, tmp_path / "source")
    tiny_decoder("llama", hidden_size=64).save_pretrained(tmp_path / "wide")
    with pytest.raises(adaptkit.ModelError, match=r"3 layers of width 64.*3 of width 32"):
        import_lavin(source, tmp_path / "out", tmp_path / "wide", places / "encoder")
    with pytest.raises(adaptkit.ModelError, match="base: there is no folder"):
        import_lavin(source, tmp_path / "out", tmp_path / "nowhere", places / "encoder")
    with pytest.raises(adaptkit.ModelError, match=r"\.safetensors or \.pth"):
        import_lavin(tmp_path / "wide" / "nothing", tmp_path / "out", places / "base", places / "encoder")
