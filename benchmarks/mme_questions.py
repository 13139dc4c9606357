"""Questions in MME's form through lmms-eval: our class against its own LLaVA class on the stock export.

Both are asked by lmms-eval's evaluator with its task file `mme`, two questions about each picture, and compute with the
same tensors: a decoder with 25% more layers, inserted, exported as a stock LLaVA for the other class. A picture has
576 positions; answers end after two tokens, as Yes and No would. Reading and scoring count on both sides, loading on
neither. Times are processor seconds on one thread.

    OMP_NUM_THREADS=1 python -m benchmarks.mme_questions --output benchmarks/results/mme_questions.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import adaptkit
from adaptkit.evaluation.harnesses.asking import Asker
from adaptkit.evaluation.harnesses.catalog import find_harness_task
from adaptkit.evaluation.harnesses.loading import load_task
from adaptkit.evaluation.harnesses.quiet import quiet_harness
from adaptkit.evaluation.public_data import local_datasets
from adaptkit.evaluation.public_data.layouts.mme import TASKS
from adaptkit.export.llava import export_llava
from benchmarks.common import save
from benchmarks.inference import INSERTED, build_base, build_workflow, options, pictures, processor_seconds

TASK = "mme"
FACTS = (("a dog", "Yes"), ("a red car", "No"))
NUM_NEW = 2


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    parser.add_argument("--questions", type=int, default=200, help="of a round, an even number from 28 on")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.set_defaults(rounds=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = build_base(arguments)
        model, processor = build_workflow(base, folder / "encoder", INSERTED)
        export_llava(model, processor, folder / "llava")
        stock = _stock(folder / "llava")
        seconds: dict[str, list[float]] = {"llava_hf": [], "adaptkit": []}
        agree = []
        for number in range(arguments.rounds):
            data = _release(folder / f"data_{number}", arguments.questions // 2)
            with adaptkit.Session(base, {"vision": (model, processor)}, max_batch_size=arguments.batch_size) as session:
                found = {name: _ask(data, build, seconds[name]) for name, build in _classes(stock, session).items()}
            agree.append(sum(map(str.__eq__, found["llava_hf"], found["adaptkit"])))
    _report(arguments, seconds, agree)


def _stock(folder: Path) -> Any:
    """The harness's class; it imports decord, which reads videos, and none is read here."""
    decord: Any = types.ModuleType("decord")
    decord.VideoReader = decord.cpu = None
    sys.modules.setdefault("decord", decord)
    with quiet_harness():
        from lmms_eval.models.chat.llava_hf import LlavaHf

        return LlavaHf(pretrained=str(folder), device="cpu", device_map="cpu", dtype="float32")


def _classes(stock: Any, session: adaptkit.Session) -> dict[str, Any]:
    from adaptkit.evaluation.harnesses.lmms import AdaptkitChat

    return {"llava_hf": stock, "adaptkit": AdaptkitChat(asker=Asker(session))}


def _release(folder: Path, num_pictures: int) -> Path:
    """MME's release, with two questions about each picture; the pictures are spread over its tasks."""
    for number, picture in enumerate(pictures(num_pictures)):
        place = folder / "MME_Benchmark_release_version" / TASKS[number % len(TASKS)]
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{number:05}.png")
        questions = [f"Is there {fact} in this image? Please answer yes or no.\t{answer}" for fact, answer in FACTS]
        (place / f"{number:05}.txt").write_text("\n".join(questions))
    return folder


def _ask(data: Path, model: Any, seconds: list[float]) -> list[str]:
    """Answers of a model in the order of the questions."""
    from lmms_eval import evaluator

    arguments = argparse.Namespace(
        output_path=None, process_with_media=False, reasoning_tags=None, agentic_trace_mode="basic"
    )
    with local_datasets([TASK], data), _loaded() as content, quiet_harness():
        results: dict[str, Any] = {}

        def evaluate() -> None:
            results.update(
                evaluator.simple_evaluate(
                    model=model,
                    tasks=[TASK],
                    task_manager=types.SimpleNamespace(load_task_or_group=lambda names, form: content),
                    cli_args=arguments,
                )
            )

        seconds.append(processor_seconds(evaluate))
    samples = sorted(results["samples"][TASK], key=lambda sample: sample["doc_id"])
    return [sample["filtered_resps"][0] for sample in samples]


@contextmanager
def _loaded() -> Iterator[Any]:
    content = load_task(find_harness_task(TASK)).content
    content[TASK].config.generation_kwargs["max_new_tokens"] = NUM_NEW
    yield content


def _report(arguments: argparse.Namespace, seconds: dict[str, list[float]], agree: list[int]) -> None:
    """Print, and save where asked to."""
    table = Table("class", "s a question", "times faster", title="processor time on one thread")
    results = []
    for name, values in seconds.items():
        faster = [stock / own for stock, own in zip(seconds["llava_hf"], values, strict=True)]
        results.append({"name": name, "seconds": values, "times_faster": faster})
        each = ", ".join(f"{value / arguments.questions:.3f}" for value in values)
        table.add_row(name, each, ", ".join(f"{value:.2f}x" for value in faster))
    console = Console()
    console.print(table)
    console.print(f"equal answers: {', '.join(f'{number} of {arguments.questions}' for number in agree)}")
    if arguments.output:
        about = {"what": "mme_questions", "layers": arguments.layers, "hidden": arguments.hidden}
        save(arguments.output, {**about, "questions": arguments.questions, "equal": agree}, results)


if __name__ == "__main__":
    main()
