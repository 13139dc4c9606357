"""The command line. Each subcommand lives in a file of its own, imported when it is called."""

from __future__ import annotations

import sys
import warnings

from adaptkit.cli.group import LazyGroup
from adaptkit.errors import inert

COMMANDS = {
    "train": ("adaptkit.cli.train:train", "Run all stages of a recipe."),
    "inspect": ("adaptkit.cli.inspect:inspect", "Show layers, parameters and bytes of a recipe or checkpoint."),
    "eval": ("adaptkit.cli.eval:evaluate", "Score a checkpoint on benchmarks."),
    "score": ("adaptkit.cli.score:score", "Score answers of any system by a benchmark's official rules."),
    "verify": ("adaptkit.cli.verify:verify", "Recompute what a checkpoint's model card claims."),
    "generate": ("adaptkit.cli.generate:generate", "Answer one prompt, with or without media."),
    "chat": ("adaptkit.cli.chat:chat", "Talk to workflows, or to a server, in the terminal."),
    "demo": ("adaptkit.cli.demo:demo", "Talk to workflows, or to a server, on a web page."),
    "serve": ("adaptkit.cli.serve:serve", "Serve workflows over HTTP, as OpenAI's API."),
    "export": ("adaptkit.cli.export:export", "Write a workflow as a stock checkpoint."),
    "import": ("adaptkit.cli.import_:import_", "Turn checkpoints of the reference implementations into workflows."),
    "compare": ("adaptkit.cli.compare:compare", "Train variants with several seeds, and compare them in a table."),
    "data": ("adaptkit.cli.data:data", "Plan, convert, translate and check training data."),
    "recipes": ("adaptkit.cli.recipes:recipes", "List recipes, or print the recipe schema."),
    "plugins": ("adaptkit.cli.plugins:plugins", "List what installed plugins offer, and create or check plugins."),
    "doctor": ("adaptkit.cli.doctor:doctor", "Report what this machine has and what is missing."),
    "train-encoder": ("adaptkit.cli.train_encoder:train_encoder", "Train a small encoder from random weights."),
    "world": ("adaptkit.cli.world:world", "Rebuild the built-in models, or write the built-in world's data."),
}
"""Name of each subcommand, where its click command is, and the line that `adaptkit --help` shows."""

cli = LazyGroup(
    COMMANDS,
    name="adaptkit",
    help="Give a frozen decoder LLM new modalities without changing one bit of its text ability.",
    epilog="Exit codes: 0 done, 1 the run failed, 2 the input was wrong, 143 stopped by SIGTERM after saving.",
)


def main() -> None:
    """Run the command line of this process, and exit."""
    warnings.formatwarning = _format_warning
    from adaptkit.cli.streams import guard_output, retire_output

    guard_output()
    try:
        cli.main(sys.argv[1:], prog_name="adaptkit")
    finally:
        retire_output()


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning on one line: it may name what somebody else has written."""
    return f"{inert(f'{filename}:{lineno}: {category.__name__}: {message}')}\n"


__all__ = ["COMMANDS", "cli", "main"]
