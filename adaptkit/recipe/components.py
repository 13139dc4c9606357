"""Sections of a recipe that name a plugin's component and hold its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails

from adaptkit.errors import PluginError
from adaptkit.hookspecs import Options
from adaptkit.placement import Placement
from adaptkit.plugin_manager import PluginManager, get_plugin_manager
from adaptkit.recipe.explain import combined, explained, problem
from adaptkit.stage import EncoderLora, Section


def plugins_of(info: ValidationInfo) -> PluginManager:
    """The plugin manager that a validation was started with, else the installed one."""
    manager: PluginManager = (info.context or {}).get("plugins") or get_plugin_manager()
    return manager


class ComponentConfig(Section):
    """A plugin's component by name, with its options beside the name, validated like any core key.

    Attributes:
        options: The component's own options, an instance of its options type.
    """

    kind: ClassVar[str]
    selector: ClassVar[str] = "name"

    options: SerializeAsAny[Options] = Field(default_factory=Options)

    @property
    def component(self) -> str:
        """Name of the component."""
        return str(getattr(self, self.selector))

    def values(self) -> dict[str, Any]:
        """The component's options as plain JSON values."""
        return self.options.model_dump(mode="json")

    @classmethod
    def own_keys(cls) -> list[str]:
        """Keys of the section that are not the component's options."""
        return [name for name in cls.model_fields if name != "options"]

    @model_validator(mode="wrap")
    @classmethod
    def _validate(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if isinstance(data, str):
            data = {cls.selector: data}
        if not isinstance(data, Mapping):
            return handler(data)
        own = {key: value for key, value in data.items() if key in cls.own_keys()}
        given = {key: value for key, value in data.items() if key not in own}
        problems, options = _read_options(cls, own.get(cls.selector), given, plugins_of(info))
        try:
            section = handler({cls.selector: "", **own, "options": options})
        except ValidationError as error:
            problems += explained(error, cls)
        if problems:
            raise combined(cls.__name__, problems)
        return section

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        options = values.pop("options")
        return {**values, **options}


def _read_options(
    section: type[ComponentConfig], name: Any, given: Mapping[str, Any], plugins: PluginManager
) -> tuple[list[InitErrorDetails], Options]:
    if name is None:
        known = ", ".join(plugins.names(section.kind)) or "none"
        message = f"is required: the name of the {section.kind}. Known: {known}."
        return [problem((section.selector,), message)], Options()
    if not isinstance(name, str):
        return [], Options()
    try:
        component = plugins.get(section.kind, name)
    except PluginError as error:
        return [problem((section.selector,), str(error))], Options()
    try:
        return [], component.options.model_validate(dict(given))
    except ValidationError as error:
        return explained(error, component.options, section.own_keys()), Options()


class PluginConfig(ComponentConfig):
    """A component that is nothing but its name and options; the bare name may stand for both."""

    name: str


class EncoderConfig(PluginConfig):
    """A frozen feature extractor."""

    kind = "encoder"


class ProjectorConfig(PluginConfig):
    """A trainable map from features to the decoder's width."""

    kind = "projector"


class TaskConfig(PluginConfig):
    """A benchmark that a run ends with."""

    kind = "evaluation task"


class DataConfig(ComponentConfig):
    """A dataset: its format, and that format's options.

    Attributes:
        source: The public dataset that it is made of, by the name that `adaptkit data plan` knows it by. It does not
            change what is read.
        holdout: Share of the samples that no stage trains on, by a hash of what they say; validation and the benchmark
            `answers` read these instead of all. None are held out where not given.
    """

    kind = "data source"
    selector = "format"

    format: str
    source: str | None = None
    holdout: float | None = Field(default=None, gt=0, lt=1)


class ModalityConfig(ComponentConfig):
    """A kind of input.

    Attributes:
        type: The registered modality; in a recipe the section's own key where not given.
        placeholder: Token of the tokenizer that stands for features; an id outside the vocabulary where not
            given.
        start: Text before each item's features, such as `<|vision_start|>`; nothing where not given.
        end: Text after them.
        encoder_lora: For stages that train the part `encoder`: low-rank differences are trained, and nothing else of
            it.
        cache_features: Whether a frozen encoder's features may be kept on disk.
    """

    kind = "modality"
    selector = "type"

    type: str
    encoder: EncoderConfig
    projector: ProjectorConfig
    placeholder: str | None = Field(default=None, min_length=1)
    start: str | None = Field(default=None, min_length=1)
    end: str | None = Field(default=None, min_length=1)
    encoder_lora: EncoderLora | None = None
    cache_features: bool = False


class InsertionConfig(ComponentConfig):
    """What is inserted into the frozen decoder, and where."""

    kind = "insertion policy"
    selector = "policy"

    policy: str
    placement: Placement | None = None


COMPONENT_SECTIONS: tuple[type[ComponentConfig], ...] = (
    *(DataConfig, EncoderConfig, InsertionConfig, ModalityConfig, ProjectorConfig, TaskConfig),
)
