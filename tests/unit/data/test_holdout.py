"""The split of a dataset by the content of its samples."""

import hashlib
import random

import pytest

from adaptkit.data.holdout import held_out_rows, is_held_out, some_rows, split
from adaptkit.errors import DataError
from adaptkit.interfaces import Sample

CONTENT = {f"{number}.png": f"content {number}" for number in range(40)} | {"copy.png": "content 3"}


def key(source):
    if source not in CONTENT:
        raise DataError(f"{source} is missing")
    return hashlib.sha256(CONTENT[source].encode()).hexdigest()


KEYS = {"image": key}


def sample(number, *, text=None, picture=None, name=None):
    content = [{"type": "text", "text": text or f"question {number}"}]
    if picture is not None:
        content.insert(0, {"type": "image", "image": picture})
    turns = [{"role": "user", "content": content}]
    turns.append({"role": "assistant", "content": [{"type": "text", "text": "yes"}]})
    return Sample(name or str(number), turns, f"rows.json[{number}]")


def rows(count=400):
    return [sample(number, picture=f"{number % 40}.png" if number % 2 else None) for number in range(count)]


def test_about_the_share_is_held_out_and_a_larger_share_keeps_it():
    small, large = (set(held_out_rows(rows(2000), share, KEYS)) for share in (0.05, 0.2))
    assert 60 < len(small) < 140
    assert 320 < len(large) < 480
    assert small < large


def test_the_side_of_a_sample_depends_on_nothing_but_what_it_says():
    samples = rows()
    sides = {s.id: is_held_out(s, 0.2, KEYS) for s in samples}
    shuffled = random.Random(0).sample(samples, 300)
    found = held_out_rows(shuffled, 0.2, KEYS)
    assert found == [place for place, s in enumerate(shuffled) if sides[s.id]]
    # Another id, another place, another name of the same picture
    for number in (3, 43, 83):
        again = sample(number, picture="copy.png", name="another")
        assert is_held_out(again, 0.2, KEYS) == sides[str(number)]


def test_another_text_picture_or_role_is_another_sample():
    def sides(**changes):
        return [is_held_out(sample(number, **changes), 0.5, KEYS) for number in range(40)]

    assert sides() != sides(picture="1.png") != sides(picture="2.png")
    assert sides() != [is_held_out(sample(number, text=f"question {number} "), 0.5, KEYS) for number in range(40)]


def test_the_split_is_fixed_for_good():
    """A changed rule would let runs that resume train on what they held out."""
    assert held_out_rows(rows(60), 0.1, KEYS) == EXPECTED


EXPECTED = [1, 7, 9, 24, 31, 33, 41, 42, 44, 50, 51, 56]


def test_duplicates_are_never_on_both_sides():
    samples = rows(100) + rows(100)
    trained, held_out = split(samples, held_out_rows(samples, 0.3, KEYS))
    said = [{str(source[i].messages) for i in range(len(source))} for source in (trained, held_out)]
    assert not said[0] & said[1]
    assert len(trained) + len(held_out) == 200
    assert len(held_out) % 2 == 0


def test_rows_that_cannot_be_read_are_left_to_training():
    class Bad(list):
        def __getitem__(self, index):
            if index == 5:
                raise DataError("bad")
            return super().__getitem__(index)

    samples = Bad([sample(number, picture="gone.png" if number == 7 else None) for number in range(50)])
    found = held_out_rows(samples, 0.9, KEYS)
    assert not {5, 7} & set(found)
    assert len(found) > 35


def test_some_rows_are_always_the_same_ones():
    samples = rows(100)
    drawn = [some_rows(samples, 10)[i].id for i in range(10)]
    assert drawn == [some_rows(samples, 10)[i].id for i in range(10)]
    assert len(set(drawn)) == 10
    assert drawn != [str(i) for i in range(10)]
    with pytest.raises(IndexError):
        some_rows(samples, 10)[10]
