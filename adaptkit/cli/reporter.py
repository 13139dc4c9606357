"""What a run reports, on a console."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from rich.table import Table

from adaptkit.cli.progress import progress_bar, training_progress
from adaptkit.cli.terminal import Console, styled
from adaptkit.reporting import Advance, Reporter, StageStart, TrainingProgress
from adaptkit.stage import Draw


class ConsoleReporter(Reporter):
    """Shows everything: lines, a table for each stage, and bars where the output is a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def message(self, text: str) -> None:
        self.console.print(text)

    def warning(self, text: str) -> None:
        self.console.print(text, style="yellow", highlight=False)

    def working(self, what: str) -> AbstractContextManager[object]:
        return self.console.status(what)

    def progress(self, what: str) -> AbstractContextManager[Advance]:
        return progress_bar(self.console, what)

    def training(self, stage: str) -> AbstractContextManager[Callable[[TrainingProgress], None]]:
        return training_progress(self.console)

    def stage(self, start: StageStart) -> None:
        table = Table(
            title=f"Stage {start.number}: {start.stage.name}", title_justify="left", title_style="bold", box=None
        )
        for column, justify in (("component", "left"), ("parameters", "right"), ("in this stage", "left")):
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        for name, num_parameters in start.components.items():
            state = styled("trained", "green") if name in start.stage.train else "frozen"
            table.add_row(name, f"{num_parameters:,}", state)
        self.console.print()
        self.console.print(table)
        self.console.print(
            f"workflow {start.stage.workflow}, {_counts(start)}steps of {_step_size(start)}, "
            f"learning rate {start.stage.optimizer.learning_rate:g}"
        )
        if start.stage.validation is not None:
            self.console.print(_validation(start))


def _counts(start: StageStart) -> str:
    """Items of an epoch, and steps; nothing where the data is not there."""
    if start.num_items is None:
        return ""
    return f"{start.num_items:,} {'packs' if start.stage.packing else 'conversations'} an epoch, {start.num_steps:,} "


def _validation(start: StageStart) -> str:
    """On what the stage is validated, and how often."""
    validation, every = start.stage.validation, start.stage.validate_every
    assert validation is not None
    amounts = validation.data.items()
    rows = ", ".join(f"{amount.count:,} of {name}" if isinstance(amount, Draw) else name for name, amount in amounts)
    often = f"every {every:,} steps" if every else "at the beginning and the end"
    ends = [] if validation.patience is None else [f"ends after {validation.patience} without a lower loss"]
    return "; ".join([f"validated on {rows}, {often}", *ends])


def _step_size(start: StageStart) -> str:
    """Samples or packs of one optimizer step, and over how many processes."""
    stage, number = start.stage, start.num_processes
    size, each = f"{stage.step_size(number):,}", stage.batch_size
    if stage.num_passes > 1:
        return f"{size} ({stage.num_passes} passes of {f'{number} x ' * (number > 1)}{each})"
    return f"{size} over {number} processes" if number > 1 else size
