"""The page on trust names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_every_promise_has_a_test_that_exists() -> None:
    page = (REPOSITORY / "docs/reference/trust.md").read_text(encoding="utf-8")
    rows = [
        line for line in page.splitlines() if line.startswith("|") and "---" not in line and "| promise" not in line
    ]
    assert len(rows) > 10
    for row in rows:
        tests = re.findall(r"`((?:tests|plugins)/[\w/.-]+\.py)::(\w+)(?:\[[^`]*\])?`", row)
        assert tests, f"no test in the row {row}"
        for file, name in tests:
            path = REPOSITORY / file
            assert path.is_file(), file
            assert re.search(rf"^\s*(?:async )?def {name}\(", path.read_text(encoding="utf-8"), re.M), f"{file}::{name}"
