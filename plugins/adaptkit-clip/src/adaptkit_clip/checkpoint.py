"""Where a checkpoint lies, and what to say when it does not. Imports neither torch nor transformers."""

from __future__ import annotations

import re
from pathlib import Path

from adaptkit.errors import ModelError, unknown_name
from adaptkit.files.hub import hub_refusal, is_cached, missing_files
from adaptkit_clip.options import ClipOptions

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WORLD = "world:"


def resolve(path: str) -> Path | str:
    """The folder of a checkpoint, or the model id where `path` can only be one.

    Raises:
        ModelError: It is neither.
    """
    if path.startswith(_WORLD):
        from adaptkit.world import model_path

        name = path.removeprefix(_WORLD)
        if name != "encoder":
            raise ModelError(unknown_name("built-in encoder", name, ["encoder"]))
        return model_path("encoder")
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError(f"{path} is a file. {provide('Name the folder that holds it:')}")
    if path.startswith((".", "~")) or not _HUB_ID.fullmatch(path):
        raise ModelError(f"no folder at {path}. {provide()}")
    return path


def provide(lead: str = "") -> str:
    """How to make a checkpoint available."""
    return (
        f"{lead} Set the encoder's `path` to a folder with config.json and model.safetensors of a CLIP, "
        "SigLIP or DINOv2 model, or to a model id of the Hugging Face hub; `hf download ID --local-dir FOLDER`, run "
        "where there is a network, makes such a folder. To try the recipe without it, use `--rehearse`."
    ).strip()


def missing(options: ClipOptions) -> str | None:
    """What a build would not find: None where the checkpoint is here, or the hub answers for it."""
    try:
        place = resolve(options.path)
    except ModelError as error:
        return str(error)
    if isinstance(place, Path):
        lacking = missing_files(place, options.path)
        return lacking and f"{lacking} {provide()}"
    if is_cached(place, options.revision):
        return None
    reason = hub_refusal(place, options.revision)
    if reason is None:
        return None
    return f"no folder {options.path!r} here, it is not in the cache of the Hugging Face hub, and {reason}. {provide()}"
