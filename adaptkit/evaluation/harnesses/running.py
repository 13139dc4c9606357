"""Tasks of the harnesses, run: their own evaluators ask and score, a session answers."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

from adaptkit.evaluation.harnesses.asking import Asker
from adaptkit.evaluation.harnesses.judges import no_calls
from adaptkit.evaluation.harnesses.loading import LoadedTask, explained_run
from adaptkit.evaluation.harnesses.official import add_official
from adaptkit.evaluation.harnesses.quiet import quiet_harness
from adaptkit.evaluation.harnesses.scores import scores_of
from adaptkit.files.versions import versions


@dataclass(frozen=True)
class HarnessSettings:
    """How tasks are asked.

    Attributes:
        limit: Most documents of each task; the first ones.
        num_fewshot: Examples before each question, where a task does not fix their number.
        seed: Of examples, sampling and random guesses; by default the harness's own seeds.
        apply_chat_template: Whether lm-eval's texts are turns of the chat template.
        system_prompt: Stands before each conversation or text.
        output_dir: Where tasks write files to be submitted elsewhere.
    """

    limit: int | None = None
    num_fewshot: int | None = None
    seed: int | None = None
    apply_chat_template: bool = False
    system_prompt: str | None = None
    output_dir: Path | None = None

    @property
    def seeds(self) -> dict[str, int]:
        """As the harnesses' evaluators take them."""
        names = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
        return {} if self.seed is None else dict.fromkeys(names, self.seed)


def run_task(loaded: LoadedTask, asker: Asker, settings: HarnessSettings) -> dict[str, Any]:
    """Ask and score a task.

    Returns:
        `{name: section}`, of a tag one for each of its tasks; see `scores_of`.

    Raises:
        RunError: The harness failed, or tried to reach another machine.
    """
    started = time.monotonic()
    task = loaded.task
    with quiet_harness(), explained_run(task.harness, task.name), no_calls():
        run = _run_lm_eval if task.harness == "lm-eval" else _run_lmms_eval
        results = run(loaded, asker, settings)
    sections = scores_of(results, task.name, asker.notes, _described(loaded, asker, settings))
    add_official(sections, results.get("samples") or {}, loaded)
    for section in sections.values():
        section["seconds"] = round(time.monotonic() - started, 2)
        for workflows, score in section["scores"].items():
            score["content"] = {name: asker.identity(name)[:16] for name in workflows.split("+")}
    return sections


def _run_lm_eval(loaded: LoadedTask, asker: Asker, settings: HarnessSettings) -> Mapping[str, Any]:
    from lm_eval import evaluator

    from adaptkit.evaluation.harnesses.lm import AdaptkitLM

    content = loaded.content
    grouped = {leaf.task_name for group in content["groups"].values() for leaf in group.get_all_tasks()}
    tops = _top_groups(content["groups"])
    with _undescribed(evaluator):
        results: Mapping[str, Any] = evaluator.simple_evaluate(
            model=AdaptkitLM(asker),
            tasks=[*tops, *(task for name, task in content["tasks"].items() if name not in grouped)],
            task_manager=loaded.manager,
            num_fewshot=settings.num_fewshot,
            limit=settings.limit,
            system_instruction=settings.system_prompt,
            apply_chat_template=settings.apply_chat_template,
            fewshot_as_multiturn=settings.apply_chat_template,
            **settings.seeds,
        )
    return results


@contextmanager
def _undescribed(evaluator: Any) -> Iterator[None]:
    """Without the harness's description of the machine, for which it runs other programs."""
    with ExitStack() as stack:
        for name in ("add_env_info", "get_git_commit_hash", "get_git_branch_name", "get_lmms_eval_version_string"):
            if hasattr(evaluator, name):
                stack.enter_context(patch.object(evaluator, name, lambda *_: None))
        yield


def _top_groups(groups: Mapping[str, Any]) -> list[Any]:
    inner = {child.name for group in groups.values() for child in group.get_all_groups() if child is not group}
    return [group for name, group in groups.items() if name not in inner]


class _Loaded:
    """Gives lmms-eval's evaluator tasks that are loaded already."""

    def __init__(self, content: Any) -> None:
        self._content = content

    def load_task_or_group(self, names: Any, form: str) -> Any:
        return self._content


def _run_lmms_eval(loaded: LoadedTask, asker: Asker, settings: HarnessSettings) -> Mapping[str, Any]:
    from lmms_eval import evaluator

    from adaptkit.evaluation.harnesses.lmms import AdaptkitChat, AdaptkitSimple

    folder = settings.output_dir
    arguments = argparse.Namespace(
        output_path=None if folder is None else str(folder),
        process_with_media=False,
        reasoning_tags=None,
        agentic_trace_mode="basic",
    )
    with _undescribed(evaluator):
        results: Mapping[str, Any] = evaluator.simple_evaluate(
            model=(AdaptkitChat if loaded.is_chat else AdaptkitSimple)(asker=asker),
            tasks=[loaded.task.name],
            task_manager=_Loaded(loaded.content),
            num_fewshot=settings.num_fewshot,
            limit=settings.limit,
            cli_args=arguments,
            **settings.seeds,
        )
    return results


def _described(loaded: LoadedTask, asker: Asker, settings: HarnessSettings) -> dict[str, Any]:
    """What scores depend on besides the prompts."""
    package = loaded.task.harness.replace("-", "_")
    base = asker.session.base
    form = {} if package == "lm_eval" else {"form": "chat" if loaded.is_chat else "simple"}
    template = {"chat_template": settings.apply_chat_template} if package == "lm_eval" else {}
    return {
        "name": f"{loaded.task.harness} {version(package)}",
        **form,
        **template,
        "system_prompt": settings.system_prompt,
        "limit": settings.limit,
        "seed": settings.seed,
        "dtype": str(base.dtype).removeprefix("torch."),
        "device": str(base.device),
        "versions": {**versions(), loaded.task.harness: version(package)},
    }
