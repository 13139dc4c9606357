"""`python -m adaptkit.cli.compare_worker DIRECTORY`: one run of a comparison, whose output is its log."""

from __future__ import annotations

import sys
from pathlib import Path

from adaptkit.cli.reporter import ConsoleReporter
from adaptkit.cli.terminal import Console

if __name__ == "__main__":
    from adaptkit.compare.worker import main

    sys.exit(main(Path(sys.argv[1]), ConsoleReporter(Console())))
