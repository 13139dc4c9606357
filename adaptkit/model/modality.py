"""The description of a modality in a workflow, which recipes, checkpoints and processors share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr
from pydantic.dataclasses import dataclass

from adaptkit.errors import ModelError, unknown_name
from adaptkit.files.generation_config import check_kinds
from adaptkit.model.reference import encoder_relative_to_checkpoint, resolve_encoder
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.stage import EncoderLora

Text = Annotated[StrictStr, Field(max_length=10_000)]
_WITHOUT_NULL = ("type", "options", "train_encoder", "encoder_lora")


class _Reference(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    name: Text | None = None
    object: Text | None = None
    options: dict[str, Any] | None = None


class _EncoderReference(_Reference):
    adopted_by: Text | None = None
    content_hash: Text | None = None


class _ProjectorReference(_Reference):
    options: dict[str, Any] = Field(default_factory=dict)


def _of_kind(kind: type[BaseModel]) -> BeforeValidator:
    def check(values: Any) -> Any:
        kind.model_validate(values)
        return values

    return BeforeValidator(check)


@dataclass(frozen=True, kw_only=True)
class WorkflowModality:
    """How a workflow takes one modality.

    Attributes:
        encoder: `{"name": ..., "options": ...}` of a plugin's encoder, or what is known of an object.
        projector: `{"name": ..., "options": ...}`, or `{"object": ...}` for a module of the user's own.
        placeholder_id: Token id that stands at each of its positions.
        placeholder: Text of that id, where the tokenizer has one.
        start: Text before each item's placeholders.
        end: Text after them.
        type: The installed modality that reads its files, where that has another name.
        options: Options of that modality.
        train_encoder: Whether the workflow trains a copy of the encoder.
        encoder_lora: With `train_encoder`, the options of low-rank differences, which are all that is trained then.
        feature_mode: How features reach the decoder, as the insertion policy declares it.
    """

    encoder: Annotated[dict[str, Any], _of_kind(_EncoderReference)]
    projector: Annotated[dict[str, Any], _of_kind(_ProjectorReference)]
    placeholder_id: Annotated[StrictInt, Field(ge=0, lt=1 << 31)]
    placeholder: Text | None = None
    start: Text | None = None
    end: Text | None = None
    type: Text | None = None
    options: dict[str, Any] | None = None
    train_encoder: StrictBool | None = None
    encoder_lora: Annotated[dict[str, Any], _of_kind(EncoderLora)] | None = None
    feature_mode: Annotated[StrictStr, Field(pattern="^(splice|context)$")] | None = None

    @classmethod
    def of(cls, values: Any, place: Path | str, prefix: str = "") -> WorkflowModality:
        """Read a description, as `config.json` and `processor_config.json` hold it.

        Args:
            place: What an error names.
            prefix: Put before the keys that an error names.

        Raises:
            ModelError: Keys are missing or unknown, or their values are of a wrong kind; the message names them.
        """
        if isinstance(values, cls):
            return values
        if isinstance(values, Mapping) and values.get("encoder_lora") is not None and not values.get("train_encoder"):
            raise ModelError(f"{place}: {prefix}encoder_lora trains the encoder: set train_encoder to true, too.")
        known = [field.name for field in fields(cls)]
        for key in values if isinstance(values, Mapping) else ():
            if key not in known:
                hint = "A later version of adaptkit may have written it."
                raise ModelError(f"{place}: {prefix}{key}: {unknown_name('key', key, known, hint=hint)}")
        return check_kinds(cls, values, place, prefix)

    def to_dict(self) -> dict[str, Any]:
        """The description as `of` reads it."""
        return {key: value for key, value in asdict(self).items() if value is not None or key not in _WITHOUT_NULL}

    @property
    def encoder_name(self) -> str | None:
        """The plugin's encoder, which was named or has adopted a model object."""
        return self.encoder.get("name") or self.encoder.get("adopted_by")

    @property
    def encoder_options(self) -> dict[str, Any]:
        """Options of the encoder."""
        return dict(self.encoder.get("options") or {})

    @property
    def projector_options(self) -> dict[str, Any]:
        """Options of the projector."""
        return dict(self.projector.get("options") or {})

    def low_rank(self) -> dict[str, Any] | None:
        """The options of the encoder's low-rank differences, with their defaults; None where it has none."""
        return None if self.encoder_lora is None else EncoderLora.model_validate(self.encoder_lora).model_dump()

    def relative_to(self, checkpoint: Path) -> WorkflowModality:
        """The same, with an encoder in a folder named as seen from a checkpoint."""
        return replace(self, encoder=encoder_relative_to_checkpoint(self.encoder, checkpoint))

    def resolved(self, checkpoint: Path) -> WorkflowModality:
        """Undo `relative_to`."""
        return replace(self, encoder=resolve_encoder(self.encoder, checkpoint))

    def check_type(self) -> None:
        """Raise a `ModelError` where its type is not an installed modality."""
        installed = get_plugin_manager().names("modality")
        if self.type is not None and self.type not in installed:
            raise ModelError(unknown_name("installed modality", self.type, installed))


def read_modalities(entries: Mapping[str, Any], place: Path | str) -> dict[str, WorkflowModality]:
    """The descriptions of all modalities of a workflow; see `WorkflowModality.of`."""
    return {name: WorkflowModality.of(values, place, f"modalities.{name}.") for name, values in entries.items()}


def check_placeholders(modalities: Mapping[str, WorkflowModality]) -> None:
    """Raise a `ModelError` where two modalities share a placeholder id."""
    taken: dict[int, str] = {}
    for name, modality in modalities.items():
        other = taken.setdefault(modality.placeholder_id, name)
        if other != name:
            raise ModelError(f"modalities {other!r} and {name!r} share placeholder_id {modality.placeholder_id}.")
