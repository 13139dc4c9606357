"""Two questions a picture, as in MME: a workflow with 25% more layers against stock LLaVA without inserted layers.

Prompts hold 576 positions of a picture and about 45 of text; answers are two tokens. The stock model reads and encodes
each picture for each question; a session reuses what it has computed of a picture. Reading, preprocessing and
tokenising count on both sides. Times are processor seconds on one thread; every round asks about new pictures.

    OMP_NUM_THREADS=1 python -m benchmarks.questions_per_image --output benchmarks/results/questions_per_image.json
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import adaptkit
from benchmarks.common import save
from benchmarks.inference import (
    INSERTED,
    build_base,
    build_workflow,
    options,
    pictures,
    processor_seconds,
    question,
    ratios,
)
from benchmarks.stock import stock_llava

QUESTIONS = ("Is there a dog?", "Is it a red car?")
BATCH = 8
SETTINGS = {"max_new_tokens": 2, "do_sample": False}


class Stock:
    """transformers' LLaVA, with our processor in front of it."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor = stock_llava(model).eval(), processor

    def ask(self, conversations: list[Any]) -> None:
        """Answer a batch."""
        batch = self._processor.apply_chat_template(
            conversations, add_generation_prompt=True, tokenize=True, return_dict=True, padding=True
        )
        self._model.generate(**batch, **SETTINGS, min_new_tokens=2, pad_token_id=0)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    parser.add_argument("--pictures", type=int, default=8, help="of a round, a multiple of 4")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        base = build_base(arguments)
        encoder = Path(folder) / "encoder"
        model, processor = build_workflow(base, encoder, INSERTED)
        stock = Stock(*build_workflow(base, encoder, {"policy": "projector_only"}))
    session = adaptkit.Session(base, {"vision": (model, processor)}, max_batch_size=BATCH)
    plain = adaptkit.Session(base, {"vision": (model, processor)}, max_batch_size=BATCH, prefix_cache_bytes=0)

    def one_by_one(conversations: list[Any], ask: Any) -> None:
        for conversation in conversations:
            ask([conversation])

    def in_batches(conversations: list[Any], ask: Any) -> None:
        for start in range(0, len(conversations), BATCH):
            ask(conversations[start : start + BATCH])

    def of_session(asked: adaptkit.Session) -> Any:
        return lambda conversations: asked.batch(conversations, "vision", **SETTINGS)

    variants = {
        "stock LLaVA, one at a time": (one_by_one, stock.ask),
        f"stock LLaVA, batches of {BATCH}": (in_batches, stock.ask),
        "session without prefixes, one at a time": (one_by_one, of_session(plain)),
        "session, one at a time": (one_by_one, of_session(session)),
        f"session, batches of {BATCH}": (in_batches, of_session(session)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(arguments.rounds + 1):
        for name, (how, ask) in variants.items():
            asked = [question(text, picture) for picture in pictures(arguments.pictures) for text in QUESTIONS]
            taken = processor_seconds(lambda how=how, ask=ask, asked=asked: how(asked, ask))
            if number:  # the first round warms up
                seconds[name].append(taken / len(asked))
    report(arguments, seconds)


def report(arguments: argparse.Namespace, seconds: dict[str, list[float]]) -> None:
    """Print, and save where asked to."""
    stock = "stock LLaVA, one at a time"
    table = Table("", "s a question", "against stock, one at a time", title="processor time on one thread")
    results = []
    for name, values in seconds.items():
        median, low, high = ratios(seconds, name, stock)
        results.append({"name": name, "seconds": values, "ratio": median, "range": [low, high]})
        table.add_row(name, f"{statistics.median(values):.3f}", f"{median:.2f}x ({low:.2f} to {high:.2f})")
    Console().print(table)
    if arguments.output:
        about = {"what": "questions_per_image", "layers": arguments.layers, "hidden": arguments.hidden}
        save(arguments.output, about, results)


if __name__ == "__main__":
    main()
