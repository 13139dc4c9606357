import itertools

import numpy as np
import pytest

from adaptkit.world import scenes
from adaptkit.world.scenes import BOX_BINS, IMAGE_SIZE


def test_a_seed_always_gives_the_same_scenes_and_pixels() -> None:
    first, second = scenes.sample_scenes(3, 20, "train"), scenes.sample_scenes(3, 20, "train")
    assert first == second
    for a, b in zip(first, second, strict=True):
        assert [o.box for o in a.objects] == [o.box for o in b.objects]
        assert np.array_equal(scenes.render_array(a), scenes.render_array(b))
    assert first != scenes.sample_scenes(4, 20, "train")


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_split_holds_only_its_own_scenes(split: scenes.Split) -> None:
    assert all(scenes.split_of(scene) == split for scene in scenes.sample_scenes(0, 50, split))


def test_splits_share_no_scene() -> None:
    drawn = {split: set(scenes.sample_scenes(0, 300, split)) for split in ("train", "dev", "test")}
    for a, b in itertools.combinations(drawn.values(), 2):
        assert not a & b


def test_attributes_are_distinct_and_objects_inside_the_image() -> None:
    for scene in scenes.sample_scenes(1, 200, "train"):
        for name in ("shape", "color", "cell"):
            values = [getattr(item, name) for item in scene.objects]
            assert len(set(values)) == len(values)
        for item in scene.objects:
            x1, y1, x2, y2 = item.box
            assert 0 <= x1 < x2 <= 1
            assert 0 <= y1 < y2 <= 1
            assert all(value * BOX_BINS == int(value * BOX_BINS) for value in item.box)


def test_objects_stand_in_reading_order() -> None:
    for scene in scenes.sample_scenes(2, 50, "train"):
        places = [scenes.CELLS.index(item.cell) for item in scene.objects]
        assert places == sorted(places)


def test_a_drawing_shows_an_object_exactly_in_its_box() -> None:
    scene = next(s for s in scenes.iter_scenes(0, "train") if len(s.objects) == 1)
    pixels = scenes.render_array(scene).astype(int)
    background = np.median(pixels.reshape(-1, 3), axis=0)
    rows, columns = np.nonzero(np.abs(pixels - background).max(axis=2) > 60)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / IMAGE_SIZE
    # Boxes are rounded to 1/32, and anti-aliased borders are faint: two pixels in all.
    assert np.abs(found - np.array(scene.objects[0].box)).max() <= 2 / IMAGE_SIZE
