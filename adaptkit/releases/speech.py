"""Recordings of read sentences with their text: LibriSpeech and Common Voice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adaptkit.errors import DataError, first_few, unknown_name
from adaptkit.files.json_stream import Progress
from adaptkit.releases.entries import Skipped, read_entries, read_lines, require_folder

LIBRISPEECH = "SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt and the recordings beside it, as LibriSpeech has them"
COMMON_VOICE = "train.tsv, dev.tsv, test.tsv and clips/, the folder of one language of Common Voice"
_TRANSCRIPTS = ".trans.txt"
_DURATIONS = "clip_durations.tsv"


@dataclass(frozen=True)
class Recording:
    """A recording and what is said in it.

    Attributes:
        id: In the release.
        file: Path below the release's folder.
        text: As published.
        speaker: Who speaks.
        seconds: How long, where the release says so.
    """

    id: str
    file: str
    text: str
    speaker: str = ""
    seconds: float | None = None


def read_librispeech(
    folder: Path, subsets: tuple[str, ...] = (), skipped: Skipped | None = None, progress: Progress | None = None
) -> Iterator[Recording]:
    """Recordings of LibriSpeech, in the order of their ids.

    Args:
        folder: `LibriSpeech`, or one of its subsets; paths are relative to it.
        subsets: Names of folders in it, such as `train-clean-100`; all where not given.
        skipped: Counts malformed lines; None: they are errors.
        progress: Called with the chapters read.

    Raises:
        DataError: The folder has another layout.
    """
    require_folder(folder, LIBRISPEECH)
    for subset in subsets:
        if not (folder / subset).is_dir():
            found = sorted(path.name for path in folder.iterdir() if path.is_dir())
            raise DataError(f"{folder}: {unknown_name('subset', subset, found)}")
    roots = [folder / subset for subset in subsets] or [folder]
    chapters = [path for root in roots for path in sorted(root.rglob(f"*{_TRANSCRIPTS}"))]
    if not chapters:
        raise DataError(f"{folder}: no file *{_TRANSCRIPTS} below it. Name a folder with {LIBRISPEECH}")
    for number, chapter in enumerate(chapters, start=1):
        place = chapter.parent.relative_to(folder).as_posix()
        lines = ((where, (place, line)) for where, line in read_lines(chapter))
        yield from read_entries(lines, _read_transcript, "transcripts", skipped)
        if progress is not None:
            progress(number, len(chapters), "reading chapters")


def _read_transcript(entry: tuple[str, str], where: str) -> Recording:
    place, line = entry
    name, _, text = line.partition(" ")
    parts = name.split("-")
    if len(parts) != 3 or not all(part.isalnum() for part in parts):
        raise DataError(f"{where}: a line is SPEAKER-CHAPTER-NUMBER and the text, not {line[:40]!r}")
    return Recording(name, f"{place}/{name}.flac".removeprefix("./"), text.strip(), parts[0])


def read_common_voice(
    folder: Path, split: str = "train", skipped: Skipped | None = None, progress: Progress | None = None
) -> Iterator[Recording]:
    """Recordings of a split of Common Voice, in the order of its table.

    Args:
        folder: Of one language; holds `train.tsv` and others, `clips`, and in newer releases `clip_durations.tsv`.
        split: Name of a table, `train`, `validated` and the like.
        skipped: Counts malformed lines; None: they are errors.
        progress: Called with the bytes read.

    Raises:
        DataError: The folder has another layout, or no such split.
    """
    require_folder(folder, COMMON_VOICE)
    tables = sorted(path.stem for path in folder.glob("*.tsv"))
    if not tables:
        raise DataError(f"{folder}: no .tsv file in it. Name a folder with {COMMON_VOICE}")
    if split not in tables:
        raise DataError(f"{folder}: {unknown_name('split', split, tables)}")
    durations = _read_durations(folder / _DURATIONS)
    path = folder / f"{split}.tsv"
    lines = read_lines(path)
    place, first = next(lines, (str(path), ""))
    header = first.split("\t")
    if missing := [name for name in ("path", "sentence") if name not in header]:
        raise DataError(f"{place}: no column {missing[0]!r}; there is {first_few(header, 12)}")

    def read(line: str, where: str) -> Recording:
        cells = line.split("\t")
        if len(cells) < len(header):
            raise DataError(f"{where}: {len(cells)} cells, and the header has {len(header)}")
        row = dict(zip(header, cells))
        name = row["path"]
        key, seconds = name.rpartition(".")[0] or name, durations.get(name)
        return Recording(key, f"clips/{name}", row["sentence"], row.get("client_id", ""), seconds)

    size, done = path.stat().st_size, 0
    for number, (where, line) in enumerate(lines, start=1):
        yield from read_entries([(where, line)], read, "lines", skipped)
        done += len(line.encode(errors="replace")) + 1
        if progress is not None and number % 1000 == 0:
            progress(min(done, size), size, f"reading {path.name}")


def _read_durations(path: Path) -> dict[str, float]:
    """Seconds of each clip; empty where the release does not have the file."""
    if not path.is_file():
        return {}
    found = {}
    for where, line in list(read_lines(path))[1:]:
        name, _, milliseconds = line.partition("\t")
        try:
            found[name] = float(milliseconds) / 1000
        except ValueError:
            raise DataError(f"{where}: a line is the clip and its milliseconds, not {line[:60]!r}") from None
    return found
