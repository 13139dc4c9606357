import pytest

from adaptkit.errors import ModelError
from adaptkit.placement import resolve_placement


@pytest.mark.parametrize(
    ("placement", "num_layers", "expected"),
    [
        ({"every": 4}, 8, [3, 7]),
        ({"every": 3}, 8, [2, 5]),
        ({"count": 8}, 32, [3, 7, 11, 15, 19, 23, 27, 31]),
        ({"count": 3}, 8, [1, 4, 7]),
        ({"count": 8}, 8, list(range(8))),
        ({"first": 2}, 4, [0, 1]),
        ({"last": 2}, 4, [2, 3]),
        ({"layers": [5, 0, 1]}, 8, [0, 1, 5]),
    ],
)
def test_placements_choose_these_layers(placement, num_layers, expected):
    assert resolve_placement(placement, num_layers) == expected


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        ({"layers": [4]}, "has 4 layers, numbered 0 to 3; 4 is more than 3"),
        ({"count": 5}, "5 is more than 4"),
        ({"every": 5}, "5 is more than 4"),
        ({"first": 9}, "9 is more than 4"),
        ({"last": 5}, "5 is more than 4"),
        ({"every": 2, "count": 2}, "exactly one"),
        ({}, "exactly one"),
        ({"layers": [1, 1]}, "listed twice"),
        ({"layers": [-1]}, "greater than or equal to 0"),
        ({"evry": 2}, "Did you mean 'every'"),
    ],
)
def test_a_placement_that_does_not_fit_is_refused_in_words(placement, words):
    with pytest.raises(ModelError, match=words):
        resolve_placement(placement, 4)
