"""The encoder `timm`: backbones of timm, with their own data configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit import hookimpl
from adaptkit_timm.options import TimmOptions

if TYPE_CHECKING:
    from adaptkit.testing import Example
    from adaptkit_timm.encoder import TimmEncoder
    from adaptkit_timm.preprocessing import TimmPreprocessor

__all__ = ["TimmOptions", "register_encoders"]


def _build(options: TimmOptions) -> TimmEncoder:
    from adaptkit_timm.encoder import load_encoder

    return load_encoder(options)


def _build_preprocessor(options: TimmOptions) -> TimmPreprocessor:
    from adaptkit_timm.encoder import load_preprocessor

    return load_preprocessor(options)


def _missing(options: TimmOptions) -> str | None:
    from adaptkit_timm.checkpoint import missing

    return missing(options)


def _stand_in(options: TimmOptions, directory: Path) -> TimmOptions:
    from adaptkit_timm.stand_in import write_stand_in

    return write_stand_in(options, directory)


def _wrap(module: Any, options: dict[str, Any]) -> TimmEncoder | None:
    import sys

    if "timm" not in sys.modules:  # whoever has a model of timm has imported it
        return None
    from adaptkit_timm.encoder import wrap_model

    return wrap_model(module, options)


def _examples(directory: Path) -> list[Example]:
    from adaptkit_timm.examples import make_examples

    return make_examples(directory)


@hookimpl
def register_encoders(register: Any) -> None:
    """Offer `timm`."""
    register(
        name="timm",
        build=_build,
        options=TimmOptions,
        description="Backbones of timm, with their own data configuration.",
        build_preprocessor=_build_preprocessor,
        stand_in=_stand_in,
        missing=_missing,
        wrap=_wrap,
        examples=_examples,
    )
