"""Reading series: every way in gives the same values, and what is wrong is named with its place."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from adaptkit_timeseries import SeriesOptions
from adaptkit_timeseries.modality import SeriesModality

from adaptkit.errors import DataError
from adaptkit.plugin_manager import get_plugin_manager

VALUES = np.random.default_rng(0).normal(size=(7, 2))
CSV = b"first,second\n" + "\n".join(f"{a!r},{b!r}" for a, b in VALUES.tolist()).encode() + b"\n"


def load(source: Any, **options: Any) -> Any:
    return SeriesModality(SeriesOptions(**options)).load(source)


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class Frame:
    """What pandas' DataFrame has, as far as it is used."""

    def __init__(self, values: Any, columns: list[str]) -> None:
        self.values, self.columns = values, columns

    def to_numpy(self) -> Any:
        return self.values

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.values


def test_every_way_in_gives_the_same_values(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_bytes(CSV)
    files = [path, str(path), CSV, bytearray(CSV), io.BytesIO(CSV)]
    for source in [*files, npy(VALUES), VALUES, VALUES.tolist(), Frame(VALUES, ["first", "second"])]:
        assert np.array_equal(load(source).values, VALUES)
    assert len({SeriesModality().content_key(source) for source in files}) == 1
    assert load(path).columns == load(Frame(VALUES, ["first", "second"])).columns == ("first", "second")
    assert load(VALUES).columns == ("1", "2")


def test_pandas_frames_are_read_where_pandas_is_installed() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is optional")
    frame = pandas.DataFrame(VALUES, columns=["first", "second"])
    assert np.array_equal(load(frame, columns=["second"]).values, VALUES[:, 1:])


@pytest.mark.parametrize("source", [[1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3], np.int8), b"x\n1\n2\n3\n"])
def test_one_channel_is_one_column(source: Any) -> None:
    assert load(source).values.tolist() == [[1], [2], [3]]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_marks_quotes_spaces_and_blank_ends_of_files_do_not_matter(newline: str) -> None:
    text = newline.join(["\ufeff", '"first", second', '"1", 2', "3 ,4e0", "", ""])
    series = load(text.encode())
    assert series.values.tolist() == [[1, 2], [3, 4]]
    assert series.columns == ("first", "second")


def test_columns_are_chosen_by_name_and_others_may_hold_anything() -> None:
    raw = b"time,place,level,depth\nmonday,here,1,2\ntuesday,,3,4\n"
    assert load(raw, columns=["depth", "level"]).values.tolist() == [[2, 1], [4, 3]]
    with pytest.raises(DataError, match=r"no column named 'levels'.*Did you mean 'level'"):
        load(raw, columns=["levels"])
    assert load(Frame(VALUES, ["a", "b"]), columns=["b"]).values.tolist() == VALUES[:, 1:].tolist()


def test_how_a_file_is_read_is_part_of_its_key() -> None:
    assert SeriesModality(SeriesOptions(columns=["first"])).content_key(CSV) != SeriesModality().content_key(CSV)


def test_files_without_header_or_with_another_delimiter() -> None:
    assert load(b"1;2\n3;4\n", header=False, delimiter=";").values.tolist() == [[1, 2], [3, 4]]
    assert load(b"1\n2\n", header=False).columns == ("1",)


def test_interpolation_draws_straight_lines() -> None:
    raw = b"a,b\n,0\n1,\n\n4,6\nnan,NA\n"
    values = load(raw, holes="interpolate").values
    assert values.tolist() == [[1, 0], [1, 2], [2.5, 4], [4, 6], [4, 6]]
    holed = np.array([1, np.nan, np.nan, 4])
    assert load(holed, holes="interpolate").values.ravel().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (b"a,b\n1,2\n3,\n", {}, r"line 3, column 'b': the value is missing.*interpolate"),
        (b"a,b\n1,2\n\n3,4\n", {}, r"line 3, column 'a': the value is missing"),
        (b"a,b\n1,2\n3,NaN\n", {}, r"line 3, column 'b': the value is missing"),
        (b"a,b\n1,2\n-inf,4\n", {}, r"line 3, column 'a': '-inf' is not finite"),
        (b"a,b\n1,2\n1e999,4\n", {}, r"line 3, column 'a': '1e999' is not finite"),
        (b"a,b\n1,2\n3,high\n", {}, r"line 3, column 'b': 'high' is not a number"),
        (b"1,2\n3,4\n", {}, r"line 1: a header.*is missing.*header: false"),
        (b"a,b\n1,2\n3,4,5\n", {}, "line 3: 3 cells, but there are 2 columns"),
        (b"a,b\n1,2\n3\n", {}, "line 3: 1 cells, but there are 2 columns"),
        (b"a,a\n1,2\n", {}, r"line 1, column 2: the name 'a' is there twice"),
        (b"a,\n1,2\n", {}, "line 1, column 2: the column has no name"),
        (b"a,b\n", {}, "no row of values"),
        (b"\n\n", {}, "is empty"),
        (b"", {}, "is empty"),
        (b'a\n"1\n', {}, "line 2: this is not CSV"),
        (b"a\n1\n2\n3\n", {"max_length": 2}, r"limit is 2 \(max_length\)"),
        (b"a\n" + b"1\n" * 50, {"max_bytes": 50}, r"larger than the limit of 50 bytes"),
        (b"a,b\n1,\n2,\n", {"holes": "interpolate"}, "column 'b': every value is missing"),
        ("température\n1\n".encode("latin-1"), {}, "not UTF-8.*WINDOWS-1252"),
        (b"a;b\n1;2\n", {}, "`delimiter`"),
        (b"a\tb\n1,5\t2\n", {"delimiter": "\t"}, "decimal point"),
        (npy(VALUES)[:-9], {}, r"damaged .npy"),
        (npy(np.array([{}], object)), {}, r"damaged .npy"),
        (np.array([1, np.nan, np.nan]), {}, r"row 2 of values, column '1': the value is missing \(2 are\)"),
        ([1, float("inf")], {}, "row 2 of values, column '1': the value is not finite"),
        (np.zeros((3, 0)), {}, "empty: 3 rows, 0 channels"),
        (np.zeros((2, 2, 2)), {}, r"shape \(2, 2, 2\)"),
        (np.zeros(5), {"max_length": 4}, r"5 rows.*limit is 4"),
        (["high"], {}, "not numbers"),
        ([[1, 2], [3]], {}, "not a series"),
        (np.array([1j]), {}, "complex"),
        ("https://example.org/a.csv", {}, "not fetched from URLs"),
        ("a\0b.csv", {}, "cannot read"),
        (io.StringIO("a\n1\n"), {}, "binary mode"),
        (3, {}, "cannot read a series from int"),
    ],
)
def test_wrong_sources_are_refused_with_their_place(source: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(source, **options)


def test_messages_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "holed.csv"
    path.write_bytes(b"a\n1\nx\n")
    with pytest.raises(DataError, match=re.escape(f"{path}, line 3")):
        load(path)


def test_html_draws_one_line_for_each_channel() -> None:
    values = np.array([[0, 5], [1, 5], [0, 5]])
    shown = SeriesModality().to_html(load(Frame(values, ["<a>", "b"])))
    figure = ElementTree.fromstring(shown)
    lines = [line.attrib["points"] for line in figure.iter("polyline")]
    assert lines == ["4.0,60.0 160.0,4.0 316.0,60.0", "4.0,60.0 160.0,60.0 316.0,60.0"]
    assert [title.text for title in figure.iter("title")] == ["<a>: 0 to 1", "b: 5 to 5"]


def test_html_stays_small_and_finite() -> None:
    large = SeriesModality().to_html(load(np.random.default_rng(1).normal(size=(9000, 12)) * 1e307))
    assert len(large) < 50_000
    assert "nan" not in large
    assert "4 more channels" in large


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"columns": ["vibration"]},
        {"columns": ["a;b", "c"], "delimiter": ";"},
        {"header": False},
        {"header": False, "columns": ["3", "1"]},
    ],
)
def test_stand_ins_are_read_by_the_options_they_are_for(values: dict[str, Any], tmp_path: Path) -> None:
    component = get_plugin_manager().get("modality", "series")
    options = SeriesOptions.model_validate(values)
    loaded = component.build(options).load(component.write_stand_in(options, tmp_path, 0))
    assert loaded.columns == tuple(options.columns or (["first", "second"] if options.header else ["1", "2"]))
