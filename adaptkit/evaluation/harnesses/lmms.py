"""lmms-eval's model classes over a session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms

from adaptkit.errors import ArgumentError, DataError, unknown_name
from adaptkit.evaluation.harnesses.asking import Asker
from adaptkit.evaluation.harnesses.asks import (
    Ask,
    Messages,
    medium_part,
    numbered,
    refuse_kinds,
    session_options,
)
from adaptkit.evaluation.public_data.boxes import restore_boxes
from adaptkit.inference import Session
from adaptkit.interfaces import box_size_of

DEFAULT_LENGTH = 1024
"""New tokens where a task does not say, as in lmms-eval's own classes."""

_DELIMITERS = ("\n\n",)
"""lmms-eval writes this into `until` where a task names nothing; its own chat classes do not stop there either."""

_BOXES = "_bbox_rec"
"""In the names of tasks that score boxes as fractions of the picture as it is."""

_OPTIONS = ("pretrained", "workflow", "device", "batch_size", "max_batch_size", "system_prompt", "trust_remote_code")


class _AdaptkitModel(lmms):  # type: ignore[misc]
    """What both forms share.

    Args:
        pretrained: A run directory, a workflow's folder, or the hub id of either.
        workflow: Sends every request through this workflow; by default media go to one that takes them, and text to
            the base.
        device: Where to; by default the GPU where there is one.
        batch_size: Requests that run at once.
        system_prompt: Stands before each conversation, or a file that holds it.
        trust_remote_code: Whether code that comes with a checkpoint may be run.
        asker: Instead of all of these.
    """

    def __init__(self, pretrained: str = "", *, asker: Asker | None = None, **options: Any) -> None:
        super().__init__()
        self.asker = asker or _open(pretrained, options)

    def _turns(self, request: Any) -> Messages:
        raise NotImplementedError

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Answers to single turns."""
        self._refuse_media(requests)
        texts = self.asker.answer(self._asks(requests), len(requests))
        return [self._as_scored(request, text) for request, text in zip(requests, texts, strict=True)]

    def _as_scored(self, request: Any, text: str) -> str:
        """An answer in the form that a task scores: boxes are fractions of the picture, not of the padded square."""
        if _BOXES not in request.task_name:
            return text
        self.asker.note(request.task_name).answers = "boxes brought back from the padded square to the picture"
        turns = self._turns(request)
        kinds = self.asker.session.processor(self.asker.session.route(turns, self.asker.workflow)).modalities
        parts = [part for turn in turns for part in turn["content"] if part["type"] != "text"]
        sizes = (box_size_of(kinds[part["type"]].modality, part[part["type"]]) for part in parts)
        size = next(filter(None, sizes), None)
        return text if size is None else restore_boxes(text, size)

    def _asks(self, requests: Sequence[Any]) -> Iterable[Ask]:
        for request, repeat in numbered(requests):
            yield self._ask(request, self._turns(request), repeat)

    def _ask(self, request: Any, turns: Messages, repeat: int = 0) -> Ask:
        kwargs = next(argument for argument in request.args[1:3] if isinstance(argument, Mapping))
        task = request.task_name
        options, ignored = session_options(task, kwargs, default_length=DEFAULT_LENGTH, ignored_stops=_DELIMITERS)
        self.asker.note(task).ignored = ignored
        return Ask(task, turns, options, repeat=repeat)

    def _refuse_media(self, requests: Sequence[Any]) -> None:
        """Refuse tasks with media that no workflow takes, before the first answer."""
        first: dict[str, Any] = {}
        for request in requests:
            first.setdefault(request.task_name, request)
        for task, request in first.items():
            refuse_kinds(task, kinds_in(self._turns(request)), self.asker.session.modalities)

    def clean(self) -> None:
        """Nothing is freed for a judge, which would be run next: the session answers the next task."""

    def _document(self, request: Any) -> Any:
        doc_id, task, split = request.args[-3:]
        return self.task_dict[task][split][doc_id]

    def generate_visual_cot(self, requests: Any) -> list[str]:
        """Refused: these tasks have the model draw."""
        raise DataError(f"the task {requests[0].task_name} has the model draw a picture, which no workflow here does.")


class AdaptkitChat(_AdaptkitModel):
    """The form that gets conversations, as lmms-eval builds them for its chat classes."""

    is_simple = False

    def _turns(self, request: Any) -> Messages:
        return turns_of(request.task_name, request.args[1](self._document(request)))

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Refused: lmms-eval asks its simple classes for these."""
        raise DataError(f"the task {requests[0].task_name} scores given answers: run it with --force_simple.")

    def generate_until_multi_round(self, requests: list[Any]) -> list[list[str]]:
        """All answers to conversations in which the task decides after each answer what to ask next."""
        self._refuse_media(requests)
        return [self._rounds(request) for request in requests]

    def _rounds(self, request: Any) -> list[str]:
        document, messages_of = self._document(request), request.args[1]
        messages, outputs, info = messages_of(document), [], None
        while True:
            outputs.append(self.asker.answer([self._ask(request, turns_of(request.task_name, messages))], 1)[0])
            step = messages_of(
                document, round_idx=len(outputs), previous_output=list(outputs), previous_round_info=info
            )
            if not isinstance(step, tuple):
                messages = step
                continue
            messages, is_over, updated, info = step
            outputs = list(updated) if updated is not None else outputs
            if is_over:
                return outputs


class AdaptkitSimple(_AdaptkitModel):
    """The form that gets texts and media: pictures, a line break, the text, in one turn of the user's."""

    is_simple = True

    def _turns(self, request: Any) -> Messages:
        return self._turn(request, request.args[0], request.args[2](self._document(request)))

    def _turn(self, request: Any, text: str, media: Any) -> Messages:
        parts = [medium_part(request.task_name, source) for source in flat(media)]
        shown = f"\n{text}" if parts else text
        return [{"role": "user", "content": [*parts, {"type": "text", "text": shown}]}]

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """Mean losses of given answers and of what ends their turns: lmms-eval takes the smallest for the choice.

        They come wrapped: of a plain pair lmms-eval 0.7.3 makes a text, which no task can read.
        """
        self._refuse_media([request for request in requests if len(request.args) > 2])
        conversations = (self._answered(request) for request in requests)
        scores = self.asker.score_turns(requests[0].task_name, conversations, len(requests))
        return [GenerationResult((-score.logprob / score.num_tokens, score.is_greedy)) for score in scores]

    def _answered(self, request: Any) -> Messages:
        if len(request.args) == 2:  # an answer without its question, for mutual information
            turns, answer = [{"role": "user", "content": request.args[0]}], request.args[1]
        else:
            turns, answer = self._turns(request), request.args[1]
        if callable(answer):
            answer = answer(self._document(request))
        return [*turns, {"role": "assistant", "content": str(answer)}]

    def generate_until_multi_round(self, requests: list[Any]) -> list[list[str]]:
        """All answers to conversations in which the task decides after each answer what to ask next."""
        self._refuse_media(requests)
        return [self._rounds(request) for request in requests]

    def _rounds(self, request: Any) -> list[str]:
        context, _, _, text_of = request.args[:4]
        document, outputs, info = self._document(request), [], None
        media = request.args[2](document)
        while True:
            outputs.append(self.asker.answer([self._ask(request, self._turn(request, context, media))], 1)[0])
            media, context, is_over, outputs, info = text_of(
                document, previous_output=list(outputs), round_idx=len(outputs), previous_round_info=info
            )
            outputs = list(outputs)
            if is_over:
                return outputs


def turns_of(task: str, messages: Any) -> Messages:
    """Messages of lmms-eval as a session takes them."""
    if not isinstance(messages, list):
        raise DataError(f"the task {task} gives {type(messages).__name__} where messages are needed.")

    def part_of(part: Mapping[str, Any]) -> dict[str, Any]:
        if part["type"] == "text":
            return {"type": "text", "text": part["text"]}
        return medium_part(task, part.get("url"), part["type"])

    return [
        {
            "role": turn["role"],
            "content": turn["content"] if isinstance(turn["content"], str) else list(map(part_of, turn["content"])),
        }
        for turn in messages
    ]


def kinds_in(turns: Messages) -> set[str]:
    """Kinds of the media in a conversation."""
    parts = [part for turn in turns if not isinstance(turn["content"], str) for part in turn["content"]]
    return {part["type"] for part in parts} - {"text"}


def flat(media: Any) -> list[Any]:
    """Media that a task gives in lists, or alone."""
    if not isinstance(media, list | tuple):
        return [] if media is None else [media]
    return [source for entry in media for source in flat(entry)]


def _open(pretrained: str, options: dict[str, Any]) -> Asker:
    for name in options:
        if name not in _OPTIONS:
            raise ArgumentError(unknown_name("model argument", name, _OPTIONS))
    if not pretrained:
        raise ArgumentError("name a checkpoint: --model_args pretrained=RUN.")
    batch_size = int(options.get("batch_size") or 16)
    session = Session.open(
        pretrained,
        device=options.get("device"),
        trust_remote_code=bool(options.get("trust_remote_code", False)),
        max_batch_size=batch_size,
    )
    prompt = lmms._resolve_system_prompt(options.get("system_prompt"))
    return Asker(session, workflow=options.get("workflow") or "auto", system_prompt=prompt)
