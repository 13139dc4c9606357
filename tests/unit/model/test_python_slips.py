"""Slips of those who call adaptkit from Python: each is named, with its place and what to write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import CLIPVisionModel

import adaptkit
from adaptkit import surgery
from adaptkit.errors import AdaptkitError
from adaptkit.interfaces import Encoder
from adaptkit.testing import tiny_clip_vision, tiny_decoder

EVERY = {"every": 2}


class OwnEncoder(Encoder):
    """What a user may write for a modality that no plugin has."""

    feature_size = 8

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs

    def build_preprocessor(self) -> Any:
        raise NotImplementedError


@pytest.fixture(scope="module")
def base() -> Any:
    return tiny_decoder("llama", num_hidden_layers=2)


@pytest.fixture(scope="module")
def vision() -> Any:
    return tiny_clip_vision()


@pytest.fixture(scope="module")
def model(base: Any, vision: Any) -> Any:
    return adaptkit.adapt(base, {"image": {"encoder": vision}}, {"policy": "inner_adapter", "placement": EVERY})


MODALITIES = {
    "none": (None, ["modalities", "NoneType"]),
    "a list": ([], ["modalities", "list", '"encoder"']),
    "an encoder": ("VISION", ["modalities", "CLIPVisionModel"]),
    "an encoder as the spec": ({"image": "VISION"}, ["modality 'image'", '{"encoder": ...', "CLIPVisionModel"]),
    "a misspelt modality": ({"images": {"encoder": "VISION"}}, ["'images'", "Did you mean 'image'"]),
    "a misspelt modality of an own encoder": ({"imgae": {"encoder": OwnEncoder()}}, ["'imgae'", "'image'"]),
    "an unknown modality of a plugin's encoder": (
        {"view": {"encoder": {"name": "clip", "path": "world:encoder"}}},
        ["'view'", '"type"', "image"],
    ),
    "an unknown type": ({"view": {"encoder": "VISION", "type": "imag"}}, ["'imag'", "'image'"]),
    "a number for a name": ({3: {"encoder": "VISION"}}, ["modality 3", "name"]),
    "an unknown key": ({"image": {"encoder": "VISION", "projektor": "linear"}}, ["'projektor'", "'projector'"]),
    "no encoder": ({"image": {"projector": "linear"}}, ["modality 'image'", "encoder is missing"]),
    "a list for an encoder": ({"image": {"encoder": ["clip"]}}, ["modality 'image'", "encoder", "list", '"name"']),
    "a class for an encoder": ({"image": {"encoder": CLIPVisionModel}}, ["class CLIPVisionModel, not an instance"]),
    "a bare name that needs options": ({"image": {"encoder": "clip"}}, ["modality 'image'", "'clip'", "path"]),
    "a misspelt encoder": ({"image": {"encoder": {"name": "clpi"}}}, ["modality 'image'", "'clpi'", "'clip'"]),
    "a number for an encoder's name": ({"image": {"encoder": {"name": 5}}}, ["encoder", "name", "int"]),
    "options that nothing reads": (
        {"image": {"encoder": OwnEncoder(), "encoder_options": {"feature_layer": -2}}},
        ["modality 'image'", "encoder_options"],
    ),
    "a number for a projector": ({"image": {"encoder": "VISION", "projector": 5}}, ["projector", "int", '"name"']),
    "a misspelt projector": ({"image": {"encoder": "VISION", "projector": "liner"}}, ["'liner'", "'linear'"]),
    "an option of a projector": (
        {"image": {"encoder": "VISION", "projector": {"name": "linear", "bais": True}}},
        ["modality 'image'", "'bais'"],
    ),
    "a text for an id": ({"image": {"encoder": "VISION", "placeholder_id": "<image>"}}, ["placeholder_id", "str"]),
    "a fraction for an id": ({"image": {"encoder": "VISION", "placeholder_id": 3.5}}, ["placeholder_id", "float"]),
    "an id for a text": ({"image": {"encoder": "VISION", "placeholder": 3}}, ["placeholder", "string", "int"]),
}
INSERTIONS = {
    "a bare name": ("inner_adapter", ["'inner_adapter'", "placement", '{"every": 4}']),
    "a misspelt bare name": ("iner_adapter", ["insertion", "'iner_adapter'", "'inner_adapter'"]),
    "a list": (["inner_adapter"], ["insertion", "list", '"policy"']),
    "no policy": ({"placement": EVERY}, ["insertion", "policy", "inner_adapter"]),
    "a number for a policy": ({"policy": 3}, ["insertion policy", "name", "int"]),
    "a misspelt key": ({"policy": "inner_adapter", "placment": EVERY}, ["'placment'", "'placement'"]),
    "a number for a placement": ({"policy": "inner_adapter", "placement": 4}, ["placement 4", "{every: 4}", "last"]),
    "a list for a placement": ({"policy": "inner_adapter", "placement": [0, 1]}, ["{layers: [0, 1]}"]),
    "a text for a placement": ({"policy": "inner_adapter", "placement": "all"}, ["placement 'all'", "{every: 4}"]),
    "a misspelt placement": ({"policy": "inner_adapter", "placement": {"evry": 2}}, ["'evry'", "'every'"]),
    "a text for a layer": ({"policy": "inner_adapter", "placement": {"layers": "0,1"}}, ["placement", "list"]),
}


@pytest.mark.parametrize("slip", MODALITIES)
def test_a_slip_in_modalities_is_named(base: Any, vision: Any, slip: str) -> None:
    given, words = MODALITIES[slip]
    given = _with(given, vision)
    with pytest.raises(AdaptkitError) as caught:
        adaptkit.adapt(base, given)
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)


def _with(given: Any, vision: Any) -> Any:
    if isinstance(given, dict):
        return {key: _with(value, vision) for key, value in given.items()}
    return vision if isinstance(given, str) and given == "VISION" else given


@pytest.mark.parametrize("slip", INSERTIONS)
def test_a_slip_in_the_insertion_is_named(base: Any, slip: str) -> None:
    given, words = INSERTIONS[slip]
    with pytest.raises(AdaptkitError) as caught:
        adaptkit.adapt(base, {}, given)
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)


def test_names_of_ones_own_are_fine_where_nothing_reads_files(base: Any) -> None:
    model = adaptkit.adapt(base, {"lidar": {"encoder": OwnEncoder()}}, "projector_only")
    assert list(model.encoders) == ["lidar"]
    named = adaptkit.adapt(base, {"images": {"encoder": OwnEncoder(), "type": None}})
    assert list(named.encoders) == ["images"]


def test_a_modality_may_have_another_name_than_its_type(base: Any, vision: Any) -> None:
    model = adaptkit.adapt(base, {"left_camera": {"encoder": vision, "type": "image"}})
    assert model.config.modalities["left_camera"]["type"] == "image"


def test_one_part_may_be_named_alone(model: Any) -> None:
    model.set_trainable("projector")
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"projectors"}


CALLS: dict[str, tuple[Any, list[str]]] = {
    "set_trainable of a misspelt part": (lambda m: m.set_trainable("projektor"), ["'projektor'", "'projector'"]),
    "set_trainable of a number": (lambda m: m.set_trainable(3), ["parts", "projector", "int"]),
    "a base by its path": (lambda m: adaptkit.adapt("gpt2", {}), ["base", "str", "from_pretrained"]),
    "replace_ends as a text": (lambda m: adaptkit.adapt(m.base, {}, None, "yes"), ["replace_ends", "True or False"]),
    "replace_ends as a number": (lambda m: adaptkit.adapt(m.base, {}, None, 1), ["replace_ends", "int"]),
    "a workflow as a base": (lambda m: adaptkit.adapt(m, {}), ["already", "workflow.base"]),
    "load of a dtype that is none": (lambda m: adaptkit.load(".", dtype="flaot16"), ["'flaot16'", "'float16'"]),
    "load without a folder": (lambda m: adaptkit.load(None), ["directory", "NoneType"]),
    "load of a number": (lambda m: adaptkit.load(5), ["directory", "int"]),
    "load onto a path": (lambda m: adaptkit.load(".", base="gpt2"), ["base", "str"]),
    "load with a list of encoders": (lambda m: adaptkit.load(".", encoders=[]), ["encoders", "list"]),
    "load_processor of a model": (lambda m: adaptkit.load_processor(m), ["directory", "path"]),
    "structural_copy of a text": (lambda m: surgery.structural_copy("x"), ["module", "str"]),
    "trainable_copy of nothing": (lambda m: surgery.trainable_copy(None), ["module", "NoneType"]),
    "own_parameters of a class": (lambda m: surgery.own_parameters(nn.Linear), ["the class Linear"]),
    "attention_of a list": (lambda m: surgery.attention_of([]), ["layer", "list"]),
    "mlp_of a number": (lambda m: surgery.mlp_of(3), ["layer", "int"]),
    "attention_blocks of a text": (lambda m: surgery.attention_blocks("x"), ["encoder", "str"]),
    "a Decoder of a layer": (lambda m: surgery.Decoder(nn.Linear(2, 2)), ["causal LM", "Linear"]),  # type: ignore[arg-type]
    "locate_decoder of a path": (lambda m: surgery.locate_decoder("gpt2"), ["module", "str"]),
    "decoder_layers of a path": (lambda m: surgery.decoder_layers("gpt2"), ["causal LM", "str"]),
    "check_forward of a path": (lambda m: surgery.check_forward("gpt2"), ["causal LM", "str"]),
    "max_positions of a path": (lambda m: surgery.max_positions("gpt2"), ["decoder", "str"]),
    "quantization_of a path": (lambda m: surgery.quantization_of("gpt2"), ["model", "str"]),
    "resolve_placement of a number": (lambda m: surgery.resolve_placement(4, 8), ["{every: 4}"]),
    "resolve_placement in no layers": (lambda m: surgery.resolve_placement(EVERY, "8"), ["num_layers", "str"]),
    "copies after a number": (lambda m: _decoder(m).insert_copies_after(1), ["layers", "list", "int"]),
    "copies after a layer that is not there": (lambda m: _decoder(m).insert_copies_after([7]), ["layer 7", "0 to 1"]),
    "marks of a negative layer": (lambda m: _decoder(m).mark_layers([-1], "adapted"), ["layer -1", "0 to 1"]),
    "copies after an array": (lambda m: _decoder(m).insert_copies_after(np.array([1.0])), ["layers"]),
}


def _decoder(model: Any) -> surgery.Decoder:
    return surgery.Decoder(surgery.structural_copy(model.base))


@pytest.mark.parametrize("slip", CALLS)
def test_a_slip_in_a_call_is_named(model: Any, slip: str) -> None:
    call, words = CALLS[slip]
    with pytest.raises(AdaptkitError) as caught:
        call(model)
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)
