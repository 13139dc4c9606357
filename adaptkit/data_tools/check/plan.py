"""What is to be checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from adaptkit.build import MediaStore
from adaptkit.chat.encoding import EncodedConversation
from adaptkit.chat.template import describe_end_of_turn
from adaptkit.data_tools.check.findings import Problem
from adaptkit.errors import DataError, ModelError
from adaptkit.files.hub import parse_hub_name
from adaptkit.files.loading import load_stock
from adaptkit.files.paths import nearest_folder, resolve_model_path
from adaptkit.interfaces import DataSource, Preprocessor, Sample
from adaptkit.model.processor import AdaptkitProcessor


@dataclass(frozen=True)
class CheckedDataset:
    """One dataset, and how training reads it.

    Attributes:
        name: The recipe's name, or the file.
        source: Its samples.
        media: What encodes them and reads their media.
        max_length: Longest conversation in tokens; None: no limit.
        in_tokens: Whether lengths are those of training; else they are counted in characters.
        knows_words: Whether the tokenizer is that of training, so that words it does not know are found.
        reads_media: Whether media are decoded.
    """

    name: str
    source: DataSource
    media: CheckedMedia
    max_length: int | None = None
    in_tokens: bool = True
    knows_words: bool = True
    reads_media: bool = True


@dataclass
class Plan:
    """What is to be checked, and by what it is judged.

    Attributes:
        datasets: Those that could be opened.
        unopened: Why others could not be.
        mixtures: Datasets of each stage, or of the one mixture that files make.
        max_bad_fraction: Share of a mixture's samples that may be bad.
        notes: What is checked in another way than one may think, and why.
        unchecked: What is not checked, in a few words each.
    """

    datasets: list[CheckedDataset] = field(default_factory=list)
    unopened: list[Problem] = field(default_factory=list)
    mixtures: dict[str, list[str]] = field(default_factory=dict)
    max_bad_fraction: float = 0.01
    notes: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def note_unchecked(self, *what: str) -> None:
        """Note, once, what is not checked."""
        self.unchecked += [one for one in what if one not in self.unchecked]

    def note_end_of_turn(self, tokenizer: Any) -> None:
        """Note where generation could not stop at a token that was learned."""
        warning = describe_end_of_turn(tokenizer, tokenizer.chat_template)
        if warning is not None:
            self.notes.append(warning[0].upper() + warning[1:])


LENGTHS = "lengths in tokens"
WORDS = "words that the tokenizer does not know"
CONTENT = "whether media can be read"


class CheckedMedia(MediaStore):
    """Does what training does; errors that do not say of which kind they are get the kind of where they came up.

    Attributes:
        doubts: What the modalities doubt about the media prepared so far, `(source, words)`; to be emptied.
    """

    def __init__(self, processor: AdaptkitProcessor) -> None:
        super().__init__(processor)
        self.doubts: list[tuple[Any, str]] = []

    def num_positions(self, modality: str, source: Any) -> int:
        """Decoder positions of one medium."""
        with errors_of_kind("unreadable_media"):
            return super().num_positions(modality, source)

    def prepare(self, modality: str, source: Any) -> Any:
        """Encoder inputs of one medium."""
        inputs = self.processor.modalities[modality]
        with errors_of_kind("unreadable_media"):
            item = inputs.modality.load(source)
            self.doubts += [(source, words) for words in inputs.modality.doubts(item)]
            return inputs.preprocessor(item)

    def encode(self, sample: Sample) -> EncodedConversation:
        """Token ids and labels of one sample."""
        with errors_of_kind("conversation"):
            return super().encode(sample)


@contextmanager
def errors_of_kind(kind: str) -> Iterator[None]:
    """Give data errors a kind that have none."""
    try:
        yield
    except DataError as error:
        if error.kind == "other":
            error.kind = kind
        raise


class OnlyRead(Preprocessor):
    """Replaces an encoder's preprocessing where there is no encoder: it only reads media.

    Args:
        positions: Decoder positions that each item counts as.
    """

    input_name = "unused"

    def __init__(self, positions: int = 1) -> None:
        self.fixed_positions = positions

    def __call__(self, item: Any) -> Tensor:
        return torch.empty(0)


def open_tokenizer(path: str) -> Any:
    """The tokenizer in a folder, or of a hub id: `OWNER/NAME` or `OWNER/NAME@REVISION`.

    Raises:
        ModelError: There is none.
    """
    folder = resolve_model_path(path)
    if Path(folder).is_dir():
        return load_stock(AutoTokenizer, folder)
    if (named := parse_hub_name(path)) is None:
        raise ModelError(f"no folder {path!r} with a tokenizer{nearest_folder(Path(path))}.")
    model_id, revision = named
    return load_stock(AutoTokenizer, model_id, advice=f"There is no folder {path!r} either.", revision=revision)


def embedding_rows(folder: str, revision: str | None = None) -> int | None:
    """Rows of a model's embedding by its config; None without a model's config."""
    try:
        config = load_stock(AutoConfig, folder, revision=revision)
    except ModelError:
        return None
    rows = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    return rows if isinstance(rows, int) else None
