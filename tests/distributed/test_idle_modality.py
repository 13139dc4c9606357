"""A process whose batch has no medium must not leave the others waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.distributed.idle_modality import batch, build

SCRIPT = Path(__file__).with_name("idle_modality.py")
WAIT_S = 200  # far more than it takes; a hang ends here


# DeepSpeed compiles an operator first, which takes a compiler and minutes
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", pytest.param("zero3", marks=pytest.mark.integration)])
def test_nobody_waits(strategy: str) -> None:
    if strategy == "zero3" and find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT)]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "DS_ACCELERATOR": "cpu"}
    run = subprocess.run([*command, strategy], capture_output=True, text=True, timeout=WAIT_S, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    model = build().train()
    alone = [model(**batch(model, with_picture)).loss.item() for with_picture in (True, False)]
    assert json.loads(run.stdout.strip().splitlines()[-1])["losses"] == pytest.approx(alone, rel=1e-4)
