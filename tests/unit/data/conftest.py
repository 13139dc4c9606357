"""Files in the LLaVA format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes rows beside two media files, `a.bin` and `b.bin`."""
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(b"x")

    def write(rows: Any) -> Path:
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows), encoding="utf-8")
        return path

    return write
