"""Settings and fixtures of the whole suite: offline, one thread, the shared data where it is present."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch and transformers are imported, and inherited by the processes that tests start
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ.pop("ADAPTKIT_PLUGINS", None)

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data for tests; a test that needs it skips where it is absent."""
    folder = Path(os.environ.get("ADAPTKIT_SHARED") or REPOSITORY.parent / "shared").expanduser().resolve()
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared test data at {folder}: set ADAPTKIT_SHARED to the folder that holds data/")
    return folder
