"""Each contract check passes a sound plugin, and fails each broken one with the right words."""

from __future__ import annotations

import itertools
import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from adaptkit import Options, hookimpl
from adaptkit.errors import DataError, ModelError
from adaptkit.interfaces import Encoder, Modality, Preprocessor
from adaptkit.plugin_manager import PluginManager, get_plugin_manager
from adaptkit.testing import ContractError, check_encoder, check_modality, check_projector
from adaptkit.testing.plugins import select

WIDTH = 6
COUNTER = itertools.count()


class SeriesOptions(Options):
    path: str = "/"
    scale: float = 1.0


class Series(Modality):
    name, tag, plural = "series", "<series>", "series"

    def load(self, source: Any) -> Tensor:
        if isinstance(source, Tensor):
            return source
        if not isinstance(source, list) or not source:
            raise DataError(f"no series at {source}")
        return torch.tensor(source, dtype=torch.float32)

    def content_key(self, source: Any) -> str:
        return str(self.load(source).tolist())

    def to_html(self, item: Tensor) -> str:
        return f"<code>{item.tolist()}</code>"


class SeriesPreprocessor(Preprocessor):
    input_name = "values"
    fixed_positions = 3

    def __call__(self, item: Any) -> Tensor:
        if not isinstance(item, Tensor):
            raise DataError("a series must be loaded first")
        return item.reshape(3, 2)


class SeriesEncoder(Encoder):
    feature_size = WIDTH
    input_name = "values"

    def __init__(self, options: SeriesOptions) -> None:
        super().__init__()
        self.options = options
        self.linear = nn.Linear(2, WIDTH).requires_grad_(False)
        self.linear.weight.copy_(options.scale * torch.arange(2.0 * WIDTH).reshape(WIDTH, 2))
        nn.init.zeros_(self.linear.bias)
        self.requires_grad_(False).eval()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs) * torch.arange(1.0, 1.0 + WIDTH)

    def build_preprocessor(self) -> Preprocessor:
        return SeriesPreprocessor()

    def example_inputs(self) -> Tensor:
        return torch.zeros(1, 3, 2)

    def fingerprint(self) -> str:
        return f"{super().fingerprint()} {self.options.scale}"


class Parts:
    """A sound plugin; tests replace parts of it."""

    options: Any = SeriesOptions
    modality: Any = Series
    encoder: Any = SeriesEncoder
    preprocessor: Any = SeriesPreprocessor
    description = "Series."
    num_positions: Any = None

    @staticmethod
    def missing(options: SeriesOptions) -> str | None:
        return None if Path(options.path).is_dir() else f"nothing at {options.path}"

    @staticmethod
    def stand_in(options: SeriesOptions, directory: Path) -> SeriesOptions:
        directory.mkdir()
        return options.model_copy(update={"path": str(directory)})

    def build_encoder(self, options: SeriesOptions) -> Encoder:
        if not Path(options.path).is_dir():
            raise ModelError(f"nothing at {options.path}")
        return self.encoder(options)

    def build_projector(self, options: Options, feature_size: int, hidden_size: int, name: str) -> nn.Module:
        return nn.Linear(feature_size, hidden_size)


def manager_of(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> PluginManager:
    module: Any = types.ModuleType("series_plugin")

    @hookimpl
    def register_modalities(register: Any) -> None:
        register(name="series", build=lambda options: parts.modality(), description=parts.description)

    @hookimpl
    def register_encoders(register: Any) -> None:
        register(
            name="series",
            build=parts.build_encoder,
            options=parts.options,
            description=parts.description,
            build_preprocessor=lambda options: parts.preprocessor(),
            missing=parts.missing,
            stand_in=parts.stand_in,
        )

    @hookimpl
    def register_projectors(register: Any) -> None:
        extra = {"num_positions": parts.num_positions} if parts.num_positions else {}
        register(name="series", build=parts.build_projector, description=parts.description, **extra)

    for hook in (register_modalities, register_encoders, register_projectors):
        setattr(module, hook.__name__, hook)
    monkeypatch.setitem(sys.modules, "series_plugin", module)
    return PluginManager([EntryPoint("series", "series_plugin", "adaptkit")])


def check(kind: str, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = manager_of(parts, monkeypatch)
    assert not manager.broken
    if kind == "modality":
        check_modality("series", {}, [[1.0, 2.0], [3.0]], [[], "no/file"], manager=manager)
    elif kind == "encoder":
        item = torch.arange(6.0)
        check_encoder("series", {}, item, variants=[{"scale": 2.0}], manager=manager)
    else:
        check_projector("series", {}, manager=manager)


@pytest.mark.parametrize("kind", ["modality", "encoder", "projector"])
def test_a_sound_plugin_passes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(kind, Parts(), monkeypatch)


def parts_with(**replaced: Any) -> Parts:
    parts = Parts()
    for name, value in replaced.items():
        setattr(parts, name, value)
    return parts


def subclass(base: type, **members: Any) -> type:
    return type(f"Broken{base.__name__}", (base,), members)


class Unfrozen(SeriesEncoder):
    def __init__(self, options: SeriesOptions) -> None:
        super().__init__(options)
        self.linear.requires_grad_(True)


class InTraining(SeriesEncoder):
    def __init__(self, options: SeriesOptions) -> None:
        super().__init__(options)
        self.train()


class Unseeded(SeriesEncoder):
    def __init__(self, options: SeriesOptions) -> None:
        super().__init__(options)
        nn.init.normal_(self.linear.weight)


class Open(SeriesOptions):
    model_config = ConfigDict(extra="ignore")


class Restless(Options):
    path: str = "/"
    scale: float = 1.0
    items: object = ()


def noisy(self: Any, inputs: Tensor) -> Tensor:
    return SeriesEncoder.forward(self, inputs) + torch.rand(())


def mixing(self: Any, inputs: Tensor) -> Tensor:
    return SeriesEncoder.forward(self, inputs) + inputs.mean() * (len(inputs) > 1)


def choking(self: Any, source: Any) -> Tensor:
    return Series.load(self, source if source != b"" else source["first"])


def gullible(self: Any, source: Any) -> Tensor:
    return torch.zeros(1) if source == b"" else Series.load(self, source)


def vague(self: Any, source: Any) -> Tensor:
    if isinstance(source, str):
        raise DataError("bad series")
    return Series.load(self, source)


def mute(self: Any, source: Any) -> Tensor:
    if not isinstance(source, list | Tensor):
        raise DataError("")
    return Series.load(self, source)


MODALITIES: dict[str, dict[str, Any]] = {
    "calls itself 'other'": {"name": "other"},
    "empty tag": {"tag": ""},
    "the same for different sources": {"content_key": lambda self, source: "key"},
    "content_key changes": {"content_key": lambda self, source: str(next(COUNTER))},
    "links to nothing": {"to_html": lambda self, item: '<img src="https://example.org">'},
    "raises TypeError instead of DataError": {"load": choking},
    "is accepted; it must raise DataError": {"load": gullible},
    "does not name 'no/file'": {"load": vague},
    "says nothing": {"load": mute},
}


@pytest.mark.parametrize("words", MODALITIES)
def test_a_broken_modality_is_caught(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_with(modality=subclass(Series, **MODALITIES[words]))
    with pytest.raises(ContractError, match=words):
        check("modality", parts, monkeypatch)


ENCODERS: dict[str, dict[str, Any]] = {
    "without a description": {"description": " "},
    "unknown option of the encoder 'series' is accepted": {"options": Open},
    "options .* change when written": {"options": Restless},
    "feature_size says 5, but the encoder's features are 6 wide": {"encoder": subclass(SeriesEncoder, feature_size=5)},
    "num_positions says 4 for this item, but the encoder gives 3": {
        "preprocessor": subclass(SeriesPreprocessor, fixed_positions=4)
    },
    "num_positions and fixed_positions disagree": {
        "preprocessor": subclass(SeriesPreprocessor, fixed_positions=4, num_positions=lambda self, inputs: 3)
    },
    "call their input 'values' and 'pixel_values'": {"encoder": subclass(SeriesEncoder, input_name="pixel_values")},
    "parameters are trainable": {"encoder": Unfrozen},
    "in evaluation mode": {"encoder": InTraining},
    "is not deterministic": {"encoder": subclass(SeriesEncoder, forward=noisy)},
    "encoded otherwise than in a batch": {"encoder": subclass(SeriesEncoder, forward=mixing)},
    "built twice gives other features": {"encoder": Unseeded},
    "do not depend on the input": {
        "encoder": subclass(SeriesEncoder, forward=lambda self, inputs: torch.ones(len(inputs), 3, WIDTH))
    },
    "features must be finite": {
        "encoder": subclass(SeriesEncoder, forward=lambda self, inputs: torch.full((len(inputs), 3, WIDTH), torch.nan))
    },
    "make the same of the same item": {
        "preprocessor": subclass(SeriesPreprocessor, __call__=lambda self, item: torch.rand(3, 2))
    },
    "disagree": {
        "preprocessor": subclass(SeriesPreprocessor, __call__=lambda self, item: SeriesPreprocessor()(item) + 1)
    },
    "preprocessing of None raises AttributeError": {
        "preprocessor": subclass(SeriesPreprocessor, __call__=lambda self, item: item.reshape(3, 2))
    },
    r"fingerprint\(\) does not change": {"encoder": subclass(SeriesEncoder, fingerprint=lambda self: "same")},
    "has two fingerprints": {"encoder": subclass(SeriesEncoder, fingerprint=lambda self: str(next(COUNTER)))},
    r"missing\(\) reports": {"missing": lambda options: "all of it"},
    r"missing\(\) does not name": {"missing": lambda options: None},
    "a path that is not there is accepted": {"build_encoder": SeriesEncoder},
    "stand_in must return options": {"stand_in": lambda options, directory: {"path": "/"}},
}


@pytest.mark.parametrize("words", ENCODERS)
def test_a_broken_encoder_is_caught(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContractError, match=words):
        check("encoder", parts_with(**ENCODERS[words]), monkeypatch)


class Halving(nn.Linear):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features[..., ::2, :])


class Idle(nn.Linear):
    def __init__(self, feature_size: int, hidden_size: int) -> None:
        super().__init__(feature_size, hidden_size)
        self.idle = nn.Parameter(torch.ones(1))


class Dropping(nn.Linear):
    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(features), training=True)


class Averaging(nn.Linear):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) + features.mean()


class Detached(nn.Linear):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.detach())


class Forgetful(nn.Linear):
    def __init__(self, feature_size: int, hidden_size: int) -> None:
        super().__init__(feature_size, hidden_size)
        self.scale = torch.rand(())

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) * self.scale


PROJECTORS = {
    r"should give a tensor of shape \(2, 16, 20\), gave \(2, 8, 20\)": Halving,
    "no gradient reaches idle": Idle,
    "no gradient through to the features": Detached,
    "is not deterministic": Dropping,
    "projected otherwise than in a batch": Averaging,
    "does not hold all of it": Forgetful,
}


@pytest.mark.parametrize("words", PROJECTORS)
def test_a_broken_projector_is_caught(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = PROJECTORS[words]
    parts = parts_with(build_projector=lambda options, feature_size, hidden_size, name: kind(feature_size, hidden_size))
    with pytest.raises(ContractError, match=words):
        check("projector", parts, monkeypatch)


def test_a_projector_may_change_the_number_of_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_with(
        build_projector=lambda options, feature_size, hidden_size, name: Halving(feature_size, hidden_size),
        num_positions=lambda options, positions: (positions + 1) // 2,
    )
    check("projector", parts, monkeypatch)


def test_what_is_not_registered_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = manager_of(Parts(), monkeypatch)
    with pytest.raises(ContractError, match=r"no encoder named 'serie'\. Did you mean 'series'"):
        check_encoder("serie", {}, None, manager=manager)


def test_a_package_is_found_by_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by one that has the name of the package."""
    manager = get_plugin_manager()
    plugins = Path(__file__).parents[3] / "plugins"
    monkeypatch.chdir(plugins)
    assert select(manager, "adaptkit-image") == select(manager, str(plugins / "adaptkit-image"))
