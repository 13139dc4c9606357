"""LibriSpeech and Common Voice: recordings and what is said in them as conversations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from adaptkit.data_tools.convert.turns import Turn, TurnOptions, TurnSummary, write_turns
from adaptkit.files.json_stream import Progress
from adaptkit.releases.entries import Skipped
from adaptkit.releases.speech import Recording, read_common_voice, read_librispeech

PROMPT = "Transcribe the recording."
DEFAULT = TurnOptions()
Case = Literal["published", "lower"]


def convert_librispeech(
    folder: Path,
    output: Path,
    options: TurnOptions = DEFAULT,
    progress: Progress | None = None,
    *,
    subsets: tuple[str, ...] = (),
    prompt: str = PROMPT,
    case: Case = "published",
) -> TurnSummary:
    """Write LibriSpeech's recordings as conversations.

    Args:
        folder: `LibriSpeech`, or one of its subsets; paths are relative to it.
        output: The JSON file to write.
        options: Which are written.
        progress: Called with the progress.
        subsets: `train-clean-100` and the like; all that are there where not given.
        prompt: What the user says.
        case: Of the text, which is published in capital letters.

    Raises:
        DataError: The folder has another layout, or holds nothing to write.
    """
    skipped = Skipped()
    recordings = read_librispeech(folder, subsets, skipped, progress)
    return _write("librispeech", recordings, output, options, skipped, prompt, case)


def convert_common_voice(
    folder: Path,
    output: Path,
    options: TurnOptions = DEFAULT,
    progress: Progress | None = None,
    *,
    split: str = "train",
    prompt: str = PROMPT,
    case: Case = "published",
    max_seconds: float | None = None,
) -> TurnSummary:
    """Write Common Voice's clips of one language as conversations.

    Args:
        folder: Of the language, with `train.tsv` and `clips`; paths are relative to it.
        output: The JSON file to write.
        options: Which are written.
        progress: Called with the progress.
        split: Name of the table.
        prompt: What the user says.
        case: Of the text.
        max_seconds: Longer clips are skipped, where the release has `clip_durations.tsv`.

    Raises:
        DataError: The folder has another layout, or holds nothing to write.
    """
    skipped = Skipped()
    recordings = read_common_voice(folder, split, skipped, progress)
    short = (one for one in recordings if _is_short(one, max_seconds, skipped))
    return _write("commonvoice", short, output, options, skipped, prompt, case)


def _is_short(recording: Recording, max_seconds: float | None, skipped: Skipped) -> bool:
    if max_seconds is None:
        return True
    if recording.seconds is None:
        skipped["recordings of unknown length"] += 1
    elif recording.seconds > max_seconds:
        skipped[f"recordings of more than {max_seconds:g} seconds"] += 1
    else:
        return True
    return False


def _write(
    name: str,
    recordings: Iterable[Recording],
    output: Path,
    options: TurnOptions,
    skipped: Skipped,
    prompt: str,
    case: Case,
) -> TurnSummary:
    def turns() -> Iterator[Turn]:
        for one in recordings:
            yield Turn(f"{name}_{one.id}", one.file, prompt, one.text.lower() if case == "lower" else one.text)

    summary = TurnSummary(output, modality="audio", nouns=("recording", "recordings"))
    return write_turns(turns(), output, options, skipped, summary=summary)
