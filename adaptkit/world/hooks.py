"""What the built-in world offers to recipes: the data source and the evaluation task `world`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock
from pydantic import Field

from adaptkit.errors import DataError
from adaptkit.evaluation import register_evaluation_tasks
from adaptkit.files.writing import make_folder, staged_folder
from adaptkit.hookspecs import DataSourceComponent, Options, Seed, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adaptkit.interfaces import DataContext, DataSource, Sample

__all__ = ["WorldDataOptions", "register_data_sources", "register_evaluation_tasks"]

_GENERATOR = ("dataset.py", "facts.py", "language.py", "scenes.py")
_TAG = "<image>"


class WorldDataOptions(Options):
    """Which of the world's conversations, and how many."""

    kind: Literal["caption", "questions", "boxes", "text"] = Field(
        description="What they are about: a caption; questions but boxes; boxes; scenes in words, and facts."
    )
    num_samples: int = Field(1000, ge=1, description="Number of conversations.")
    split: Literal["train", "dev", "test"] = Field("train", description="Where the scenes come from.")
    seed: Seed = Field(0, description="The same seed gives the same conversations.")
    questions_per_image: int = Field(6, ge=1, description="Questions of one conversation, at most.")
    num_images: int | None = Field(
        None, ge=1, description="Scenes that the conversations go round; as many as conversations by default."
    )
    system: str | None = Field(None, description="System message put before every conversation.")


@hookimpl
def register_data_sources(register: type[DataSourceComponent]) -> None:
    """The world's conversations, generated on first use and read like any other LLaVA file."""
    register(
        name="world",
        build=_build,
        options=WorldDataOptions,
        description="Captions, questions, boxes and text of the built-in world, made from a seed.",
        stand_in=_stand_in,
        examples="adaptkit.testing.sources:world_examples",
    )


def _build(options: WorldDataOptions, context: DataContext) -> DataSource:
    from adaptkit.data.formats.llava import LlavaLayout
    from adaptkit.data.media import Media
    from adaptkit.data.row_index import file_identity, load_rows
    from adaptkit.data.rows import RowSource

    if options.kind != "text" and _TAG not in context.tags.values():
        raise DataError(
            f"the world's data of kind {options.kind!r} needs a modality with the tag {_TAG}; the modalities "
            f"in use have {', '.join(context.tags.values()) or 'none'}"
        )
    path = _generate(options, context.cache_dir / "world")
    layout = LlavaLayout(context.tags, system=options.system)
    identity = repr((*file_identity(path), sorted(context.tags.items()), options.system))
    rows = load_rows(path, context.cache_dir)
    return RowSource(rows, layout, Media(path.parent), str(path), context=context, identity=identity)


def _generate(options: WorldDataOptions, cache_dir: Path) -> Path:
    """Path of the data file; written once, also when several processes ask at once."""
    from adaptkit.world.dataset import write_world_data

    values = options.model_dump(exclude={"system"})
    directory = cache_dir / _fingerprint(values)
    name = f"{options.kind}_{options.split}_{options.seed}.json"
    if not directory.exists():
        make_folder(cache_dir)
        with FileLock(cache_dir / f"{directory.name}.lock"):
            if not directory.exists():
                with staged_folder(directory) as staged:
                    write_world_data(staged, **values)
    return directory / name


def _fingerprint(values: dict[str, object]) -> str:
    """Changes with the options and with the generator's code, so that old data is never taken for new."""
    digest = hashlib.sha256(repr(sorted(values.items())).encode())
    for name in _GENERATOR:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:16]


def _stand_in(
    options: WorldDataOptions, directory: Path, samples: Sequence[Sample], tags: Mapping[str, str]
) -> WorldDataOptions:
    return options.model_copy(update={"num_samples": min(options.num_samples, len(samples)), "num_images": None})
