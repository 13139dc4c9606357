"""What a file says of its size is compared with the limits before anything is made of it."""

import tracemalloc

import numpy as np
import pytest
from adaptkit_timeseries import SeriesOptions
from adaptkit_timeseries.modality import SeriesModality

from adaptkit.errors import DataError


def npy(shape: tuple[int, ...], dtype: str = "<f8", content: bytes = b"") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


@pytest.mark.parametrize(
    "shape", [(0, 10**18), (10**18, 0), (10**6, 10**6), (3, 10**9), (-1, 4), (-(10**9), -(10**9)), (2,) * 20, ()]
)
@pytest.mark.parametrize("dtype", ["<f8", "|b1", "<U1000000", "|O", "<V8"])
def test_headers_of_arrays_cost_nothing(shape, dtype):
    tracemalloc.start()
    with pytest.raises(DataError):
        SeriesModality().load(npy(shape, dtype, bytes(64)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_wide_files_are_refused_in_no_time():
    wide = ",".join(f"c{i}" for i in range(300_000)) + "\n" + ",".join(["1"] * 300_000)
    with pytest.raises(DataError, match=r"300,000 columns.*max_channels"):
        SeriesModality().load(wide.encode())
    with pytest.raises(DataError, match="max_channels"):
        SeriesModality(SeriesOptions(max_channels=3)).load(np.zeros((2, 4)))
    assert SeriesModality(SeriesOptions(max_channels=4)).load(np.zeros((2, 4))).values.shape == (2, 4)
