"""What is counted of each sample is counted once, for all runs and processes, and is the same as without."""

from __future__ import annotations

import logging
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from adaptkit.chat.encoding import EncodedConversation
from adaptkit.data import dataset as dataset_module
from adaptkit.data.dataset import ConversationDataset
from adaptkit.data.holdout import split
from adaptkit.data.lengths import kept_in
from adaptkit.data.mixture import Mixture
from adaptkit.data.packing import PackedDataset, PackSampler
from adaptkit.errors import DataError
from adaptkit.interfaces import Sample


class Texts:
    """Samples of growing length, of which some are bad."""

    def __init__(self, length: int = 40, bad: tuple[int, ...] = (), identity: str | None = "texts") -> None:
        self.length, self.bad, self.identity = length, bad, identity
        self.reads = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        self.reads += 1
        if index in self.bad:
            raise DataError("bad")
        parts = [{"type": "text", "text": "x" * (index + 1)}]
        return Sample(str(index), [{"role": "user", "content": parts}], f"texts[{index}]")


def encode(sample: Sample) -> EncodedConversation:
    ids = [7] * (len(sample.messages[0]["content"][0]["text"]) + 1)
    return EncodedConversation(ids, list(ids), [], [])


def lengths(source: Any, folder: Path | None = None, encoding: str | None = "it", max_length: int = 30) -> list[int]:
    dataset = ConversationDataset(Mixture({"a": source}, {"a": 1.0}), encode, max_length)
    return (dataset.lengths() if folder is None else dataset.lengths(kept_in(folder, encoding))).tolist()


@pytest.fixture(params=["exact", "estimates"])
def size(request, monkeypatch) -> str:
    if request.param == "estimates":
        monkeypatch.setattr(dataset_module, "MAX_MEMOISED", 10)
        monkeypatch.setattr(dataset_module, "_NUM_PROBES", 4)
    return request.param


def test_lengths_are_counted_once_and_are_the_same_as_without(size, tmp_path):
    expected = lengths(Texts())
    assert lengths(Texts(), tmp_path) == expected
    again = Texts()
    assert lengths(again, tmp_path) == expected
    assert again.reads <= 5, "the probes of an estimate"
    for other in (Texts(identity="changed"), Texts(41)):
        assert lengths(other, tmp_path) == lengths(Texts(len(other)))
        assert other.reads >= len(other)


@pytest.mark.parametrize(("identity", "encoding"), [(None, "it"), ("texts", None)])
def test_nothing_is_kept_of_what_may_change_unseen(identity, encoding, tmp_path):
    lengths(Texts(identity=identity), tmp_path, encoding)
    assert not list(tmp_path.iterdir())


def test_another_tokenizer_or_maximum_has_other_lengths(tmp_path):
    for encoding, max_length in [("it", 30), ("other", 30), ("it", 20)]:
        source = Texts()
        assert max(lengths(source, tmp_path, encoding, max_length)) == max_length
        assert source.reads == len(source)


def test_bad_samples_are_looked_at_again(size, tmp_path):
    bad = Texts(bad=(3, 9))
    assert lengths(bad, tmp_path) == lengths(Texts(bad=(3, 9)))
    repaired = Texts()
    assert lengths(repaired, tmp_path) == lengths(Texts())
    assert repaired.reads <= 7


def test_processes_that_start_together_count_once(tmp_path):
    context = multiprocessing.get_context("fork")
    found = context.Queue()

    def count() -> None:
        source = Texts(2000)
        found.put((lengths(source, tmp_path, max_length=3000)[-1], source.reads))

    started = [context.Process(target=count) for _ in range(3)]
    for process in started:
        process.start()
    assert sorted(found.get(timeout=60) for _ in started) == [(2001, 0), (2001, 0), (2001, 2000)]
    for process in started:
        process.join()


def test_without_a_place_to_keep_them_they_are_counted_again_and_that_is_said(tmp_path, caplog):
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        assert lengths(Texts(), tmp_path / "file") == lengths(Texts())
    assert "lengths of samples are not kept" in caplog.text


def test_a_damaged_file_is_made_again(tmp_path):
    lengths(Texts(), tmp_path)
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(path.read_bytes()[:100])
    assert lengths(Texts(), tmp_path) == lengths(Texts())
    assert np.load(path).tolist() == lengths(Texts())


def test_a_part_of_a_dataset_has_lengths_of_its_own(tmp_path):
    trained, held_out = split(Texts(), [3, 8])
    assert lengths(held_out, tmp_path) == lengths(split(Texts(), [3, 8])[1]) == [5, 10]
    assert lengths(trained, tmp_path)[3] == 6
    again = Texts()
    assert lengths(split(again, [3, 8])[1], tmp_path) == [5, 10]
    assert again.reads == 0
    assert lengths(split(again, [4, 8])[1], tmp_path) == [6, 10]


def test_packs_and_what_is_in_them_do_not_depend_on_workers(tmp_path):
    dataset = ConversationDataset(Mixture({"a": Texts()}, {"a": 1.0}, seed=3), encode, 30)
    packs = PackSampler(dataset.mixture.order, lengths=dataset.lengths(kept_in(tmp_path, "it")), row_length=60)
    read = [
        [
            [item["input_ids"].tolist() for item in pack]
            for batch in DataLoader(
                PackedDataset(dataset), batch_size=2, sampler=packs, collate_fn=list, num_workers=number
            )
            for pack in batch
        ]
        for number in (0, 2)
    ]
    assert read[0] == read[1]
    assert max(sum(map(len, pack)) for pack in read[0]) <= 60
