"""The dataset: items, truncation, and what becomes of bad samples."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from adaptkit.chat.encoding import EncodedConversation
from adaptkit.data import dataset as dataset_module
from adaptkit.data.bad_samples import BadSamples
from adaptkit.data.collator import Collator
from adaptkit.data.dataset import ConversationDataset
from adaptkit.data.mixture import Mixture
from adaptkit.errors import DataError, RunError
from tests.unit.data.numbers_source import PLACEHOLDER, Numbers, encode_number


def make(length: int = 10, bad: tuple[int, ...] = (), bad_samples: BadSamples | None = None, **options):
    mixture = Mixture({"first": Numbers(3), "numbers": Numbers(length, bad)}, {"first": 1.0, "numbers": 1.0})
    return ConversationDataset(mixture, encode_number, options.pop("max_length", 100), bad_samples, **options)


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_items():
    item = make()[3 + 4]
    assert item["input_ids"].tolist() == [PLACEHOLDER, 5, 5, 5, 5, 5]
    assert item["labels"].tolist() == [-100, 5, 5, 5, 5, 5]
    assert item["media"] == [("pic", "pic4")]
    assert item["length"] == 6
    assert make(max_length=3)[3 + 4]["length"] == 3


def test_encodings_of_small_datasets_are_kept():
    calls = []
    dataset = ConversationDataset(
        Mixture({"a": Numbers(4)}, {"a": 1.0}), lambda sample: calls.append(sample.id) or encode_number(sample), 100
    )
    assert dataset.lengths().tolist() == [2, 3, 4, 5]
    assert dataset[1]["length"] == 3
    assert calls == ["0", "1", "2", "3"]


def test_lengths_of_large_datasets_are_estimated(monkeypatch, tmp_path):
    monkeypatch.setattr(dataset_module, "MAX_MEMOISED", 10)
    dataset = make(length=500, bad=(7,), max_length=450)
    dataset_with_record = make(
        length=500, bad=(7,), max_length=450, bad_samples=BadSamples(tmp_path / "bad.jsonl", 503, 0.5)
    )
    estimates = dataset.lengths()
    assert len(estimates) == 503
    assert estimates[3 + 400] == pytest.approx(402, rel=0.05)
    assert estimates[3 + 7] == pytest.approx(dataset_with_record[3 + 7]["length"], rel=0.05)
    assert max(estimates) == 450


def test_media_are_prepared_on_every_read():
    dataset = make(prepare=lambda modality, source: f"{modality}:{source}")
    assert dataset[3]["media"] == dataset[3]["media"] == [("pic", "pic:pic0")]


def pictures_in_place_of(bad_indices, bad_samples, source=None, length=10):
    mixture = Mixture(
        {"first": Numbers(3), "numbers": source or Numbers(length, bad_indices)}, {"first": 1.0, "numbers": 1.0}
    )
    dataset = ConversationDataset(mixture, encode_number, 10_000, bad_samples)
    return [dataset[3 + index]["media"][0][1] for index in bad_indices]


def test_a_bad_sample_gives_way_to_another_of_its_source_always_the_same(tmp_path):
    bad = range(500, 540)
    instead = pictures_in_place_of(bad, BadSamples(tmp_path / "bad.jsonl", 1003, 0.5), length=1000)
    assert instead == pictures_in_place_of(bad, BadSamples(tmp_path / "again.jsonl", 1003, 0.5), length=1000)
    numbers = {int(name.removeprefix("pic")) for name in instead}
    assert not numbers & set(bad)
    assert len(numbers) > 30, "a block of bad ones shows many others, not the one behind it"


def test_the_last_good_sample_of_a_source_is_found(tmp_path):
    bad = [i for i in range(300) if i != 7]
    assert set(pictures_in_place_of(bad, BadSamples(tmp_path / "bad.jsonl", 303, 1.0), length=300)) == {"pic7"}


def test_the_next_sample_of_a_stream_stands_in(tmp_path):
    class Stream(Numbers):
        is_stream = True

    bad = (4, 5, 9)
    found = pictures_in_place_of(bad, BadSamples(tmp_path / "bad.jsonl", 13, 0.5), Stream(10, bad))
    assert found == ["pic6", "pic6", "pic0"], "the source goes round"


def test_a_bad_sample_is_as_long_as_what_stands_in_for_it(tmp_path):
    dataset = make(length=50, bad=tuple(range(20)), bad_samples=BadSamples(tmp_path / "bad.jsonl", 53, 1.0))
    assert dataset.lengths().tolist() == [dataset[index]["length"] for index in range(len(dataset))]
    assert min(dataset.lengths()) > 0


def test_repaired_samples_count_no_more(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"stage": "other", "location": "numbers[4]", "reason": "of another stage"}) + "\n")
    record = BadSamples(path, 13, 0.5, stage="align")
    dataset = make(bad=(4, 5), bad_samples=record)
    for index in (4, 5):
        dataset[3 + index]
    record.record("gone[7]", "of a source that is no more")
    again = BadSamples(path, 13, 0.2, stage="align")
    make(bad=(5,), bad_samples=again).strike_out_repaired()
    assert [(line["stage"], line["location"]) for line in lines(path)] == [
        ("other", "numbers[4]"),
        ("align", "numbers[5]"),
        ("align", "gone[7]"),
    ]
    assert again.locations() == ["numbers[5]", "gone[7]"]


def test_bad_samples_are_recorded_once(tmp_path):
    bad_samples = BadSamples(tmp_path / "run/bad_samples.jsonl", 13, 0.5, stage="align")
    dataset = make(bad=(4, 5, 9), bad_samples=bad_samples)
    for index in (4, 5, 9, 4):
        assert dataset[3 + index]["media"]
    assert sorted(lines(bad_samples.path), key=lambda line: line["location"]) == [
        {"stage": "align", "location": f"numbers[{i}]", "reason": f"numbers[{i}]: unreadable"} for i in (4, 5, 9)
    ]


def test_unreadable_media_are_bad_samples(tmp_path):
    def prepare(modality: str, source: str) -> str:
        if source == "pic2":
            raise DataError("pic2 is truncated")
        return source

    bad_samples = BadSamples(tmp_path / "bad_samples.jsonl", 13, 0.1)
    dataset = make(bad_samples=bad_samples, prepare=prepare)
    assert dataset[3 + 2]["media"] != [("pic", "pic2")]
    assert lines(bad_samples.path)[0]["reason"] == "numbers[2] (id '2'): pic2 is truncated"


def test_samples_without_an_answer_are_bad():
    def encode(sample):
        return EncodedConversation([1, 2], [-100, -100])

    dataset = ConversationDataset(Mixture({"a": Numbers(4)}, {"a": 1.0}), encode, 100)
    with pytest.raises(DataError, match=r"numbers\[2\] \(id '2'\): no answer to learn from"):
        dataset[2]


def test_too_many_bad_samples_stop_with_a_summary(tmp_path):
    bad_samples = BadSamples(tmp_path / "bad_samples.jsonl", 13, 0.1)
    dataset = make(bad=(1, 2), bad_samples=bad_samples)
    dataset[3 + 1]
    with pytest.raises(RunError) as caught:
        dataset[3 + 2]
    said = str(caught.value)
    assert "2 of 13 samples are bad (numbers: 2); max_bad_fraction 0.1 allows 1:" in said
    assert "numbers[1]: unreadable" in said
    assert str(bad_samples.path) in said
    assert "raise max_bad_fraction" in said


def test_a_source_without_good_samples_stops(tmp_path):
    dataset = make(length=2, bad=(0, 1), bad_samples=BadSamples(tmp_path / "bad.jsonl", 5, 1.0))
    with pytest.raises(RunError, match=r"every sample.*'numbers'"):
        dataset[3]


def test_without_a_record_a_bad_sample_raises():
    with pytest.raises(DataError, match="unreadable"):
        make(bad=(1,))[3 + 1]


def test_bad_samples_count_once_over_resumes_and_processes_and_per_stage(tmp_path):
    path = tmp_path / "bad_samples.jsonl"
    first, second = BadSamples(path, 100, 0.02), BadSamples(path, 100, 0.02)
    first.record("a[1]", "r")
    second.record("a[1]", "r")
    second.record("a[2]", "r")
    BadSamples(path, 100, 0.02, stage="other").record("a[3]", "r")
    assert len(lines(path)) == 3
    with pytest.raises(RunError, match="3 of 100"):
        first.record("a[4]", "r")


def test_a_line_cut_short_by_a_kill_costs_nothing_else(tmp_path):
    path = tmp_path / "bad_samples.jsonl"
    BadSamples(path, 100, 0.5).record("a[1]", "r")
    with path.open("a", encoding="utf-8") as file:
        file.write('{"stage": "", "loca')
    BadSamples(path, 100, 0.5).record("a[2]", "r")
    resumed = BadSamples(path, 100, 0.5)
    resumed.record("a[3]", "r")
    assert len(resumed) == 3
    assert [json.loads(line)["location"] for line in path.read_text().splitlines() if line.endswith("}")] == [
        "a[1]",
        "a[2]",
        "a[3]",
    ]


def test_workers_see_the_same_items(tmp_path):
    bad_samples = BadSamples(tmp_path / "bad_samples.jsonl", 13, 0.5)
    dataset = make(bad=(4,), bad_samples=bad_samples)
    collate = Collator(0, lambda modality, sources: torch.tensor([int(s[3:]) for s in sources]))
    order = list(range(13))
    alone = list(DataLoader(dataset, batch_size=4, sampler=order, collate_fn=collate))
    context = multiprocessing.get_context("fork")
    loader = DataLoader(
        dataset, batch_size=4, sampler=order, collate_fn=collate, num_workers=2, multiprocessing_context=context
    )
    for one, other in zip(alone, loader, strict=True):
        assert one["input_ids"].equal(other["input_ids"])
        assert one["features"]["pic"].equal(other["features"]["pic"])
    assert len(lines(bad_samples.path)) == 1
