"""`adaptkit train --dry-run`: what a run would do, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from adaptkit.build import MediaStore, build_sources, build_stage_data
from adaptkit.chat import label_segments
from adaptkit.cli.quiet import quiet_libraries
from adaptkit.data.dataset import ConversationDataset
from adaptkit.errors import DataError
from adaptkit.model.inspection import describe_components
from adaptkit.recipe import Recipe, StageConfig, dump_recipe
from adaptkit.runner import Run, prepare_run, print_stage, stage_settings

GRADIENT_BYTES = 4
OPTIMIZER_BYTES = {"adamw": 8, "muon": 4}


def show_dry_run(recipe: Recipe, console: Console) -> None:
    """Print the resolved recipe, and for each stage what trains, the memory of its tensors and one example."""
    quiet_libraries()
    console.print(Syntax(dump_recipe(recipe), "yaml", background_color="default"))
    run = prepare_run(recipe, Path(), console)
    run.sources = build_sources(recipe, dict.fromkeys(name for stage in recipe.stages for name in stage.data))
    for number, stage in enumerate(recipe.stages, start=1):
        _show_stage(run, stage, f"{number}/{len(recipe.stages)}")
    console.print("\ndry run: nothing was trained or written.")


def _show_stage(run: Run, stage: StageConfig, number: str) -> None:
    model = run.build_stage_model(stage)
    media = MediaStore(run.processor(stage.workflow))
    sources = {name: run.sources[name] for name in stage.data}
    data = build_stage_data(run.recipe, stage, sources, media, None)
    num_steps = stage_settings(stage).num_steps(len(data.sampler))
    print_stage(run.console, stage, number, model, len(data.sampler), num_steps)
    run.console.print(_memory_table(stage, describe_components(model)))
    _show_example(run, data.conversations, media)


def _memory_table(stage: StageConfig, components: list[Any]) -> Table:
    trained = sum(c.num_parameters for c in components if c.name in stage.train)
    optimizer_bytes = OPTIMIZER_BYTES[stage.optimizer.name]
    rows = {
        "weights, frozen and trained": sum(c.num_bytes for c in components),
        "gradients of what trains (float32)": trained * GRADIENT_BYTES,
        f"optimizer state ({stage.optimizer.name})": trained * optimizer_bytes,
    }
    table = Table("memory of one device, without activations", "MiB", box=None)
    for name, num_bytes in [*rows.items(), ("in all", sum(rows.values()))]:
        table.add_row(name, f"{num_bytes / 2**20:,.1f}")
    table.columns[1].justify = "right"
    return table


def _show_example(run: Run, dataset: ConversationDataset, media: MediaStore) -> None:
    """The first usable conversation of the first epoch, decoded, with its labelled part marked."""
    for index in dataset.mixture.indices(0):
        try:
            encoded = media.encode(dataset.mixture[index])
        except DataError as error:
            run.console.print(f"[yellow]bad sample:[/] {error}")
            continue
        text = Text()
        for segment, labelled in label_segments(run.tokenizer, encoded):
            text.append(segment, style="bold green" if labelled else "dim")
        run.console.print(f"one conversation of {len(encoded.input_ids)} positions; green is what is learned:")
        run.console.print(text)
        return
