"""A session: prompts to answers, over one base and its workflows."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor
from transformers import PreTrainedModel

from adaptkit.chat.placeholders import refuse_placeholders
from adaptkit.errors import DataError, ModelError, unknown_name, wrong_type
from adaptkit.files.hub import HUB_OPTIONS
from adaptkit.inference.answer import Answer, Score
from adaptkit.inference.engine import BatchGroup, Engine
from adaptkit.inference.generate_group import GenerateGroup
from adaptkit.inference.merged import refusal_of_workflow, refuse_decoder
from adaptkit.inference.pending import Pending, Prompt
from adaptkit.inference.request import Event, Request
from adaptkit.inference.routing import AUTO, TEXT, choose_workflow, named_folders, used_modalities
from adaptkit.inference.sampling import Sampler, check_options
from adaptkit.inference.scoring import score_requests
from adaptkit.inference.shared_group import SharedGroup
from adaptkit.interfaces import Message
from adaptkit.model.checkpoint import load_base, load_models
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.model.messages import normalised
from adaptkit.model.processor import AdaptkitProcessor, load_processor

Messages = Sequence[Mapping[str, Any]]
T = TypeVar("T")


class Session:
    """Answers prompts with a base and workflows that share it.

    Rows of the base and of the workflows run in one batch where their decoders and policies allow it; `status` says
    which do. A thread runs the models while there are requests; every method may be called from any thread.

    Args:
        base: The base.
        workflows: Workflows on this base and their processors, by name. They are set to evaluation mode.
        tokenizer: The base's, or a processor with its tokenizer and chat template, for a session without workflows;
            else the first workflow's is taken.
        default: The workflow that takes media where several could; the first by default.
        max_batch_size: Most requests that run at once; the others wait.
        max_waiting: Most requests that wait; any number by default.
        prefix_cache_bytes: Memory for keys and values of earlier prompts and answers, which prompts that begin alike
            need not compute again; 0 keeps none.

    Raises:
        ModelError: A workflow is on another base, or a name is taken.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        workflows: Mapping[str, tuple[AdaptkitForConditionalGeneration, AdaptkitProcessor]] | None = None,
        *,
        tokenizer: Any = None,
        default: str | None = None,
        max_batch_size: int = 16,
        max_waiting: int | None = None,
        prefix_cache_bytes: int = 1 << 30,
    ) -> None:
        workflows = dict(workflows or {})
        _check_workflows(base, workflows)
        if tokenizer is None and not workflows:
            raise ModelError("a session without workflows needs the base's tokenizer: pass tokenizer=.")
        self.base = base
        self._processors = {name: processor for name, (_, processor) in workflows.items()}
        self._models: dict[str, Any] = {TEXT: base, **{name: model for name, (model, _) in workflows.items()}}
        if tokenizer is not None:
            given = isinstance(tokenizer, AdaptkitProcessor)
            self._processors[TEXT] = tokenizer if given else AdaptkitProcessor(tokenizer)
        else:
            self._processors[TEXT] = next(iter(self._processors.values()))
        if default is not None and default not in self._models:
            raise ModelError(unknown_name("workflow", default, self._models))
        self.default = default or next(iter(workflows), TEXT)
        for name, model in self._models.items():
            model.eval()
            if (model.generation_config.num_beams or 1) > 1:
                warnings.warn(
                    f"the generation config of {name!r} asks for beams; a session decodes without", stacklevel=2
                )
        self._engine = Engine(self._groups(prefix_cache_bytes), max_batch_size=max_batch_size, max_waiting=max_waiting)

    @classmethod
    def open(
        cls,
        checkpoint: str | Path | Sequence[str | Path],
        *,
        workflows: Sequence[str] | None = None,
        base: PreTrainedModel | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> Session:
        """Load workflows over one base.

        Args:
            checkpoint: A run directory, a workflow's folder, the hub id of either (`OWNER/NAME` or
                `OWNER/NAME@REVISION`), or a list of these.
            workflows: Names of those to load, where not all are wanted. `text` is the base, which is always there;
                `["text"]` loads nothing else.
            base: A base that is in memory already; else that of the first workflow is loaded.
            device: Where to; by default the GPU where there is one and the base was not given.
            trust_remote_code: Whether code that comes with a checkpoint may be run.
            options: Further arguments of `Session`; and where hub ids are found and how they are downloaded:
                `revision`, `cache_dir`, `token`, `local_files_only`, `force_download`.

        Raises:
            ModelError: A checkpoint holds no workflow, or one that is on another base, or cannot be downloaded.
            DataError: There is no workflow of a name.
        """
        import torch

        hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
        folders = named_folders([checkpoint] if isinstance(checkpoint, str | Path) else list(checkpoint), hub)
        hub.pop("revision", None)  # of the workflows; their bases have their own
        loading = {"trust_remote_code": trust_remote_code, **hub}
        if not folders:
            raise ModelError("no checkpoint is given.")
        if device is None and base is None and torch.cuda.is_available():
            device = "cuda"
        wanted = {name: folders[name] for name in _wanted(folders, workflows)}
        loaded: dict[str, tuple[AdaptkitForConditionalGeneration, AdaptkitProcessor]] = {}
        for name, model in load_models(wanted, base, **loading):
            loaded[name] = (model, load_processor(wanted[name], **loading))
            base = model.base
        first = next(iter(folders.values()))
        if base is None:
            base = load_base(first, **loading)
        if not loaded:
            options = {"tokenizer": load_processor(first, **loading), **options}
        if device is not None:
            for moved in [model for model, _ in loaded.values()] or [base]:
                moved.to(device)
        return cls(base, loaded, **options)

    # -- what is here --------------------------------------------------------------------------------------------

    @property
    def workflows(self) -> dict[str, Any]:
        """The base as `text`, then the workflows, by name."""
        return dict(self._models)

    @property
    def modalities(self) -> dict[str, list[str]]:
        """Modalities that each workflow takes."""
        return {name: [] if name == TEXT else list(self._processors[name].modalities) for name in self._models}

    def processor(self, workflow: str = TEXT) -> AdaptkitProcessor:
        """The processor of a workflow."""
        return self._processors[self._known(workflow)]

    def status(self) -> dict[str, Any]:
        """Requests that run and wait, which workflows share a batch and why others do not, and what was reused."""
        return {
            "running": self._engine.num_running,
            "waiting": self._engine.num_waiting,
            "max_batch_size": self._engine.max_batch_size,
            "groups": [group.status() for group in self._engine.groups],
            **self._engine.counts,
        }

    # -- asking --------------------------------------------------------------------------------------------------

    def route(self, messages: Messages, workflow: str = AUTO) -> str:
        """Which workflow answers: without media the base; with media the default one of those that take them all.

        Raises:
            DataError: No workflow takes these media, the one that is named does not, or there is none of that name.
        """
        return self._route(self._normalised(messages), workflow)

    def submit(
        self,
        messages: Messages,
        workflow: str = AUTO,
        *,
        on_event: Callable[[Event], None] | None = None,
        **options: Any,
    ) -> Request:
        """Queue a conversation, and return at once.

        Args:
            messages: Turns as transformers writes them; the last one is usually the user's.
            workflow: By name, or `auto`; see `route`.
            on_event: Called from the session's thread with each `Piece`, and at last with the `Answer` or the error.
            options: Of transformers' generation: `max_new_tokens`, `do_sample`, `temperature`, `top_p`, …; and `seed`,
                `stop_strings` and `logprobs`, the number of alternatives to report for each token. What is not given
                comes from the workflow's generation config. A temperature above 0 samples; 0 is greedy, and so is one
                below 0.00001.

        Raises:
            DataError: The messages are malformed, a medium is unreadable, or the prompt is too long.
            ArgumentError: An option is unknown or out of range.
            QueueFullError: As many requests wait as may.
        """
        return self._queue(self._prepare(messages, workflow, options, on_event=on_event))

    def submit_text(
        self, text: str, workflow: str = TEXT, *, on_event: Callable[[Event], None] | None = None, **options: Any
    ) -> Request:
        """Queue a text to continue, without a chat template; else as `submit`."""
        name = TEXT if workflow == AUTO else workflow
        ids = self.processor(name).tokenizer(_checked_text(text))["input_ids"]
        if not ids:
            raise DataError("the text is empty, so there is nothing to continue.")
        return self._queue(self._continuation(ids, name, options, on_event=on_event))

    def chat(self, messages: Messages, workflow: str = AUTO, **options: Any) -> Answer:
        """The answer to a conversation; arguments and errors are those of `submit`."""
        return self.submit(messages, workflow, **options).result()

    def stream(self, messages: Messages, workflow: str = AUTO, **options: Any) -> Iterator[str]:
        """The answer to a conversation, as its text grows; who stops listening cancels it."""
        request = self.submit(messages, workflow, **options)
        try:
            yield from (piece.text for piece in request if piece.text)
        finally:
            request.cancel()

    def batch(self, conversations: Sequence[Messages], workflow: str = AUTO, **options: Any) -> list[Answer]:
        """The answers to several conversations, of any workflows together, in their order.

        As many as run at once are queued together; errors are those of `submit`.
        """
        samplers: dict[str, Sampler] = {}
        return self._together(
            self._prepare(messages, workflow, options, samplers, in_pieces=False) for messages in conversations
        )

    def continue_ids(self, prompts: Sequence[Sequence[int]], workflow: str = TEXT, **options: Any) -> list[Answer]:
        """What follows several texts that are tokenised already, in their order; else as `submit_text`.

        Texts that begin alike are computed once as far as they do, where the prefix cache has room.
        """
        requests = [self._continuation(ids, workflow, options, is_patient=True, in_pieces=False) for ids in prompts]
        return self._together(requests)

    def score_ids(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], workflow: str = TEXT) -> list[Score]:
        """How likely continuations of texts are, which are tokenised already.

        Args:
            pairs: Token ids of a context and of a continuation each.
            workflow: By name.

        Raises:
            DataError: A context or a continuation is empty, or both together are too long.
        """
        name = self._known(workflow)
        return self._score(name, [(self._text_prompt(name, context), ids) for context, ids in pairs])

    def score(self, conversations: Sequence[Messages], workflow: str = AUTO) -> list[Score]:
        """How likely the last turns of conversations are, with what ends them, given all turns before.

        Args:
            conversations: The last turn of each is the assistant's; all are answered by one workflow.
            workflow: By name, or `auto`; see `route`.

        Raises:
            DataError: The messages are malformed, a medium is unreadable, or a conversation is too long.
        """
        found: dict[str, list[int]] = {}
        for number, messages in enumerate(conversations):
            found.setdefault(self.route(messages, workflow), []).append(number)
        scores: dict[int, Score] = {}
        for name, numbers in found.items():
            pairs = [self._last_turn(name, self._normalised(conversations[number])) for number in numbers]
            scores |= zip(numbers, self._score(name, pairs), strict=True)
        return [scores[number] for number in range(len(conversations))]

    def close(self) -> None:
        """End what runs and waits with an error, and take no further requests."""
        self._engine.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside --------------------------------------------------------------------------------------------------

    def _known(self, workflow: str) -> str:
        if workflow not in self._models:
            raise DataError(unknown_name("workflow", workflow, self._models))
        return workflow

    def _queue(self, request: Request) -> Request:
        self._engine.submit(request)
        return request

    def _together(self, requests: Iterable[Pending[T]]) -> list[T]:
        """Outcomes of requests, of which as many as run at once are queued together."""
        coming = iter(requests)
        queued: list[Pending[T]] = []
        try:
            while group := list(itertools.islice(coming, self._engine.max_batch_size)):
                queued += group
                self._engine.submit(*group)
            return [request.result() for request in queued]
        except BaseException:
            for request in queued:
                request.cancel()
            raise

    def _text_prompt(self, name: str, ids: Sequence[int], **settings: Any) -> Prompt:
        if name != TEXT:
            refuse_placeholders(ids, self._processors[name].placeholder_ids)
        return Prompt(list(ids), **settings)

    def _continuation(
        self,
        ids: Sequence[int],
        workflow: str,
        options: Mapping[str, Any],
        *,
        is_patient: bool = False,
        **settings: Any,
    ) -> Request:
        """A request for what follows a text; spaces at the ends are the answer's."""
        check_options(options)
        name = self._known(workflow)

        def decode(new_ids: Sequence[int]) -> str:
            continued: str = self._processors[name].decode(new_ids, skip_special_tokens=True)
            return continued

        return self._request(
            name, self._text_prompt(name, ids, is_patient=is_patient), options, decode=decode, **settings
        )

    def _score(self, name: str, pairs: Sequence[tuple[Prompt, Sequence[int]]]) -> list[Score]:
        for context, ids in pairs:
            if not context.input_ids or not ids:
                raise DataError("a context or a continuation is empty, so there is nothing to score.")
            self._check_length(self._models[name], len(context.input_ids) + len(ids) - 2)  # the last one is not run
        scored = list(score_requests(name, pairs))
        found: dict[int, Score] = {}
        for (_, numbers), scores in zip(scored, self._together(request for request, _ in scored), strict=True):
            found |= zip(numbers, scores, strict=True)
        return [found[number] for number in range(len(pairs))]

    def _last_turn(self, name: str, messages: Sequence[Message]) -> tuple[Prompt, list[int]]:
        """The prompt before a last turn, and its ids."""
        if len(messages) < 2 or messages[-1]["role"] != "assistant":
            raise DataError(
                "a conversation whose last turn is the assistant's, after another one, is needed to score it."
            )
        whole = self._prompt(name, messages, add_generation_prompt=False)
        lengths = iter([stop - start for start, stop in whole.spans])
        around = {kind: sum(map(len, both)) for kind, both in self._processors[name].brackets.items()}
        context = self._processors[name].encode(
            messages[:-1], add_generation_prompt=True, num_positions=lambda kind, _: next(lengths) - around.get(kind, 0)
        )
        length = len(context.input_ids)
        if whole.input_ids[:length] != context.input_ids:
            raise DataError("the chat template writes an earlier turn differently once the last one is there.")
        return replace(whole, input_ids=context.input_ids), whole.input_ids[length:]

    def _prepare(
        self,
        messages: Messages,
        workflow: str,
        options: Mapping[str, Any],
        samplers: dict[str, Sampler] | None = None,
        **settings: Any,
    ) -> Request:
        """A request that is not queued yet; arguments as of `submit` and `_request`."""
        check_options(options)
        messages = self._normalised(messages)
        if not messages:
            raise DataError("there is no message to answer.")
        name = self._route(messages, workflow)
        return self._request(name, self._prompt(name, messages), options, samplers, **settings)

    def _prompt(self, name: str, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> Prompt:
        """Token ids of a conversation, and its media."""
        processor = self._processors[name]
        self._check_length(self._models[name], len(messages), "at least one for each message")
        media: list[tuple[Tensor, str]] = []

        def measure(modality: str, source: Any) -> int:
            entry = processor.modalities[modality]
            inputs = entry.load(source)
            media.append((inputs, entry.modality.content_key(source)))
            return entry.num_positions(inputs)

        encoded = processor.encode(messages, add_generation_prompt=add_generation_prompt, num_positions=measure)
        kinds = [modality for modality, _ in encoded.media]
        items = [(kind, inputs, digest) for kind, (inputs, digest) in zip(kinds, media, strict=True)]
        return Prompt(encoded.input_ids, items, encoded.media_spans)

    def _route(self, messages: Sequence[Message], workflow: str) -> str:
        return choose_workflow(used_modalities(messages), self.modalities, self.default, workflow)

    def _normalised(self, messages: Messages) -> list[Message]:
        return normalised(messages, {name for names in self.modalities.values() for name in names})

    def _request(
        self,
        name: str,
        prompt: Prompt,
        options: Mapping[str, Any],
        samplers: dict[str, Sampler] | None = None,
        **settings: Any,
    ) -> Request:
        """A request.

        Args:
            name: Of the workflow.
            prompt: What it is asked.
            options: As of `submit`.
            samplers: By workflow, those of requests with the same options; this one's is added.
            settings: Further arguments of `Request`.
        """
        model, processor = self._models[name], self._processors[name]
        sampler = Sampler(model, prompt.input_ids, options, like=samplers.get(name) if samplers else None)
        if samplers is not None:
            samplers[name] = sampler
        stop = processor.stop_settings(sampler.config)
        stop_ids = stop["eos_token_id"]
        return Request(
            name,
            prompt,
            sampler,
            decode_token=lambda token_id: processor.decode([token_id]),
            stop_ids=[stop_ids] if isinstance(stop_ids, int) else stop_ids or [],
            stop_strings=[*(stop.get("stop_strings") or []), *(options.get("stop_strings") or [])],
            max_new_tokens=self._room(model, len(prompt.input_ids), sampler.config.max_new_tokens),
            **{"decode": lambda ids: processor.decode_answers([ids])[0], **settings},
        )

    def _room(self, model: Any, num_prompt: int, wanted: int) -> int:
        """Most new tokens, which end where the decoder's positions do."""
        positions = self._check_length(model, num_prompt)
        return wanted if positions is None else min(wanted, positions - num_prompt)

    def _check_length(self, model: Any, num_prompt: int, counted: str = "") -> int | None:
        """The decoder's positions, where they are limited; an error where a prompt leaves none."""
        positions: int | None = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        if positions is not None and num_prompt >= positions:
            how = f", {counted}" if counted else ""
            raise DataError(
                f"the prompt takes {num_prompt} positions{how}, and the decoder has {positions} for prompt and answer. "
                "Shorten the conversation, or give fewer media."
            )
        return positions

    def _groups(self, prefix_cache_bytes: int) -> list[BatchGroup]:
        """The base and the workflows that share its pass; each other workflow alone."""
        reasons = {name: refusal_of_workflow(model) for name, model in self._models.items() if name != TEXT}
        groups: list[BatchGroup] = []
        try:
            refuse_decoder(self.base)
            shared = {name: self._models[name] for name, reason in reasons.items() if not reason}
            groups.append(SharedGroup(self.base, shared, self._processors, prefix_cache_bytes=prefix_cache_bytes))
        except ModelError as error:
            reasons = dict.fromkeys(self._models, str(error))
        for name, reason in reasons.items():
            if reason:
                groups.append(GenerateGroup(name, self._models[name], self._processors[name], reason, self._advance))
        return groups

    def _advance(self, group: BatchGroup) -> None:
        self._engine.advance_others(group)


def _checked_text(text: Any) -> str:
    if not isinstance(text, str):
        raise DataError(wrong_type("the text to continue", "text", text))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the text to continue is not valid Unicode: {error.reason}.") from error
    return text


def _check_workflows(base: Any, workflows: Mapping[str, tuple[Any, Any]]) -> None:
    for name, (model, _) in workflows.items():
        if name in (TEXT, AUTO):
            raise ModelError(f"a workflow cannot be named {name!r}: that is the name of another thing here.")
        if model.base is not base:
            raise ModelError(f"workflow {name!r} is on another base. Load it with adaptkit.load(folder, base=base).")


def _wanted(folders: Mapping[str, Path], workflows: Sequence[str] | None) -> list[str]:
    """Names of the workflows to load, in the order of the checkpoints."""
    for name in workflows or ():
        if name not in (TEXT, *folders):
            raise DataError(unknown_name("workflow", name, [TEXT, *folders]))
    return [name for name in folders if workflows is None or name in workflows]
