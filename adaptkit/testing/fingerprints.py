"""Checks that an encoder's fingerprint, by which features are cached, follows whatever changes features."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import torch
from pydantic import ValidationError
from torch import Tensor

from adaptkit.errors import AdaptkitError
from adaptkit.hookspecs import Component, EncoderComponent, Options
from adaptkit.interfaces import Encoder
from adaptkit.testing.requirements import ContractError, require


def check_fingerprint(encoder: Encoder, again: Encoder) -> None:
    """Two builds of one encoder have one fingerprint, and a changed weight changes it.

    Args:
        encoder: Left as it is.
        again: A second build, whose weights are changed.
    """
    before = encoder.fingerprint()
    require(again.fingerprint() == before, "an encoder built twice has two fingerprints")
    weights = [p for p in again.parameters() if p.is_floating_point()]
    if not weights:
        return
    with torch.no_grad():
        for weight in weights:
            weight.add_(1)
    require(again.fingerprint() != before, "fingerprint() does not change with the encoder's weights")


def check_variants(
    component: EncoderComponent, options: Options, encoder: Encoder, item: Any, variants: Sequence[Mapping[str, Any]]
) -> None:
    """Options that change features change the fingerprint.

    Beside the variants given, every option with an obvious other value is changed in turn: what cannot be built with
    it must say so in our words.
    """
    fingerprints = {encoder.fingerprint()}
    for count, variant in enumerate(variants, start=1):
        fingerprints.add(component.build(component.options.model_validate(dict(variant))).fingerprint())
        require(len(fingerprints) == count + 1, f"fingerprint() does not change with the options {dict(variant)}")
    features = _features(component, options, encoder, item)
    for key, value in _other_values(options):
        varied = _build_with(component, options, {key: value})
        if varied is None or varied[1].fingerprint() != encoder.fingerprint():
            continue
        same = _same(_features(component, *varied, item), features)
        require(same, f"fingerprint() does not change with {key}={value!r}, but features do")


def _build_with(component: Component, options: Options, update: dict[str, Any]) -> tuple[Options, Encoder] | None:
    try:
        changed = component.options.model_validate(options.model_dump() | update)
        return changed, component.build(changed)
    except (AdaptkitError, ValidationError):
        return None
    except Exception as error:
        [(key, value)] = update.items()
        raise ContractError(
            f"building with {key}={value!r} raises {type(error).__name__} instead of a ModelError: {error}"
        ) from error


def _features(component: EncoderComponent, options: Options, encoder: Encoder, item: Any) -> list[Tensor]:
    assert component.build_preprocessor is not None
    preprocessor = component.build_preprocessor(options)
    return list(encoder(preprocessor.collate([preprocessor(item)])))


def _same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def _other_values(options: Options) -> Iterator[tuple[str, Any]]:
    """For every option of a plain type, one or more values that it does not have."""
    for key, field in type(options).model_fields.items():
        value = getattr(options, key)
        for kind in _alternatives(field.annotation):
            if get_origin(kind) is Literal:
                yield from ((key, other) for other in get_args(kind) if other != value)
            elif kind is bool and isinstance(value, bool):
                yield key, not value
            elif kind is int and isinstance(value, int):
                yield from ((key, value + step) for step in (1, -1))
            elif kind is float and isinstance(value, int | float):
                yield key, value * 1.5 + 0.25


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
