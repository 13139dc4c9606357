"""What a model card says of a workflow beside its config: facts, in a file that programs read.

`README.md` is made of these facts and of `config.json`, so that neither has to be read back out of prose.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adaptkit.errors import ModelError
from adaptkit.files.loading import read_json, reading
from adaptkit.files.writing import write_json

CARD_FILE = "adaptkit_card.json"
README_FILE = "README.md"


class _Fact(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Component(_Fact):
    """A part of the workflow; see `adaptkit.model.inspection.ComponentSize`."""

    name: str
    state: str
    num_parameters: int


class Dataset(_Fact):
    """A dataset of the training.

    Attributes:
        name: In the recipe.
        format: In which it is read.
        hub_id: Of the hub, where it is from there.
        num_samples: How many it has, where that is known.
    """

    name: str
    format: str
    hub_id: str | None = None
    num_samples: int | None = None


class Stage(_Fact):
    """A stage of the training.

    Attributes:
        train: Parts that it trained.
        num_trainable: Parameters of these.
        num_steps: Optimizer steps.
        batch_size: Samples of a step, on all devices; packs of them where it packs.
        data: For each dataset how often a sample is seen in an epoch, or `N samples an epoch`.
    """

    name: str
    workflow: str
    train: list[str]
    num_trainable: int
    num_steps: int
    batch_size: int
    packing: bool = False
    optimizer: str
    learning_rate: float
    data: dict[str, str]


class Score(_Fact):
    """A score of this workflow.

    Attributes:
        section: Of `results.json`.
        metric: Key in the section.
        baselines: Other keys that it is to be compared with.
        task: Benchmark that asked.
        dataset: What was asked.
        rules: Who scored: harness and version.
        trained_on: Whether a stage trains on what was asked.
    """

    section: str
    metric: str
    value: float
    num_samples: int | None = None
    baselines: dict[str, float] = Field(default_factory=dict)
    task: str
    dataset: str
    split: str | None = None
    rules: str
    trained_on: bool = False


class Proof(_Fact):
    """That the text workflow computes what the base does in a process without adaptkit.

    Attributes:
        identical: Whether all that was compared was the same.
        prompts: Token ids of each prompt, with spaces between them.
        num_written: How many of them are written texts; the rest are random ids.
        num_positions: Of all prompts.
        num_answers: Prompts that were answered as well.
        logits_sha256: Of the base's logits at every position, in the process without adaptkit.
        answers_sha256: Of the ids of its answers.
        environment: What the bits of logits depend on, besides the base.
    """

    identical: bool
    prompts: list[Annotated[str, Field(pattern=r"^\d+( \d+)*$")]]
    num_written: int
    num_positions: int
    num_answers: int
    logits_sha256: str
    answers_sha256: str
    environment: dict[str, str]

    @property
    def prompt_ids(self) -> list[list[int]]:
        """Token ids of each prompt."""
        return [[int(token) for token in prompt.split()] for prompt in self.prompts]


class Card(_Fact):
    """Facts of a workflow.

    Attributes:
        adaptkit_version: That wrote the file.
        name: Of the workflow and its run.
        repo_id: Of the hub, in what was uploaded.
        components: Its parts, and how many parameters each has.
        data: What the stages read.
        stages: How it was trained, first to last.
        changed_since: Whether its tensors have been changed since these stages.
        scores: Of these tensors.
        proof: That text is unchanged.
        versions: Of the libraries that it was trained and saved with.
        tensors: For each tensor its dtype, shape and hash.
        text_sha256: Of what is generated in the README.
        files: For each other file that loading reads a hash, or one of each key where it is JSON.
    """

    adaptkit_version: str = ""
    name: str = ""
    repo_id: str | None = None
    components: list[Component] = Field(default_factory=list)
    data: list[Dataset] = Field(default_factory=list)
    stages: list[Stage] = Field(default_factory=list)
    changed_since: bool = False
    scores: list[Score] = Field(default_factory=list)
    proof: Proof | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    text_sha256: str | None = None
    tensors: dict[str, str] = Field(default_factory=dict)
    files: dict[str, dict[str, str]] = Field(default_factory=dict)


def read_card(folder: Path) -> Card | None:
    """The facts that a checkpoint's folder holds; None where it has none, as those of earlier versions.

    Raises:
        ModelError: The file is damaged.
    """
    path = folder / CARD_FILE
    if not path.exists():
        return None
    with reading(path, advice="Restore it, or delete it: then nothing is known of the training."):
        values = read_json(path)
        try:
            return Card.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ModelError(f"{path}: {place}: {first['msg']}.") from error


def write_facts(card: Card, folder: Path) -> None:
    """Write the facts; the same ones give the same bytes."""
    write_json(folder / CARD_FILE, card.model_dump(mode="json"))
