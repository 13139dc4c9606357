"""What turns raw input of a modality into placeholders and encoder inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from adaptkit.errors import AdaptkitError, ModelError, PluginError
from adaptkit.files.loading import cause, is_out_of_memory
from adaptkit.interfaces import Modality, Preprocessor
from adaptkit.model.encoders import load_preprocessor
from adaptkit.model.modality import WorkflowModality
from adaptkit.model.saving import ENCODERS_FOLDER
from adaptkit.plugin_manager import get_plugin_manager


@dataclass
class ModalityInputs:
    """All that turns raw input of one modality into placeholders and encoder inputs.

    Attributes:
        name: The modality's key in the workflow.
        modality: Reads raw input.
        preprocessor: Prepares it for the encoder.
        placeholder_id: Token id that stands at each of its positions.
        placeholder: The id's text where the tokenizer has one.
        start: Text that stands before each item's placeholders, such as a special token of the tokenizer.
        end: Text that stands after them.
        projector: `{"name": ..., "options": ...}`, which may change the number of positions.
        spec: The description that this was built from; without it, a saved processor cannot be loaded.
        place: Where the preprocessing is described, for messages.
    """

    name: str
    modality: Modality
    preprocessor: Preprocessor
    placeholder_id: int
    placeholder: str | None = None
    start: str | None = None
    end: str | None = None
    projector: Mapping[str, Any] = field(default_factory=dict)
    spec: WorkflowModality | None = None
    place: str | None = None

    def __post_init__(self) -> None:
        given: Any = self.spec
        if isinstance(given, Mapping):  # an entry of `config.modalities`
            self.spec = WorkflowModality.of(given, f"modality {self.name!r}") if given else None

    def load(self, source: Any) -> Tensor:
        """Encoder inputs of one item, without a batch dimension."""
        item = self.modality.load(source)
        try:
            return self.preprocessor(item)
        except AdaptkitError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            where = self.place or f"the encoder of {self.name!r}"
            raise ModelError(
                f"{where}: the preprocessing that is described there fails ({cause(error)}). Download it again; if it "
                "is undamaged, tell the author of the plugin."
            ) from error

    def num_positions(self, inputs: Tensor) -> int:
        """Decoder positions that one item takes."""
        return self._projected(self.preprocessor.num_positions(inputs))

    @property
    def fixed_positions(self) -> int | None:
        """Decoder positions of every item, where that does not depend on the item."""
        if self._in_context:
            return 1
        fixed = self.preprocessor.fixed_positions
        return None if fixed is None else self._projected(fixed)

    @property
    def _in_context(self) -> bool:
        """Whether features stay out of the sequence, so that one placeholder stands for each item."""
        return self.spec is not None and self.spec.feature_mode == "context"

    def _projected(self, positions: int) -> int:
        if self._in_context:
            return 1
        if "name" not in self.projector:
            return positions
        manager = get_plugin_manager()
        name = self.projector["name"]
        options = manager.options("projector", name, self.projector.get("options") or {})
        return manager.get("projector", name).num_positions(options, positions)


def modality_inputs(
    name: str,
    spec: WorkflowModality | Mapping[str, Any],
    directory: Path | None = None,
    preprocessor: Preprocessor | None = None,
) -> ModalityInputs:
    """Build a modality's reading and preprocessing from its description, such as an entry of `config.modalities`.

    Encoders that were given as objects are in the folder of the checkpoint. The preprocessor is built by the plugin of
    the encoder where it is not given.
    """
    spec = WorkflowModality.of(spec, f"modality {name!r}")
    manager = get_plugin_manager()
    modality = manager.build("modality", spec.type or name, spec.options or {})
    kept = None
    if "adopted_by" in spec.encoder and directory is not None:
        kept = str(directory / ENCODERS_FOLDER / name)
    if preprocessor is None:
        preprocessor = _preprocessor(name, spec, kept)
    if "name" in spec.projector:
        manager.options("projector", spec.projector["name"], spec.projector_options)
    texts = {key: getattr(spec, key) for key in ("placeholder", "start", "end")}
    place = kept or spec.encoder_options.get("path")
    return ModalityInputs(
        name, modality, preprocessor, spec.placeholder_id, **texts, projector=spec.projector, spec=spec, place=place
    )


def _preprocessor(name: str, spec: WorkflowModality, kept: str | None) -> Preprocessor:
    if spec.encoder_name is None:
        raise PluginError(
            f"modality {name!r}: its encoder was an object ({spec.encoder.get('object')}) that no plugin knows, so its "
            "preprocessing cannot be determined. Use adaptkit.AdaptkitProcessor.from_model with the workflow in memory."
        )
    return load_preprocessor(spec.encoder_name, {**spec.encoder_options, **({"path": kept} if kept else {})})
