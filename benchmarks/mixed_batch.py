"""Decoding for several workflows at once: one pass over the shared layers against a pass for each.

A decoder of 16 layers and two workflows with 4 inserted layers each, embedding, norm and head of their own; 8 rows of
about 90 positions. Times are processor seconds on one thread; every round runs all variants in turn.

    OMP_NUM_THREADS=1 python -m benchmarks.mixed_batch --output benchmarks/results/mixed_batch.json
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from adaptkit.inference.pending import Prompt
from adaptkit.inference.request import Request
from adaptkit.inference.sampling import Sampler
from adaptkit.inference.shared_group import SharedGroup
from benchmarks.common import save
from benchmarks.inference import INSERTED, build_base, build_workflow, options, processor_seconds, ratios

STEPS = 24
WORDS = 90

VARIANTS = {
    "8 text": [[("text", 8)]],
    "8 vision": [[("vision", 8)]],
    "4 text + 4 vision in one pass": [[("text", 4), ("vision", 4)]],
    "4 text, then 4 vision": [[("text", 4)], [("vision", 4)]],
    "2 text + 3 vision + 3 other in one pass": [[("text", 2), ("vision", 3), ("other", 3)]],
    "2 text, then 3 vision, then 3 other": [[("text", 2)], [("vision", 3)], [("other", 3)]],
}

COMPARED = (
    ("8 vision", "4 text + 4 vision in one pass", "tokens per second against 8 vision rows", 0.95),
    ("4 text, then 4 vision", "4 text + 4 vision in one pass", "against the two groups one after the other", 1.4),
    (
        "2 text, then 3 vision, then 3 other",
        "2 text + 3 vision + 3 other in one pass",
        "against the three groups one after the other",
        1.5,
    ),
)
"""Slower or equal variant, variant, what the ratio of their times says, and the aim."""


class Rows:
    """Rows that decode for as long as they are asked to."""

    def __init__(self, group: SharedGroup, models: dict[str, Any], rows: Sequence[tuple[str, int]]) -> None:
        self._group = group
        self._requests = [self._request(name, models[name], number) for name, count in rows for number in range(count)]
        with torch.no_grad():
            group.admit(self._requests)

    def _request(self, name: str, model: Any, number: int) -> Request:
        generator = torch.Generator().manual_seed(number)
        prompt = Prompt(torch.randint(3, 250, (WORDS + number,), generator=generator).tolist())
        return Request(
            name,
            prompt,
            Sampler(model, prompt.input_ids, {"do_sample": False}),
            decode=lambda ids: "",
            decode_token=lambda token_id: "",
            stop_ids=[],
            stop_strings=[],
            max_new_tokens=STEPS + 1,
        )

    @torch.no_grad()
    def decode(self) -> None:
        """All but the first token of every row."""
        while self._group.running:
            self._group.step()


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        base = build_base(arguments)
        names = ("vision", "other")
        built = {n: build_workflow(base, Path(folder) / "encoder", INSERTED, seed=s) for s, n in enumerate(names, 1)}
    workflows = {name: model for name, (model, _) in built.items()}
    processors = {"text": built["vision"][1]} | {name: processor for name, (_, processor) in built.items()}
    models: dict[str, Any] = {"text": base, **workflows}
    group = SharedGroup(base, workflows, processors, prefix_cache_bytes=0)
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for number in range(arguments.rounds + 1):
        for name, passes in VARIANTS.items():
            taken = sum(processor_seconds(Rows(group, models, rows).decode) for rows in passes)
            if number:  # the first round warms up
                seconds[name].append(taken / STEPS)
    results = [{"name": n, "seconds_per_step": v, "median": statistics.median(v)} for n, v in seconds.items()]
    table = Table("rows", "ms a step of 8 rows", "tokens/s", title="decoding, processor time on one thread")
    for result in results:
        median: Any = result["median"]
        table.add_row(str(result["name"]), f"{1000 * median:.1f}", f"{8 / median:.0f}")
    console = Console()
    console.print(table)
    compared = []
    for slower, name, what, aim in COMPARED:
        median, low, high = ratios(seconds, slower, name)
        compared.append({"variant": name, "compared": what, "ratio": median, "range": [low, high], "aim": aim})
        console.print(f"{name}: {median:.2f}x {what} ({low:.2f} to {high:.2f}; aim {aim})")
    memory = measure_memory(base, workflows, group)
    console.print(
        f"memory: base {memory['base'] / 2**20:.0f} MiB + own tensors {memory['own'] / 2**20:.0f} MiB + encoders and "
        f"projectors {memory['encoders'] / 2**20:.0f} MiB; all models together hold {memory['all'] / 2**20:.0f} MiB"
    )
    if arguments.output:
        about = {"what": "mixed_batch", "layers": arguments.layers, "hidden": arguments.hidden}
        save(arguments.output, {**about, "compared": compared, "memory": memory}, results)


def measure_memory(base: Any, workflows: dict[str, Any], group: SharedGroup) -> dict[str, int]:
    """Bytes of distinct storage."""
    decoders = [base, *(model.language_model for model in workflows.values()), group.merged.model]
    encoders = [part for model in workflows.values() for part in (model.encoders, model.projectors)]
    total, of_base, of_encoders = _bytes([*decoders, *encoders]), _bytes([base]), _bytes(encoders)
    return {"base": of_base, "encoders": of_encoders, "own": total - of_base - of_encoders, "all": total}


def _bytes(modules: Sequence[torch.nn.Module]) -> int:
    tensors = chain.from_iterable(chain(module.parameters(), module.buffers()) for module in modules)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


if __name__ == "__main__":
    main()
