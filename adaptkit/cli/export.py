"""`adaptkit export`: a workflow as a stock checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from adaptkit.cli.output import FOLDER, trust_option
from adaptkit.cli.terminal import echo

FORMATS = ("llava", "qwen2-audio", "voxtral", "peft")
DTYPES = ("float32", "bfloat16", "float16")


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--to", "target", required=True, type=click.Choice(FORMATS), help="Kind of stock checkpoint.")
@click.option("--output", required=True, type=FOLDER, help="Folder to write.")
@click.option("--workflow", show_default="the first", help="Workflow of a run.")
@click.option("--merge", is_flag=True, help="Fold low-rank differences into the weights first.")
@click.option("--dtype", type=click.Choice(DTYPES), show_default="that of the base", help="Dtype of the weights.")
@trust_option()
def export(
    checkpoint: Path,
    target: str,
    output: Path,
    workflow: str | None,
    merge: bool,
    dtype: str | None,
    trust_remote_code: bool,
) -> None:
    """Write a workflow of CHECKPOINT as a stock checkpoint, which loads without adaptkit.

    The written checkpoint is read back and compared with the workflow. A workflow that has no stock equivalent is
    refused with the reason.
    """
    if target == "peft" and (merge or dtype):
        raise click.UsageError("--merge and --dtype do not go with --to peft, whose factors stay as they were trained.")

    import torch

    from adaptkit.cli.quiet import quiet_libraries
    from adaptkit.export import export_llava, export_peft, export_speech
    from adaptkit.model.checkpoint import load
    from adaptkit.model.processor import load_processor
    from adaptkit.model.run_folders import find_workflow

    quiet_libraries()
    folder = find_workflow(checkpoint, workflow)
    model = load(folder, trust_remote_code=trust_remote_code)
    processor = load_processor(folder, trust_remote_code=trust_remote_code)
    wanted = None if dtype is None else getattr(torch, dtype)
    if target == "llava":
        report = export_llava(model, processor, output, merge=merge, dtype=wanted)
    elif target == "peft":
        report = export_peft(model, processor, output)
    else:
        report = export_speech(model, processor, output, target, merge=merge, dtype=wanted)
    echo(f"Wrote {report.directory}; logits differ by at most {report.logits_difference:.1e}.")
    if report.dropped_settings:
        echo(
            f"generation_config.json lacks settings without effect: {', '.join(report.dropped_settings)}. Pass them to "
            "generate() together with do_sample=True if you want them."
        )
    if report.placeholder is not None:
        rows = f", for which embedding and head got {report.added_rows} row(s)" if report.added_rows else ""
        echo(f"{report.placeholder} (id {report.placeholder_id}) stands for the features of a medium{rows}.")
    if report.media_difference is not None:
        echo(f"Both processors make the same token ids; media values differ by at most {report.media_difference:.1e}.")
