"""The encoder `clip`: CLIP, SigLIP and DINOv2 vision models of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit import hookimpl
from adaptkit_clip.options import ClipOptions, TilingOptions

if TYPE_CHECKING:
    from adaptkit.testing import Example
    from adaptkit_clip.encoder import ClipEncoder
    from adaptkit_clip.preprocessing import ClipPreprocessor

__all__ = ["ClipOptions", "TilingOptions", "register_encoders"]


def _build(options: ClipOptions) -> ClipEncoder:
    from adaptkit_clip.encoder import load_encoder

    return load_encoder(options)


def _build_preprocessor(options: ClipOptions) -> ClipPreprocessor:
    from adaptkit_clip.preprocessing import load_preprocessor

    return load_preprocessor(options)


def _missing(options: ClipOptions) -> str | None:
    from adaptkit_clip.checkpoint import missing

    return missing(options.path, options.revision)


def _stand_in(options: ClipOptions, directory: Path) -> ClipOptions:
    from adaptkit_clip.stand_in import write_stand_in

    return write_stand_in(options, directory)


def _create(config: dict[str, Any], directory: Path) -> ClipOptions:
    from adaptkit_clip.creation import create_model

    return create_model(config, directory)


def _wrap(module: Any, options: dict[str, Any]) -> ClipEncoder | None:
    from adaptkit_clip.encoder import wrap_model

    return wrap_model(module, options)


def _examples(directory: Path) -> list[Example]:
    from adaptkit_clip.examples import make_examples

    return make_examples(directory)


@hookimpl
def register_encoders(register: Any) -> None:
    """Offer `clip`."""
    register(
        name="clip",
        build=_build,
        options=ClipOptions,
        description="CLIP, SigLIP and DINOv2 vision models of transformers.",
        build_preprocessor=_build_preprocessor,
        stand_in=_stand_in,
        missing=_missing,
        wrap=_wrap,
        examples=_examples,
        create=_create,
    )
