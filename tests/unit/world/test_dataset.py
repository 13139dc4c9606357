import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adaptkit.errors import DataError
from adaptkit.world import scenes
from adaptkit.world.dataset import DATA_KINDS, DataKind, evaluation_items, write_world_data
from adaptkit.world.language import QUESTION_KINDS


@pytest.mark.parametrize("kind", DATA_KINDS)
def test_files_are_in_the_llava_format(kind: DataKind, tmp_path: Path) -> None:
    path = write_world_data(tmp_path, kind=kind, num_samples=12, split="train", seed=3)
    samples = json.loads(path.read_text())
    assert len({sample["id"] for sample in samples}) == 12
    for sample in samples:
        turns = sample["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert all(set(turn) == {"from", "value"} for turn in turns)
        if kind == "text":
            assert "image" not in sample
            assert "<image>" not in json.dumps(turns)
        else:
            assert turns[0]["value"].startswith("<image>\n")
            assert "<image>" not in json.dumps(turns[1:])
            with Image.open(tmp_path / sample["image"]) as image:
                assert (image.size, image.mode) == ((64, 64), "RGB")
    assert {p.name for p in tmp_path.iterdir()} == ({path.name} if kind == "text" else {path.name, path.stem})


def test_images_show_their_scenes(tmp_path: Path) -> None:
    path = write_world_data(tmp_path, kind="caption", num_samples=3, split="dev", seed=1)
    for sample, scene in zip(json.loads(path.read_text()), scenes.sample_scenes(1, 3, "dev"), strict=True):
        with Image.open(tmp_path / sample["image"]) as image:
            assert np.array_equal(np.asarray(image), scenes.render_array(scene))


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    texts = [
        write_world_data(tmp_path / name, kind="questions", num_samples=5, split="train", seed=7).read_text()
        for name in ("a", "b")
    ]
    assert texts[0] == texts[1]


def test_writing_again_replaces(tmp_path: Path) -> None:
    write_world_data(tmp_path, kind="boxes", num_samples=8)
    path = write_world_data(tmp_path, kind="boxes", num_samples=3)
    assert len(json.loads(path.read_text())) == len(list((tmp_path / path.stem).iterdir())) == 3


def test_several_conversations_may_share_an_image(tmp_path: Path) -> None:
    path = write_world_data(tmp_path, kind="questions", num_samples=9, num_images=3)
    samples = json.loads(path.read_text())
    assert len({sample["image"] for sample in samples}) == len(list((tmp_path / path.stem).iterdir())) == 3
    assert len({json.dumps(sample["conversations"]) for sample in samples}) == 9


def test_wrong_arguments_say_what_is_right(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'boxes'"):
        write_world_data(tmp_path, kind="box", num_samples=1)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no split of the world named 'val'"):
        write_world_data(tmp_path, kind="text", num_samples=1, split="val")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="num_samples is 0"):
        write_world_data(tmp_path, kind="text", num_samples=0)
    assert list(tmp_path.iterdir()) == []


def test_evaluation_items() -> None:
    items = evaluation_items(0, 5)
    assert [item.kind for item in items] == [kind for kind in (*QUESTION_KINDS, "fact") for _ in range(5)]
    assert items == evaluation_items(0, 5)
    for item in items:
        if item.kind == "fact":
            assert item.scene is item.image is None
            assert item.text_messages == [{"role": "user", "content": item.question}]
        else:
            assert item.scene is not None
            assert scenes.split_of(item.scene) == "test"
            assert item.text_messages[0]["content"].startswith("scene : ")
            assert item.kind == "box" or item.answer in item.candidates
