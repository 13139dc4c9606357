"""Runs in forked processes, and tells what they did in `report.json`.

Usage: `python -m tests.distributed.forks WORKDIR`. A process of its own, so that it can fork before torch has started
threads.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
from pathlib import Path

from tests.distributed import kill_runs, recipe_runs, strategy_runs

STRATEGIES = ["ddp", "fsdp", *(["zero2", "zero3"] if importlib.util.find_spec("deepspeed") else [])]
NUM_KILLS, NUM_KILLS_OF_TWO, SEED = 15, 5, 0


def main(work: Path) -> None:
    os.environ["DS_ACCELERATOR"] = "cpu"
    if "zero2" in STRATEGIES:
        import deepspeed  # noqa: F401
    gc.freeze()  # a Trainer collects garbage when it starts, which would copy every page after a fork
    recipe_runs.prepare(work / "recipes")
    report = {
        "strategies": strategy_runs.main(work / "strategies", STRATEGIES),
        "killed": kill_runs.main(work / "killed", NUM_KILLS, NUM_KILLS_OF_TWO, SEED),
        "recipes": recipe_runs.main(work / "recipes"),
    }
    (work / "report.json").write_text(json.dumps(report))
    gc.unfreeze()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
