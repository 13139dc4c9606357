"""The settings of a training stage, and of an encoder's training: sections of recipes that training takes.

They stand outside `recipe` because training knows no recipes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from adaptkit.errors import unknown_name
from adaptkit.hookspecs import Seed


class Section(BaseModel):
    """Part of a recipe: immutable, unknown keys are errors, and numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    shorthand: ClassVar[dict[str, str]] = {}
    """Further keys of a recipe, which loading resolves, and what they do."""


def _usable_as_key(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        raise ValueError(f"the name {name!r} is part of dotted keys and folders: use letters, digits, '_' and '-'")
    return name


Key = Annotated[str, AfterValidator(_usable_as_key)]
OptimizerName = Literal["adamw", "adamw_8bit", "muon"]
Part = Literal["projector", "insertion", "ends", "encoder"]
Weight = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(ge=1)]

_BATCH_BY_PROCESS = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
"""What a stage has that does not give its `train_batch_size`."""


class Draw(Section):
    """How many samples of a dataset one epoch has, whatever its size.

    Attributes:
        count: Samples an epoch; the rest comes in the next one.
    """

    count: PositiveInt


def _weight_or_count(value: Any) -> str:
    return "[count]" if isinstance(value, Mapping | Draw) else "[weight]"


Share = Annotated[Annotated[Weight, Tag("[weight]")] | Annotated[Draw, Tag("[count]")], Discriminator(_weight_or_count)]


class EncoderLora(Section):
    """Low-rank differences of an encoder's linear maps (LoRA, arXiv 2106.09685), by peft.

    Attributes:
        rank: Of the two factors.
        alpha: The difference is scaled by `alpha / rank`; twice the rank where not given.
        dropout: Share of the inputs that are dropped while training.
        target_modules: Last parts of the names of the linear maps that get one, `[q_proj, v_proj]`; all where not
            given.
    """

    rank: PositiveInt = 16
    alpha: float | None = Field(default=None, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: list[str] | None = Field(default=None, min_length=1)


def _all_or_count(value: Any) -> str:
    return "[count]" if isinstance(value, Mapping | Draw) else "[all]"


def _all_of_each(value: Any) -> Any:
    """A list of names asks for all rows of each."""
    return dict.fromkeys(value, "all") if isinstance(value, list) and all(isinstance(n, str) for n in value) else value


Amount = Annotated[
    Annotated[Literal["all"], Tag("[all]")] | Annotated[Draw, Tag("[count]")], Discriminator(_all_or_count)
]


class ValidationConfig(Section):
    """Losses on held-out data while a stage trains.

    Attributes:
        data: Datasets, and of each `all` rows or `{count: N}` of them, always the same; a list of names takes all rows.
            Of a dataset with a `holdout` the held-out rows are taken.
        every: Steps between validations, `save_steps` where not given. There is one before the first step and one after
            the last, too.
        save_best: Whether the checkpoint of the lowest loss is kept, whatever `save_total_limit` is. A dataset's name
            counts the loss on that one alone.
        load_best: Whether the stage ends with the weights of that checkpoint instead of the last ones.
        patience: Validations in a row without a lower loss after which the stage ends early; never where not given.
        allow_trained: Whether `data` may name datasets that are trained on and have no `holdout`.
    """

    data: Annotated[dict[Key, Amount], BeforeValidator(_all_of_each)] = Field(min_length=1)
    every: PositiveInt | None = None
    save_best: bool | Key = True
    load_best: bool = False
    patience: PositiveInt | None = None
    allow_trained: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.save_best, str) and self.save_best not in self.data:
            raise ValueError(f"save_best: {unknown_name('validation dataset', self.save_best, self.data)}")
        if self.load_best and self.save_best is False:
            raise ValueError("load_best needs the best checkpoint to be kept: remove save_best: false")
        return self

    @property
    def measure(self) -> str | None:
        """The dataset whose loss says which weights are best; None for the loss on all of them."""
        return self.save_best if isinstance(self.save_best, str) else None

    def measured(self) -> dict[str, Any]:
        """What the best loss is the best of, as JSON values: losses of anything else cannot be compared with it."""
        return {"data": self.model_dump(mode="json")["data"], "measure": self.measure}


class OptimizerGroup(Section):
    """Settings of one part that differ from the stage's optimizer.

    Attributes:
        layer_decay: Of the part `encoder`: each of its blocks has the learning rate of the next one times this.
    """

    name: OptimizerName | None = None
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    layer_decay: float | None = Field(default=None, gt=0, le=1)


class OptimizerConfig(Section):
    """How trainable tensors are updated.

    Attributes:
        name: `adamw_8bit` keeps AdamW's averages in 8 bits, by bitsandbytes: a quarter of their memory.
        learning_rate: Peak of the schedule.
        adamw_learning_rate: With Muon, the peak for what is not a matrix, which AdamW updates; by default the
            stage's `learning_rate` where the stage's optimizer is AdamW, else a quarter of the part's.
        groups: Differences by part.
    """

    name: OptimizerName = "adamw"
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    adamw_learning_rate: float | None = Field(default=None, gt=0)
    groups: dict[Part, OptimizerGroup] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _decays_in_encoders(self) -> Self:
        for part, group in self.groups.items():
            if group.layer_decay is not None and part != "encoder":
                raise ValueError(f"groups.{part}.layer_decay: only the part encoder has layers whose rates decay")
        return self

    def trained_groups(self, parts: Collection[str]) -> dict[str, OptimizerGroup]:
        """The groups of some parts: `stage_defaults` may name parts that not every stage trains."""
        return {part: group for part, group in self.groups.items() if part in parts}


class StageConfig(Section):
    """One training phase; what stages have in common may stand in the recipe's `stage_defaults`.

    Attributes:
        train: Parts that are trained; all others stay as they are.
        start_from: Earlier stage whose tensors this one begins with.
        data: Datasets, and for each how often a sample is seen in an epoch, or `{count: N}` samples an epoch.
        warmup_ratio: Share of the steps over which the learning rate rises; there is no warmup unless a stage asks
            for it.
        warmup_steps: The same as a number of steps.
        loss_spike: The stage stops where its loss is so many times the median of the last steps and above where it
            began; `.inf` for no limit.
        max_steps: Ends the stage early; -1 leaves it to `num_train_epochs`.
        train_batch_size: Samples of an optimiser step, over all devices; with packing, rows of `max_length` positions.
            `gradient_accumulation_steps` follow.
        per_device_train_batch_size: Conversations per device and forward pass. `auto` takes as many as are predicted
            to fit, and is the default beside `train_batch_size`; without that there are 8.
        gradient_accumulation_steps: Forward passes of an optimiser step, each of all devices.
        max_length: Longest conversation in tokens, placeholders included; what is over is cut off.
        gradient_checkpointing: Recomputes activations to save memory: of whole layers, or, where `selective`, of all
            but matrix products and attention.
        packing: Fills rows with several conversations that do not see each other, without padding. A forward pass
            then takes a row of up to `per_device_train_batch_size` times `max_length` positions.
        loss: How the loss is computed: `plain`, in `chunked` parts, by `liger`'s kernel, or `auto`, which chooses.
        torch_compile: Compiles each decoder layer, which takes minutes before it pays.
        save_steps: A checkpoint is written every so many steps, and at the end; 0 only at the end.
        group_by_length: Whether batches are made of conversations of like length.
        validation: Losses on held-out data while the stage trains.
        logging_steps: Steps between logged losses; `logging.logging_steps` where a recipe does not say.
        seed: Order of the data; the recipe's `seed` where it does not say.
    """

    name: Key
    workflow: Key
    train: list[Part] = Field(min_length=1)
    start_from: Key | None = None
    data: dict[Key, Share] = Field(min_length=1)
    optimizer: OptimizerConfig
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    ] = "cosine"
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    warmup_steps: int = Field(default=0, ge=0)
    max_grad_norm: float = Field(default=1.0, ge=0)
    loss_spike: float = Field(default=5.0, gt=1)
    num_train_epochs: float = Field(default=1.0, gt=0)
    max_steps: int = Field(default=-1, ge=-1)
    train_batch_size: PositiveInt | None = None
    per_device_train_batch_size: PositiveInt | Literal["auto"] = "auto"
    gradient_accumulation_steps: PositiveInt | None = None
    bf16: bool = False
    gradient_checkpointing: bool | Literal["selective"] = False
    packing: bool = False
    loss: Literal["auto", "plain", "chunked", "liger"] = "auto"
    torch_compile: bool = False
    max_length: PositiveInt = 2048
    save_steps: int = Field(default=500, ge=0)
    save_total_limit: PositiveInt = 2
    validation: ValidationConfig | None = None
    logging_steps: PositiveInt = 10
    dataloader_num_workers: int = Field(default=0, ge=0)
    group_by_length: bool = False
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _with_batch(cls, values: Any) -> Any:
        """Without `train_batch_size`, an optimiser step has a size for each process, which has defaults."""
        if not isinstance(values, Mapping) or values.get("train_batch_size") is not None:
            return values
        if values.get("per_device_train_batch_size") == "auto":
            raise ValueError(
                "per_device_train_batch_size: auto needs train_batch_size, the samples of an optimiser step"
            )
        given = {key: value for key, value in values.items() if value is not None or key not in _BATCH_BY_PROCESS}
        return {**_BATCH_BY_PROCESS, **given}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_ratio and self.warmup_steps:
            raise ValueError("give warmup_ratio or warmup_steps, not both; null removes one")
        if self.max_steps == 0:
            raise ValueError("max_steps of 0 would train nothing; remove the stage, or give -1 for whole epochs")
        if self.packing and self.group_by_length:
            raise ValueError("packing leaves no padding to save: set group_by_length to false")
        if len(set(self.train)) != len(self.train):
            raise ValueError(f"train names a part twice: {', '.join(self.train)}")
        if self.validation and self.validation.patience and not self.validate_every:
            raise ValueError("validation.patience needs validation.every, since save_steps is 0")
        return self

    @property
    def validate_every(self) -> int:
        """Steps between validations; 0 where there is none but before the first step and after the last."""
        return 0 if self.validation is None else self.validation.every or self.save_steps

    def num_validations(self, num_steps: int) -> int:
        """How often a stage of so many steps is validated."""
        every = self.validate_every or num_steps
        return 0 if self.validation is None else 1 + math.ceil(num_steps / every)

    @property
    def size_per_device(self) -> int:
        """Conversations per device and forward pass, of a stage whose batch is split."""
        size = self.per_device_train_batch_size
        assert size != "auto", "the batch is not split"
        return size

    @property
    def num_passes(self) -> int:
        """Forward passes of an optimiser step, of a stage whose batch is split."""
        return self.gradient_accumulation_steps or 1

    @property
    def batch_size(self) -> int:
        """Items of the sampler in a forward pass of one device: samples or packs."""
        return 1 if self.packing and self.train_batch_size is None else self.size_per_device

    @property
    def row_length(self) -> int:
        """Positions of a pack: `train_batch_size` counts packs that do not depend on how the batch is split."""
        return self.max_length if self.train_batch_size is not None else self.size_per_device * self.max_length

    def step_size(self, num_processes: int = 1) -> int:
        """Items of the sampler in an optimiser step: samples or packs."""
        return self.train_batch_size or self.batch_size * self.num_passes * num_processes

    def split(self, num_processes: int, auto: int) -> Self:
        """The stage with its batch split over processes and forward passes.

        Shares need not be equal: the last pass of a step takes what is left.

        Args:
            auto: Conversations per device and forward pass where the stage leaves that open.

        Raises:
            ValueError: Sizes that the stage gives contradict each other.
        """
        given, passes = self.per_device_train_batch_size, self.gradient_accumulation_steps
        if self.train_batch_size is None:
            return self
        by_passes = auto if passes is None else math.ceil(self.train_batch_size / (passes * num_processes))
        size = given if isinstance(given, int) else by_passes
        found = math.ceil(self.train_batch_size / (size * num_processes))
        if passes not in (None, found):
            raise ValueError(
                f"train_batch_size {self.train_batch_size} is {found} forward passes of {num_processes} x {size}, and "
                f"gradient_accumulation_steps is {passes}. Leave that out (null), since it follows from the others; or "
                "leave out train_batch_size, and a step has the product of both by the number of processes"
            )
        return self.model_copy(update={"per_device_train_batch_size": size, "gradient_accumulation_steps": found})

    def num_steps(self, num_items: int, num_processes: int = 1) -> int:
        """Optimiser steps of the stage, where the sampler gives `num_items` samples or packs an epoch."""
        if self.max_steps > 0:
            return self.max_steps
        return math.ceil(self.num_train_epochs * math.ceil(num_items / self.step_size(num_processes)))

    def num_warmup_steps(self, num_steps: int) -> int:
        """Steps over which the learning rate rises, of `num_steps` in all; a ratio leaves at least one step after."""
        if self.warmup_steps > 0:
            return self.warmup_steps
        return min(math.ceil(self.warmup_ratio * num_steps), max(num_steps - 1, 0))

    def optimizer_names(self) -> set[str]:
        """The optimizers of the parts that are trained."""
        groups = self.optimizer.trained_groups(self.train)
        return {self.optimizer.name, *(group.name for group in groups.values() if group.name)}

    def fixed_on_resume(self) -> dict[str, Any]:
        """What a resumed run must share with the one it continues to end in the same weights, as JSON values.

        The stage's length is not part of it, since it may be extended; neither is what changes no weight. How the
        batch is split changes weights by rounding alone.
        """
        values = self.model_dump(mode="json", include=set(_FIXED_ON_RESUME))
        groups = self.optimizer.trained_groups(self.train)
        values["optimizer"]["groups"] = {part: group.model_dump() for part, group in groups.items()}
        return values | {"train": sorted(self.train)}


_FIXED_ON_RESUME = (
    *("name", "train", "optimizer", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "max_grad_norm"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "bf16", "packing", "loss", "torch_compile", "seed"),
)


class EncoderTrainingConfig(Section):
    """How an encoder is trained.

    Attributes:
        num_steps: Batches in all.
        batch_size: Items a step.
        learning_rate: Peak of a cosine schedule.
        warmup_steps: Steps over which it rises.
        augment: Whether each step sees random variations of the items, as their modality makes them.
        evaluate_every: Steps between scores on held-out data.
        seed: Of weights, order and variations.
    """

    num_steps: PositiveInt = 1000
    batch_size: PositiveInt = 64
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_steps: int = Field(default=100, ge=0)
    augment: bool = True
    evaluate_every: PositiveInt = 250
    seed: Seed = 0
