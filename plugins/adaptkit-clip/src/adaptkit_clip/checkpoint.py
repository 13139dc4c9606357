"""Where a checkpoint lies, and what to say when it does not. Imports neither torch nor transformers."""

from __future__ import annotations

from pathlib import Path

from adaptkit.errors import ModelError, unknown_name
from adaptkit.files.checkpoints import advice_for, find_checkpoint, missing_checkpoint
from adaptkit_clip.options import ClipOptions

ADVICE = advice_for("a CLIP, SigLIP or DINOv2 model")
_WORLD = "world:"


def resolve(path: str) -> Path | str:
    """The folder of a checkpoint, or the model id where `path` can only be one.

    Raises:
        ModelError: It is neither.
    """
    if not path.startswith(_WORLD):
        return find_checkpoint(path, ADVICE)
    from adaptkit.world import model_path

    name = path.removeprefix(_WORLD)
    if name != "encoder":
        raise ModelError(unknown_name("built-in encoder", name, ["encoder"]))
    return model_path("encoder")


def missing(options: ClipOptions) -> str | None:
    """What a build would not find: None where the checkpoint is here, or the hub answers for it."""
    try:
        place = resolve(options.path)
    except ModelError as error:
        return str(error)
    return missing_checkpoint(place, options.path, options.revision, ADVICE)
