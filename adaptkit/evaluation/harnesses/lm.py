"""lm-eval's model class over a session: its tokenisation and prompts, our batches."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import has_bos_prefix, postprocess_generated_text

from adaptkit.errors import DataError
from adaptkit.evaluation.harnesses.asking import Asker
from adaptkit.evaluation.harnesses.asks import Ask, Messages, medium_part, numbered, refuse_kinds, session_options
from adaptkit.inference import Session

_TURNS = "\x00adaptkit turns "
"""Begins a conversation about media, which lm-eval carries about as text."""
_TAGS = ("<image>", "<audio>")


class AdaptkitLM(HFLM):  # type: ignore[misc]
    """A session for `lm_eval.simple_evaluate(model=…)`: text goes to the base, media to a workflow.

    Texts are tokenised, cut and scored as `HFLM(pretrained=base)` does, which this class is a kind of; contexts that
    begin alike, such as those of a multiple choice or with the same examples, are computed once.

    Args:
        session: Answers the requests; or an `Asker`.
        workflow: Sends text through a workflow instead, to measure what it has forgotten.
        options: Further arguments of `HFLM`: `max_length`, `add_bos_token`, `prefix_token_id`, `enable_thinking`, …
    """

    MULTIMODAL = True

    def __init__(self, session: Session | Asker, *, workflow: str | None = None, **options: Any) -> None:
        asker = session if isinstance(session, Asker) else Asker(session, workflow=workflow or "auto")
        self.asker = asker
        processor = asker.session.processor(asker.text_workflow)
        tokenizer = copy.deepcopy(processor.tokenizer)  # it may be given a token to pad with
        tokenizer.chat_template = processor.chat_template
        super().__init__(
            pretrained=_Described(asker.session.workflows[asker.text_workflow]),
            backend="causal",
            tokenizer=tokenizer,
            batch_size=asker.batch_size,
            **options,
        )

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes beside results; nothing is looked up on the hub."""
        model = self.model.model
        return {"model_num_parameters": model.num_parameters(), "model_dtype": str(model.dtype)}

    # -- likelihoods ---------------------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihoods of continuations, and whether greedy decoding writes them."""
        with_media = [request for request in requests if len(request.args) > 2]
        if with_media:
            return self._loglikelihood_of_turns(requests)
        self._note(requests)
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts."""
        self._note(requests)
        found: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, override_bs: Any = None
    ) -> list[tuple[float, bool]]:
        pairs = [self._fitted(context, continuation) for _, context, continuation in requests]
        return [(score.logprob, score.is_greedy) for score in self.asker.score_ids(self._task, pairs)]

    def _fitted(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """A pair that fits into the decoder's positions, cut on the left as `HFLM` cuts it."""
        if len(continuation) > self.max_length:
            raise DataError(
                f"a continuation of the task {self._task} has {len(continuation)} tokens, more than the "
                f"{self.max_length} positions of the decoder."
            )
        room = self.max_length + 1 - len(continuation)
        return context[-room:], continuation

    def _loglikelihood_of_turns(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        turns = (
            [*self._turns(request, request.args[2]), {"role": "assistant", "content": request.args[1].strip()}]
            for request in requests
        )
        scores = self.asker.score_turns(requests[0].task_name, turns, len(requests))
        return [(score.logprob, score.is_greedy) for score in scores]

    # -- text ----------------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """What follows contexts, up to the first of the texts that a task stops at."""
        self._refuse_media(requests)
        texts = self.asker.answer(self._asks(requests), len(requests))
        return [
            postprocess_generated_text(text, self._options(request)[0].get("stop_strings", []), None)
            for text, request in zip(texts, requests, strict=True)
        ]

    def _asks(self, requests: Sequence[Any]) -> Iterable[Ask]:
        for request, repeat in numbered(requests):
            options, ignored = self._options(request)
            self.asker.note(request.task_name).ignored = ignored
            if len(request.args) > 2:
                yield Ask(request.task_name, self._turns(request, request.args[2]), options, repeat=repeat)
            else:
                ids = self._context_ids(request.args[0], options["max_new_tokens"])
                yield Ask(request.task_name, ids, options, request.args[0], repeat)

    def _options(self, request: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return session_options(request.task_name, request.args[1], default_length=self.max_gen_toks)

    def _context_ids(self, context: str, num_new: int) -> list[int]:
        """Token ids of a text to continue, cut on the left to leave room, as `HFLM` does."""
        room = self.max_length - num_new
        if room <= 0:
            raise DataError(f"the task asks for {num_new} new tokens, and the decoder has {self.max_length} positions.")
        settings = {} if self.add_bos_token is None else {"add_special_tokens": self.add_bos_token}
        if has_bos_prefix(context, self.tokenizer.bos_token):
            settings = {"add_special_tokens": False}
        ids: list[int] = self.tokenizer(context, **settings)["input_ids"]
        return ids[-room:]

    # -- media ---------------------------------------------------------------------------------------------------

    def apply_chat_template(self, chat_history: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        """A conversation as text; about media it stays a conversation, whose places for media are filled later."""
        if any(tag in str(turn["content"]) for turn in chat_history for tag in _TAGS):
            return _TURNS + json.dumps(chat_history)
        text: str = super().apply_chat_template(chat_history, add_generation_prompt)
        return text

    def _turns(self, request: Any, media: Mapping[str, Sequence[Any]]) -> Messages:
        """A context as turns, with its media where it has tags for them, else before the text."""
        context = request.args[0]
        turns = [{"role": "user", "content": context}]
        if context.startswith(_TURNS):
            turns = json.loads(context.removeprefix(_TURNS))
        sources = {"<image>": iter(media.get("visual") or ()), "<audio>": iter(media.get("audio") or ())}
        filled = [{**turn, "content": _filled(request.task_name, turn["content"], sources)} for turn in turns]
        left = [medium_part(request.task_name, source) for found in sources.values() for source in found]
        filled[-1]["content"] = [*left, *filled[-1]["content"]]
        return filled

    def _refuse_media(self, requests: Sequence[Any]) -> None:
        """Refuse tasks with media that no workflow takes, before the first answer."""
        for task, request in {request.task_name: request for request in requests if len(request.args) > 2}.items():
            parts = [part for turn in self._turns(request, request.args[2]) for part in turn["content"]]
            kinds = {part["type"] for part in parts} - {"text"}
            refuse_kinds(task, kinds, self.asker.session.modalities)

    # -- notes ---------------------------------------------------------------------------------------------------

    _task = ""

    def _note(self, requests: Sequence[Any]) -> None:
        """Take down the first prompt of each task."""
        for request in requests:
            note = self.asker.note(request.task_name)
            note.prompt = note.prompt or "".join(request.args)
            note.workflows[self.asker.text_workflow] = note.workflows.get(self.asker.text_workflow, 0) + 1
        self._task = requests[0].task_name if requests else ""


class _Described:
    """A model as `HFLM` wants to know of it, and nothing that it could change."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.config, self.device, self.dtype = model.config, model.device, model.dtype
        self.name_or_path = model.name_or_path


def _filled(task: str, text: str, sources: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A text as parts: its tags are replaced by media, in order, while there are some."""
    places = sorted((text.find(tag), tag) for tag in sources if tag in text)
    if not places:
        return [{"type": "text", "text": text}] if text else []
    place, tag = places[0]
    source = next(sources[tag], None)
    before = [{"type": "text", "text": text[:place]}] if text[:place] else []
    medium = [] if source is None else [medium_part(task, source, tag.strip("<>"))]
    return [*before, *medium, *_filled(task, text[place + len(tag) :], sources)]
