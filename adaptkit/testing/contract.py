"""Checks of the contracts in `adaptkit.interfaces` and `adaptkit.hookspecs`, for any installed plugin."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.errors import AdaptkitError, DataError, PluginError
from adaptkit.hookspecs import Component, Options
from adaptkit.interfaces import Encoder, Modality, Preprocessor
from adaptkit.plugin_manager import PluginManager, get_plugin_manager

# Sums in a batched product are taken in another order; half precisions keep 8 to 11 bits of each
_TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-8, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_NOWHERE = "no-such-folder/no-such-item"


class ContractError(AssertionError):
    """A plugin breaks its contract; the message says which sentence of it."""


def check_component(
    kind: str, name: str, options: Mapping[str, Any], *, manager: PluginManager | None = None
) -> tuple[Component, Options]:
    """Check that something is registered, and that its options are typed and closed.

    Args:
        kind: One of `adaptkit.hookspecs.KINDS`.
        name: What recipes call it.
        options: Valid options.
        manager: Where to look it up; all installed plugins by default.

    Returns:
        The component and its validated options.

    Raises:
        ContractError: It breaks its contract.
    """
    manager = manager or get_plugin_manager()
    try:
        component = manager.get(kind, name)
        validated = manager.options(kind, name, options)
    except PluginError as error:
        raise ContractError(str(error)) from error
    _require(bool(component.description.strip()), f"the {kind} {name!r} is registered without a description")
    _refused(
        lambda: manager.options(kind, name, {**options, "no_such_option": 1}),
        PluginError,
        f"an unknown option of the {kind} {name!r}",
        naming="no_such_option",
    )
    rebuilt = component.options.model_validate(validated.model_dump(mode="json"))
    _require(rebuilt == validated, f"options of the {kind} {name!r} change when written to a file and read again")
    component.options.model_json_schema()
    return component, validated


def check_modality(
    name: str,
    options: Mapping[str, Any],
    sources: Sequence[Any],
    bad_sources: Sequence[Any] = (),
    *,
    manager: PluginManager | None = None,
) -> None:
    """Check reading, hashing and showing of one kind of input.

    Args:
        name: What recipes call it.
        options: Valid options.
        sources: Readable items that differ from each other.
        bad_sources: Damaged, oversized or otherwise wrong ones; empty bytes, a path that is not there and an
            object of no sensible type are tried in any case.
        manager: As in `check_component`.

    Raises:
        ContractError: It breaks its contract.
    """
    component, validated = check_component("modality", name, options, manager=manager)
    modality = component.build(validated)
    _require(isinstance(modality, Modality), f"the modality {name!r} builds no adaptkit.interfaces.Modality")
    _require(modality.name == name, f"the modality {name!r} calls itself {modality.name!r}")
    _require(bool(modality.tag) and bool(modality.plural), f"the modality {name!r} has an empty tag or plural")
    keys = [modality.content_key(source) for source in sources]
    _require(len(set(keys)) == len(sources), "content_key is the same for different sources")
    for source, key in zip(sources, keys, strict=True):
        item = modality.load(source)
        _require(modality.content_key(source) == key, "content_key changes when a source is read again")
        _require(type(modality.load(item)) is type(item), "load refuses or changes an item that it loaded itself")
        shown = modality.to_html(item)
        _require(shown == modality.to_html(modality.load(source)), "to_html shows one source in two ways")
        _require("<" in shown and "://" not in shown, "to_html must give an HTML fragment that links to nothing")
    for bad in [*bad_sources, b"", object(), None, _NOWHERE, Path(_NOWHERE)]:
        naming = str(bad) if isinstance(bad, str | Path) else ""
        _refused(lambda bad=bad: modality.load(bad), DataError, f"load of {_brief(bad)}", naming=naming)  # type: ignore[misc]


def check_encoder(
    name: str,
    options: Mapping[str, Any],
    item: Any,
    *,
    variants: Sequence[Mapping[str, Any]] = (),
    manager: PluginManager | None = None,
) -> None:
    """Check an encoder, its preprocessor and its stand-in.

    Args:
        name: What recipes call it.
        options: Valid options, of a checkpoint that is on this machine.
        item: One item, as its modality loads it.
        variants: Further valid options, under which features differ: so must the fingerprint.
        manager: As in `check_component`.

    Raises:
        ContractError: It breaks its contract.
    """
    component, validated = check_component("encoder", name, options, manager=manager)
    for needed in ("build_preprocessor", "stand_in", "missing"):
        _require(callable(component.extra.get(needed)), f"the encoder {name!r} registers no {needed}")
    encoder = _check_built_encoder(component, validated, item)
    _check_missing(component, validated)
    fingerprints = {encoder.fingerprint()}
    for count, variant in enumerate(variants, start=1):
        fingerprints.add(component.build(component.options.model_validate(dict(variant))).fingerprint())
        _require(len(fingerprints) == count + 1, f"fingerprint() does not change with the options {dict(variant)}")
    with tempfile.TemporaryDirectory() as directory:
        stand_in = component.extra["stand_in"](validated, Path(directory) / "stand_in")
        _require(isinstance(stand_in, component.options), "stand_in must return options of the registered type")
        _check_built_encoder(component, stand_in, item)


def check_projector(
    name: str,
    options: Mapping[str, Any],
    *,
    feature_size: int = 12,
    hidden_size: int = 20,
    positions: int = 16,
    manager: PluginManager | None = None,
) -> None:
    """Check a projector's shapes, gradients and determinism.

    Args:
        name: What recipes call it, where one registration serves many names: one of them.
        options: Valid options.
        feature_size: Width of the features to try.
        hidden_size: Decoder width to try.
        positions: Number of feature vectors to try.
        manager: As in `check_component`.

    Raises:
        ContractError: It breaks its contract.
    """
    component, validated = check_component("projector", name, options, manager=manager)
    projector = component.build(validated, feature_size, hidden_size, name)
    _require(isinstance(projector, nn.Module), f"the projector {name!r} builds no torch.nn.Module")
    num_positions = component.extra.get("num_positions")
    count = num_positions(validated, positions) if num_positions else positions
    features = torch.randn(2, positions, feature_size, generator=torch.Generator().manual_seed(0))
    features.requires_grad_()
    projected: Any = projector(features)
    _require_shape(projected, (2, count, hidden_size), f"the projector {name!r}")
    projected.square().sum().backward()
    idle = [key for key, p in projector.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    _require(not idle, f"no gradient reaches {', '.join(idle)} of the projector {name!r}")
    _require(features.grad is not None, f"the projector {name!r} lets no gradient through to the features")
    projector.eval()
    with torch.no_grad():
        projected = projector(features)
        _require(torch.equal(projected, projector(features)), f"the projector {name!r} is not deterministic")
        _require_close(projector(features[:1]), projected[:1], "one item alone is projected otherwise than in a batch")
        _require_close(
            projector(features[1]), projected[1], "features without a batch dimension are projected otherwise"
        )
        twin = component.build(validated, feature_size, hidden_size, name).eval()
        twin.load_state_dict(projector.state_dict())
        _require(
            torch.equal(twin(features), projected),
            f"the state of the projector {name!r} does not hold all of it",
        )


def _check_built_encoder(component: Component, options: Options, item: Any) -> Encoder:
    missing = component.extra["missing"](options)
    _require(missing is None, f"missing() reports {missing!r} for a checkpoint that is here")
    preprocessor = component.extra["build_preprocessor"](options)
    encoder: Encoder = component.build(options)
    _require(
        isinstance(preprocessor, Preprocessor),
        "build_preprocessor builds no adaptkit.interfaces.Preprocessor",
    )
    _require(isinstance(encoder, Encoder), "build builds no adaptkit.interfaces.Encoder")
    inputs = _check_preprocessor(preprocessor, encoder, item)
    trainable = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    _require(not trainable, f"an encoder is frozen, but {len(trainable)} parameters are trainable: {trainable[:1]}")
    _require(not any(m.training for m in encoder.modules()), "an encoder is built in evaluation mode")
    features = _check_features(preprocessor, encoder, inputs)
    again = component.build(options)
    _require(
        _equal(_encode(again, preprocessor, [inputs]), features),
        "an encoder built twice gives other features",
    )
    _require(again.fingerprint() == encoder.fingerprint(), "an encoder built twice has two fingerprints")
    return encoder


def _check_preprocessor(preprocessor: Preprocessor, encoder: Encoder, item: Any) -> Tensor:
    inputs = preprocessor(item)
    _require(isinstance(inputs, Tensor), "a preprocessor must return a tensor")
    _require(inputs.is_floating_point(), f"a preprocessor must return floats, got {inputs.dtype}")
    _require(bool(inputs.isfinite().all()), "a preprocessor must return finite values")
    _require(torch.equal(inputs, preprocessor(item)), "a preprocessor must make the same of the same item")
    own = encoder.build_preprocessor()
    _require(
        torch.equal(inputs, own(item)),
        "encoder.build_preprocessor() and build_preprocessor(options) disagree",
    )
    names = (preprocessor.input_name, encoder.input_name)
    _require(names[0] == names[1], f"preprocessor and encoder call their input {names[0]!r} and {names[1]!r}")
    for wrong in (None, object(), 3):
        _refused(lambda wrong=wrong: preprocessor(wrong), DataError, f"preprocessing of {_brief(wrong)}")  # type: ignore[misc]
    return inputs


def _check_features(preprocessor: Preprocessor, encoder: Encoder, inputs: Tensor) -> list[Tensor]:
    features = _encode(encoder, preprocessor, [inputs])
    shape = (preprocessor.num_positions(inputs), encoder.feature_size)
    _require_shape(features[0], shape, "the encoder, by num_positions and feature_size,")
    if preprocessor.fixed_positions is not None:
        _require(shape[0] == preprocessor.fixed_positions, "num_positions and fixed_positions disagree")
    _require(features[0].is_floating_point(), f"features must be floats, got {features[0].dtype}")
    _require(bool(features[0].isfinite().all()), "features must be finite")
    _require(not features[0].requires_grad, "features of a frozen encoder carry no gradient")
    _require(_equal(_encode(encoder, preprocessor, [inputs]), features), "the encoder is not deterministic")
    other = inputs.flip(-1)
    [first, second] = _encode(encoder, preprocessor, [inputs, other])
    _require_close(first, features[0], "one item alone is encoded otherwise than in a batch")
    _require_close(second, _encode(encoder, preprocessor, [other])[0], "an item's features depend on its neighbours")
    if not torch.equal(other, inputs):
        _require(not torch.equal(first, second), "features do not depend on the input")
    _require(encoder.is_encoded(torch.stack([features[0]])), "is_encoded does not know the encoder's own features")
    batch = preprocessor.collate([inputs])
    one = batch[0] if isinstance(batch, list) else batch
    _require(not encoder.is_encoded(one), "is_encoded takes raw inputs for features")
    return features


def _check_missing(component: Component, options: Options) -> None:
    """A checkpoint that is not there is reported by name, and building it is an error of ours."""
    if "path" not in component.options.model_fields:
        return
    absent = options.model_copy(update={"path": f"/{_NOWHERE}"})
    report = component.extra["missing"](absent)
    _require(
        report is not None and _NOWHERE in report,
        f"missing() does not name a path that is not there: {report!r}",
    )
    _refused(lambda: component.build(absent), AdaptkitError, "a path that is not there", naming=_NOWHERE)


def _encode(encoder: Encoder, preprocessor: Preprocessor, inputs: Sequence[Tensor]) -> list[Tensor]:
    return list(encoder(preprocessor.collate(inputs)))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ContractError(message)


def _require_shape(tensor: Any, shape: tuple[int, ...], what: str) -> None:
    found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
    _require(found == shape, f"{what} should give a tensor of shape {shape}, gave {found}")


def _require_close(found: Tensor, expected: Tensor, message: str) -> None:
    _require_shape(found, tuple(expected.shape), message)
    difference = float((found - expected).abs().max())
    limit = _TOLERANCES[expected.dtype] * max(1.0, float(expected.abs().max()))
    _require(difference <= limit, f"{message} (largest difference {difference:.2g})")


def _equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def _refused(action: Callable[[], Any], error_type: type[Exception], what: str, *, naming: str = "") -> None:
    try:
        action()
    except error_type as error:
        message = str(error)
        _require(bool(message.strip()), f"{what}: the {error_type.__name__} says nothing")
        _require(naming in message, f"{what}: the message does not name {naming!r}: {message}")
    except Exception as error:  # any other type would reach the user as a traceback
        found = type(error).__name__
        raise ContractError(f"{what} raises {found} instead of {error_type.__name__}: {error}") from error
    else:
        raise ContractError(f"{what} is accepted; it must raise {error_type.__name__}")


def _brief(value: Any) -> str:
    return type(value).__name__ if type(value) is object else repr(value)[:60]
