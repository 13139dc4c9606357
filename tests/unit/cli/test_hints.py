"""A command line that was meant well is answered with the one that does it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from adaptkit.cli import cli
from adaptkit.recipe import Recipe, place_of

RECIPE = str(Path(__file__).parents[3] / "recipes" / "iaa_vision_tiny.yaml")

LINES = {
    "generate run --prompt a --images f.png": ["--images", "--image"],
    "generate run --prompt a --img f.png": ["--media image=f.png"],
    "generate run --prompt a --series=my.csv": ["--media series=my.csv"],
    "generate run --prompt a --pointcloud f.npy": ["--media NAME=FILE", "installed: audio, image, series"],
    "generate run --pointcloud F": ["--media NAME=FILE"],
    "help": ["`adaptkit --help`"],
    "version": ["`adaptkit --version`"],
    "ask run": ["`adaptkit generate`"],
    "resume run": ["--resume auto"],
    "generate run --question why": ["--prompt"],
    "generate run --max-tokens 3": ["--max-new-tokens"],
    "generate run --prompt a hello": ["--prompt", "--media NAME=FILE"],
    "generate --model run --prompt a": ["adaptkit generate run"],
    "recipes list": ["`adaptkit recipes` alone lists"],
    "plugins list": ["`adaptkit plugins` alone lists"],
    "plugins chek": ["Did you mean 'check'"],
    "data convrt": ["Did you mean 'convert'"],
    "data convert refcocco": ["Did you mean 'refcoco'"],
    "world bild": ["Did you mean 'build'"],
    "import lavni": ["Did you mean 'lavin'"],
    "finetune x": ["`adaptkit train`"],
    "list": ["`adaptkit recipes`"],
    "train RECIPE --lr 3": ["stages.align.optimizer.learning_rate=3", "align, pretrain, instruct, ground"],
    "train --epochs=4 RECIPE": ["stages.align.num_train_epochs=4"],
    "train other.yaml --lr 3": ["stages.STAGE.optimizer.learning_rate=3"],
    "compare RECIPE --max_steps 4": ["stages.align.max_steps=4"],
    "inspect RECIPE --quantisation nf4": ["base.quantization=nf4"],
    "train RECIPE --seed 4": ["seed=4"],
    "train RECIPE --wandb": ["logging.report_to"],
    "train RECIPE --batch-size 4": ["per_device_train_batch_size=4", "--dry-run"],
    "train RECIPE --gpus 4": ["--num-processes"],
    "train RECIPE --nproc-per-node 4": ["--num-processes"],
    "train RECIPE --stages.align.max_steps=3": ["stages.align.max_steps=3", "no dashes"],
    "train --config RECIPE": ["adaptkit train", RECIPE],
    "train RECIPE --output_dir x": ["Write --output"],
    "train RECIPE --num_processes 3": ["Write --num-processes"],
    "train RECIPE --dry_run": ["Write --dry-run"],
    "train RECIPE --reheearse": ["--rehearse"],
    "train RECIPE lr=3": ["stages.STAGE.optimizer.learning_rate"],
    "train RECIPE batch_size=3": ["stages.STAGE.per_device_train_batch_size"],
    "eval . world": ["--tasks"],
    "eval . --task world": ["--tasks"],
    "export run llava": ["--to"],
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_answered_with_what_to_type(line: str) -> None:
    result = CliRunner().invoke(cli, line.replace("RECIPE", RECIPE).split(), prog_name="adaptkit")
    assert result.exit_code == 2, result.output
    assert not [words for words in LINES[line] if words not in result.stderr], result.stderr


def test_what_is_unlike_anything_gets_no_advice() -> None:
    result = CliRunner().invoke(cli, ["generate", "run", "--prompt", "a", "--zzz", "0.5"])
    assert result.stderr.splitlines()[-1] == "Error: No such option '--zzz'."
    assert place_of(Recipe, "zzz") is None
