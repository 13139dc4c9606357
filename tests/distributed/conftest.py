from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `tests.distributed.forks` tells of all its runs; one process does them, since its imports take long."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork and SIGKILL")
    work = tmp_path_factory.mktemp("forks")
    command = [sys.executable, "-m", "tests.distributed.forks", str(work)]
    environment = {**os.environ, "TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    report: dict[str, Any] = json.loads((work / "report.json").read_text())
    return report
