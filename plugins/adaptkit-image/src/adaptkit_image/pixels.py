"""Pixels of every kind as RGB of 8 bits: on a background where they are transparent, scaled where they are deeper."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adaptkit.errors import DataError

_DEEP_GREY = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")
_WHITE_IS_ZERO = 0
_PHOTOMETRIC, _MAX_SAMPLE = 262, 281  # tags of TIFF


def is_plain(image: Image.Image) -> bool:
    """Whether an opened picture has neither transparency nor more than 8 bits, so that no option changes its pixels."""
    return not (_is_deep(image) or image.mode in _TRANSPARENT or "transparency" in image.info)


def to_rgb(image: Image.Image, where: str, background: tuple[int, ...], bits: int | None) -> Image.Image:
    """An opened picture as RGB.

    Args:
        where: What to call it in messages.
        background: Colour that shows through transparent pixels.
        bits: How many bits hold the values of pictures with more than 8 a pixel; None: all that are stored.

    Raises:
        DataError: It is damaged, or how bright its values are meant to be cannot be determined.
    """
    deep_color = _is_deep(image) and image.mode not in _DEEP_GREY
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise many types on damaged data
        raise DataError(f"{where} is damaged or cut short: {error}.") from error
    if image.mode == "F":
        raise DataError(f"{where} holds floating-point pixels, whose range is unknown. Convert it to 8 bits.")
    if image.mode in _DEEP_GREY:
        image = _to_eight_bits(image, where, bits)
    elif deep_color:
        _check_high_bytes(image, where, bits)
    try:
        picture = _on_background(image, background)
    except Exception as error:  # a mode that Pillow reads and does not convert
        raise DataError(f"{where} has pixels of mode {image.mode}, which Pillow does not convert: {error}.") from error
    picture.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return picture


def _is_deep(image: Image.Image) -> bool:
    return image.mode in _DEEP_GREY or any(";16" in str(tile) for tile in getattr(image, "tile", ()))


def _on_background(image: Image.Image, background: tuple[int, ...]) -> Image.Image:
    if image.mode not in _TRANSPARENT and "transparency" not in image.info:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode == "La":  # Pillow has no way from it but this
        image = image.convert("LA")
    layer = image.convert("RGBA")
    whole = Image.new("RGBA", layer.size, background)
    whole.alpha_composite(layer)
    return whole.convert("RGB")


def _to_eight_bits(image: Image.Image, where: str, bits: int | None) -> Image.Image:
    """Grey of more than 8 bits; Pillow would clip it instead of scaling."""
    values = np.asarray(image).astype(np.int64)
    known = bits or _bits_of_file(image)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0:
        raise DataError(f"{where} holds negative pixels, down to {lowest:,}. Convert it to 8 bits.")
    if highest >= 1 << (known or 16):
        raise DataError(
            f"{where} holds pixels up to {highest:,}, more than {known or 16} bits can say. Set the modality's `bits` "
            f"to how many it has, such as {highest.bit_length()}, or convert it to 8 bits."
        )
    if known is None and 0 < highest < 1 << 15:
        raise _ambiguous(where, f"no pixel above {highest:,}", highest.bit_length())
    grey = _scaled(values, known or 16)
    if _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:  # which Pillow undoes for 8 bits only
        grey = 255 - grey
    picture = Image.fromarray(grey)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        picture.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return picture


def _scaled(values: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """The upper 8 bits, as Pillow takes them of 16-bit colours."""
    return (values >> bits - 8 if bits >= 8 else values * 255 // ((1 << bits) - 1)).astype(np.uint8)


def _check_high_bytes(image: Image.Image, where: str, bits: int | None) -> None:
    """Of 16-bit colours Pillow reads the upper bytes alone."""
    if bits not in (None, 16):
        raise DataError(f"{where} holds 16-bit colours, of which only all bits can be read. Convert it to 8 bits.")
    colors = image.convert("RGB") if image.mode in _TRANSPARENT else image
    highest = max(high for _, high in _extrema(colors))
    if bits is None and 0 < highest < 128:
        raise _ambiguous(where, f"no value above {highest * 256 + 255:,}", 8 + highest.bit_length())


def _ambiguous(where: str, what: str, likely: int) -> DataError:
    likely = next(bits for bits in (8, 10, 12, 14, 15, 16) if bits >= likely)
    return DataError(
        f"{where} stores 16 bits a value, but has {what}: are they of {likely} bits, or is it dark? Set the modality's "
        f"`bits` to {likely}, or to 16 to read it as it is, or convert it to 8 bits."
    )


def _bits_of_file(image: Image.Image) -> int | None:
    largest = _tag(image, _MAX_SAMPLE)
    return largest.bit_length() if isinstance(largest, int) and largest > 0 else None


def _tag(image: Image.Image, number: int) -> Any:
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) and value else value


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    """Least and largest value of each channel."""
    found: Any = image.getextrema()
    return list(found) if isinstance(found[0], tuple) else [found]


def is_one_color(image: Image.Image) -> bool:
    """Whether all pixels of an RGB picture are the same but for the noise of a compression."""
    return all(high - low <= 2 for low, high in _extrema(image))
