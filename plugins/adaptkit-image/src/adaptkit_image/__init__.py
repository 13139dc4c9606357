"""The modality `image`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from adaptkit import Options, hookimpl

if TYPE_CHECKING:
    from adaptkit.testing import Example
    from adaptkit_image.modality import ImageModality

__all__ = ["ImageOptions", "register_modalities"]


class ImageOptions(Options):
    """How pictures are read, and limits on what is.

    Attributes:
        max_pixels: Width times height beyond which a picture is refused before it is decoded.
        max_bytes: Size beyond which a file is refused before it is read.
        exif_rotation: Whether a picture is turned upright as its EXIF says. LLaVA's code leaves pictures as they are
            stored, and so do boxes whose annotation gives the stored width and height, such as COCO's.
        background: Colour behind what is transparent, `white`, `black` or `#rrggbb`.
        bits: How many bits hold the values of grey pictures that store more than 8, such as 12. Not given, all that are
            stored count, and a picture that uses less than half of their range is refused: it may be dark, or of fewer
            bits.
    """

    max_pixels: int = Field(default=64_000_000, ge=1)
    max_bytes: int = Field(default=128 * 1024**2, ge=1)
    exif_rotation: bool = True
    background: str = "white"
    bits: int | None = Field(default=None, ge=1, le=31)

    @field_validator("background")
    @classmethod
    def _is_color(cls, value: str) -> str:
        from PIL import ImageColor

        if len(ImageColor.getrgb(value)) != 3:
            raise ValueError("a background is a colour without transparency")
        return value


def _build(options: ImageOptions) -> ImageModality:
    from adaptkit_image.modality import ImageModality

    return ImageModality(options)


def _stand_in(directory: Path, number: int) -> Path:
    from adaptkit_image.stand_in import write_picture

    return write_picture(directory / f"{number}.png", number)


def _examples(directory: Path) -> list[Example]:
    from adaptkit_image.examples import make_examples

    return make_examples(directory)


@hookimpl
def register_modalities(register: Any) -> None:
    """Offer `image`."""
    register(
        name="image",
        build=_build,
        options=ImageOptions,
        description="Pictures, read as RGB.",
        stand_in=_stand_in,
        examples=_examples,
    )
