"""What a checkpoint of others must not do, and what its damage is called; `tests/fuzz` damages files at random."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import adaptkit
from adaptkit.errors import AdaptkitError, ArgumentError, ModelError, PluginError
from adaptkit.files import writing
from adaptkit.files.loading import cause, load_stock, reading
from tests.fuzz.checkpoints import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    before = os.environ.get("ADAPTKIT_CACHE")
    yield World(tmp_path_factory.mktemp("damage"))
    os.environ.pop("ADAPTKIT_CACHE")
    os.environ.update({} if before is None else {"ADAPTKIT_CACHE": before})


@pytest.fixture
def workflow(world: World) -> Iterator[Path]:
    yield world.root / "adopted"
    world.restore()


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# -- a checkpoint is data --------------------------------------------------------------------------------------------

CODE = "open({!r}, 'w').close()\nclass Model: pass\n"
AUTO_MAP = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer"), "code.Model")


@pytest.mark.parametrize("place", ["adopted", "base", "adopted/encoders/image"])
def test_code_of_a_checkpoint_never_runs_and_nobody_is_asked(
    world: World, workflow: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = world.root / "ran"
    folder = world.root / place
    for name in ("code.py", "custom_generate/generate.py", "modeling_x.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(CODE.format(str(ran)))
    change(folder / "config.json", auto_map=AUTO_MAP, **({} if place == "adopted" else {"model_type": "unheard-of"}))
    for file in folder.glob("*_config.json"):
        change(file, auto_map={**AUTO_MAP, "AutoTokenizer": ["code.Model", None], "AutoProcessor": "code.Model"})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    if place == "adopted":
        tokenizer = adaptkit.load_processor(workflow).tokenizer
        adaptkit.load(workflow).generate(tokenizer("x", return_tensors="pt").input_ids, max_new_tokens=1)
    else:
        with pytest.raises(ModelError, match="trust_remote_code=True") as caught:
            adaptkit.load(workflow)
        assert str(folder) in str(caught.value)
    assert not ran.exists()


def test_code_of_a_tokenizer_is_refused_by_name(world: World, workflow: Path) -> None:
    change(world.root / "base/tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Model", None]},
           tokenizer_class="Unheard")  # fmt: skip
    change(world.root / "base/config.json", model_type="unheard-of")
    with pytest.raises(ModelError, match="trust_remote_code"):
        adaptkit.load_processor(workflow)


def test_kernels_of_the_hub_are_code(world: World, workflow: Path) -> None:
    change(world.root / "base/config.json", attn_implementation="somebody/kernels")
    with pytest.raises(ModelError, match="somebody/kernels"):
        adaptkit.load(workflow)


@pytest.mark.parametrize(
    "package", ["--target=elsewhere y 1.0", "git+ssh:elsewhere 1", "x;curl 1", "../x 1", "a b 1", "x[extra] 1", " 1"]
)
def test_only_names_of_distributions_become_advice(workflow: Path, package: str) -> None:
    change(workflow / "config.json", packages={"insertion policy unheard_of": package},
           insertion={"policy": "unheard_of", "placement": {"layers": [0]}})  # fmt: skip
    with pytest.raises(PluginError, match="unheard_of") as caught:
        adaptkit.load(workflow)
    assert "pip install" not in str(caught.value)
    assert package.rpartition(" ")[0] not in str(caught.value) or package == " 1"


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "..", "a/b.safetensors", "a\\b", "", 3, None])
def test_weights_stay_in_their_folder(workflow: Path, name: Any) -> None:
    index = workflow / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"projectors.image.weight": name}}))
    with pytest.raises(ModelError, match=r"index\.json"):
        adaptkit.load(workflow)


@pytest.mark.parametrize("name", ["../../../encoder", "/somewhere", "a/b", ".."])
def test_modalities_have_no_paths_for_names(workflow: Path, name: str) -> None:
    values = json.loads((workflow / "config.json").read_text())
    values["modalities"] = {name: values["modalities"]["image"]}
    (workflow / "config.json").write_text(json.dumps(values))
    with pytest.raises(AdaptkitError, match=r"config\.json"):
        adaptkit.load(workflow)


def test_torchs_advice_to_run_code_is_not_passed_on(tmp_path: Path) -> None:
    torch.save({"a": Path("x")}, tmp_path / "adapters.pth")
    with pytest.raises(ModelError, match=r"adapters\.pth") as caught, reading(tmp_path / "adapters.pth"):
        torch.load(tmp_path / "adapters.pth", weights_only=True)
    assert "weights_only" not in str(caught.value)
    assert "likely succeed" not in str(caught.value)
    assert "more than tensors" in cause(caught.value.__cause__ or caught.value)


def test_stop_strings_ask_for_no_code(world: World, workflow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(workflow / "generation_config.json", stop_strings=["never"])
    change(world.root / "base/tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Model", None]},
           tokenizer_class="Unheard")  # fmt: skip
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    model = adaptkit.load(workflow)
    with contextlib.suppress(AdaptkitError):  # refused, or read without the code
        model.generate(torch.tensor([[3, 5]]), max_new_tokens=1)


@pytest.mark.parametrize(
    ("file", "damage", "named"),
    [
        ("generation_config.json", {"eos_token_id": [[]]}, "eos_token_id"),
        ("generation_config.json", {"output_hidden_states": ["a"]}, "output_hidden_states"),
        ("generation_config.json", {"max_new_tokens": "12", "temperature": [1]}, r"max_new_tokens.*temperature"),
        ("processor_config.json", {"modalities": {}}, "modalities"),
        ("encoders/image/preprocessor_config.json", {"image_mean": 1.5}, "preprocessing"),
        ("encoders/image/preprocessor_config.json", {"crop_size": {"height": 32, "width": [1]}}, "preprocessing"),
    ],
)
def test_values_of_a_wrong_kind_are_named(
    world: World, workflow: Path, file: str, damage: dict[str, Any], named: str
) -> None:
    adaptkit.load_processor(workflow).save_pretrained(workflow)
    change(workflow / file, **damage)

    def use() -> None:
        adaptkit.load(workflow)
        adaptkit.load_processor(workflow)(text="<image>", images=[world.root / "0.png"])

    with pytest.raises(ModelError, match=named) as caught:
        use()
    assert str((workflow / file).parent) in str(caught.value)


def test_a_projector_is_looked_up_where_a_processor_names_it(workflow: Path) -> None:
    processor = adaptkit.load_processor(workflow)
    processor.save_pretrained(workflow)
    modalities = processor.to_dict()["modalities"]
    modalities["image"]["projector"] = {"name": "linaer"}
    change(workflow / "processor_config.json", modalities=modalities)
    with pytest.raises(PluginError, match=r"processor_config\.json.*linear"):
        adaptkit.load_processor(workflow)


def test_arguments_of_loading_are_told_from_damage(workflow: Path) -> None:
    with pytest.raises(ArgumentError, match="'typo'"):
        adaptkit.load(workflow, typo=1)


def test_a_full_disk_is_no_damage_of_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"), reading(tmp_path / "config.json"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_messages_name_no_staging(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught, writing.staged_together(tmp_path, ["x"]) as folder:
        raise ModelError(f"{folder / 'x'}: the tokenizer is another's")
    assert str(caught.value) == f"{tmp_path / 'x'}: the tokenizer is another's"


@pytest.mark.parametrize("layers", [10**400, 2**63, 1_000_000])
def test_numbers_without_end_are_refused(world: World, workflow: Path, layers: int) -> None:
    from transformers import AutoModelForCausalLM

    change(world.root / "base/config.json", num_hidden_layers=layers)
    with pytest.raises(ModelError, match=r"config\.json: num_hidden_layers"):
        load_stock(AutoModelForCausalLM, world.root / "base")
