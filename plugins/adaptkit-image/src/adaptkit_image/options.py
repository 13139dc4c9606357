"""Options of the modality `image`."""

from __future__ import annotations

from pydantic import Field, field_validator

from adaptkit import Options


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
