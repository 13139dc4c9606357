"""The keys that a recipe may have at a place, by its pydantic models."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel


def keys_at(model: type[BaseModel], location: Iterable[int | str]) -> list[str]:
    """The keys of the model at a location inside another; none where there is no model."""
    annotation: Any = model
    for step in location:
        annotation = _inside(_bare(annotation), step)
    bare = _bare(annotation)
    return _keys(bare) if _is_model(bare) else []


def _inside(annotation: Any, step: int | str) -> Any:
    if _is_model(annotation):
        field = annotation.model_fields.get(str(step))
        return field.annotation if field is not None else None
    arguments = get_args(annotation)
    if isinstance(get_origin(annotation), type) and issubclass(get_origin(annotation), Mapping):
        return arguments[-1]
    return arguments[0] if arguments else None


def _bare(annotation: Any) -> Any:
    """Without `Annotated` and `| None`: of several alternatives the first that has an inside."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        alternatives = [_bare(a) for a in get_args(annotation)]
        return next((a for a in alternatives if _is_model(a) or get_args(a)), None)
    return annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _keys(model: type[BaseModel]) -> list[str]:
    shorthand: Iterable[str] = getattr(model, "shorthand", ())
    return [*(field.alias or name for name, field in model.model_fields.items()), *shorthand]
