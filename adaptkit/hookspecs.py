"""Hooks a plugin may implement.

A plugin is a module named by an entry point in the group `adaptkit`. Its hook functions are called with one
argument, `register`, and call it once for each thing they offer:

```python
from adaptkit import hookimpl

@hookimpl
def register_projectors(register):
    register(name="linear", build=build_linear, options=LinearOptions, description="One linear layer.")
```

`options` is a subclass of `Options`; recipes are validated against it before anything is built. Builders import
their heavy dependencies inside, so that listing plugins stays fast.

Whatever else `register` is given is a further function of the component, by keyword; each hook below says which its
kind may have. Any component may have `examples(directory) -> list[adaptkit.testing.Example]`: the options and inputs
with which `adaptkit plugins check` tries it. Files and tiny checkpoints that they name are written under `directory`,
without a network, the same each time. Encoders need it, and modalities unless their `stand_in` will do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pluggy
from pydantic import BaseModel, ConfigDict

GROUP = "adaptkit"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

Register = Callable[..., None]


class Options(BaseModel):
    """Base of every component's options: typed, immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Component:
    """One registered thing: a name, a builder, and the type of its options.

    Attributes:
        kind: One of `KINDS`.
        name: What recipes call it.
        build: Makes the object; its arguments depend on the kind (see the hooks below).
        options: Subclass of `Options` that recipes are validated against.
        description: One line for `adaptkit plugins`.
        pattern: Regular expression of the names it serves, where that is more than `name`.
        extra: Further callables of the kind, by keyword (see the hooks below).
        plugin: Entry point that registered it.
        package: `distribution version` it came from.
    """

    kind: str
    name: str
    build: Callable[..., Any]
    options: type[Options]
    description: str = ""
    pattern: str | None = None
    extra: dict[str, Callable[..., Any]] = field(default_factory=dict)
    plugin: str = ""
    package: str = ""


@hookspec
def register_modalities(register: Register) -> None:
    """Offer kinds of input: `build(options) -> Modality`.

    Also, so that recipes can be rehearsed, `stand_in(directory, number) -> Path`, which writes a small file of this
    kind; another number gives another file.
    """


@hookspec
def register_encoders(register: Register) -> None:
    """Offer encoders: `build(options) -> Encoder`, weights loaded.

    Also `build_preprocessor(options) -> Preprocessor`, which loads no weights; `stand_in(options, directory) ->
    options`, which writes a tiny random model of the same family under a `Path` and returns options that name it;
    `missing(options) -> str | None`, which says what a build would not find on this machine; and, optionally,
    `wrap(module, options: dict) -> Encoder | None`, which adopts a model object given to `adaptkit.adapt` (None:
    not one of ours), and `create(config: dict, directory) -> options`, which writes a random model of that size for
    `adaptkit train-encoder`; an encoder that is trained there has `save_pretrained(directory)`.
    """


@hookspec
def register_projectors(register: Register) -> None:
    """Offer projectors: `build(options, feature_size, hidden_size, name) -> nn.Module`.

    The module maps `(..., positions, feature_size)` to `(..., positions', hidden_size)`. Optional:
    `num_positions(options, positions) -> int` where the number changes. `name` is the name the user wrote, which
    matters where `pattern=` lets one registration serve many.
    """


@hookspec
def register_insertion_policies(register: Register) -> None:
    """Offer insertion policies: `build(options) -> adaptkit.surgery.InsertionPolicy`.

    Also, so that recipes are checked before anything is loaded: `needs_placement(options) -> bool`, whether a placement
    must be given, and `inserts(options) -> bool`, whether there are parameters to train as `insertion`. A policy that
    keeps media out of the sequence also gives `feature_mode(options) -> str`, which answers `context`: one placeholder
    then stands for each item, and every stage must have the inserted modules. One that changes encoders gives
    `adapts_encoders(options) -> bool`: their features can then not be cached. Where a policy needs a row for each
    conversation `supports_packing(options) -> bool` says so.
    """


@hookspec
def register_data_sources(register: Register) -> None:
    """Offer data formats: `build(options, context: DataContext) -> DataSource`.

    Also `missing(options, context) -> str | None`, which says what a build would not find on this machine, and
    `stand_in(options, directory, samples, tags) -> options`, which writes `samples`, a list of `Sample`, under a `Path`
    in this format; `tags` are those of `DataContext`; and, where there may be streams (`DataSource.is_stream`),
    `is_stream(options) -> bool`, so that recipes which cannot read one are refused before anything is opened.
    """


@hookspec
def register_evaluation_tasks(register: Register) -> None:
    """Offer benchmarks: `build(options) -> EvaluationTask`.

    Also, for a task that asks what a recipe's datasets hold, `datasets(options) -> list[str]`, their names; its
    `evaluate` and `evaluate_workflows` then take `sources`, the data source of each. `baselines(options) -> list[str]`
    names those of them that only a baseline needs: `adaptkit eval` gives None for one that is not on the machine.
    So that a run which cannot be scored fails before it trains: `missing(options) -> str | None`, which says what it
    would not find on this machine, and `problems(options, workflows) -> list[str]`, which says why the workflows of a
    recipe cannot answer it: a mapping from their names, in the order in which they are trained, to their modalities.
    """


KINDS: dict[str, str] = {
    "modality": "register_modalities",
    "encoder": "register_encoders",
    "projector": "register_projectors",
    "insertion policy": "register_insertion_policies",
    "data source": "register_data_sources",
    "evaluation task": "register_evaluation_tasks",
}
"""Kind of component, and the hook that registers it."""
