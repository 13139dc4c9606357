"""Checks of an encoder, its preprocessor and its stand-in."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptkit.errors import DataError
from adaptkit.hookspecs import EncoderComponent
from adaptkit.interfaces import Encoder, Preprocessor
from adaptkit.plugin_manager import PluginManager
from adaptkit.testing.checks import Check, enforce
from adaptkit.testing.components import ComponentChecks
from adaptkit.testing.examples import Example
from adaptkit.testing.fingerprints import check_fingerprint, check_variants
from adaptkit.testing.requirements import ContractError, brief, require, require_refused
from adaptkit.testing.tensors import all_equal, require_close, require_shape
from adaptkit.testing.workflows import check_encoder_in_workflow

_NEEDED = ("build_preprocessor", "stand_in", "missing")
_NO_GRADIENT = "features of a frozen encoder carry no gradient"


def check_encoder(
    name: str,
    options: Mapping[str, Any],
    item: Any,
    *,
    other_items: Sequence[Any] = (),
    bad_items: Sequence[Any] = (),
    variants: Sequence[Mapping[str, Any]] = (),
    manager: PluginManager | None = None,
) -> None:
    """Check an encoder, its preprocessor and its stand-in, alone and in a small workflow.

    Args:
        name: What recipes call it.
        options: Valid options, of a checkpoint that is on this machine.
        item: One item, as its modality loads it.
        other_items: Further ones; of other sizes, where sizes may differ.
        bad_items: What preprocessing must refuse, beside objects of other types.
        variants: Further valid options, under which features differ: so must the fingerprint.
        manager: As in `check_component`.

    Raises:
        ContractError: It breaks its contract.
    """
    example = Example(options, [item, *other_items], bad_items, variants)
    enforce(EncoderChecks("encoder", name, example, manager).checks())


class EncoderChecks(ComponentChecks[EncoderComponent]):
    """The contract of one encoder."""

    def checks(self) -> Iterator[Check]:
        yield from super().checks()
        yield Check("no network", self._no_network, essential=True)
        yield from self.checks_of_built()
        yield Check("names what is missing", lambda: self.missing_path(self.component.build))
        yield Check("fingerprint follows options", self._fingerprint_follows)
        yield Check("stand-in", self._stand_in)

    def checks_of_built(self) -> Iterator[Check]:
        """Those that the stand-in must pass, too."""
        yield Check("builds", self._builds, essential=True)
        yield Check("preprocessing", self._preprocessing, essential=True)
        yield Check("refuses bad items", self._bad_items)
        yield Check("frozen", self._frozen)
        yield Check("shapes and dtypes", self._shapes, essential=True)
        yield Check("determinism", self._determinism)
        yield Check("batch = single", self._batches)
        yield Check("example inputs", self._example_inputs)
        yield Check("built twice", self._built_twice)
        yield Check("gradient, save and load", self._workflow)

    @cached_property
    def encoder(self) -> Encoder:
        built: Encoder = self.component.build(self.options)
        return built

    @cached_property
    def preprocessor(self) -> Preprocessor:
        assert self.component.build_preprocessor is not None, "the first check asks for it"
        built: Preprocessor = self.component.build_preprocessor(self.options)
        return built

    @cached_property
    def inputs(self) -> list[Tensor]:
        return [self.preprocessor(item) for item in self.example.items]

    @cached_property
    def features(self) -> list[Tensor]:
        """Of each item, encoded alone."""
        return [self._encode([inputs])[0] for inputs in self.inputs]

    def _encode(self, inputs: Sequence[Tensor], encoder: Encoder | None = None) -> list[Tensor]:
        return list((encoder or self.encoder)(self.preprocessor.collate(inputs)))

    def registration(self) -> None:
        super().registration()
        for needed in _NEEDED:
            require(self.component.gives(needed), f"the encoder {self.name!r} registers no {needed}")

    def _no_network(self) -> None:
        with self.without_network("building or running"):
            encoder, preprocessor = self.component.build(self.options), self.preprocessor
            encoder(preprocessor.collate([preprocessor(self.example.items[0])]))

    def _builds(self) -> None:
        missing = self.component.missing(self.options)
        require(missing is None, f"missing() reports {missing!r} for a checkpoint that is here")
        sound = isinstance(self.preprocessor, Preprocessor)
        require(sound, "build_preprocessor builds no adaptkit.interfaces.Preprocessor")
        require(isinstance(self.encoder, Encoder), "build builds no adaptkit.interfaces.Encoder")
        names = (self.preprocessor.input_name, self.encoder.input_name)
        require(names[0] == names[1], f"preprocessor and encoder call their input {names[0]!r} and {names[1]!r}")

    def _preprocessing(self) -> None:
        own = self.encoder.build_preprocessor()
        for item in self.example.items:
            inputs = self.preprocessor(item)
            require(isinstance(inputs, Tensor), "a preprocessor must return a tensor")
            require(inputs.is_floating_point(), f"a preprocessor must return floats, got {inputs.dtype}")
            require(bool(inputs.isfinite().all()), "a preprocessor must return finite values")
            again = self.preprocessor(item)
            require(torch.equal(inputs, again), "a preprocessor must make the same of the same item")
            agree = torch.equal(inputs, own(item))
            require(agree, "encoder.build_preprocessor() and build_preprocessor(options) disagree")

    def _bad_items(self) -> None:
        for wrong in (None, object(), 3, *self.example.bad_items):
            require_refused(
                lambda wrong=wrong: self.preprocessor(wrong),  # type: ignore[misc]
                DataError,
                f"preprocessing of {brief(wrong)}",
            )

    def _frozen(self) -> None:
        trainable = [name for name, parameter in self.encoder.named_parameters() if parameter.requires_grad]
        require(not trainable, f"an encoder is frozen, but {len(trainable)} parameters are trainable: {trainable[:1]}")
        require(not any(m.training for m in self.encoder.modules()), "an encoder is built in evaluation mode")

    def _shapes(self) -> None:
        fixed = self.preprocessor.fixed_positions
        before = [inputs.clone() for inputs in self.inputs]
        for inputs, features in zip(self.inputs, self.features, strict=True):
            positions, width = self.preprocessor.num_positions(inputs), self.encoder.feature_size
            _require_features(features, positions, width)
            agree = fixed in (None, positions)
            require(agree, f"num_positions and fixed_positions disagree: {positions} and {fixed}")
            require(not features.requires_grad, _NO_GRADIENT)
        require(all_equal(before, self.inputs), "the encoder changes its inputs in place")

    def _determinism(self) -> None:
        again = [self._encode([inputs])[0] for inputs in self.inputs]
        require(all_equal(again, self.features), "the encoder is not deterministic")

    def _batches(self) -> None:
        flipped = self.inputs[0].flip(-1).flip(0)
        alone = [*zip(self.inputs, self.features, strict=True), (flipped, self._encode([flipped])[0])]
        for pairs in ([alone[0], alone[-1]], alone):
            together = self._encode_together([inputs for inputs, _ in pairs])
            require(not any(found.requires_grad for found in together), _NO_GRADIENT)
            for found, (_, expected) in zip(together, pairs, strict=True):
                require_close(found, expected, "one item alone is encoded otherwise than in a batch")
            backwards = self._encode([inputs for inputs, _ in reversed(pairs)])
            for found, (_, expected) in zip(reversed(backwards), pairs, strict=True):
                require_close(found, expected, "an item's features depend on its neighbours")
        if not torch.equal(flipped, self.inputs[0]):
            require(not torch.equal(alone[0][1], alone[-1][1]), "features do not depend on the input")

    def _encode_together(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        try:
            return self._encode(inputs)
        except Exception as error:
            if not isinstance(self.preprocessor.collate(inputs), list):
                raise
            raise ContractError(
                "items of different sizes reach the encoder as a list, which it does not take: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _example_inputs(self) -> None:
        inputs = self.encoder.example_inputs()
        name = type(self.encoder).__name__
        require(inputs is not None, f"{name} gives no example_inputs, which training on several devices needs")
        is_one = isinstance(inputs, Tensor) and inputs.ndim > 1 and inputs.shape[0] == 1
        require(is_one, f"example_inputs must give a tensor (1, ...), gave {brief(getattr(inputs, 'shape', inputs))}")
        features = next(iter(self.encoder(inputs)))
        require(features.ndim == 2 and len(features) > 0, "example_inputs give no features (positions, feature_size)")
        _require_features(features, len(features), self.encoder.feature_size)

    def _built_twice(self) -> None:
        again = self.component.build(self.options)
        same = all_equal(self._encode(self.inputs[:1], again), self.features[:1])
        require(same, "an encoder built twice gives other features")
        check_fingerprint(self.encoder, again)

    def _workflow(self) -> None:
        check_encoder_in_workflow(self.name, self.options, self.encoder, self.preprocessor, self.inputs, self.manager)

    def _fingerprint_follows(self) -> None:
        example = self.example
        check_variants(self.component, self.options, self.encoder, example.items[0], example.variants)

    def _stand_in(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            assert self.component.stand_in is not None, "the first check asks for it"
            options = self.component.stand_in(self.options, Path(directory) / "stand_in")
            enforce(self.of_stand_in(options, self.example.items).checks_of_built())


def _require_features(features: Any, positions: int, width: int) -> None:
    """Features of one item must have the number of positions and the width that were declared."""
    if isinstance(features, Tensor) and features.ndim == 2:
        found = features.shape
        require(found[1] == width, f"feature_size says {width}, but the encoder's features are {found[1]} wide")
        words = f"num_positions says {positions} for this item, but the encoder gives {found[0]} positions"
        require(found[0] == positions, words)
    require_shape(features, (positions, width), "the encoder, by num_positions and feature_size,")
    require(features.is_floating_point(), f"features must be floats, got {features.dtype}")
    require(bool(features.isfinite().all()), "features must be finite")
