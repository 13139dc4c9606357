"""Streams: read forwards once an epoch, in their own order, and refused where they cannot be read so."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adaptkit.build import build_stage_data
from adaptkit.data.dataset import ConversationDataset
from adaptkit.data.formats.table import TableLayout
from adaptkit.data.media import Media
from adaptkit.data.mixture import Mixture
from adaptkit.data.rows import RowSource
from adaptkit.data.stream import StreamRows
from adaptkit.errors import DataError, RecipeError
from adaptkit.interfaces import is_stream
from adaptkit.recipe import load_recipe
from tests.unit.data.numbers_source import Numbers, encode_number

TINY = Path(__file__).parents[3] / "recipes" / "iaa_vision_tiny.yaml"


class Opened:
    """Opens a stream of `length` rows, and counts how often, and how many rows were read."""

    def __init__(self, length: int, bad: int | None = None) -> None:
        self.length = length
        self.bad = bad
        self.times = 0
        self.read = 0

    def __call__(self) -> Iterator[Any]:
        self.times += 1
        for number in range(self.length):
            self.read += 1
            yield DataError("torn", kind="malformed") if number == self.bad else {"n": number}


class NumberStream(Numbers):
    """Numbers that come forwards only, and keep account of what was asked for."""

    is_stream = True


def numbers(rows: StreamRows, *indices: int) -> list[int]:
    return [rows[index]["n"] for index in indices]


def test_reading_forwards_opens_once_and_reads_each_row_once():
    opened = Opened(100)
    rows = StreamRows(opened, 90, "s", window=8)
    assert numbers(rows, *range(50), 49, 42, 60, 59) == [*range(50), 49, 42, 60, 59]
    assert (opened.times, opened.read) == (1, 61)
    assert len(rows) == 90


def test_an_earlier_row_than_those_kept_opens_anew():
    opened = Opened(100)
    rows = StreamRows(opened, 100, "s", window=4)
    assert numbers(rows, 40, 0, 1, 40) == [40, 0, 1, 40]
    assert opened.times == 2
    assert len(rows._kept) == 4


def test_a_stream_that_ends_early_says_so_without_reading_again():
    opened = Opened(5)
    rows = StreamRows(opened, 8, "s", window=4)
    for index in (5, 6, 7):
        with pytest.raises(DataError, match=r"stream s .*5 rows.*num_samples.*8"):
            rows[index]
    assert (opened.times, opened.read) == (1, 5)
    assert numbers(rows, 0, 4) == [0, 4]


def test_a_bad_row_spoils_only_itself():
    rows = StreamRows(Opened(10, bad=3), 10, "s")
    for _ in range(2):
        with pytest.raises(DataError, match="torn") as caught:
            rows[3]
        assert caught.value.kind == "malformed"
    assert numbers(rows, 2, 4) == [2, 4]


def _read_in_child(rows: StreamRows, index: int, results: Any) -> None:
    results.put((rows[index]["n"], rows._open_rows.times))


def test_each_process_reads_a_stream_of_its_own():
    rows = StreamRows(Opened(20), 20, "s")
    rows[5]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_read_in_child, args=(rows, 7, results))
    child.start()
    assert results.get(timeout=30) == (7, 2)
    child.join()
    assert numbers(rows, 6) == [6]
    again = pickle.loads(pickle.dumps(StreamRows(Opened(20), 20, "s")))
    assert numbers(again, 3) == [3]


def test_a_source_of_a_stream_is_one():
    layout = TableLayout({}, "t", question="Q", answer="{{ n }}")
    source = RowSource(StreamRows(Opened(5), 4, "s"), layout, Media(Path()), "s", limit=3)
    assert is_stream(source)
    assert not is_stream(RowSource([{}], layout, Media(Path()), "l"))
    assert [source[i].messages[-1]["content"][0]["text"] for i in range(3)] == ["0", "1", "2"]
    with pytest.raises(IndexError):
        source[3]


# -- in a mixture ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [1.0, 0.4, 2.5])
def test_a_mixture_keeps_the_order_of_a_stream(weight):
    sources = {"a": Numbers(30), "s": NumberStream(20), "t": NumberStream(7)}
    mixture = Mixture(sources, {"a": 1.0, "s": weight, "t": 1.0}, seed=3)
    read: dict[str, list[int]] = {name: [] for name in sources}
    for epoch in range(3):
        order = [mixture.locate(index) for index in mixture.indices(epoch)]
        assert [name for name, _ in order] != sorted(name for name, _ in order)
        for name, local in order:
            read[name].append(local)
    assert read["s"] == [n % 20 for n in range(3 * round(weight * 20))]
    assert read["t"] == list(range(7)) * 3
    assert read["a"] != sorted(read["a"])


def test_a_resumed_run_reads_what_would_have_come():
    def dataset(opened: Opened) -> ConversationDataset:
        layout = TableLayout({"pic": "<pic>"}, "s", question="<pic>", answer="{{ 'x' * (n + 1) }}")
        rows = StreamRows(opened, 40, "s")
        media = Media(Path(__file__).parent)
        source = RowSource(_WithPicture(rows), layout, media, "s")
        return ConversationDataset(Mixture({"s": source, "a": Numbers(10)}, {"s": 1.0, "a": 1.0}), _encode, 100)

    straight = dataset(Opened(40))
    order = straight.mixture.indices(0)
    lengths = [straight[index]["length"] for index in order]
    opened = Opened(40)
    resumed = dataset(opened)
    assert [resumed[index]["length"] for index in order[30:]] == lengths[30:]
    assert opened.times == 1


class _WithPicture:
    def __init__(self, rows: StreamRows) -> None:
        self.rows = rows
        self.is_stream = True

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return {**self.rows[index], "pic": Path(__file__).name}


def _encode(sample: Any) -> Any:
    answer = sample.messages[-1]["content"][0]["text"]
    parts = [{"type": "text", "text": answer}, {"type": "pic", "pic": "p"}]
    is_number = sample.location.startswith("numbers")
    return encode_number(sample if is_number else type(sample)("", [{"role": "user", "content": parts}]))


def test_media_of_a_stream_do_not_stay_in_memory():
    mixture = Mixture({"s": NumberStream(5)}, {"s": 1.0})
    dataset = ConversationDataset(mixture, encode_number, 100)
    assert dataset[0]["length"] == 2
    assert dataset._memo is None
    assert ConversationDataset(Mixture({"a": Numbers(5)}, {"a": 1.0}), encode_number, 100)._memo is not None


# -- in a recipe -----------------------------------------------------------------------------------------------------


def recipe(folder: Path, stage: str, image: str = "") -> Any:
    path = folder / "r.yaml"
    path.write_text(
        f"extends: {TINY}\nname: r\n{image}\ndata:\n"
        "  s: {format: hf_dataset, path: x, streaming: true, num_samples: 10}\n"
        f"stages:\n  align: {{data: {{s: 1.0, world_captions: 1.0}}, {stage}}}\n"
    )
    return load_recipe(path)


@pytest.mark.parametrize(
    ("stage", "image", "said"),
    [
        (
            "dataloader_num_workers: 2",
            "",
            "stages.align.dataloader_num_workers: a stream has one reader, and 's' is one",
        ),
        ("group_by_length: true", "", "stages.align.group_by_length: needs the length of every sample beforehand"),
        ("packing: true", "", "stages.align.packing: needs the length of every sample beforehand"),
        (
            "seed: 1",
            "modalities: {image: {cache_features: true}}",
            "modalities.image.cache_features: features are cached",
        ),
    ],
)
def test_what_cannot_be_had_of_a_stream_is_refused(tmp_path, stage, image, said):
    off = "modalities: {image: {cache_features: false}}"
    with pytest.raises(RecipeError) as caught:
        recipe(tmp_path, stage, image or off)
    assert said in str(caught.value)
    assert recipe(tmp_path, "dataloader_num_workers: 1", off).stage("align").data["s"] == 1.0


def test_a_count_is_what_an_epoch_has(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(f"extends: {TINY}\nname: r\nstages:\n  align: {{data: {{world_captions: {{count: 7}}}}}}\n")
    loaded = load_recipe(path)
    media = type(
        "Media", (), {"encode": None, "prepare": None, "collate": None, "processor": type("P", (), {"pad_token_id": 0})}
    )
    for size in (3, 7, 1000, 999_983):
        source = Numbers(size)
        data = build_stage_data(loaded, loaded.stage("align"), {"world_captions": source}, media, None)
        assert len(data.sampler) == 7
