"""Hooks a plugin may implement, and what it may say of each kind of component.

A plugin is a module named by an entry point in the group `adaptkit`. Its hook functions are called with one
argument, `register`, and call it once for each component:

```python
from adaptkit import hookimpl

@hookimpl
def register_projectors(register):
    register(
        name="linear",
        build="my_package.projector:build_linear",
        options=LinearOptions,
        description="One linear layer.",
    )
```

`register` takes the fields of the component type of its kind, by keyword; annotate it as `type[ProjectorComponent]`
and a type checker knows them. Fields that are functions take a function, or its place as `"module:function"`, which is
imported on first use. Write the place where the function needs a heavy library, so that listing plugins stays fast.
`options` is a subclass of `Options`, against which recipes are validated before anything is built.

A plugin's module may state for which contract it was made, `ADAPTKIT_CONTRACT = 1`; without it, that is 1.
"""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import pluggy
from pydantic import BaseModel, ConfigDict, Field

from adaptkit.errors import PluginError, unknown_name

GROUP = "adaptkit"

CONTRACT_VERSION = 1
"""Number of the contract between adaptkit and plugins: hooks, component fields and `adaptkit.interfaces`."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)

Register = Callable[..., Any]

F = TypeVar("F")
T = TypeVar("T")

_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class Options(BaseModel):
    """Base of every component's options: typed, immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


MAX_SEED = 2**32 - 1
"""The largest seed that Python, NumPy and PyTorch all take."""

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
"""A seed as an option of recipes and plugins."""


class Function(Generic[F]):
    """A field that takes a function or its place, `"module:function"`, and gives the function.

    Args:
        default: What it gives where it is not registered.
        required: Whether it must be registered.
    """

    def __init__(self, default: F | None = None, *, required: bool = False) -> None:
        self.default, self._required = default, required

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, component: Any, owner: Any) -> F:
        if component is None and self._required:
            raise AttributeError(self._name)  # so that a dataclass sees no default
        found: F = self.default if component is None else vars(component)[self._name]  # type: ignore[assignment]
        return found

    def __set__(self, component: Component, value: F | str) -> None:
        if isinstance(value, str) and _PLACE.fullmatch(value):
            vars(component)[self._name] = _ImportedFunction(component, self._name, value)
        elif callable(value) or (value is self.default and not self._required):
            vars(component)[self._name] = value
        else:
            needed = "must be a function, or 'module:function'"
            raise TypeError(f"{self._name} of {component.name!r} {needed}; got {value!r}")


class _ImportedFunction:
    """A function that is imported when it is first called."""

    def __init__(self, component: Component, field: str, place: str) -> None:
        self._component, self._field, self._place = component, field, place
        self._function: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._function = self._function or self._load()
        return self._function(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        self._function = self._function or self._load()
        return inspect.signature(self._function)

    def _load(self) -> Callable[..., Any]:
        component, (module_name, _, name) = self._component, self._place.partition(":")
        owner = f"{self._field} of the {component.kind} {component.name!r} ({component.package})"
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:
            raise PluginError(f"{owner}: cannot import {module_name}: {type(error).__name__}: {error}") from error
        if not callable(function := getattr(module, name, None)):
            known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("__")]
            raise PluginError(f"{owner}: {unknown_name(f'function in {module_name}', name, known)}")
        found: Callable[..., Any] = function
        return found


class Trait(Generic[T]):
    """A field that takes a value or a function of the options, and gives the function; it gives None if not stated.

    Args:
        values: Those that it takes.
    """

    def __init__(self, *values: T) -> None:
        self._values = values

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, component: Any, owner: Any) -> Callable[[Any], T | None]:
        found: Callable[[Any], T | None] | None = None if component is None else vars(component)[self._name]
        return found  # type: ignore[return-value]  # None is the default of the field, as what is registered

    def __set__(self, component: Component, value: T | Callable[[Any], T] | None) -> None:
        if callable(value):
            vars(component)[self._name] = lambda options: self._checked(component, value(options))
        else:
            checked = self._checked(component, value)
            vars(component)[self._name] = lambda options: checked

    def _checked(self, component: Component, value: T | None) -> T | None:
        if value is None or any(type(value) is type(known) and value == known for known in self._values):
            return value
        needed = f"must be {' or '.join(map(repr, self._values))}, or a function that gives it"
        raise PluginError(f"{self._name} of {component.name!r} {needed}; got {value!r}")


# Not frozen: for fields that a frozen dataclass inherits, mypy forgets that they are descriptors
@dataclass(kw_only=True, eq=False)
class Component:
    """One registered thing: a name, a builder, and the type of its options.

    Attributes:
        kind: What it is.
        hook: The hook that registers its kind.
        name: What recipes call it.
        build: Makes the object; its arguments depend on the kind.
        options: Subclass of `Options` that recipes are validated against.
        description: One line for `adaptkit plugins`.
        pattern: Regular expression of the names it serves, where that is more than `name`.
        examples: `examples(directory) -> list[adaptkit.testing.Example]`, the options and inputs with which
            `adaptkit plugins check` tries it. Files and tiny checkpoints that they name are written under `directory`,
            without a network, the same each time. Encoders and data sources need it, and modalities unless their
            `stand_in` will do.
        missing: `missing(options)` says what a build would not find on this machine, before a run starts.
        plugin: Entry point that registered it.
        package: `distribution version` it came from.
    """

    kind: ClassVar[str]
    hook: ClassVar[str]

    name: str
    build: Function[Callable[..., Any]] = Function(required=True)
    options: type[Options] = Options
    description: str = ""
    pattern: str | None = None
    examples: Function[Callable[[Path], Iterable[Any]] | None] = Function()
    missing: Function[Callable[..., str | None]] = Function(lambda *given: None)
    plugin: str = ""
    package: str = ""

    def __post_init__(self) -> None:
        """Refuse what would fail later, in somebody else's lookup or listing."""
        if not (isinstance(self.name, str) and isinstance(self.description, str) and self.name):
            raise TypeError(f"the name and the description of {self.name!r} must be texts, and the name not empty")
        if not (isinstance(self.options, type) and issubclass(self.options, Options)):
            raise TypeError(f"options of {self.name!r} must be a subclass of adaptkit.Options")
        try:
            re.compile(self.pattern or "")
        except (re.error, TypeError) as error:
            raise TypeError(f"the pattern of {self.name!r} is not a regular expression: {error}") from error

    @classmethod
    def registered(cls, plugin: str, package: str, values: Mapping[str, Any]) -> Component:
        """Make a component of what `register` was given.

        Raises:
            TypeError: A field is unknown, missing or of another type.
        """
        known = [field.name for field in fields(cls) if field.name not in ("plugin", "package")]
        for key in values:
            if key not in known:
                raise TypeError(unknown_name(f"field of {cls.kind} components", key, known))
        return cls(plugin=plugin, package=package, **values)

    def gives(self, name: str) -> bool:
        """Whether a function was registered, or its default stands in."""
        return getattr(self, name) is not getattr(type(self), name)

    @property
    def extra(self) -> dict[str, Callable[..., Any]]:
        """Deprecated: the functions of the kind by name. Use the fields."""
        warnings.warn("Component.extra goes away in adaptkit 0.2: use the fields", DeprecationWarning, stacklevel=2)
        common = {field.name for field in fields(Component)} - {"examples", "missing"}
        own = [field.name for field in fields(self) if field.name not in common]
        return {name: getattr(self, name) for name in own if self.gives(name)}


@dataclass(kw_only=True, eq=False)
class ModalityComponent(Component):
    """A kind of input: `build(options) -> Modality`.

    Attributes:
        stand_in: `stand_in(directory, number)` writes a small file of this kind; another number gives another file.
            With a parameter `options`, it also gets the options of the modality that will read the file. Rehearsals of
            recipes need it.
        pipeline_tag: What the Hugging Face hub calls models that take it with text and answer in text, where it has a
            name for them, `"image-text-to-text"`. Model cards name it.
    """

    kind, hook = "modality", "register_modalities"

    stand_in: Function[Callable[..., Path] | None] = Function()
    pipeline_tag: str | None = None

    def write_stand_in(self, options: Any, directory: Path, number: int) -> Path:
        """A small file that the modality reads with these options; there is a `stand_in`."""
        assert self.stand_in is not None, "whoever calls this asks for it"
        known = {"options": options} if "options" in inspect.signature(self.stand_in).parameters else {}
        return self.stand_in(directory, number, **known)


@dataclass(kw_only=True, eq=False)
class EncoderComponent(Component):
    """An encoder: `build(options) -> Encoder`, weights loaded.

    Attributes:
        build_preprocessor: `build_preprocessor(options) -> Preprocessor`, which loads no weights.
        stand_in: `stand_in(options, directory)` writes a tiny random model of the same family, and returns options
            that name it. Rehearsals of recipes need it.
        wrap: `wrap(module, options: dict) -> Encoder | None` adopts a model object given to `adaptkit.adapt`; None
            where it is not one of ours.
        create: `create(config: dict, directory)` writes a random model of that size for `adaptkit train-encoder`, and
            returns options that name it. An encoder that is trained there has `save_pretrained(directory)`.
    """

    kind, hook = "encoder", "register_encoders"

    build_preprocessor: Function[Callable[[Any], Any] | None] = Function()
    stand_in: Function[Callable[[Any, Path], Options] | None] = Function()
    wrap: Function[Callable[[Any, dict[str, Any]], Any]] = Function(lambda module, options: None)
    create: Function[Callable[[dict[str, Any], Path], Options] | None] = Function()


@dataclass(kw_only=True, eq=False)
class ProjectorComponent(Component):
    """A projector: `build(options, feature_size, hidden_size, name) -> nn.Module`.

    The module maps `(..., positions, feature_size)` to `(..., positions', hidden_size)`. `name` is the name the user
    wrote, which matters where `pattern` lets one registration serve many.

    Attributes:
        num_positions: `num_positions(options, positions)`, the positions that come out, where the number changes.
    """

    kind, hook = "projector", "register_projectors"

    num_positions: Function[Callable[[Any, int], int]] = Function(lambda options, positions: positions)


@dataclass(kw_only=True, eq=False)
class InsertionPolicyComponent(Component):
    """An insertion policy: `build(options) -> adaptkit.surgery.InsertionPolicy`.

    What recipes are checked by before anything is loaded is stated here, and once: the policy that `build` makes gets
    these attributes. Each is a value, or a function of the options.

    Attributes:
        needs_placement: Whether a placement must be given.
        inserts: Whether there are parameters to train as `insertion`.
        feature_mode: How features reach the decoder: `splice`, the default, or `context`, where one placeholder stands
            for each item, and every stage must have the inserted modules.
        adapts_encoders: Whether it changes encoders, so that their features cannot be cached.
        supports_packing: Whether several conversations may share a row.
    """

    kind, hook = "insertion policy", "register_insertion_policies"

    needs_placement: Trait[bool] = Trait(True, False)
    inserts: Trait[bool] = Trait(True, False)
    feature_mode: Trait[str] = Trait("splice", "context")
    adapts_encoders: Trait[bool] = Trait(True, False)
    supports_packing: Trait[bool] = Trait(True, False)

    def __post_init__(self) -> None:
        super().__post_init__()
        build = self.build
        vars(self)["build"] = lambda options: self._with_traits(build(options), options)

    def _with_traits(self, policy: Any, options: Any) -> Any:
        for trait, default in _POLICY_DEFAULTS.items():
            registered, own = getattr(self, trait)(options), getattr(policy, trait, default)
            if registered is None:
                continue
            if own not in (default, registered):
                raise PluginError(
                    f"the insertion policy {self.name!r} is registered with {trait}={registered!r}, and its class says "
                    f"{own!r}: state it once, where the policy is registered."
                )
            if own != registered:
                setattr(policy, trait, registered)
        return policy


_POLICY_DEFAULTS = {
    "needs_placement": True,
    "inserts": True,
    "feature_mode": "splice",
    "adapts_encoders": False,
    "supports_packing": True,
}


@dataclass(kw_only=True, eq=False)
class DataSourceComponent(Component):
    """A data format: `build(options, context: DataContext) -> DataSource`, and `missing(options, context)`.

    Attributes:
        stand_in: `stand_in(options, directory, samples, tags)` writes `samples`, a list of `Sample`, in this format,
            and returns options that read them; `tags` are those of `DataContext`. Rehearsals of recipes need it.
        is_stream: `is_stream(options)`, where there may be streams (`DataSource.is_stream`): recipes that cannot read
            one are refused before anything is opened.
    """

    kind, hook = "data source", "register_data_sources"

    stand_in: Function[Callable[[Any, Path, Sequence[Any], Mapping[str, str]], Options] | None] = Function()
    is_stream: Function[Callable[[Any], bool]] = Function(lambda options: False)


@dataclass(kw_only=True, eq=False)
class EvaluationTaskComponent(Component):
    """A benchmark: `build(options) -> EvaluationTask`.

    Attributes:
        datasets: `datasets(options)`, for a task that asks what a recipe's datasets hold, their names; it is then given
            `sources`, the data source of each.
        baselines: `baselines(options)`, those of the datasets that only a baseline needs: `adaptkit eval` gives None
            for one that is not on the machine.
        problems: `problems(options, workflows)` says why the workflows of a recipe cannot answer it; `workflows` maps
            their names, in the order in which they are trained, to their modalities.
    """

    kind, hook = "evaluation task", "register_evaluation_tasks"

    datasets: Function[Callable[[Any], list[str]]] = Function(lambda options: [])
    baselines: Function[Callable[[Any], list[str]]] = Function(lambda options: [])
    problems: Function[Callable[[Any, Mapping[str, Collection[str]]], list[str]]] = Function(lambda *given: [])


@hookspec
def register_modalities(register: type[ModalityComponent]) -> None:
    """Offer kinds of input."""


@hookspec
def register_encoders(register: type[EncoderComponent]) -> None:
    """Offer encoders."""


@hookspec
def register_projectors(register: type[ProjectorComponent]) -> None:
    """Offer projectors."""


@hookspec
def register_insertion_policies(register: type[InsertionPolicyComponent]) -> None:
    """Offer insertion policies."""


@hookspec
def register_data_sources(register: type[DataSourceComponent]) -> None:
    """Offer data formats."""


@hookspec
def register_evaluation_tasks(register: type[EvaluationTaskComponent]) -> None:
    """Offer benchmarks."""


COMPONENT_TYPES: tuple[type[Component], ...] = (
    ModalityComponent,
    EncoderComponent,
    ProjectorComponent,
    InsertionPolicyComponent,
    DataSourceComponent,
    EvaluationTaskComponent,
)

KINDS: dict[str, str] = {component.kind: component.hook for component in COMPONENT_TYPES}
"""Kind of component, and the hook that registers it."""
