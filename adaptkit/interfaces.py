"""The contracts between plugins and the core: what a modality, an encoder and a projector must do.

One raw input (a picture, a recording, a sensor series) is an *item*. A `Modality` reads it, a
`Preprocessor` turns it into a tensor, an `Encoder` turns that into features, and a projector maps the
features to the decoder's width, one placeholder position each.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Generic, NotRequired, Protocol, Self, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from adaptkit.errors import DataError, wrong_type
from adaptkit.files.hashing import hash_tensors
from adaptkit.hookspecs import CONTRACT_VERSION as CONTRACT_VERSION
from adaptkit.hookspecs import Options


class Modality(ABC):
    """One kind of input: how it is read, recognised in data, and shown to a person.

    Attributes:
        name: The key used in recipes, chat parts (`{"type": name, ...}`) and `features={name: ...}`.
        tag: How data files mark its place in a text, `"<image>"`.
        plural: The processor's keyword for a list of items, `"images"`.
    """

    name: str
    tag: str
    plural: str

    @abstractmethod
    def load(self, source: Any) -> Any:
        """Read one item from a path, bytes, a file object, or an object already in memory.

        Raises:
            DataError: The source is missing, unreadable, empty, or beyond the size limits.
        """

    @abstractmethod
    def content_key(self, source: Any) -> str:
        """A stable hash of the raw content, for feature caches."""

    @abstractmethod
    def to_html(self, item: Any) -> str:
        """An HTML fragment, self-contained, that shows the loaded item in a report."""

    def augment(self, item: Any, rng: np.random.Generator) -> Any:
        """A random variation of the loaded item that keeps its meaning, for the training of encoders; else the item."""
        return item

    def doubts(self, item: Any) -> list[str]:
        """What makes one doubt that a loaded item is what was meant, for `data check`; each a clause, "it is silent".

        Such as a value that never changes, or a part of the source that is not read.
        """
        return []

    def box_size(self, item: Any) -> tuple[int, int] | None:
        """Width and height in pixels in which boxes of the loaded item are given; None where it can have none."""
        return None


def box_size_of(modality: Modality, source: Any) -> tuple[int, int] | None:
    """As `Modality.box_size`, of an item that is still to be loaded."""
    return modality.box_size(modality.load(source))


class Preprocessor(ABC):
    """Turns loaded items into encoder inputs, without needing the encoder's weights.

    Attributes:
        input_name: The keyword under which stock models take this input, `"pixel_values"`.
        fixed_positions: Encoder positions per item where it is the same for every item, else None.
    """

    input_name: str
    fixed_positions: int | None = None

    @abstractmethod
    def __call__(self, item: Any) -> Tensor:
        """Encoder input of one loaded item, without a batch dimension."""

    def num_positions(self, inputs: Tensor) -> int:
        """How many feature vectors the encoder makes of these inputs of one item."""
        if self.fixed_positions is None:
            raise NotImplementedError(f"{type(self).__name__} is abstract here: give fixed_positions or num_positions")
        return self.fixed_positions

    def settings(self) -> str:
        """Everything that changes the inputs it makes, as canonical JSON; a `PretrainedEncoder` needs it."""
        raise NotImplementedError(
            f"{type(self).__name__} must define settings(): the fingerprint of its encoder depends on them"
        )

    def collate(self, inputs: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Join the inputs of several items into one batch, `(num_items, ...)`; a list where their shapes differ."""
        if len({item.shape for item in inputs}) == 1:
            return torch.stack(list(inputs))
        return list(inputs)


class Encoder(nn.Module, ABC):
    """A feature extractor, frozen unless a policy adapts a copy of it.

    Attributes:
        feature_size: Width of one feature vector.
        input_name: As in `Preprocessor`.
        cacheable: Whether equal inputs always give equal features, so that they may be kept on disk.
        num_layers: How many of its blocks run, where some come after the layer whose features it gives.
    """

    feature_size: int
    input_name: str = "pixel_values"
    cacheable: bool = True
    num_layers: int | None = None

    @abstractmethod
    def forward(self, inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Encode what the preprocessor's `collate` made of several items.

        Args:
            inputs: `(num_items, ...)`, or, where the shapes of items differ, a list of one tensor each. An encoder
                whose inputs all have one shape need not take lists.

        Returns:
            Features `(num_items, positions, feature_size)`, or a list of `(positions, feature_size)`.
        """

    @abstractmethod
    def build_preprocessor(self) -> Preprocessor:
        """The preprocessing that this encoder was trained with."""

    def example_inputs(self) -> Tensor | None:
        """The smallest inputs it takes, `(1, ...)`; None where it has none, and can then not be sharded.

        Where weights are sharded, one whose batch has nothing to encode must take part all the same.
        """
        return None

    def fingerprint(self) -> str:
        """Hash of everything its features depend on, weights and options, for feature caches and checkpoints."""
        return hash_tensors(chain(self.named_parameters(), self.named_buffers()))


P = TypeVar("P", bound=Preprocessor)


class PretrainedEncoder(Encoder, Generic[P]):
    """An encoder around one pretrained model, which is frozen, with the preprocessing that belongs to its weights.

    Args:
        model: The model.
        options: The encoder's options.
        preprocessor: What makes its inputs; its `settings` count in the fingerprint.

    Attributes:
        not_content: Options on which features do not depend: where a checkpoint lies, what is refused.
    """

    not_content: ClassVar[frozenset[str]] = frozenset({"path"})

    def __init__(self, model: nn.Module, options: Options, preprocessor: P) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.options = options
        self._preprocessor = preprocessor
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Training mode has a meaning only where a policy made parameters of a copy trainable."""
        return super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))

    def build_preprocessor(self) -> P:
        """The preprocessing that belongs to these weights."""
        return self._preprocessor

    def content(self) -> dict[str, Any]:
        """The options on which features depend."""
        return self.options.model_dump(exclude=set(self.not_content))

    def weights_fingerprint(self) -> str:
        """Hash of the weights on which features depend."""
        return super().fingerprint()

    def fingerprint(self) -> str:
        """Hash of weights, options and preprocessing; where the checkpoint lies does not matter."""
        parts = [self.weights_fingerprint(), json.dumps(self.content(), sort_keys=True), self._preprocessor.settings()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class EncodedFeatures:
    """Features that an encoder gave earlier, for `features=` in place of raw inputs.

    Attributes:
        items: `(num_items, positions, feature_size)`, or a list of `(positions, feature_size)` where the number of
            positions differs. A tensor `(positions, feature_size)` is one item.

    Raises:
        DataError: The shape is another, or the numbers are not floats.

    Example:
        ```python
        features = model.encode("image", pixel_values)
        model(input_ids=input_ids, features={"image": adaptkit.EncodedFeatures(features)})
        ```
    """

    items: Tensor | list[Tensor]

    def __post_init__(self) -> None:
        items = self.items
        if isinstance(items, Tensor) and items.ndim == 2:
            object.__setattr__(self, "items", items.unsqueeze(0))
        elif isinstance(items, Tensor):
            _require_features(items, 3)
        elif not isinstance(items, list | tuple):
            raise DataError(wrong_type("EncodedFeatures", "a tensor, or a list of tensors", items))
        elif not items:
            raise DataError("EncodedFeatures: a list of tensors needs one or more. A prompt without media has none.")
        else:
            for item in items:
                _require_features(item, 2)
            widths = sorted({item.shape[-1] for item in items})
            if len(widths) > 1:
                raise DataError(f"encoded features of one encoder have one width; these are {widths} wide.")
            object.__setattr__(self, "items", list(items))
        _require_floats(self.items)

    def __len__(self) -> int:
        """How many items they are of."""
        return len(self.items)

    @property
    def feature_size(self) -> int:
        """Width of one feature vector."""
        items = self.items
        return int((items if isinstance(items, Tensor) else items[0]).shape[-1])

    def to(self, *args: Any, **kwargs: Any) -> EncodedFeatures:
        """Move or cast them, with the arguments of `torch.Tensor.to`."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> EncodedFeatures:
        """Copy them to pinned memory, as data loaders do."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> EncodedFeatures:
        items = self.items
        return EncodedFeatures(change(items) if isinstance(items, Tensor) else [change(item) for item in items])


def _require_features(features: Any, num_dimensions: int) -> None:
    if not isinstance(features, Tensor) or features.ndim != num_dimensions:
        found = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise DataError(
            "encoded features are (num_items, positions, feature_size), or a list of (positions, feature_size) where "
            f"the number of positions differs; got {found}."
        )


def _require_floats(items: Tensor | list[Tensor]) -> None:
    for item in [items] if isinstance(items, Tensor) else items:
        if not item.is_floating_point():
            raise DataError(f"encoded features are floats, as an encoder gives them; got {item.dtype}.")


class Message(TypedDict):
    """One turn. `content` holds parts in reading order: text, or `{"type": modality, modality: source}`.

    An assistant's turn of `weight` 0 is read and not learned. The other keys are `MEANINGFUL_KEYS`, which the chat
    template must render.
    """

    role: str
    content: list[dict[str, Any]]
    weight: NotRequired[int]
    reasoning_content: NotRequired[str]
    reasoning: NotRequired[str]
    thinking: NotRequired[str]
    tool_calls: NotRequired[Any]
    function_call: NotRequired[Any]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    refusal: NotRequired[str]


REASONING_KEYS = (
    "reasoning_content", "reasoning", "thinking", "thought", "thoughts", "rationale", "chain_of_thought",
)  # fmt: skip
"""Names under which an assistant's message holds its reasoning; templates know one of them."""

MEANINGFUL_KEYS = (*REASONING_KEYS, "tool_calls", "function_call", "tool_call_id", "name", "refusal")
"""Keys of a message beside its content that the template must render: what it leaves out would not be learned."""


def more_of(message: Mapping[str, Any]) -> Any:
    """What a message says beside its content, under `MEANINGFUL_KEYS`; empty values say nothing."""
    return {key: message[key] for key in MEANINGFUL_KEYS if message.get(key) not in (None, "", [], {})}


@dataclass(frozen=True)
class Sample:
    """One conversation of a dataset, media still unread.

    Attributes:
        id: As in the data file.
        messages: Turns in order; roles are system, user and assistant.
        location: Where it was read, for error messages: `file.json[17]`.
    """

    id: str
    messages: list[Message]
    location: str = ""


class DataSource(Protocol):
    """A dataset of conversations by index.

    The same index always gives the same sample, in whatever order samples are asked for. A bad row is a `DataError`
    when it is asked for, and an index beyond the end an `IndexError`.

    One that is read forwards only has `is_stream = True`: its samples are then asked for in ascending order, and an
    index before the last ones means a new epoch. Its length is the number of samples of one epoch.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def is_stream(source: DataSource) -> bool:
    """Whether a data source is read forwards only."""
    return bool(getattr(source, "is_stream", False))


@dataclass(frozen=True)
class DataContext:
    """What a data source may need beside its own options.

    Attributes:
        data_root: Folder against which relative paths are read.
        tags: Data-file tag of each modality in use, `{"image": "<image>"}`.
        cache_dir: Where generated data may be kept between runs.
        box_sizes: For each modality in use, what gives width and height in pixels of a medium by its source, as
            `Modality.box_size` does of a loaded one.
    """

    data_root: Path
    tags: dict[str, str]
    cache_dir: Path
    box_sizes: Mapping[str, Callable[[Any], tuple[int, int] | None]] = field(default_factory=dict)


Media = Tensor | list[Tensor] | EncodedFeatures
"""The items of a modality in a batch: raw encoder inputs, or what the encoder made of them earlier."""


class Batch(TypedDict, total=False):
    """What collation hands to a model: `data` and `model` meet only here.

    `input_ids`, `attention_mask` and `labels` are `(batch, seq)`; `features` maps a modality to all its
    items in reading order, row after row: raw encoder inputs, a list where their shapes differ; or `EncodedFeatures`.
    A packed batch is one row without padding, and has `segment_lengths`, of the conversations in it, in place of the
    mask.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    segment_lengths: list[int]
    features: dict[str, Media]


@dataclass(frozen=True)
class Evaluation:
    """Scores and the answers behind them.

    Attributes:
        results: Sections of `results.json`.
        answers: Answers about media, for a report's gallery.
        proves_text: Whether the section `text` proves that the text workflow is the base.
    """

    results: dict[str, Any]
    answers: list[Any] = field(default_factory=list)
    proves_text: bool = False


class EvaluationTask(Protocol):
    """A benchmark: scores workflows over one base.

    A task without `evaluate_workflows` is asked to `evaluate` the first workflow of a run.
    """

    def evaluate(
        self,
        model: Any,
        processor: Any,
        *,
        limit: int | None,
        seed: int,
        data: Path | None,
        progress: Callable[[int, int, str], None],
    ) -> dict[str, Any]:
        """Return JSON-serialisable scores. `progress(done, total, what)` is called now and then."""

    def evaluate_workflows(
        self,
        workflows: Mapping[str, tuple[Any, Any]],
        *,
        limit: int | None,
        seed: int,
        data: Path | None,
        progress: Callable[[int, int, str], None],
    ) -> Evaluation:
        """Score a run's workflows.

        Args:
            workflows: Model and processor of each workflow, over one base, in the order in which they are trained.
            limit: Questions of each kind, at most.
            seed: Draws them.
            data: A folder of the task's files.
            progress: As for `evaluate`.
        """
        raise NotImplementedError
