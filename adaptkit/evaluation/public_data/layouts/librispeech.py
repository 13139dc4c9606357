"""LibriSpeech's release: a folder a speaker and chapter, with recordings and one file of what is said in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.evaluation.public_data.release import Release


def features(config: str) -> Any:
    """Columns of the hub's dataset."""
    from datasets import Audio, Features, Value

    text = Value("string")
    return Features({"audio": Audio(), "gt": text, "source": text, "task": text})


def rows(release: Release, config: str, split: str, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row a recording, in the order of speakers, chapters and recordings."""
    found = False
    for speaker in release.names(files[0]):
        folder = f"{files[0]}/{speaker}"
        chapters = release.names(folder) if (release.path / folder).is_dir() else []
        for chapter in chapters:
            if not (release.path / folder / chapter).is_dir():
                continue
            for where, line in release.lines(f"{folder}/{chapter}/{speaker}-{chapter}.trans.txt"):
                found = True
                name, _, text = line.strip().partition(" ")
                if not text:
                    raise DataError(f"{where}: a recording's name and what is said in it are needed")
                sound = {"bytes": None, "path": str(release.file(f"{name}.flac", where, (f"{folder}/{chapter}",)))}
                yield {"audio": sound, "gt": text, "source": split, "task": "asr_en"}
    if not found:
        raise DataError(f"{release.path / files[0]} has no SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt")
