"""What is read, and what is refused with which words."""

from __future__ import annotations

import base64
import io
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptkit_image import ImageOptions
from adaptkit_image.modality import ImageModality
from PIL import Image

from adaptkit.errors import DataError

SIZE = (7, 4)
PIXELS = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)


@pytest.fixture
def modality() -> ImageModality:
    return ImageModality()


def encode(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **settings)
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that it does not hold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_every_kind_of_source_gives_the_same_picture(modality: ImageModality, tmp_path: Path) -> None:
    raw = encode(Image.fromarray(PIXELS))
    path = tmp_path / "picture"
    path.write_bytes(raw)
    uri = "data:image/png;base64," + base64.b64encode(raw).decode()
    file = io.BytesIO(raw)
    file.seek(9)
    with path.open("rb") as opened:
        sources = [
            path,
            str(path),
            raw,
            bytearray(raw),
            uri,
            file,
            opened,
            Image.fromarray(PIXELS),
            PIXELS,
            PIXELS / 255,
        ]
        for source in sources:
            loaded = modality.load(source)
            assert loaded.mode == "RGB"
            assert np.array_equal(np.asarray(loaded), PIXELS)
        encoded = {modality.content_key(source) for source in sources[:7]}
    assert len(encoded) == 1
    assert len({modality.content_key(source) for source in sources[7:]}) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
def test_every_mode_becomes_rgb(modality: ImageModality, mode: str) -> None:
    if mode.startswith("I"):
        grey = Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257)
        picture = grey if mode == "I;16" else grey.convert("I")
    else:
        picture = Image.fromarray(PIXELS).convert(mode)
    assert picture.mode == mode
    loaded = modality.load(picture)
    assert (loaded.mode, loaded.size) == ("RGB", SIZE)
    if mode.startswith("I"):
        assert np.array_equal(np.asarray(loaded)[:, :, 0], PIXELS[:, :, 0])


INK = np.zeros((4, 7), dtype=np.uint8)
INK[1, 2:5] = 255
"""How opaque each pixel of a black drawing is."""


def drawing(kind: str) -> bytes:
    """Black ink on a transparent background, as files of each kind store it."""
    black, alpha = Image.new("L", SIZE), Image.fromarray(INK)
    if kind == "LA":
        return encode(Image.merge("LA", (black, alpha)))
    if kind in ("RGBA", "TIFF", "WEBP"):
        settings = {"lossless": True} if kind == "WEBP" else {}
        return encode(Image.merge("RGBA", (black, black, black, alpha)), "PNG" if kind == "RGBA" else kind, **settings)
    if kind == "palette of alphas":
        palette = Image.fromarray((INK > 0).astype(np.uint8)).convert("P")
        palette.putpalette([0] * 6)
        return encode(palette, transparency=bytes([0, 255]))
    grey = Image.fromarray(255 - INK)  # what is transparent has a colour of its own
    if kind == "16 bits":
        return encode(Image.fromarray((np.asarray(grey).astype(np.uint16) // 255) * 65535), transparency=65535)
    picture = grey.convert({"GIF": "P", "1": "1", "L": "L", "RGB": "RGB"}[kind])
    clear = (255, 255, 255) if kind == "RGB" else 255
    return encode(picture, "GIF" if kind == "GIF" else "PNG", transparency=clear)


@pytest.mark.parametrize("kind", ["LA", "RGBA", "TIFF", "WEBP", "palette of alphas", "GIF", "1", "L", "RGB", "16 bits"])
def test_transparency_shows_the_background(kind: str) -> None:
    raw = drawing(kind)
    loaded, yellow = (ImageModality(ImageOptions(background=color)) for color in ("white", "#ffff00"))
    assert np.array_equal(np.asarray(loaded.load(raw)), np.repeat(255 - INK[:, :, None], 3, axis=2))
    assert yellow.load(raw).getpixel((0, 0)) == (255, 255, 0)
    assert yellow.load(raw).getpixel((2, 1)) == (0, 0, 0)
    assert loaded.content_key(raw) != yellow.content_key(raw), "else features of the one were taken for the other"
    opaque = encode(Image.fromarray(PIXELS))
    assert loaded.content_key(opaque) == yellow.content_key(opaque)


def test_half_transparent_pixels_are_blended(modality: ImageModality) -> None:
    assert modality.load(Image.new("RGBA", SIZE, (255, 0, 0, 51))).getpixel((0, 0)) == (255, 204, 204)
    with pytest.raises(ValueError, match="background"):
        ImageOptions(background="plaid")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_few_bits_in_sixteen_are_scaled_or_refused(
    modality: ImageModality, tmp_path: Path, kind: str, bits: int
) -> None:
    values = np.linspace(0, (1 << bits) - 1, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE[::-1])
    path = tmp_path / "deep"
    path.write_bytes(encode(Image.fromarray(values), kind))
    with pytest.raises(DataError, match=rf"{path}.*{bits} bits.*`bits`"):
        modality.load(path)
    loaded = np.asarray(ImageModality(ImageOptions(bits=bits)).load(path))[:, :, 0]
    assert (loaded[0, 0], loaded[-1, -1]) == (0, 255)
    assert np.asarray(ImageModality(ImageOptions(bits=16)).load(path)).max() == ((1 << bits) - 1) >> 8
    with pytest.raises(DataError, match=f"up to {(1 << bits) - 1:,}"):
        ImageModality(ImageOptions(bits=9)).load(path)


def test_sixteen_bits_of_colour_that_use_few_are_refused(modality: ImageModality) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    def colors(value: int) -> bytes:
        rows = b"\0" + struct.pack(">3H", value, value, value)
        header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
        pieces = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)

    assert modality.load(colors(65535)).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(DataError, match="12 bits"):
        modality.load(colors(4095))


def test_a_file_that_says_its_largest_value_is_believed(modality: ImageModality) -> None:
    values = np.array([[0, 2048, 4095]], dtype=np.uint16)
    loaded = modality.load(encode(Image.fromarray(values), "TIFF", tiffinfo={281: 4095}))
    assert np.asarray(loaded)[0, :, 0].tolist() == [0, 128, 255]
    inverted = modality.load(encode(Image.fromarray(values), "TIFF", tiffinfo={281: 4095, 262: 0}))
    assert np.asarray(inverted)[0, :, 0].tolist() == [255, 127, 0]


@pytest.mark.parametrize("values", [[[-5, 40000]], [[0, 1 << 20]]])
def test_values_without_a_known_range_are_refused(modality: ImageModality, values: list[list[int]]) -> None:
    with pytest.raises(DataError, match=r"-5|1,048,576"):
        modality.load(Image.fromarray(np.array(values, dtype=np.int32)))


def test_pictures_of_one_colour_and_of_several_frames_are_doubted(modality: ImageModality) -> None:
    frames = [Image.fromarray(PIXELS), Image.new("RGB", SIZE, "red")]

    def doubts(raw: bytes) -> str:
        return "; ".join(modality.doubts(modality.load(raw)))

    assert doubts(encode(frames[0])) == ""
    assert "one colour" in doubts(encode(frames[1]))
    assert "one colour" in doubts(encode(Image.new("RGBA", SIZE, (200, 10, 10, 0))))
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        raw = encode(frames[0].copy(), kind, save_all=True, append_images=[frames[1].copy()])
        assert "first of its 2 frames" in doubts(raw)


def test_the_first_frame_of_an_animation_is_read(modality: ImageModality) -> None:
    frames = [Image.new("RGB", SIZE, color) for color in ("red", "green", "blue")]
    raw = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    animation = Image.open(io.BytesIO(raw))
    animation.seek(2)
    for source in (raw, animation):
        assert modality.load(source).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("beginning", ["data:image/png;base64,", "data:image;base64,", "data:;base64,"])
def test_base64_may_be_wrapped_and_its_type_unsaid(modality: ImageModality, beginning: str) -> None:
    raw = encode(Image.fromarray(PIXELS))
    wrapped = base64.encodebytes(raw).decode()
    assert "\n" in wrapped.strip()
    assert np.array_equal(np.asarray(modality.load(beginning + wrapped)), PIXELS)


def test_exif_rotation_is_undone(modality: ImageModality) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    raw = encode(Image.fromarray(PIXELS), exif=exif)
    assert np.array_equal(np.asarray(modality.load(raw)), np.rot90(PIXELS, 3))


def test_pictures_may_stay_as_they_are_stored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = encode(Image.fromarray(PIXELS), exif=exif)
    stored, turned = (ImageModality(ImageOptions(exif_rotation=rotation)) for rotation in (False, True))
    assert np.array_equal(np.asarray(stored.load(raw)), PIXELS)
    assert stored.content_key(raw) != turned.content_key(raw), "else features of the one were taken for the other"


def test_unreadable_exif_is_ignored(modality: ImageModality) -> None:
    raw = encode(Image.fromarray(PIXELS), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert np.array_equal(np.asarray(modality.load(raw)), PIXELS)


def test_a_single_pixel_is_a_picture(modality: ImageModality) -> None:
    assert modality.load(encode(Image.new("RGB", (1, 1)))).size == (1, 1)


def test_file_objects_are_left_at_their_start(modality: ImageModality) -> None:
    file = io.BytesIO(encode(Image.fromarray(PIXELS)))
    assert modality.content_key(file) == modality.content_key(file)
    assert file.tell() == 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_picture_cut_short_is_refused_and_named(modality: ImageModality, tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    raw = encode(Image.fromarray(noise), kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=re.escape(str(path))):
        modality.load(path)


@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (50_000, 50_000), (2_000_000_000, 1)])
def test_a_gigantic_picture_is_refused_before_it_is_decoded(modality: ImageModality, width: int, height: int) -> None:
    with pytest.raises(DataError, match=r"limit of 64,000,000"):
        modality.load(png_claiming(width, height))


def test_limits_can_be_raised_beyond_those_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    modality = ImageModality(ImageOptions(max_pixels=100))
    assert modality.load(encode(Image.fromarray(PIXELS))).size == SIZE
    with pytest.raises(DataError, match="limit of 100"):
        modality.load(encode(Image.new("RGB", (300, 1))))


def test_large_files_are_refused_unread(tmp_path: Path) -> None:
    modality = ImageModality(ImageOptions(max_bytes=50))
    raw = encode(Image.fromarray(PIXELS))
    path = tmp_path / "large.png"
    path.write_bytes(raw)
    uri = "data:image/png;base64," + base64.b64encode(raw).decode()
    for source in (path, raw, io.BytesIO(raw), uri):
        with pytest.raises(DataError, match=r"limit of 50 bytes \(max_bytes\)"):
            modality.load(source)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no/such.png", r"no picture at no/such\.png"),
        ("a\0b.png", "cannot read"),
        ("https://example.org/a.png", "not fetched from URLs"),
        ("data:image/png;base64,????", "not valid base64"),
        ("data:image/png,abc", "not of the form"),
        (b"", "is empty"),
        (b"GIF89a", "not a picture"),
        (io.StringIO("text"), "binary mode"),
        (3, "cannot read a picture from int"),
        (["a.png"], "cannot read a picture from list"),
        (np.zeros((0, 3), dtype=np.uint8), "not a picture"),
        (np.zeros((3, 224, 224), dtype=np.uint8), r"shape \(3, 224, 224\)"),
        (np.full((2, 2), 2.0), "0..1"),
        (np.full((2, 2), np.nan), "finite"),
        (np.zeros((2, 2), dtype=np.int64), "int64"),
        (Image.new("F", (2, 2)), "floating-point"),
        (Image.new("RGB", (0, 2)), "is empty"),
    ],
)
def test_wrong_sources_are_refused_in_words(modality: ImageModality, source: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        modality.load(source)


def test_folders_and_devices_are_refused(modality: ImageModality, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match="folder or device"):
            modality.load(path)


def test_html_holds_the_picture_itself(modality: ImageModality) -> None:
    small = modality.to_html(Image.fromarray(PIXELS))
    data = re.fullmatch(r'<img src="data:image/png;base64,([^"]+)" alt="picture, 7 by 4 pixels">', small)
    assert data is not None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1])))), PIXELS)
    assert len(modality.to_html(Image.new("RGB", (4000, 3000)))) < 20_000


def test_pictures_that_another_program_would_draw_and_giant_tiles_are_refused():
    with pytest.raises(DataError, match="EPS"):
        ImageModality().load(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    entries = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, 322: 16384, 323: 16384, 324: 8, 325: 4}
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    tiled = b"II*\0" + struct.pack("<I", 12) + bytes(4) + struct.pack("<H", len(entries)) + packed + bytes(4)
    with pytest.raises(DataError, match="tiles of more pixels"):
        ImageModality().load(tiled)
