"""What `adaptkit plugins check` tries the plugin with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adaptkit.testing import Example
from adaptkit_timeseries.modality import SeriesModality
from adaptkit_timeseries.options import SeriesPatchesOptions
from adaptkit_timeseries.stand_in import write_encoder, write_series

BAD_FILES = {
    "a hole": b"time,level\n0,1\n1,\n",
    "NaN": b"time,level\n0,1\n1,nan\n",
    "infinity": b"time,level\n0,1\n1,inf\n",
    "text": b"time,level\n0,1\n1,high\n",
    "no header": b"0,1\n1,2\n",
    "a ragged row": b"time,level\n0,1\n1,2,3\n",
    "a header alone": b"time,level\n",
    "two equal names": b"level,level\n0,1\n",
    "an open quote": b'time,level\n0,"1\n',
    "a damaged array": b"\x93NUMPY\x01\x00v\x00{'descr'",
}


def modality_examples(directory: Path) -> list[Example]:
    """Files, bytes and values in memory; damaged files of every kind."""
    good = [
        write_series(directory, 0),
        b"level\n1\n2\n4\n",
        np.arange(6.0).reshape(3, 2),
        [1.0, 2.0, 3.0],
        [[1, 2], [3, 5]],
    ]
    return [
        Example(
            items=good, bad_items=[*BAD_FILES.values(), np.zeros((0, 2)), np.zeros((2, 2, 2)), ["high"], [[1], [2, 3]]]
        ),
        Example(
            {"holes": "interpolate"}, [b"level\n1\n\n3\n", b"time,level\n0,1\n1,\n2,3\n"], [b"time,level\n0,\n1,\n"]
        ),
        Example({"header": False, "max_length": 2}, [b"1\n2\n", b"3\n4\n"], [b"1\n2\n3\n"]),
    ]


def encoder_examples(directory: Path) -> list[Example]:
    """A small random encoder, and series of several lengths and channels."""
    created = write_encoder(SeriesPatchesOptions(path="."), directory / "encoder")
    modality = SeriesModality()
    items = [modality.load(np.random.default_rng(n).normal(size=(20 + 9 * n, 1 + n))) for n in range(3)]
    too_long = modality.load(np.zeros((9000, 1)))
    variants = [{"path": created.path, "dtype": "bfloat16"}]
    return [Example({"path": created.path}, items, [too_long], variants)]
