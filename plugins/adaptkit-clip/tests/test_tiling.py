"""Several squares of a picture: which grid, which pixels, in which order, and how many positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adaptkit_clip import ClipOptions, TilingOptions
from adaptkit_clip.encoder import load_encoder
from adaptkit_clip.preprocessing import ClipPreprocessor, load_preprocessor
from adaptkit_clip.tiling import choose_grid, cut
from PIL import Image
from transformers.image_processing_utils import select_best_resolution

from adaptkit.errors import DataError

LLAVA = [(1, 2), (2, 1), (2, 2), (1, 3), (3, 1)]
BICUBIC = Image.Resampling.BICUBIC


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def build(path: Path, **options: Any) -> ClipPreprocessor:
    return load_preprocessor(ClipOptions.model_validate({"path": str(path), "tiles": {}, **options}))


@pytest.mark.parametrize("grids", [LLAVA, TilingOptions(max=9).choices(), [(2, 2)]])
def test_the_grid_is_the_one_that_transformers_chooses(grids: list[tuple[int, int]]) -> None:
    generator = np.random.default_rng(0)
    sizes = [*(2 ** generator.uniform(0, 13, (300, 2))).astype(int).tolist(), [1, 1], [60_000, 1], [1, 9], [336, 336]]
    for side in (24, 336):
        resolutions = [(rows * side, columns * side) for rows, columns in grids]
        for width, height in sizes:
            best = select_best_resolution((height, width), resolutions)
            rows, columns = choose_grid((width, height), side, grids)
            assert (rows * side, columns * side) == best


def test_squares_of_a_grid_put_together_are_the_resized_picture() -> None:
    picture = noise(70, 40)
    squares = cut(picture, (2, 3), 24, color=None, resample=BICUBIC)
    rows = [np.concatenate([np.asarray(square) for square in squares[i : i + 3]], 1) for i in (0, 3)]
    assert np.array_equal(np.concatenate(rows), np.asarray(picture.resize((72, 48), BICUBIC)))


def test_what_the_picture_leaves_free_is_filled_evenly() -> None:
    left, right = cut(Image.new("RGB", (48, 12), "white"), (1, 2), 24, color=(1, 2, 3), resample=BICUBIC)
    for square in (left, right):
        column = np.asarray(square)[:, 5, 0]
        assert column.tolist() == [1] * 6 + [255] * 12 + [1] * 6


def test_the_overview_comes_first_then_the_grid_in_reading_order(checkpoints: dict[str, Path]) -> None:
    picture = Image.new("RGB", (48, 48))
    for color, corner in {"red": (0, 0), "lime": (24, 0), "blue": (0, 24), "white": (24, 24)}.items():
        picture.paste(Image.new("RGB", (24, 24), color), corner)
    encoder = load_encoder(ClipOptions(path=str(checkpoints["clip"]), tiles=TilingOptions()))
    single = load_encoder(ClipOptions(path=str(checkpoints["clip"])))
    tiled, plain = encoder.build_preprocessor(), single.build_preprocessor()
    inputs = tiled(picture)
    expected = [picture, *(Image.new("RGB", (24, 24), color) for color in ("red", "lime", "blue", "white"))]
    assert torch.equal(inputs, torch.stack([plain(square) for square in expected]))
    assert torch.equal(encoder(inputs[None])[0], single(inputs).flatten(0, 1))
    assert tiled.num_positions(inputs) == 5 * 16


def test_a_picture_no_larger_than_a_square_is_its_overview_alone(checkpoints: dict[str, Path]) -> None:
    for size in ((24, 24), (20, 9), (1, 1)):
        inputs = build(checkpoints["siglip"])(noise(*size))
        assert inputs.shape == (1, 3, 24, 24)
    plain = load_preprocessor(ClipOptions(path=str(checkpoints["siglip"])))
    assert torch.equal(build(checkpoints["siglip"])(noise(24, 24))[0], plain(noise(24, 24)))


def test_pictures_with_different_numbers_of_tiles_make_a_list(checkpoints: dict[str, Path]) -> None:
    options = ClipOptions(path=str(checkpoints["clip"]), tiles=TilingOptions(max=3), keep_cls=True)
    encoder = load_encoder(options)
    preprocessor = encoder.build_preprocessor()
    assert preprocessor.fixed_positions is None
    items = [preprocessor(noise(*size)) for size in ((100, 20), (24, 24), (30, 60))]
    assert [len(item) for item in items] == [4, 1, 3]
    batch = preprocessor.collate(items)
    assert isinstance(batch, list)
    found = encoder(batch)
    for item, features in zip(items, found, strict=True):
        assert features.shape == (preprocessor.num_positions(item), 16)
        # Matrix products of another batch size are summed in another order
        torch.testing.assert_close(features, encoder(item[None])[0], atol=1e-5, rtol=1e-4)
    same = encoder(preprocessor.collate([items[0], items[0]]))
    assert isinstance(same, torch.Tensor)
    assert same.shape == (2, 4 * 17, 16)


@pytest.mark.parametrize("pad", ["square", "stretch"])
@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (20_000, 100)])
def test_panoramas_fit_however_long(checkpoints: dict[str, Path], size: tuple[int, int], pad: str) -> None:
    preprocessor = build(checkpoints["clip"], pad=pad)
    inputs = preprocessor(Image.new("RGB", size, "white"))
    assert inputs.shape[1:] == (3, 24, 24)
    assert inputs.isfinite().all()
    assert (inputs == inputs.max()).any(), "the strip itself is still to be seen"


def test_layers_of_a_tile_stay_together(checkpoints: dict[str, Path]) -> None:
    options = ClipOptions(path=str(checkpoints["clip"]), tiles=TilingOptions(max=2), feature_layers=[1, 3])
    encoder = load_encoder(options)
    inputs = encoder.build_preprocessor()(noise(60, 30))
    assert encoder.build_preprocessor().num_positions(inputs) == 3 * 2 * 16
    one = encoder(inputs[1:2][None])[0]
    torch.testing.assert_close(encoder(inputs[None])[0, 32:64], one, atol=1e-5, rtol=1e-4)


def test_inputs_of_another_shape_are_refused(checkpoints: dict[str, Path]) -> None:
    encoder = load_encoder(ClipOptions(path=str(checkpoints["clip"]), tiles=TilingOptions()))
    with pytest.raises(DataError, match=r"must be \(tiles, 3, 24, 24\)"):
        encoder(torch.zeros(2, 3, 24, 24))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tiles": {}, "pad": "none"}, "tiles need pad: square or stretch"),
        ({"tiles": {"max": 1}}, "greater than or equal to 2"),
        ({"tiles": {"grids": [[2, 3]]}}, "a grid of 2 by 3 squares: a grid has 1 to 4 squares"),
        ({"tiles": {"grids": [[0, 3]]}}, "a grid of 0 by 3 squares"),
        ({"tiles": {"grids": []}}, "at least 1 item"),
        ({"tiles": {"most": 3}}, "Extra inputs are not permitted"),
    ],
)
def test_tiling_that_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClipOptions.model_validate({"path": "x", **options})
