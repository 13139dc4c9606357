"""Encoded features are what is passed as such: no shape of raw inputs is taken for them."""

import pickle

import pytest
import torch
from accelerate.utils import send_to_device
from torch import nn
from torch.distributed.utils import _to_kwargs
from torch.utils.data import DataLoader

import adaptkit
from adaptkit import EncodedFeatures
from adaptkit.errors import DataError, ModelError
from adaptkit.interfaces import Encoder
from adaptkit.testing import tiny_clip_vision, tiny_decoder
from tests.unit.model.conftest import PLACEHOLDER_ID, batch_of, build

WIDTH = 6


class SeriesEncoder(Encoder):
    """Running means of a series `(steps, channels)`: the features are as wide as the inputs, of whichever length."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_size = WIDTH
        self.scale = nn.Parameter(torch.full((WIDTH,), 2.0))

    def forward(self, inputs):
        if isinstance(inputs, list):
            return [self.forward(item) for item in inputs]
        return inputs.cumsum(-2) * self.scale + 1

    def build_preprocessor(self):
        raise NotImplementedError


def model_of(encoder):
    return adaptkit.adapt(
        tiny_decoder("llama"),
        {"thing": {"encoder": encoder, "projector": "linear", "placeholder_id": PLACEHOLDER_ID}},
    )


@torch.no_grad()
def logits(model, num_positions, given):
    ids = torch.tensor([[5, *[PLACEHOLDER_ID] * num_positions, 6, 7]])
    return model(input_ids=ids, features={"thing": given}).logits


def series(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("as_list", [True, False])
def test_pictures_as_wide_as_the_features_are_raw(as_list):
    model = model_of(tiny_clip_vision())
    pictures = torch.randn(2, 3, 32, 32)
    assert model.encoders["thing"].feature_size == 32
    features = model.encode("thing", pictures)
    expected = logits(model, 32, EncodedFeatures(list(features) if as_list else features))
    assert torch.equal(logits(model, 32, pictures), expected)
    # The encoder of one picture at a time rounds otherwise
    torch.testing.assert_close(logits(model, 32, list(pictures)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lengths", [(3,), (3, 3), (3, 5)])
def test_series_with_as_many_channels_as_features_are_wide(lengths):
    model = model_of(SeriesEncoder())
    raw = series(*((length, WIDTH) for length in lengths))
    if len(set(lengths)) == 1:
        raw = torch.stack(raw)
    features = model.encode("thing", raw)
    assert torch.equal(logits(model, sum(lengths), raw), logits(model, sum(lengths), EncodedFeatures(features)))
    taken = logits(model, sum(lengths), EncodedFeatures(raw))
    assert not torch.equal(logits(model, sum(lengths), raw), taken)


def test_a_tensor_of_two_dimensions_is_one_item():
    model = model_of(SeriesEncoder())
    (features,) = series((3, WIDTH))
    assert len(EncodedFeatures(features)) == 1
    assert torch.equal(
        logits(model, 3, EncodedFeatures(features)), logits(model, 3, EncodedFeatures(features.unsqueeze(0)))
    )


@pytest.mark.parametrize("num_beams", [1, 2])
def test_generation_takes_encoded_features(num_beams):
    _, model = build("llama")
    batch = batch_of(model, padding_side="left")
    encoded = {**batch.inputs, "features": {"image": EncodedFeatures(model.encode("image", batch.pixel_values))}}
    expected = model.generate(**batch.inputs, max_new_tokens=4, num_beams=num_beams)
    assert torch.equal(model.generate(**encoded, max_new_tokens=4, num_beams=num_beams), expected)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.zeros(3), r"got shape \(3,\)"),
        (torch.zeros(1, 2, 3, 4), r"got shape \(1, 2, 3, 4\)"),
        ([torch.zeros(2, 3), torch.zeros(1, 2, 3)], r"got shape \(1, 2, 3\)"),
        ([1, 2], "got int"),
        ([], "one or more"),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], r"one width; these are \[3, 4\] wide"),
        (torch.zeros(1, 2, 3, dtype=torch.long), "floats.*int64"),
        ("features", "a list of tensors"),
    ],
)
def test_other_shapes_are_refused(given, words):
    with pytest.raises(DataError, match=words):
        EncodedFeatures(given)


def test_features_of_another_width_name_both_widths():
    model = model_of(SeriesEncoder())
    with pytest.raises(DataError, match=r"'thing' are 4 wide.*of width 6"):
        logits(model, 3, EncodedFeatures(torch.zeros(1, 3, 4)))


def test_no_features_have_a_width():
    features = EncodedFeatures(torch.zeros(0, 3, WIDTH))
    assert (len(features), features.feature_size) == (0, WIDTH)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.zeros(1, 3, WIDTH).numpy(), "'thing': a tensor, or a list of tensors is needed; got ndarray"),
        ([EncodedFeatures(torch.zeros(1, 3, WIDTH))], "'thing', an item: a tensor is needed; got EncodedFeatures"),
        ([], "'thing': the list is empty"),
    ],
)
def test_raw_inputs_are_tensors(given, words):
    model = model_of(SeriesEncoder())
    with pytest.raises(DataError, match=words):
        logits(model, 3, given)
    with pytest.raises(DataError, match=words):
        model.encode("thing", given)


def test_a_tuple_of_raw_inputs_is_a_list():
    model = model_of(SeriesEncoder())
    raw = series((3, WIDTH), (2, WIDTH))
    assert torch.equal(logits(model, 5, tuple(raw)), logits(model, 5, raw))


def test_features_are_named_by_modality_and_given_once():
    model = model_of(tiny_clip_vision())
    ids, pictures = torch.tensor([[5, *[PLACEHOLDER_ID] * 16]]), torch.zeros(1, 3, 32, 32)
    with pytest.raises(DataError, match=r"features.*got Tensor"):
        model(input_ids=ids, features=pictures)
    for call in (model, model.generate):
        with pytest.raises(DataError, match=r"'thing' is given twice.*pixel_values="):
            call(input_ids=ids, features={"thing": pictures}, pixel_values=pictures)


@pytest.mark.parametrize("width", [31, 33, 64])
def test_a_projector_as_wide_as_the_embeddings_is_needed(width):
    modality = {"encoder": SeriesEncoder(), "projector": nn.Linear(WIDTH, width), "placeholder_id": PLACEHOLDER_ID}
    model = adaptkit.adapt(tiny_decoder("llama"), {"thing": modality})
    with pytest.raises(ModelError, match=f"projector of 'thing'.*{width} wide.*32 wide"):
        logits(model, 3, torch.zeros(1, 3, WIDTH))


@pytest.mark.parametrize("name", ["text", "a.b", "keys"])
def test_names_that_cannot_be_a_modality_are_refused(name):
    with pytest.raises(ModelError, match=f"modality '{name}': its name"):
        adaptkit.adapt(tiny_decoder("llama"), {name: {"encoder": SeriesEncoder(), "projector": "linear"}})


def test_features_given_as_raw_inputs_are_told_how_to_be_passed():
    model = model_of(tiny_clip_vision())
    with pytest.raises(DataError, match=r"'thing' does not take inputs of shape \(2, 16, 32\).*EncodedFeatures"):
        logits(model, 32, model.encode("thing", torch.zeros(2, 3, 32, 32)))


@pytest.mark.parametrize("items", [torch.ones(2, 3, WIDTH), [torch.ones(3, WIDTH), torch.ones(5, WIDTH)]])
def test_devices_and_processes_pass_them_on(items):
    features = EncodedFeatures(items)
    batch = {"input_ids": torch.zeros(1, 2), "features": {"thing": features}}
    moved = send_to_device(batch, torch.device("meta"), non_blocking=True)["features"]["thing"]
    assert all(item.device.type == "meta" for item in moved.items)
    assert all(item.dtype == torch.bfloat16 for item in features.to(torch.bfloat16).items)
    _, (kwargs,) = _to_kwargs((), batch, torch.device("cpu"), False)
    from_worker = next(iter(DataLoader([batch], batch_size=None, num_workers=1)))
    copies = pickle.loads(pickle.dumps(features)), kwargs["features"]["thing"], from_worker["features"]["thing"]
    for copy in copies:
        assert isinstance(copy, EncodedFeatures)
        assert isinstance(copy.items, torch.Tensor) == isinstance(items, torch.Tensor)
        assert all(torch.equal(one, other) for one, other in zip(copy.items, items, strict=True))
