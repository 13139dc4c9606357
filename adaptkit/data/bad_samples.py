"""Bad samples: counted, named in a file, and tolerated up to a limit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from adaptkit.errors import Lines, RunError, join_lines
from adaptkit.files.writing import atomic_file, explain_write_error, make_folder

_NUM_EXAMPLES = 5


class BadSamples:
    """The bad samples of one stage, shared by all processes that use the same file.

    Args:
        path: JSON lines, one a bad sample: `stage`, `location`, `reason`. It is appended to, and read again
            when a run resumes; stages may share it.
        num_samples: Size of the dataset.
        max_fraction: Share of the dataset that may be bad.
        stage: Name of the stage; lines of other stages do not count.
    """

    def __init__(self, path: Path, num_samples: int, max_fraction: float, stage: str = "") -> None:
        self.path = path
        self.stage = stage
        self.num_samples = num_samples
        self.max_fraction = max_fraction
        self._reasons: dict[str, str] = {}
        self._read_bytes = 0
        self._torn = False

    def __len__(self) -> int:
        return len(self._reasons)

    def locations(self) -> list[str]:
        """Where the bad samples of the stage are that are known so far."""
        self._read_new_lines()
        return list(self._reasons)

    def strike_out(self, locations: Collection[str]) -> None:
        """Take samples of the stage out of the file; no other process may be writing to it."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        with atomic_file(self.path, "wb") as file:
            for line in lines:
                entry = _parse(line)
                if entry is None or entry["stage"] != self.stage or entry["location"] not in locations:
                    file.write(line)
        self._reasons, self._read_bytes, self._torn = {}, 0, False

    def record(self, location: str, reason: str) -> None:
        """Note one bad sample; a location that is noted already counts once.

        Raises:
            RunError: More samples are bad than may be.
        """
        self._read_new_lines()
        if location not in self._reasons:
            self._reasons[location] = reason
            self._append({"stage": self.stage, "location": location, "reason": reason})
        if len(self) > self.max_fraction * self.num_samples:
            raise RunError(self.summary())

    def summary(self) -> Lines:
        """How many are bad, the first reasons, and what to do."""
        examples = [f"  {reason}" for reason in list(self._reasons.values())[:_NUM_EXAMPLES]]
        more = len(self) - len(examples)
        datasets = ", ".join(f"{name}: {count}" for name, count in _by_dataset(self._reasons).most_common())
        return join_lines(
            [
                f"{len(self)} of {self.num_samples} samples are bad ({datasets}); max_bad_fraction {self.max_fraction} "
                f"allows {int(self.max_fraction * self.num_samples)}:",
                *examples,
                *([f"  and {more} more"] if more else []),
                f"All are listed in {self.path}. Repair or remove them, or raise max_bad_fraction.",
            ]
        )

    def _read_new_lines(self) -> None:
        """Take over what other processes, or an earlier part of this run, have noted."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            for line in file:
                self._torn = not line.endswith(b"\n")
                if self._torn:
                    break
                self._read_bytes += len(line)
                entry = _parse(line)
                if entry is not None and entry["stage"] == self.stage:
                    self._reasons.setdefault(entry["location"], entry["reason"])

    def _append(self, entry: dict[str, str]) -> None:
        make_folder(self.path.parent)
        line = ("\n" * self._torn + json.dumps(entry) + "\n").encode()
        # One write of one line, so that lines of several processes do not mix.
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(line)
        except OSError as error:
            raise RunError(explain_write_error(error, self.path)) from error


def count_bad_samples(path: Path) -> Counter[str]:
    """Bad samples of each dataset that a run has recorded, each counted once however many stages met it."""
    entries = map(_parse, path.read_bytes().splitlines() if path.is_file() else ())
    return _by_dataset({entry["location"] for entry in entries if entry is not None})


def _parse(line: bytes) -> dict[str, str] | None:
    try:
        entry: dict[str, str] = json.loads(line)
    except ValueError:  # a run was killed while it wrote this line
        return None
    return entry


def _by_dataset(locations: Iterable[str]) -> Counter[str]:
    return Counter(location.rpartition("[")[0] for location in locations)
