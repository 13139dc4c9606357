"""Writing a workflow's model card, and what a person wrote in an earlier one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers.utils import CONFIG_NAME

import adaptkit
from adaptkit.errors import ModelError
from adaptkit.files.loading import read_json
from adaptkit.files.versions import versions
from adaptkit.files.writing import write_text
from adaptkit.model.card.facts import README_FILE, Card, Component, read_card, write_facts
from adaptkit.model.card.readme import Readme, hash_of_generated, joined, parse_readme, written_by_hand
from adaptkit.model.card.recording import OF_PROCESSORS, files_read, record_file, record_files, record_tensors
from adaptkit.model.card.rendering import render_card
from adaptkit.model.config import check_saved_config


@dataclass(frozen=True)
class CardFiles:
    """The model card of a folder, as far as it has one.

    Attributes:
        place: The README.
        readme: Its content.
        facts: What is known of the workflow.
        config: Of the workflow; None where it cannot be read.
    """

    place: Path
    readme: bytes | None = None
    facts: Card | None = None
    config: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, folder: Path) -> CardFiles:
        """Read them.

        Raises:
            ModelError: The file of facts is damaged.
        """
        place = folder / README_FILE
        return cls(place, place.read_bytes() if place.is_file() else None, read_card(folder), _config(folder))

    def by_hand(self) -> Readme | None:
        """What a person wrote in the README; None where there is none.

        Raises:
            ModelError: It cannot be read as text with metadata.
        """
        if self.readme is None:
            return None
        try:
            readme = parse_readme(self.readme.decode("utf-8-sig"), self.place)
        except UnicodeDecodeError as error:
            raise ModelError(
                f"{self.place} is not UTF-8 text. Rename it: what a person wrote there is kept."
            ) from error
        generated = {} if self.facts is None or self.config is None else render_card(self.config, self.facts).metadata
        return written_by_hand(readme, generated)


def _config(folder: Path) -> Mapping[str, Any] | None:
    path = folder / CONFIG_NAME
    try:
        return check_saved_config(read_json(path), path)
    except ModelError:
        return None


def write_card(folder: Path, card: Card, by_hand: Readme | None = None) -> None:
    """Write the facts and the README of a workflow whose `config.json` is in a folder."""
    card = card.model_copy(update={"adaptkit_version": adaptkit.__version__})
    readme = joined(render_card(read_json(folder / CONFIG_NAME), card), by_hand)
    write_facts(card.model_copy(update={"text_sha256": hash_of_generated(readme)}), folder)
    write_text(folder / README_FILE, str(readme))


def rewrite_card(folder: Path, card: Card, tags: list[str] | None = None, earlier: CardFiles | None = None) -> None:
    """Write a card anew in its folder, and keep what a person wrote there.

    Args:
        card: The facts.
        tags: Further ones for the hub.
        earlier: Where else a person may have written.
    """
    by_hand = (earlier and earlier.by_hand()) or CardFiles.of(folder).by_hand() or Readme()
    if tags:
        metadata = dict(by_hand.metadata)
        by_hand = replace(by_hand, metadata={**metadata, "tags": [*metadata.get("tags", []), *tags]})
    write_card(folder, card, by_hand)


def updated_card(
    card: Card, tensors: Mapping[str, Tensor], components: list[Any], folder: Path, directory: Path
) -> Card:
    """The facts about a workflow that is about to be saved; scores are of the tensors that they were measured with.

    Args:
        card: What was known.
        tensors: Its own.
        components: Sizes of its parts.
        folder: Where its other files are.
        directory: Where they go, beside a processor that may be there.
    """
    records = record_tensors(tensors.items())
    changed = bool(card.tensors) and card.tensors != records
    kept: dict[str, Any] = {"scores": [], "versions": {}} if changed else {}
    kept["changed_since"] = card.changed_since or (changed and bool(card.stages))
    card = card.model_copy(update=kept)
    return card.model_copy(
        update={
            "components": [Component(**_without_bytes(size)) for size in components],
            "versions": card.versions or versions(),
            "tensors": records,
            "files": {**_beside(directory), **record_files(folder)},
        }
    )


def _beside(directory: Path) -> dict[str, dict[str, str]]:
    """Records of a processor's files that stay: as they are here, or on the hub, of which only the card is here."""
    earlier = read_card(directory)
    known = {} if earlier is None or earlier.repo_id is None else earlier.files
    of_processor = {name: record for name, record in known.items() if name.startswith(OF_PROCESSORS)}
    return {**of_processor, **{name: record_file(directory / name) for name in files_read(directory)}}


def _without_bytes(size: Any) -> dict[str, Any]:
    return {key: value for key, value in asdict(size).items() if key != "num_bytes"}
