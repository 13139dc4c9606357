from __future__ import annotations

import base64
import csv
import json

import pytest

from adaptkit.data.formats.pairs import pair_rows
from adaptkit.data.formats.table import TableLayout, read_rows
from adaptkit.data.media import Media
from adaptkit.data.rows import RowSource
from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.run.rehearsal import sample_conversations

TAGS = {"image": "<image>", "audio": "<audio>"}
ROWS = [
    {"image": "0.png", "label": 3, "bbox": [10, 0, 20, 25], "width": 100, "height": 50},
    {"image": "1.png", "audio": "1.wav", "label": True},
    {"label": "none"},
]


@pytest.fixture
def media(tmp_path):
    for name in ("0.png", "1.png", "1.wav", "2.wav"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def table(media, rows=ROWS, question="which ?", answer="{{ label }}", **options):
    layout = TableLayout(TAGS, "t.jsonl", question=question, answer=answer, **options)
    return RowSource(rows, layout, Media(media), "t.jsonl")


def user_parts(sample):
    return next(m for m in sample.messages if m["role"] == "user")["content"]


def test_media_without_tags_stand_in_front(media):
    source = table(media, system="S")
    assert [m["role"] for m in source[1].messages] == ["system", "user", "assistant"]
    kinds = [part["type"] for part in user_parts(source[1])]
    assert kinds == ["image", "text", "audio", "text"]
    assert user_parts(source[1])[0]["image"] == media / "1.png"
    assert user_parts(source[1])[-1]["text"] == "\nwhich ?"
    assert user_parts(source[2]) == [{"type": "text", "text": "which ?"}]


def test_tags_place_media(media):
    question = "hear <audio> and see <image>{{ ' both' if audio is defined }}"
    parts = user_parts(table(media, question=question)[1])
    assert [part.get("text", part["type"]) for part in parts] == ["hear ", "audio", " and see ", "image", " both"]


def test_several_media_of_a_row(media):
    rows = [{"image": ["0.png", "1.png"], "label": 1}]
    parts = user_parts(table(media, rows, question="<image> or <image>")[0])
    assert [part["image"].name for part in parts if part["type"] == "image"] == ["0.png", "1.png"]


def test_boxes_are_fractions_of_the_padded_square(media):
    answer = "{{ bbox | padded_box(width, height) }}"
    assert table(media, answer=answer)[0].messages[-1]["content"][0]["text"] == "[0.100,0.250,0.200,0.500]"
    binned = "{{ bbox | padded_box(width, height, bins=32) }}"
    assert table(media, answer=binned)[0].messages[-1]["content"][0]["text"] == "[0.094,0.250,0.188,0.500]"


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (ROWS, {"answer": "{{ lable }}"}, r"t.jsonl\[0\]: the template of the answer asks for what the row lacks"),
        (ROWS, {"question": "<image> <image>"}, r"1 under 'image', but 2 <image> in the question"),
        (ROWS, {"question": "<audio>"}, r"1 under 'image', but 0 <image> in the question"),
        (ROWS, {"answer": "{{ bbox | padded_box('x', 2) }}"}, "fails on this row: ValueError"),
        (ROWS, {"answer": " "}, "the answer is empty"),
        (["text"], {}, "a row is an object with keys, not str"),
        ([{"image": "gone.png", "label": 1}], {}, "'image' is missing: no file .*gone.png"),
        ([{"image": 7, "label": 1}], {}, "must be a path or a list of paths, not 7"),
    ],
)
def test_bad_rows_say_what_is_wrong(media, rows, options, message):
    source = table(media, rows, **options)
    with pytest.raises(DataError, match=message):
        source[0]


def test_malformed_templates_are_refused_at_once(media):
    with pytest.raises(DataError, match=r"t.jsonl: .*answer.*'{{ label'"):
        table(media, answer="{{ label")


def test_templates_cannot_reach_the_machine(media):
    source = table(media, answer="{{ label.__class__.__mro__ }}")
    with pytest.raises(DataError, match=r"unsafe|fails|lacks"):
        source[0]


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv"])
def test_every_kind_of_table_is_read(tmp_path, kind):
    path = tmp_path / f"rows.{kind}"
    rows = [{"image": "a, b.png", "label": "6"}, {"image": "ü.png", "label": "7"}]
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, ["image", "label"], delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    assert list(read_rows(path)) == rows


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.json", '{"a": 1}', "is a JSON list of rows, not dict"),
        ("rows.json", '{"data": [{"a": 1}]}', "not dict. Write the list under 'data' alone"),
        ("rows.csv", 'a,b\n1,"2" x\n', "rows.csv, after line 1: .*if quotes are part of the text, say quotes: false"),
        ("rows.tsv", 'a\tb\n"x\t1\n"y\t2\n', "rows.tsv, after line 1: .*say quotes: false"),
        ("rows.tsv", 'a\tb\n"x\t1\ny\t2"\t3\n', "over several lines and columns; .*say quotes: false"),
        ("rows.csv", "a,b\n", "the table has no rows"),
        ("rows.xlsx", "x", "a table is one of .jsonl, .ndjson, .json, .csv, .tsv; this is .xlsx"),
    ],
)
def test_bad_tables_say_where(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_rows(tmp_path / name)
    with pytest.raises(DataError, match="cannot read the table"):
        read_rows(tmp_path / "gone.jsonl")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.jsonl", '{"a": 1}\n{"a": \n{"a": 2}', r"line 2: not valid JSON"),
        ("rows.csv", "a,b\n1,2\n1\n3,4\n", "line 3: the row has not as many cells as the header"),
        ("rows.csv", "a,b\n1,2\n1,2,3\n3,4\n", "line 3: the row has not as many cells as the header"),
    ],
)
def test_a_broken_row_spoils_only_itself(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    rows = read_rows(tmp_path / name)
    source = table(tmp_path, rows, answer="{{ a }}")
    assert [len(source[i].messages) for i in (0, 2)] == [2, 2]
    with pytest.raises(DataError, match=message):
        source[1]
    with pytest.raises(DataError, match=message):
        pair_rows((rows, tmp_path), (rows, tmp_path), on="a", num_samples=2, seed=0, modalities=[])


def test_quotes_may_be_part_of_the_text(tmp_path):
    (tmp_path / "rows.tsv").write_text('a\tb\n"x\t1\n5" disk\t2\n')
    rows = read_rows(tmp_path / "rows.tsv", quotes=False)
    assert rows == [{"a": '"x', "b": "1"}, {"a": '5" disk', "b": "2"}]


def test_cells_may_hold_pictures(tmp_path):
    content = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(200_000)).decode()
    (tmp_path / "rows.tsv").write_text(f"image\tlabel\n{content}\tx\n")
    part = user_parts(table(tmp_path, read_rows(tmp_path / "rows.tsv"))[0])[0]
    assert part["image"] == f"data:image/x-unknown;base64,{content}"


def test_a_path_that_could_be_base64_is_a_path(tmp_path):
    name = "/9j/" + "/".join(["folder"] * 10) + "/picture"
    (tmp_path / name[1:]).parent.mkdir(parents=True)
    (tmp_path / name[1:]).touch()
    part = user_parts(table(tmp_path, [{"image": name[1:], "label": 1}])[0])[0]
    assert part["image"] == tmp_path / name[1:]
    (tmp_path / "SUQz").mkdir()  # reads ID3, as an MP3 file begins
    name = "SUQz/" + "a" * 67
    (tmp_path / name).touch()
    assert user_parts(table(tmp_path, [{"image": name, "label": 1}])[0])[0]["image"] == tmp_path / name


@pytest.mark.parametrize("name", ["a b " * 20, "ab  c" * 20, " " * 70 + "a", "a" + " " * 70 + "b", "abc" * 30 + "="])
def test_words_are_no_base64(tmp_path, name):
    with pytest.raises(DataError, match="'image' is missing"):
        table(tmp_path, [{"image": name, "label": 1}])[0]


@pytest.mark.parametrize("answer", ["{{ row['l2-category'] }}", "{{ row.label }}", "{{ label }}"])
def test_columns_of_any_name_are_there(media, answer):
    rows = [{"l2-category": "x", "label": "x"}]
    assert table(media, rows, answer=answer)[0].messages[-1]["content"][0]["text"] == "x"
    with pytest.raises(DataError, match=r"\{\{ row\['l2-category'\] \}\}"):
        table(media, rows, answer="{{ l2-category }}")[0]


def test_templates_say_the_same_each_time(media):
    with pytest.raises(DataError, match="No filter named 'random'"):
        table(media, answer="{{ [1, 2] | random }}")


@pytest.mark.parametrize("label", [None, float("nan"), {"inner": None}])
def test_nothing_says_null(media, label):
    answer = "{{ label.inner }}" if isinstance(label, dict) else "{{ label }}"
    with pytest.raises(DataError, match=r"null|not a number"):
        table(media, [{"label": label}], answer=answer)[0]
    unless = table(media, [{"label": label}], answer="{{ 'none' if label != 3 else label }}")[0]
    assert unless.messages[-1]["content"][0]["text"] == "none"


def test_columns_that_there_are_not_are_named(media):
    with pytest.raises(DataError, match=r"columns: .*'imgae'.*'image'"):
        table(media, columns={"imgae": "pic"})
    rows = [{"pic": "0.png", "label": 1}, {"pic": None, "label": 1}]
    with pytest.raises(DataError, match=r"'pick'.*'pic'"):
        table(media, rows, columns={"image": "pick"})[0]
    source = table(media, rows, columns={"image": "pic"})
    assert [len(user_parts(source[i])) for i in range(2)] == [2, 1]


def pairs(media, seed=0, num_samples=40, on="label"):
    first = ([{"image": f"{i % 2}.png", "label": i % 2} for i in range(6)], media)
    second = ([{"audio": f"{i % 2 + 1}.wav", "label": i % 2} for i in range(4)], media)
    question = "<audio> as <image> ?"
    rows = pair_rows(first, second, on=on, num_samples=num_samples, seed=seed, modalities=list(TAGS))
    answer = "{{ 'yes' if same else 'no' }} {{ first.label }}{{ second.label }}"
    return RowSource(rows, TableLayout(TAGS, "p", question=question, answer=answer), Media(media), "p")


def test_half_of_the_pairs_agree(media):
    samples = [pairs(media)[i] for i in range(40)]
    answers = [sample.messages[-1]["content"][0]["text"] for sample in samples]
    assert {answer for answer in answers if answer.startswith("yes")} == {"yes 00", "yes 11"}
    assert {answer for answer in answers if answer.startswith("no")} == {"no 01", "no 10"}
    assert sum(answer.startswith("yes") for answer in answers) == 20
    assert [part["type"] for part in user_parts(samples[0])] == ["audio", "text", "image", "text"]


def test_media_of_pairs_are_given_as_in_tables(media):
    uri = "data:image/png;base64,eA=="
    rows = [{"image": uri, "label": 0}, {"image": {"path": "0.png", "bytes": None}, "label": 1}]
    found = pair_rows((rows, media), (rows, media), on="label", num_samples=20, seed=0, modalities=["image"])
    assert {name for row in found for name in row["image"]} == {uri, str(media / "0.png")}


def test_pairs_follow_the_seed(media):
    def answers(seed):
        source = pairs(media, seed)
        return [source[i].messages for i in range(40)]

    assert answers(0) == answers(0) != answers(1)


def test_pairs_need_the_column(media):
    with pytest.raises(DataError, match="no column named 'lable'"):
        pairs(media, on="lable")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("table", {"path": "/gone/t.jsonl", "question": "{{ q }}", "answer": "{{ a }}"}),
        (
            "pairs",
            {
                "first": {"path": "/gone/a.csv"},
                "second": {"path": "/gone/b.csv"},
                "on": "x",
                "question": "q",
                "answer": "a",
            },
        ),
    ],
)
def test_stand_ins_can_be_read(media, name, values):
    context = DataContext(media, TAGS, media)
    manager = get_plugin_manager()
    component, options = manager.get("data source", name), manager.options("data source", name, values)
    assert "/gone" in component.missing(options, context)
    samples = sample_conversations({"image": [media / "0.png"], "audio": [media / "1.wav"]}, 8)
    options = component.stand_in(options, media / "stand_in", samples, TAGS)
    assert component.missing(options, context) is None
    source = component.build(options, context)
    assert len(source) == 8
    read = [source[i] for i in range(8)]
    if name == "table":
        assert [s.messages for s in read] == [s.messages[:2] for s in samples]
