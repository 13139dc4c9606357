import errno
import os
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from adaptkit.errors import DataError, RunError
from adaptkit.run.feature_cache import FeatureCache


def item(number, positions=3):
    return torch.full((positions, 4), float(number)) + torch.arange(4) / 8


def loaders(numbers, positions=lambda number: 3):
    return [(f"key {number}", lambda n=number: item(n, positions(n))) for number in numbers]


def double(inputs):
    return [2 * value for value in inputs]


class Counting:
    """Encodes, and counts the items."""

    def __init__(self):
        self.count = 0

    def __call__(self, inputs):
        self.count += len(inputs)
        return double(inputs)


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path, "clip-abc", torch.float32)


def test_features_come_back_in_the_order_asked_for(cache):
    seen = []
    assert cache.fill(loaders(range(7)), double, batch_size=3, progress=lambda *state: seen.append(state)) == {}
    assert seen == [(3, 7), (6, 7), (7, 7)]
    features = cache.get(["key 5", "key 0", "key 5"])
    assert torch.equal(features, torch.stack([2 * item(5), 2 * item(0), 2 * item(5)]))
    assert "key 6" in cache
    assert len(cache) == 7


def test_items_of_different_lengths_are_joined(cache):
    cache.fill(loaders(range(1, 4), positions=lambda n: n), double)
    varying = cache.get(["key 2", "key 1"])
    assert isinstance(varying, list)
    assert all(torch.equal(a, b) for a, b in zip(varying, [2 * item(2, 2), 2 * item(1, 1)], strict=True))
    assert cache.get(["key 3", "key 3"]).shape == (2, 3, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_each_dtype_and_fingerprint_is_a_cache_of_its_own(tmp_path, dtype):
    cache = FeatureCache(tmp_path, "clip-abc", dtype)
    cache.fill(loaders([1]), double)
    assert cache.get(["key 1"]).dtype == dtype
    assert torch.equal(cache.get(["key 1"])[0], (2 * item(1)).to(dtype))
    assert len(FeatureCache(tmp_path, "clip-other", dtype)) == 0


def test_what_is_there_is_not_encoded_again(cache, tmp_path):
    cache.fill(loaders(range(4)), double)
    again = FeatureCache(tmp_path, "clip-abc", torch.float32)
    again.fill(loaders(range(6)), lambda inputs: [3 * value for value in inputs])
    assert torch.equal(again.get(["key 3", "key 4"]), torch.stack([2 * item(3), 3 * item(4)]))


def test_a_bad_item_is_named_and_the_others_go_on(cache):
    def broken():
        raise DataError("photo.jpg: truncated")

    failed = cache.fill([*loaders([0]), ("bad", broken), *loaders([1])], double)
    assert failed == {"bad": "photo.jpg: truncated"}
    assert len(cache) == 2
    with pytest.raises(DataError, match=r"no features of 'bad' in .*clip-abc-float32: fill the cache"):
        cache.get(["key 1", "bad"])


def test_readers_see_what_other_processes_add(cache, tmp_path):
    reader = FeatureCache(tmp_path, "clip-abc", torch.float32)
    cache.fill(loaders([1]), double)
    assert torch.equal(reader.get(["key 1"])[0], 2 * item(1))
    cache.fill(loaders([2]), double)
    assert torch.equal(reader.get(["key 1", "key 2"])[1], 2 * item(2))
    assert torch.equal(pickle.loads(pickle.dumps(reader)).get(["key 2"])[0], 2 * item(2))


def test_writing_to_features_leaves_the_file_alone(cache, tmp_path):
    cache.fill(loaders([1, 2]), double)
    cache._item("key 1").zero_()
    assert torch.equal(FeatureCache(tmp_path, "clip-abc", torch.float32).get(["key 1"])[0], 2 * item(1))


def test_half_written_entries_are_ignored_and_overwritten(cache, tmp_path):
    cache.fill(loaders(range(3)), double)
    with (cache.path / "features.bin").open("ab") as values:
        values.write(b"torn")
    with (cache.path / "index.jsonl").open("ab") as index:
        index.write(b'["key 3", 144, 3')
    again = FeatureCache(tmp_path, "clip-abc", torch.float32)
    assert len(again) == 3
    again.fill(loaders(range(5)), double)
    fresh = FeatureCache(tmp_path, "clip-abc", torch.float32)
    assert torch.equal(fresh.get([f"key {n}" for n in range(5)]), torch.stack([2 * item(n) for n in range(5)]))


def test_a_full_disk_keeps_what_was_written(cache, tmp_path, monkeypatch):
    real, calls = os.fsync, []

    def failing(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(RunError, match=r"No space left on device.*cache_features"):
        cache.fill(loaders(range(4)), double, batch_size=2)
    monkeypatch.undo()
    assert len(FeatureCache(tmp_path, "clip-abc", torch.float32)) == 2
    encode = Counting()
    cache.fill(loaders(range(4)), encode)
    assert encode.count == 2


def test_a_shortened_file_is_called_damaged(cache, tmp_path):
    cache.fill(loaders([1]), double)
    os.truncate(cache.path / "features.bin", 8)
    with pytest.raises(RunError, match=r"features\.bin is shorter .*Delete"):
        FeatureCache(tmp_path, "clip-abc", torch.float32)


def test_writers_that_fill_at_once_share_the_work(tmp_path):
    def fill(_):
        own, encode = FeatureCache(tmp_path, "clip-abc", torch.float32), Counting()  # locks as another process would
        own.fill(loaders(range(60)), encode, batch_size=4)
        return encode.count

    with ThreadPoolExecutor(3) as executor:
        assert sorted(executor.map(fill, range(3))) == [0, 0, 60]
    values = FeatureCache(tmp_path, "clip-abc", torch.float32).get([f"key {n}" for n in range(60)])
    assert torch.equal(values, torch.stack([2 * item(n) for n in range(60)]))


def test_damaged_features_are_noticed_when_they_are_used(cache, tmp_path):
    cache.fill(loaders(range(6)), double)
    path = cache.path / "features.bin"
    content = bytearray(path.read_bytes())
    content[3 * 48 : 3 * 48 + 8] = bytes(8)
    path.write_bytes(content)
    again = FeatureCache(tmp_path, "clip-abc", torch.float32)
    assert torch.equal(again.get(["key 2"])[0], 2 * item(2))
    with pytest.raises(RunError, match=r"features\.bin .*'key 3'.*Delete"):
        again.get(["key 3"])


@pytest.mark.parametrize(
    "line", ['["key 0", -4, 3, 4, 1]', '["key 0", 0, "x", 4, 1]', '["key 0", 1, 3, 4, 1]', "[]", "5"]
)
def test_damaged_places_are_an_error(cache, tmp_path, line):
    cache.fill(loaders(range(1)), double)
    (cache.path / "index.jsonl").write_text(line + "\n")
    with pytest.raises(RunError, match="damaged"):
        FeatureCache(tmp_path, "clip-abc", torch.float32)


def test_a_cache_of_an_earlier_version_is_read_and_added_to(cache, tmp_path):
    cache.fill(loaders(range(3)), double)
    index = cache.path / "index.jsonl"
    index.write_text(re.sub(r", \d+\]$", "]", index.read_text(), flags=re.MULTILINE))
    again = FeatureCache(tmp_path, "clip-abc", torch.float32)
    encode = Counting()
    again.fill(loaders(range(5)), encode)
    assert encode.count == 2
    assert torch.equal(again.get(["key 1", "key 4"]), torch.stack([2 * item(1), 2 * item(4)]))
