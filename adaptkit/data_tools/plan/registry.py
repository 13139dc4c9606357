"""What is known about public datasets and models: a file that ships with adaptkit, and others of its layout."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adaptkit.errors import DataError, unknown_name
from adaptkit.files.loading import reading

UNKNOWN = "see its page"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    license: str = UNKNOWN
    get_gb: float | None = Field(default=None, gt=0)


class PublicModel(_Entry):
    """A model of the hub.

    Attributes:
        license: As published.
        get_gb: Size of the download, where it is published.
    """


class PublicDataset(_Entry):
    """A public dataset.

    Attributes:
        title: What it is.
        home: Where its release lives.
        license: As published.
        size: As published.
        get_gb: Size of the downloads, where it is published.
        layout: What the dataset's folder holds.
        prepare: Commands that make the file that a recipe reads; `{path}`, `{media}`, `{root}` and `{limit}` stand for
            the recipe's. A line that begins with `#` is a remark.
    """

    title: str
    home: str
    size: str = UNKNOWN
    layout: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()


class Registry(BaseModel):
    """What is known.

    Attributes:
        datasets: By the name that recipes call them by.
        models: By id of the hub.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    datasets: dict[str, PublicDataset] = {}
    models: dict[str, PublicModel] = {}

    def dataset(self, name: str) -> PublicDataset:
        """A dataset by name.

        Raises:
            DataError: It is not known.
        """
        if name not in self.datasets:
            raise DataError(unknown_name("public dataset", name, self.datasets))
        return self.datasets[name]


def load_registry(more: Iterable[Path] = ()) -> Registry:
    """What ships with adaptkit, and what other files say; of two entries of a name the later counts.

    Args:
        more: Files of the same layout.

    Raises:
        DataError: A file cannot be read, or has another layout.
    """
    found = Registry()
    for path in (Path(str(files("adaptkit.data_tools.plan") / "datasets.yaml")), *more):
        read = _read(path)
        found = Registry(datasets=found.datasets | read.datasets, models=found.models | read.models)
    return found


def _read(path: Path) -> Registry:
    with reading(path, DataError):
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        return Registry.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise DataError(f"{path}: {place}: {first['msg']}. A registry has 'datasets' and 'models'.") from error
