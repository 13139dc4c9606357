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


def test_a_palette_with_transparency_is_read_without_a_warning(modality: ImageModality) -> None:
    palette = Image.fromarray(PIXELS).convert("P")
    raw = encode(palette, transparency=bytes(range(256)))
    assert np.array_equal(np.asarray(modality.load(raw)), np.asarray(palette.convert("RGB")))


def test_transparency_is_dropped_as_in_the_reference_code(modality: ImageModality) -> None:
    alpha = np.zeros((*PIXELS.shape[:2], 1), dtype=np.uint8)
    raw = encode(Image.fromarray(np.concatenate([PIXELS, alpha], axis=2)))
    assert np.array_equal(np.asarray(modality.load(raw)), PIXELS)


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
        (np.zeros((0, 3), dtype=np.uint8), "no picture"),
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
