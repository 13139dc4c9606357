"""The sections of a recipe: their keys, types and bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    NaiveDatetime,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from adaptkit.hookspecs import Seed
from adaptkit.recipe.components import DataConfig, InsertionConfig, ModalityConfig, TaskConfig, plugins_of
from adaptkit.recipe.explain import combined, explained
from adaptkit.recipe.references import reference_problems
from adaptkit.recipe.trained import validation_problems
from adaptkit.recipe.variables import Place, data_folder
from adaptkit.stage import Key, PositiveInt, Section, StageConfig


def _usable_as_folder(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError(f"{name!r} becomes a folder's name: use letters, digits, '_', '-' and '.'")
    return name


class BaseConfig(Section):
    """The frozen decoder.

    Attributes:
        path: Folder or hub id; `world:decoder` is the built-in one.
        revision: Branch, tag or commit on the hub.
        dtype: In what precision it is loaded; `auto` is the checkpoint's.
        quantization: Packs its linear maps into 4 bits (`nf4`, `fp4`) or 8 (`int8`) while it is loaded, by
            bitsandbytes; what is trained is full precision all the same.
        attn_implementation: `auto` is flash attention where it is installed and the library's choice elsewhere,
            which is also what no value gives.
        trust_remote_code: Whether code that comes with the checkpoint may run.
        model_type: Family, as transformers calls it; checked, and what `--rehearse` makes its stand-in of.
        chat_template: Name of a shipped template, a file, or a template's text; the tokenizer's own where not
            given.
        special_tokens_in_text: Whether the words of a special token in a message become that token. By default they are
            text, and only the chat template writes special tokens.
    """

    path: str = Field(min_length=1)
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["nf4", "fp4", "int8"] | None = None
    attn_implementation: (
        Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None
    ) = None
    trust_remote_code: bool = False
    model_type: str | None = None
    chat_template: str | None = None
    special_tokens_in_text: bool = False


class WorkflowConfig(Section):
    """One way through the base.

    Attributes:
        insertion: What is inserted, and where.
        replace_ends: Whether embedding, final norm and head are the workflow's own, and trainable.
        modalities: What it takes in; all of the recipe's where not given.
    """

    shorthand: ClassVar[dict[str, str]] = {"like": "Another workflow, whose settings hold where this one says nothing."}

    insertion: InsertionConfig
    replace_ends: bool = False
    modalities: list[Key] | None = Field(default=None, min_length=1)


class AcceleratorConfig(Section):
    """How a run is distributed over devices.

    Attributes:
        strategy: How several processes share the work: `auto` is `ddp`; `none` keeps a run to one.
        num_processes: Processes to start; one for each visible GPU where not given, or as launched.
    """

    strategy: Literal["auto", "none", "ddp", "zero2", "zero3", "fsdp"] = "auto"
    num_processes: PositiveInt | None = None

    def strategy_of(self, num_processes: int) -> str:
        """What so many processes do: one has nothing to share, whatever the strategy."""
        if num_processes == 1:
            return "none"
        return "ddp" if self.strategy == "auto" else self.strategy


class EvaluationConfig(Section):
    """What a run ends with.

    Attributes:
        tasks: Benchmarks.
        seed: Draws the items, where a benchmark draws them.
        limit: Items per benchmark; all where not given.
    """

    tasks: list[TaskConfig] = Field(default_factory=list)
    seed: Seed = 0
    limit: PositiveInt | None = None


class LoggingConfig(Section):
    """Where metrics go besides `metrics.jsonl`."""

    report_to: list[Literal["tensorboard", "wandb"]] = Field(default=["tensorboard"])
    logging_steps: PositiveInt = 10


def value_at(values: Any, place: Place) -> Any:
    """What stands at a place of nested values; None where there is no such place."""
    for step in place:
        try:
            values = values[step]
        except (LookupError, TypeError):
            return None
    return values


class Recipe(Section):
    """Everything a run depends on. Load one with `load_recipe`, which also resolves `extends` and overrides.

    Attributes:
        data_root: Folder of relative data paths, as written; `data_folder()` resolves it.
        stages: In the order in which they run.
        date: What chat templates that print the date (`strftime_now`) take for now, as long as the run trains and is
            evaluated; the time of its start where not given, which is recorded, and kept when it is resumed.
        max_bad_fraction: Share of unusable samples above which a run stops.
        output_dir: Run directory; `runs/<name>` where not given.
    """

    shorthand: ClassVar[dict[str, str]] = {
        "extends": "Path of another recipe, relative to this one's folder, over which this one is laid.",
        "stage_defaults": "What stages have in common.",
    }

    name: Annotated[str, AfterValidator(_usable_as_folder)]
    description: str = ""
    base: BaseConfig
    modalities: dict[Key, ModalityConfig] = Field(min_length=1)
    workflows: dict[Key, WorkflowConfig] = Field(min_length=1)
    data_root: str | None = None
    data: dict[Key, DataConfig] = Field(min_length=1)
    stages: list[StageConfig] = Field(min_length=1)
    accelerator: AcceleratorConfig = AcceleratorConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    logging: LoggingConfig = LoggingConfig()
    seed: Seed = 0
    date: NaiveDatetime | None = None
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)
    output_dir: str | None = None

    _written: dict[Place, tuple[str, JsonValue]] = PrivateAttr(default_factory=dict)

    def remember_written(self, texts: Mapping[Place, str]) -> None:
        """Keep what refers to environment variables as it is written; what they hold is saved nowhere."""
        values = self.model_dump(mode="json")
        self._written = {place: (text, value_at(values, place)) for place, text in texts.items()}

    def written(self) -> dict[Place, str]:
        """Text that refers to environment variables, by its place in the dumped recipe, but for what was changed."""
        values = self.model_dump(mode="json")
        return {place: text for place, (text, value) in self._written.items() if value_at(values, place) == value}

    def stage(self, name: str) -> StageConfig:
        """The stage of that name, which must exist."""
        return next(stage for stage in self.stages if stage.name == name)

    def data_folder(self) -> Path:
        """The folder against which relative data paths are read."""
        return data_folder(self.data_root)

    @model_validator(mode="after")
    def _shardable(self) -> Self:
        if self.base.quantization is not None and self.accelerator.strategy in ("zero3", "fsdp"):
            raise ValueError(
                f"accelerator.strategy: {self.accelerator.strategy} shards weights over processes, and those of a "
                f"base with quantization: {self.base.quantization} cannot be sharded. Take ddp or zero2, or remove "
                "quantization"
            )
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _validate(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if not isinstance(data, Mapping):
            return handler(data)
        data = _with_types(data)
        problems = list(reference_problems(data, plugins_of(info)))
        try:
            recipe = handler(data)
        except ValidationError as error:
            problems += explained(error, cls)
        if not problems:
            problems += validation_problems(recipe.data, recipe.stages)
        if problems:
            raise combined(cls.__name__, problems)
        return recipe


def _with_types(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what a modality's key says about its type."""
    modalities = data.get("modalities")
    if not isinstance(modalities, Mapping):
        return dict(data)
    filled = {key: {"type": key, **m} if isinstance(m, Mapping) else m for key, m in modalities.items()}
    return {**data, "modalities": filled}
