"""Placement: after which layers of a decoder something is inserted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adaptkit.errors import ModelError, unknown_name, wrong_type

PositiveInt = Annotated[int, Field(ge=1)]


class Placement(BaseModel):
    """Exactly one of the five ways to choose layers, which count from 0.

    Attributes:
        every: After each layer `i` where `(i + 1) % every == 0`.
        count: Spread evenly: after layers `floor((j + 1) * N / count) - 1`, `j = 0 … count - 1`.
        first: After each of the first layers.
        last: After each of the last layers.
        layers: After these layers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: PositiveInt | None = None
    count: PositiveInt | None = None
    first: PositiveInt | None = None
    last: PositiveInt | None = None
    layers: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _with_its_kind(cls, value: Any) -> Any:
        if isinstance(value, Mapping | Placement):
            return value
        kinds = ", ".join(cls.model_fields)
        if isinstance(value, int) and not isinstance(value, bool):
            raise ValueError(f"{value} may be meant in several ways: write {{every: {value}}}, or another of {kinds}")
        if isinstance(value, list | tuple | range):
            raise ValueError(f"layers are given by their key: write {{layers: {list(value)}}}")
        raise ValueError(f"{value!r} is not a placement: write {{every: 4}}, or another of {kinds}")

    @model_validator(mode="after")
    def _exactly_one(self) -> Placement:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            stated = f"both {' and '.join(given)}" if given else "none"
            raise ValueError(f"give exactly one of every, count, first, last, layers; {stated} given")
        if self.layers is not None and len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers are listed twice: {sorted({i for i in self.layers if self.layers.count(i) > 1})}")
        return self


def parse_placement(value: Any) -> Placement:
    """Read a placement given as a mapping.

    Raises:
        ModelError: A key is unknown, a value is not usable, or not exactly one key is given.
    """
    unknown = [key for key in value if key not in Placement.model_fields] if isinstance(value, Mapping) else []
    if unknown:
        raise ModelError(f"placement: {unknown_name('kind of placement', unknown[0], Placement.model_fields)}")
    try:
        return Placement.model_validate(value)
    except ValidationError as error:
        problems = "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
        raise ModelError(f"placement {value!r}: {problems}") from error


def resolve_placement(placement: Placement | Mapping[str, Any], num_layers: int) -> list[int]:
    """Turn a placement into sorted layer indices of a decoder of `num_layers` layers.

    Raises:
        ModelError: The placement does not fit the decoder's depth.
    """
    placement = parse_placement(placement)
    if not isinstance(num_layers, int):
        raise ModelError(wrong_type("num_layers", "the number of a decoder's layers", num_layers))
    if placement.every is not None:
        chosen = [i for i in range(num_layers) if (i + 1) % placement.every == 0]
        asked, largest = placement.every, num_layers
    elif placement.count is not None:
        m = placement.count
        chosen = [(j + 1) * num_layers // m - 1 for j in range(m)] if m <= num_layers else []
        asked, largest = m, num_layers
    elif placement.first is not None:
        chosen = list(range(placement.first))
        asked, largest = placement.first, num_layers
    elif placement.last is not None:
        chosen = list(range(num_layers - placement.last, num_layers))
        asked, largest = placement.last, num_layers
    else:
        assert placement.layers is not None
        chosen = sorted(placement.layers)
        asked, largest = chosen[-1], num_layers - 1
    if asked > largest:
        given = placement.model_dump(exclude_none=True)
        raise ModelError(
            f"placement {given}: the decoder has {num_layers} layers, numbered 0 to {num_layers - 1}; "
            f"{asked} is more than {largest}."
        )
    return chosen
