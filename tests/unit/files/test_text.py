"""Files of other encodings and notations: read where there is no doubt, else refused with the cause and the remedy."""

from __future__ import annotations

import codecs
import gzip
import json
import tarfile
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from adaptkit.data.formats.webdataset import scan
from adaptkit.data_tools.check import plan_files, run_check
from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext, Sample
from adaptkit.plugin_manager import get_plugin_manager

CHINESE, GERMAN, JAPANESE = "图中的猫是什么颜色？黑色的。", "schöner Käse aus Gruyère", "これは何色ですか。赤です。"


def source(tmp_path: Path, data_format: str, path: Path, **options: Any) -> Any:
    manager = get_plugin_manager()
    context = DataContext(tmp_path, {"image": "<image>"}, tmp_path)
    return manager.get("data source", data_format).build(
        manager.options("data source", data_format, {"path": str(path), **options}), context
    )


def row(question: str = "q", answer: str = "a", **keys: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, **keys}


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def answer_of(sample: Sample) -> str:
    return "".join(part["text"] for part in sample.messages[-1]["content"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "tsv"])
def test_a_byte_order_mark_is_believed(tmp_path: Path, encoding: str, kind: str) -> None:
    if kind in ("csv", "tsv"):
        text = f"name,label\nx,{CHINESE}\n".replace(",", "," if kind == "csv" else "\t")
        path = write(tmp_path / f"t.{kind}", text, encoding)
        found = source(tmp_path, "table", path, question="{{ name }}", answer="{{ label }}")
    else:
        one = json.dumps(row(answer=CHINESE), ensure_ascii=False)
        path = write(tmp_path / f"r.{kind}", f"[{one}]" if kind == "json" else f"{one}\n{one}\n", encoding)
        found = source(tmp_path, "llava", path)
    assert answer_of(found[len(found) - 1]) == CHINESE


@pytest.mark.parametrize(
    ("text", "encoding", "named"),
    [
        (CHINESE, "gbk", "GB18030"),
        (CHINESE, "utf-16-le", "UTF-16LE"),
        (CHINESE, "utf-16-be", "UTF-16BE"),
        ("plain", "utf-16-le", "UTF-16LE"),
        (GERMAN, "latin-1", "WINDOWS-1252"),
        (CHINESE, "utf-32-le", "UTF-32LE"),
        (JAPANESE, "shift_jis", "SHIFT_JIS"),
        (JAPANESE, "euc-jp", "EUC-JP"),
        ("이것은 무슨 색입니까", "euc-kr", "EUC-KR"),
        ("圖中的貓是什麼顏色", "big5", "BIG5"),
        ("какого цвета кошка", "cp1251", "WINDOWS-1251"),
        ("какого цвета кошка", "koi8-r", "KOI8-R"),
    ],
)
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_other_encodings_are_named_with_the_remedy(
    tmp_path: Path, text: str, encoding: str, named: str, kind: str
) -> None:
    rows = json.dumps([row(), row(answer=text)], ensure_ascii=False, indent=1)
    if kind == "jsonl":
        rows = json.dumps(row(answer=text), ensure_ascii=False)
    content = f"name,label\nx,{text}\n" if kind == "csv" else rows
    path = write(tmp_path / f"r.{kind}", content, encoding)
    options = {"question": "q", "answer": "{{ label }}"} if kind == "csv" else {}
    with pytest.raises(DataError, match=rf"(?s)UTF-8.*iconv -f ({named})"):
        source(tmp_path, "table" if options else "llava", path, **options)[0]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
@pytest.mark.parametrize("data_format", ["llava", "messages"])
def test_one_conversation_may_be_the_whole_file(tmp_path: Path, kind: str, data_format: str) -> None:
    one = row() if data_format == "llava" else {"messages": [{"role": "user", "content": "q"}]}
    if data_format == "messages":
        one["messages"].append({"role": "assistant", "content": "a"})
    path = write(tmp_path / f"r.{kind}", json.dumps(one, indent=2))
    assert [answer_of(sample) for sample in source(tmp_path, data_format, path)] == ["a"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"conversations": [],}]', "comma before the closing"),
        ("[1, 2,\n]", "comma before the closing"),
        ("[{'conversations': []}]", "Python's notation"),
        ('[{"a": None}]', "Python's notation"),
        ('[\n// rows\n{"a": 1}]', "comments"),
        ('[{"image": "imgs\\a.png"}]', "backslash"),
        ('[{"a": "one\nline"}]', "line break"),
        ('[{"a": 1} {"a": 2}]', "comma is missing|delimiter"),
        ('[{"a": "cut', "ends in the middle"),
        ("<!DOCTYPE html><html>", "web page"),
        ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (gzip.compress(b"[]", mtime=0), "gunzip"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"PAR1rest", "format parquet"),
        ('{"rows": [{"id": 1}]}', "under 'rows'"),
        ('{"a": {"x": 1}, "b": {"x": 2}}', "2 objects by name"),
        ('{"info": {}, "annotations": [{}], "categories": [{}]}', "data convert"),
        ('{"instruction": "q", "output": "a"}', "instruction"),
        ('{"a": 1},\n{"a": 2},\n', "comma at the end"),
        ("", "is empty"),
    ],
)
def test_what_is_no_json_is_refused_with_the_remedy(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        source(tmp_path, "llava", write(tmp_path / "rows.json", content))[0]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_cells_are_separated_as_the_header_says(tmp_path: Path, name: str, delimiter: str) -> None:
    path = write(tmp_path / name, f"name{delimiter}label\nx{delimiter}red\n")
    assert answer_of(source(tmp_path, "table", path, question="{{ name }}", answer="{{ label }}")[0]) == "red"
    other = write(tmp_path / name, "name,x;label,y\nx;red\n")
    assert answer_of(
        source(tmp_path, "table", other, question="q", answer="{{ row['label,y'] }}", delimiter=";")[0]
    ) == "red"  # fmt: skip


@pytest.mark.parametrize("name", ["dir\\café.bin", "dir/cafe\u0301.bin", "dir\\cafe\u0301.bin"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_found_as_other_systems_spell_them(tmp_path: Path, name: str, form: str) -> None:
    (tmp_path / "dir").mkdir()
    file = write(tmp_path / "dir" / normalize(form, "café.bin"), b"x")
    path = write(tmp_path / "rows.json", json.dumps([row("<image>", image=name)]))
    assert source(tmp_path, "llava", path)[0].messages[0]["content"][0]["image"] == file


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("C:\\data\\a.png", "Windows"),
        ("Pictures/A.PNG", "case"),
        ("a.PNG", "case"),
        ("PICTURES/A.png", "case"),
        (" a.png ", "whitespace"),
        ("Pictures%2FA.png", "%XX"),
        ("/a.png", "relative"),
    ],
)
def test_names_of_no_file_are_refused_with_the_remedy(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "Pictures").mkdir()
    for place in ("a.png", "Pictures/A.png", "pictures/a.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        write(tmp_path / place, b"x")
    path = write(tmp_path / "rows.json", json.dumps([row("<image>", image=name)]))
    with pytest.raises(DataError, match=words):
        source(tmp_path, "llava", path)[0]


@pytest.mark.parametrize("data_format", ["llava", "messages"])
def test_turns_that_are_no_row_are_refused_with_the_remedy(tmp_path: Path, data_format: str) -> None:
    key, turn = ("conversations", {"from": "human", "value": "q"})
    if data_format == "messages":
        key, turn = "messages", {"role": "user", "content": "q"}
    for rows in ([turn, turn], [[turn, turn]]):
        with pytest.raises(DataError, match=key):
            source(tmp_path, data_format, write(tmp_path / "rows.json", json.dumps(rows)))[0]


def test_the_line_in_which_a_spreadsheet_names_its_separator_is_no_header(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "sep=;\r\nname;label\r\nx;1,5\r\n")
    assert answer_of(source(tmp_path, "table", path, question="q", answer="{{ label }}")[0]) == "1,5"


def test_nothing_and_no_number_are_no_media(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", json.dumps([row(image=float("nan")), row(image=None)]))
    assert [answer_of(sample) for sample in source(tmp_path, "llava", path)] == ["a", "a"]


# -- what is there twice ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["json", "jsonl"])
@pytest.mark.parametrize(
    "twice", ['"image": 1, "image": 2', '"x": {"image": 1, "image": 2}', '"x": [{"image": 1, "image": 2}]']
)
def test_keys_that_are_there_twice_spoil_their_row(tmp_path: Path, kind: str, twice: str) -> None:
    good = json.dumps(row())
    bad = good[:-1] + f", {twice}}}"
    content = f"[{good}, {bad}]" if kind == "json" else f"{good}\n{bad}\n"
    found = source(tmp_path, "llava", write(tmp_path / f"r.{kind}", content))
    assert answer_of(found[0]) == "a"
    with pytest.raises(DataError, match=r"r\.jsonl?\[1\].*twice"):
        found[1]


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_columns_of_one_name_are_refused(tmp_path: Path, mark: bytes) -> None:
    path = write(tmp_path / "t.csv", mark + b"name,label,,name\nx,red,,y\n")
    with pytest.raises(DataError, match=r"t\.csv: several columns are named 'name'"):
        source(tmp_path, "table", path, question="q", answer="{{ label }}")
    assert len(source(tmp_path, "table", write(path, "name,label,,\nx,red,,\n"), question="q", answer="{{ label }}"))


@pytest.mark.parametrize("nested", [False, True])
def test_columns_of_one_name_are_refused_in_parquet(tmp_path: Path, nested: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table([pa.array(["x"]), pa.array(["y"])], names=["label", "label"])
    if nested:
        inner = pa.StructArray.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["label", "label"])
        table = pa.table([inner], names=["outer"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="'label'"):
        source(tmp_path, "parquet", tmp_path / "t.parquet", question="q", answer="a")


def test_a_key_in_two_places_of_a_shard_is_refused(tmp_path: Path) -> None:
    for name, content in (("a.txt", b"one"), ("b.txt", b"two"), ("c.txt", b"three")):
        write(tmp_path / name, content)
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in ("a.txt", "b.txt", "a.txt"):
            archive.add(tmp_path / name, name)
    with pytest.raises(DataError, match="'a' stand in two places"):
        scan(tmp_path / "s.tar")


def test_data_check_says_the_same(tmp_path: Path) -> None:
    files = {
        "gbk.jsonl": json.dumps(row(answer=CHINESE), ensure_ascii=False).encode("gbk"),
        "alpaca.json": b'[{"instruction": "q", "output": "a"}]',
        "near.json": b'[{"conversation": []}]',
        "packed.jsonl.gz": gzip.compress(b"{}"),
    }
    paths = [write(tmp_path / name, content) for name, content in files.items()]
    report = run_check(plan_files(paths), workers=1)
    found = {problem.dataset: problem.message for problem in report.plan.unopened}
    assert "iconv -f GB18030" in found["gbk.jsonl"]
    assert "format: table" in found["alpaca.json"]
    assert "'conversation' meant" in found["near.json"]
    assert "compressed" in found["packed.jsonl.gz"]
