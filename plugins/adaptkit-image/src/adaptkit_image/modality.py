"""Reading, hashing and showing pictures."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import math
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageOps

from adaptkit.errors import DataError
from adaptkit.files.media import SourceReader
from adaptkit.interfaces import Modality
from adaptkit_image.options import ImageOptions
from adaptkit_image.pixels import is_one_color, is_plain, to_rgb

ACCEPTED = "a path, bytes, a file object, a data URI, a Pillow image or an array (height, width[, 1, 3 or 4])"
_OTHER_PROGRAMS = ("EPS", "WMF", "EMF")
_TILE_TAGS = (322, 323)
_SHOWN_PIXELS = 512
_FRAMES = "num_frames"
_ONE_PICTURE = ("MPO",)
"""Formats whose further frames are previews, depths and the like of the first."""


class ImageModality(Modality):
    """Pictures as RGB Pillow images, upright unless the options say otherwise, first frame only.

    What is transparent shows the options' background, white by default.
    """

    name = "image"
    tag = "<image>"
    plural = "images"

    def __init__(self, options: ImageOptions | None = None) -> None:
        self.options = options or ImageOptions()
        self._reader = SourceReader("picture", ACCEPTED, self.options.max_bytes)
        if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own limit is process-wide and would come first
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, self.options.max_pixels)

    def load(self, source: Any) -> Image.Image:
        """Read one picture.

        Args:
            source: A path, bytes, a binary file object, a base64 data URI, a Pillow image, or an array
                `(height, width[, channels])` of uint8, bool, or floats in 0..1.

        Raises:
            DataError: It is missing, no picture, damaged, empty, or beyond the limits.
        """
        if isinstance(source, Image.Image):
            return self._to_rgb(source, "the Pillow image")
        if isinstance(source, np.ndarray):
            return self._to_rgb(_from_array(source), "the array")
        raw, where = self._reader.read(source)
        try:
            image = Image.open(io.BytesIO(raw))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"{where}: more pixels than the limit of {self.options.max_pixels:,}.") from error
        except Exception as error:  # Pillow's readers raise many types on damaged headers
            raise DataError(f"{where} is not a picture that Pillow can read, or its header is damaged.") from error
        if image.format in _OTHER_PROGRAMS:
            raise DataError(f"{where} is {image.format}, which only another program can draw. Save it as PNG.")
        tags = getattr(image, "tag_v2", {})  # of TIFF
        tile = [int(tags.get(tag, 1)) for tag in _TILE_TAGS]
        if math.prod(tile) > self.options.max_pixels:
            raise DataError(
                f"{where} has tiles of more pixels than the limit of {self.options.max_pixels:,} (max_pixels)."
            )
        return self._to_rgb(image, where)

    def content_key(self, source: Any) -> str:
        """SHA-256 of the file's bytes and how they are read, or of the pixels of a picture in memory."""
        if isinstance(source, Image.Image | np.ndarray):
            image = self.load(source)
            return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
        raw, _ = self._reader.read(source)
        how = b"" if self.options.exif_rotation else b"as stored\0"  # another picture, where it would be turned
        return hashlib.sha256(how + self._coloring(raw) + raw).hexdigest()

    def _coloring(self, raw: bytes) -> bytes:
        """The options that change the pixels of a picture; nothing for most."""
        try:
            plain = is_plain(Image.open(io.BytesIO(raw)))
        except Exception:  # it has no pixels to change
            return b""
        return b"" if plain else f"{self.options.background} {self.options.bits}\0".encode()

    def to_html(self, item: Image.Image) -> str:
        """An `<img>` with the picture inside, scaled down to at most 512 pixels a side."""
        shown = item.copy()
        shown.thumbnail((_SHOWN_PIXELS, _SHOWN_PIXELS))
        kind = "png" if max(shown.size) <= 128 else "jpeg"  # small synthetic pictures suffer from JPEG
        buffer = io.BytesIO()
        shown.save(buffer, format=kind)
        data = base64.b64encode(buffer.getvalue()).decode()
        label = html.escape(f"picture, {item.width} by {item.height} pixels")
        return f'<img src="data:image/{kind};base64,{data}" alt="{label}">'

    def augment(self, item: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Turned, moved, scaled and lit a little differently; never mirrored, which would change what letters say."""
        from adaptkit_image.augmentation import vary

        return vary(item, rng)

    def box_size(self, item: Image.Image) -> tuple[int, int]:
        """Width and height of the picture."""
        return item.size

    def doubts(self, item: Image.Image) -> list[str]:
        """A picture of one colour, and one of several frames."""
        num_frames = item.info.get(_FRAMES, 1)
        found = ["all its pixels have one colour"] if is_one_color(item) else []
        return found + ([f"the first of its {num_frames:,} frames alone is read"] if num_frames > 1 else [])

    def _to_rgb(self, image: Image.Image, where: str) -> Image.Image:
        width, height = image.size
        if width < 1 or height < 1:
            raise DataError(f"{where} is empty: {width} by {height} pixels.")
        if width * height > self.options.max_pixels:
            raise DataError(
                f"{where} has {width} by {height} pixels, more than the limit of {self.options.max_pixels:,} "
                "(max_pixels). Scale it down."
            )
        try:
            num_frames = getattr(image, "n_frames", 1) if image.format not in _ONE_PICTURE else 1
            if num_frames > 1:
                image.seek(0)
        except Exception as error:  # Pillow's decoders raise many types on damaged data
            raise DataError(f"{where} is damaged or cut short: {error}.") from error
        picture = to_rgb(image, where, ImageColor.getrgb(self.options.background), self.options.bits)
        if self.options.exif_rotation:
            picture = _upright(picture)
        if num_frames > 1:
            picture.info[_FRAMES] = num_frames
        return picture


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # an unreadable EXIF block says nothing about orientation; viewers ignore it too
        return image


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise DataError(f"an array of shape {array.shape} is not a picture: give (height, width[, 1, 3 or 4]).")
    if np.issubdtype(array.dtype, np.floating):
        if not bool(np.isfinite(array).all()) or float(array.min()) < 0 or float(array.max()) > 1:
            raise DataError("an array of floats must hold finite values in 0..1; for 0..255 use uint8.")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise DataError(f"an array of {array.dtype} is not a picture: give uint8, bool, or floats in 0..1.")
    return Image.fromarray(np.ascontiguousarray(array))
