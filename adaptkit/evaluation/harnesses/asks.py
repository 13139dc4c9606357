"""What harnesses ask, in the words of a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError

Messages = list[dict[str, Any]]

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_HONOURED = ("min_new_tokens", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram_size", "seed")
_NEUTRAL: dict[str, tuple[Any, ...]] = {"num_beams": (None, 1), "num_return_sequences": (None, 1)}
_OF_OTHER_MODELS = ("use_cache", "image_aspect_ratio", "image_sizes", "max_agentic_steps", "skip_special_tokens")
"""How particular models prepare media or decode, which a workflow has its own way for."""


@dataclass(frozen=True)
class Ask:
    """One request for text.

    Attributes:
        task: Of the harness.
        prompt: Messages, or the token ids of a text to continue.
        options: Of `Session`.
        shown: The text behind ids.
        repeat: Which of several answers to the same prompt it is.
    """

    task: str
    prompt: Any
    options: Mapping[str, Any]
    shown: str = ""
    repeat: int = 0


@dataclass
class Note:
    """What was asked for a task, for its results.

    Attributes:
        prompt: The first prompt as it was sent, with a tag for each medium.
        generation: Options of its generation.
        ignored: Those of the task's that say how another model works.
        answers: What was done to the answers before they were scored.
        workflows: Which answered, and how many requests.
    """

    prompt: str = ""
    generation: dict[str, Any] = field(default_factory=dict)
    ignored: dict[str, Any] = field(default_factory=dict)
    answers: str = ""
    workflows: dict[str, int] = field(default_factory=dict)


def session_options(
    task: str, given: Mapping[str, Any], *, default_length: int, ignored_stops: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A task's settings of generation as options of a session, and those that say how another model works.

    Sampling needs both a temperature above 0 and no `do_sample: false`; all else is greedy.

    Raises:
        DataError: One cannot be honoured.
    """
    left = {name: value for name, value in given.items() if value is not None}
    lengths = [int(left.pop(name)) for name in _LENGTHS if name in left]
    until = left.pop("until", None) or left.pop("stop_sequences", None) or []
    stops = [until] if isinstance(until, str) else list(until)
    temperature = float(left.pop("temperature", 0))
    do_sample = bool(left.pop("do_sample", temperature > 0)) and temperature > 0
    options: dict[str, Any] = {"max_new_tokens": lengths[0] if lengths else default_length, "do_sample": do_sample}
    if do_sample:
        options["temperature"] = temperature
    if stops := [text for text in stops if text and text not in ignored_stops]:
        options["stop_strings"] = stops
    ignored = {}
    for name, value in left.items():
        if name in _HONOURED:
            if do_sample or not name.startswith(("top_", "min_p", "seed")):
                options[name] = value
        elif name in _OF_OTHER_MODELS:
            ignored[name] = value
        elif value not in _NEUTRAL.get(name, ()):
            raise DataError(
                f"the task {task} asks for {name}={value!r}, which a session cannot honour: it decodes one answer for "
                "each prompt, greedily or sampled."
            )
    if do_sample and not 0 < options.get("top_p", 1) <= 1:
        del options["top_p"]
    return options, ignored


def medium_part(task: str, source: Any, kind: str | None = None) -> dict[str, Any]:
    """A picture, recording or other medium of a harness as a part of a message."""
    kind = kind_of(source) if kind in (None, "video") else kind
    if kind == "audio" and hasattr(source, "get_all_samples"):  # as datasets decodes with torchcodec
        samples = source.get_all_samples()
        source = {"array": samples.data.mean(0).numpy(), "sampling_rate": samples.sample_rate}
    return {"type": kind, kind: source}


def kind_of(source: Any) -> str:
    """`image`, `audio` or `video`: lmms-eval takes everything that it does not know for a video."""
    from lmms_eval.api.task import ConfigurableMessagesTask

    if hasattr(source, "get_all_samples") or (isinstance(source, Mapping) and "array" in source):
        return "audio"
    if isinstance(source, Path):
        source = str(source)
    try:
        return str(ConfigurableMessagesTask._visual_to_content(source)["type"])
    except TypeError:
        return type(source).__name__


def refuse_kinds(task: str, kinds: set[str], takes: Mapping[str, Sequence[str]]) -> None:
    """Refuse a task with media that no workflow takes.

    Raises:
        DataError: It names the task and the media.
    """
    known = {name for modalities in takes.values() for name in modalities}
    if missing := sorted(kinds - known):
        raise DataError(
            f"the task {task} asks with {' and '.join(missing)}, which no workflow here takes "
            f"(they take {', '.join(sorted(known)) or 'text alone'})."
        )


def numbered(requests: Sequence[Any]) -> list[tuple[Any, int]]:
    """Requests, each with which repetition of itself it is: a harness asks one several times for several answers."""
    counts: dict[int, int] = {}
    found = []
    for request in requests:
        found.append((request, counts.get(id(request), 0)))
        counts[id(request)] = found[-1][1] + 1
    return found


Watch = Callable[[int, int], None]
"""Called with the requests answered and all of them."""


def unwatched(done: int, total: int) -> None:
    """Ignore the progress."""
