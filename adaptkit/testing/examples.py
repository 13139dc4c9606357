"""What a component is tried with: given by its plugin, as the registered extra `examples`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptkit.hookspecs import Component, EncoderComponent, ModalityComponent
from adaptkit.testing.requirements import require

_NUM_STAND_INS = 3


@dataclass(frozen=True)
class Example:
    """One set of options, and inputs to try with it.

    Attributes:
        options: Valid options, as a recipe would give them.
        items: For a modality: two or more sources that differ, paths and bytes among them where it reads such. For an
            encoder: one item or more, as its modality loads them, of different sizes where sizes may differ. For a data
            source: the ids of its samples, in order.
        bad_items: Damaged, oversized or otherwise wrong ones: each must be refused with a `DataError`. For a data
            source: options of datasets with a bad row.
        variants: For an encoder: further valid options under which features differ.
        name: Where one registration serves many names: one of them.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    items: Sequence[Any] = ()
    bad_items: Sequence[Any] = ()
    variants: Sequence[Mapping[str, Any]] = ()
    name: str = ""


def examples_of(component: Component, directory: Path) -> list[Example]:
    """Examples of a component, or what can be told without them; empty where it can then not be tried.

    Args:
        component: Registered by a plugin.
        directory: An empty folder for files that the examples name.

    Raises:
        ContractError: `examples` gives something else.
    """
    if component.examples is None:
        return _plain_examples(component, directory)
    found = list(component.examples(directory))
    sound = bool(found) and all(isinstance(example, Example) for example in found)
    require(
        sound, f"examples of the {component.kind} {component.name!r} must return a list of adaptkit.testing.Example"
    )
    return found


def _plain_examples(component: Component, directory: Path) -> list[Example]:
    if any(field.is_required() for field in component.options.model_fields.values()):
        return []
    if isinstance(component, EncoderComponent):
        return []
    if not isinstance(component, ModalityComponent):
        return [Example()]
    stand_in = component.stand_in
    return [Example(items=[stand_in(directory, n) for n in range(_NUM_STAND_INS)])] if stand_in else []
