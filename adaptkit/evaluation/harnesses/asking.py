"""Requests of a harness, answered by a session: in batches, each once, and kept."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from adaptkit.evaluation.harnesses.asks import Ask, Messages, Note, Watch, unwatched
from adaptkit.evaluation.harnesses.identity import identities
from adaptkit.evaluation.harnesses.store import AnswerStore, key_of
from adaptkit.inference import Answer, Score, Session
from adaptkit.inference.routing import AUTO

_BATCHES = 4
"""Batches that are read ahead, so that what begins alike can run together."""


class Asker:
    """Answers requests of a harness.

    Args:
        session: Answers them.
        workflow: By name; with `auto`, text goes to the base and media to a workflow that takes them.
        store: Keeps the answers; by default only as long as this object lives.
        system_prompt: Stands before each conversation that has no system message.
        seed: Of tasks that sample.
        identity: Gives the hash of what answers of a workflow depend on; by default `identities(session)`.
        watch: Called with the progress.

    Attributes:
        notes: What was asked, by task.
    """

    def __init__(
        self,
        session: Session,
        *,
        workflow: str = AUTO,
        store: AnswerStore | None = None,
        system_prompt: str | None = None,
        seed: int = 0,
        identity: Callable[[str], str] | None = None,
        watch: Watch = unwatched,
    ) -> None:
        self.session, self.workflow, self.store = session, workflow, AnswerStore() if store is None else store
        self.system_prompt, self.seed, self.watch = system_prompt, seed, watch
        self.notes: dict[str, Note] = {}
        self.batch_size = int(session.status()["max_batch_size"])
        self.identity = identity or identities(session)

    def note(self, task: str) -> Note:
        """What is noted of a task."""
        return self.notes.setdefault(task, Note())

    # -- text ----------------------------------------------------------------------------------------------------

    def answer(self, asks: Iterable[Ask], total: int) -> list[str]:
        """Answers in the order of the requests, which are read as they are needed: they may hold media."""
        texts: list[str] = []
        coming = iter(asks)
        while window := list(itertools.islice(coming, _BATCHES * self.batch_size)):
            texts += self._answer_window([self._prepared(ask) for ask in window])
            self.watch(len(texts), total)
        return texts

    def _prepared(self, ask: Ask) -> Ask:
        """With the system prompt and a seed, and noted."""
        options = dict(ask.options)
        if options.get("do_sample"):
            options.setdefault("seed", self.seed + ask.repeat)
        prompt = ask.prompt
        if self.system_prompt and _is_messages(prompt) and prompt[0]["role"] != "system":
            prompt = [{"role": "system", "content": self.system_prompt}, *prompt]
        ask = Ask(ask.task, prompt, options, ask.shown, ask.repeat)
        note, name = self.note(ask.task), self._workflow_of(ask)
        if not note.workflows:
            note.prompt, note.generation = self._shown(ask, name), dict(options)
        note.workflows[name] = note.workflows.get(name, 0) + 1
        return ask

    def _workflow_of(self, ask: Ask) -> str:
        if _is_messages(ask.prompt):
            return self.session.route(ask.prompt, self.workflow)
        return self.text_workflow

    @property
    def text_workflow(self) -> str:
        """Which workflow takes texts without a chat template."""
        return "text" if self.workflow == AUTO else self.workflow

    def _shown(self, ask: Ask, name: str) -> str:
        if not _is_messages(ask.prompt):
            return ask.shown
        is_question = ask.prompt[-1]["role"] != "assistant"
        return str(self.session.processor(name).apply_chat_template(ask.prompt, add_generation_prompt=is_question))

    def _answer_window(self, asks: Sequence[Ask]) -> list[str]:
        keys, order = [], []
        for number, ask in enumerate(asks):
            digests, content = self._content(ask)
            keys.append(key_of(self.identity(self._workflow_of(ask)), "answer", content, ask.options, ask.repeat))
            if keys[-1] not in self.store:
                kind = (_is_messages(ask.prompt), json.dumps(ask.options, sort_keys=True))
                order.append((kind, digests, -len(content), number))
        for _, group in itertools.groupby(sorted(order), key=lambda entry: entry[0]):
            numbers = [number for *_, number in group]
            answers = self._ask([asks[number] for number in numbers])
            for number, answer in zip(numbers, answers, strict=True):
                self.store.put(asks[number].task, [(keys[number], answer.text)])
        return [self.store[key] for key in keys]

    def _ask(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answers to requests of one kind and with the same options."""
        options = asks[0].options
        if _is_messages(asks[0].prompt):
            return self.session.batch([ask.prompt for ask in asks], self.workflow, **options)
        return self.session.continue_ids([ask.prompt for ask in asks], self.text_workflow, **options)

    def _content(self, ask: Ask) -> tuple[list[str], str]:
        """Hashes of the media, and the prompt with these in their places."""
        if not _is_messages(ask.prompt):
            return [], json.dumps(ask.prompt)
        return self._digested(ask.prompt, self._workflow_of(ask))

    def _digested(self, messages: Messages, name: str) -> tuple[list[str], str]:
        modalities = self.session.processor(name).modalities
        digests: list[str] = []

        def hashed(part: dict[str, Any]) -> dict[str, Any]:
            kind = part["type"]
            if kind == "text":
                return part
            digests.append(modalities[kind].modality.content_key(part[kind]))
            return {"type": kind, "digest": digests[-1]}

        content = [
            {
                **turn,
                "content": turn["content"] if isinstance(turn["content"], str) else list(map(hashed, turn["content"])),
            }
            for turn in messages
        ]
        return digests, json.dumps(content, sort_keys=True)

    # -- likelihoods ---------------------------------------------------------------------------------------------

    def score_ids(self, task: str, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Score]:
        """How likely continuations of texts are; those that begin alike run one after another."""
        name = self.text_workflow
        keys = [key_of(self.identity(name), "score", pair) for pair in pairs]
        order = sorted(
            (n for n in range(len(pairs)) if keys[n] not in self.store), key=lambda n: [*pairs[n][0], *pairs[n][1]]
        )
        done = len(pairs) - len(order)
        for start in range(0, len(order), _BATCHES * self.batch_size):
            numbers = order[start : start + _BATCHES * self.batch_size]
            scores = self.session.score_ids([pairs[number] for number in numbers], name)
            self._keep_scores(task, [keys[number] for number in numbers], scores)
            self.watch(done + start + len(numbers), len(pairs))
        return [Score(*self.store[key]) for key in keys]

    def score_turns(self, task: str, conversations: Iterable[Messages], total: int) -> list[Score]:
        """How likely the last turns of conversations are."""
        found: list[Score] = []
        coming = iter(conversations)
        while window := list(itertools.islice(coming, _BATCHES * self.batch_size)):
            asks = [self._prepared(Ask(task, turns, {})) for turns in window]
            keys = []
            for ask in asks:
                keys.append(key_of(self.identity(self._workflow_of(ask)), "score", self._content(ask)[1]))
            missing = [number for number, key in enumerate(keys) if key not in self.store]
            scores = self.session.score([asks[number].prompt for number in missing], self.workflow)
            self._keep_scores(task, [keys[number] for number in missing], scores)
            found += [Score(*self.store[key]) for key in keys]
            self.watch(len(found), total)
        return found

    def _keep_scores(self, task: str, keys: Sequence[str], scores: Sequence[Score]) -> None:
        values = [(score.logprob, score.is_greedy, score.num_tokens) for score in scores]
        self.store.put(task, zip(keys, values, strict=True))


def _is_messages(prompt: Any) -> bool:
    return isinstance(prompt[0], dict)
