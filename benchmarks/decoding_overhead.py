"""A decoding step of a workflow against a stock decoder of equal depth: what `generate` of a composite costs.

16 layers and 4 inserted ones, 616 positions in the cache. Both models decode in short turns, in both orders, so that a
disturbance meets both. Times are processor seconds on one thread.

    OMP_NUM_THREADS=1 python -m benchmarks.decoding_overhead --output benchmarks/results/decoding_overhead.json
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import DynamicCache

from benchmarks.common import save
from benchmarks.inference import INSERTED, build_base, build_workflow, options, processor_seconds

STEPS = 16
POSITIONS = 616


class Decoding:
    """Greedy decoding of one row from a ready cache."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._ids = torch.randint(3, 250, (1, POSITIONS), generator=torch.Generator().manual_seed(0))
        self._cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        with torch.no_grad():
            model(input_ids=self._ids[:, :-1], past_key_values=self._cache, use_cache=True, logits_to_keep=1)

    def seconds_per_step(self) -> float:
        """Processor seconds of a step."""
        cache = copy.deepcopy(self._cache)
        settings = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}
        mask = torch.ones_like(self._ids)
        ids = self._ids
        return (
            processor_seconds(lambda: self._model.generate(ids, attention_mask=mask, past_key_values=cache, **settings))
            / STEPS
        )


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        workflow, _ = build_workflow(build_base(arguments), Path(folder) / "encoder", INSERTED)
    models = {
        "stock": Decoding(build_base(arguments, workflow.language_model.config.num_hidden_layers)),
        "workflow": Decoding(workflow),
    }
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(arguments.rounds + 1):
        for name in ("stock", "workflow", "workflow", "stock"):
            taken = models[name].seconds_per_step()
            if number:  # the first round warms up
                seconds[name].append(taken)
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    rounds = [
        sum(seconds["workflow"][i : i + 2]) / sum(seconds["stock"][i : i + 2])
        for i in range(0, len(seconds["stock"]), 2)
    ]
    ratio = statistics.median(rounds)
    Console().print(
        f"stock {medians['stock']:.1f} ms, workflow {medians['workflow']:.1f} ms a step: {ratio:.3f}x "
        f"(rounds {min(rounds):.3f} to {max(rounds):.3f})"
    )
    if arguments.output:
        results = [{"name": name, "seconds": values} for name, values in seconds.items()]
        save(arguments.output, {"what": "decoding_overhead", "layers": arguments.layers, "ratio": ratio}, results)


if __name__ == "__main__":
    main()
