"""The encoder `open_clip`: vision towers of open_clip, with their own transforms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit import hookimpl
from adaptkit_open_clip.options import OpenClipOptions, PreprocessOptions

if TYPE_CHECKING:
    from adaptkit.testing import Example
    from adaptkit_open_clip.encoder import OpenClipEncoder
    from adaptkit_open_clip.preprocessing import OpenClipPreprocessor

__all__ = ["OpenClipOptions", "PreprocessOptions", "register_encoders"]


def _build(options: OpenClipOptions) -> OpenClipEncoder:
    from adaptkit_open_clip.encoder import load_encoder

    return load_encoder(options)


def _build_preprocessor(options: OpenClipOptions) -> OpenClipPreprocessor:
    from adaptkit_open_clip.encoder import load_preprocessor

    return load_preprocessor(options)


def _missing(options: OpenClipOptions) -> str | None:
    from adaptkit_open_clip.checkpoint import missing

    return missing(options.path, options.model)


def _stand_in(options: OpenClipOptions, directory: Path) -> OpenClipOptions:
    from adaptkit_open_clip.stand_in import write_stand_in

    return write_stand_in(options, directory)


def _wrap(module: Any, options: dict[str, Any]) -> OpenClipEncoder | None:
    import sys

    if "open_clip" not in sys.modules:  # whoever has a model of open_clip has imported it
        return None
    from adaptkit_open_clip.encoder import wrap_model

    return wrap_model(module, options)


def _examples(directory: Path) -> list[Example]:
    from adaptkit_open_clip.examples import make_examples

    return make_examples(directory)


@hookimpl
def register_encoders(register: Any) -> None:
    """Offer `open_clip`."""
    register(
        name="open_clip",
        build=_build,
        options=OpenClipOptions,
        description="Vision towers of open_clip, with their own transforms.",
        build_preprocessor=_build_preprocessor,
        stand_in=_stand_in,
        missing=_missing,
        wrap=_wrap,
        examples=_examples,
    )
