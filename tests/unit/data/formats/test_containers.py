"""Rows in parquet files, webdataset shards and Hugging Face datasets, in every layout, and what is wrong with them."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adaptkit.data.files import find_files
from adaptkit.data.formats import building as formats
from adaptkit.data.formats.arrow import Cell
from adaptkit.data.formats.parquet import ParquetRows
from adaptkit.data.formats.stand_in import row_of, save_table, write_dataset, write_parquet, write_shard
from adaptkit.data.formats.webdataset import WebDatasetRows, scan, split_name
from adaptkit.errors import DataError, PluginError
from adaptkit.interfaces import DataContext, Sample
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.run.rehearsal import sample_conversations

TAGS = {"image": "<image>", "audio": "<audio>"}
CONTAINERS = ("parquet", "webdataset", "hf_dataset")
LAYOUTS = ("auto", "llava", "sharegpt", "messages", "table")
TABLE = {"question": "{{ question }}", "answer": "{{ answer }}"}


@pytest.fixture
def context(tmp_path: Path) -> DataContext:
    return DataContext(tmp_path, TAGS, tmp_path / "cache")


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Conversations about files whose content is their name."""
    for name in ("a.png", "b.png", "c.wav"):
        (tmp_path / name).write_bytes(name.encode())
    return sample_conversations({"image": [tmp_path / "a.png", tmp_path / "b.png"], "audio": [tmp_path / "c.wav"]}, 12)


def build(name: str, context: DataContext, **values: Any) -> Any:
    return get_plugin_manager().build("data source", name, values, context)


def missing(name: str, context: DataContext, **values: Any) -> str | None:
    manager = get_plugin_manager()
    return manager.get("data source", name).missing(manager.options("data source", name, values), context)


def content(source: Any) -> Any:
    """A sample's messages, with media as their content, whatever holds it."""
    if isinstance(source, Sample):
        return [(m["role"], [content(part) for part in m["content"]]) for m in source.messages]
    if isinstance(source, dict):
        return (source["type"], content(source[source["type"]]))
    if isinstance(source, Path):
        return source.read_bytes()
    return source.read() if hasattr(source, "read") else source


def as_table(sample: Sample) -> Sample:
    return Sample(sample.id, sample.messages[:2])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CONTAINERS)
def test_what_is_written_in_a_format_is_read_from_it(context, samples, tmp_path, name, layout):
    manager = get_plugin_manager()
    component = manager.get("data source", name)
    options = manager.options(
        "data source", name, {"path": "/gone", "layout": layout, **(TABLE if layout == "table" else {})}
    )
    written = component.stand_in(options, tmp_path / "stand_in", samples, TAGS)
    assert component.missing(written, context) is None
    source = component.build(written, context)
    read = [source[i] for i in range(len(source))]
    expected = [content(as_table(sample) if layout == "table" else sample) for sample in samples]
    assert sorted(map(repr, map(content, read))) == sorted(map(repr, expected))
    assert {sample.id for sample in read} == {sample.id for sample in samples}
    assert content(source[3]) == content(read[3])
    again = pickle.loads(pickle.dumps(source))
    assert [content(again[i]) for i in (5, 0)] == [content(read[i]) for i in (5, 0)]
    with pytest.raises(IndexError):
        source[len(samples)]


@pytest.mark.parametrize("name", CONTAINERS)
def test_media_may_be_paths(context, samples, tmp_path, name):
    row = row_of("llava", samples[0], TAGS)
    row = {**row, "image": [Path(p).name for p in row["image"]], "audio": Path(row["audio"][0]).name}
    folder = tmp_path / "elsewhere"
    path = {
        "parquet": lambda: write_parquet(folder / "rows.parquet", [row]),
        "hf_dataset": lambda: write_dataset(folder, [row]),
        "webdataset": lambda: write_shard(folder / "rows.tar", [("0", {"json": json.dumps(row).encode()})]),
    }[name]()
    with pytest.raises(DataError, match=r"'image' is missing: no file .*elsewhere") as caught:
        build(name, context, path=str(path))[0]
    assert caught.value.kind == "missing_media"
    assert content(build(name, context, path=str(path), media=".")[0]) == content(samples[0])


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_is_missing_is_named(context, tmp_path, name):
    said = missing(name, context, path="gone/rows")
    assert said is not None
    assert str(tmp_path) in said
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no .* file in the folder|cannot be opened"):
        build(name, context, path="empty")


def test_a_missing_package_is_named_with_its_extra(context, monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'inner-adaptkit[data]'" in str(missing("hf_dataset", context, path="x"))
    with pytest.raises(PluginError, match=r"'hf_dataset'.*needs datasets: "):
        build("hf_dataset", context, path="x")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"layout": "table"}, "the layout table needs question and answer"),
        ({"question": "Q"}, "the layout table needs question and answer"),
        ({"layout": "lava"}, "layout"),
        ({"streaming": True}, "num_samples is the size of an epoch of a stream"),
        ({"num_samples": 3}, "num_samples is the size of an epoch of a stream"),
    ],
)
def test_options_are_checked(context, values, said):
    with pytest.raises(PluginError, match=said):
        build("hf_dataset", context, path="x", **values)


# -- several files ---------------------------------------------------------------------------------------------------


def test_patterns_name_files_in_order(tmp_path):
    for name in ("s-08.tar", "s-09.tar", "s-10.tar", "t-08.tar", "notes.md"):
        (tmp_path / name).write_bytes(b"")

    def names(pattern: str) -> list[str]:
        return [path.name for path in find_files(tmp_path, pattern, (".tar",))]

    assert names("s-{08..10}.tar") == ["s-08.tar", "s-09.tar", "s-10.tar"]
    assert names("{t,s}-08.tar") == ["t-08.tar", "s-08.tar"]
    assert names("s-*.tar") == names(f"{tmp_path}/s-*.tar") == ["s-08.tar", "s-09.tar", "s-10.tar"]
    assert names(".") == ["s-08.tar", "s-09.tar", "s-10.tar", "t-08.tar"]
    for pattern in ("s-{08..11}.tar", "u-*.tar", "gone.tar"):
        with pytest.raises(DataError, match=r"no data file .*(s-11|u-|gone)"):
            names(pattern)
    for pattern in ("{9..1}.tar", "{0..99999999}.tar", "{000..999}{000..999}{0..9}.tar"):
        with pytest.raises(DataError, match=r"must run from|more than"):
            names(pattern)


def test_parquet_files_are_one_dataset(context, samples, tmp_path):
    rows = [row_of("llava", sample, TAGS) for sample in samples]
    for i in range(3):
        write_parquet(tmp_path / f"part-{i}.parquet", rows[i * 4 : i * 4 + 4], row_group_size=3)
    source = build("parquet", context, path="part-*.parquet", media=".", limit=9)
    assert [source[i].id for i in range(len(source))] == [sample.id for sample in samples[:9]]
    assert source[5].location == f"{tmp_path}/part-1.parquet[1]"


def test_row_groups_are_kept_within_a_budget(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"x": [bytes(1000)] * 40}), path, row_group_size=4, compression="none")
    rows = ParquetRows([path], cache_bytes=9000)
    for index in [*range(40), 0, 39]:
        assert rows[index]["x"].read() == bytes(1000)
        assert sum(table.nbytes for table in rows._groups.values()) <= 9000
    tight = ParquetRows([path], cache_bytes=1)
    assert [tight[i]["x"].read(7) for i in (0, 39)] == [bytes(7)] * 2


def test_content_stays_in_the_file_until_it_is_read(context, samples, tmp_path):
    write_parquet(tmp_path / "rows.parquet", [{"image": {"bytes": b"abc", "path": None}, "q": "?", "a": "!"}])
    source = build("parquet", context, path="rows.parquet", question="{{ q }}", answer="{{ a }}")
    (medium, _) = source[0].messages[0]["content"]
    assert isinstance(medium["image"], Cell)
    assert len(pickle.dumps(medium["image"])) < 2000
    assert medium["image"].read() == b"abc"


@pytest.mark.parametrize(
    ("raw", "said"),
    [(b"", "cannot be read"), (b"PAR1", "cannot be read"), (b"PAR1" + bytes(40) + b"PAR1", "cannot be read")],
)
def test_damaged_parquet_files_are_data_errors(context, tmp_path, raw, said):
    (tmp_path / "rows.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=said):
        build("parquet", context, path="rows.parquet")


def test_empty_datasets_are_data_errors(context, tmp_path):
    pq.write_table(pa.table({"x": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="the dataset is empty"):
        build("parquet", context, path="rows.parquet")


def test_nulls_are_what_a_row_does_not_have(context, tmp_path):
    turns = [{"from": "user", "value": "Q"}, {"from": "assistant", "value": "A"}]
    write_parquet(tmp_path / "rows.parquet", [{"id": None, "conversations": turns, "system": None, "image": None}] * 2)
    source = build("parquet", context, path="rows.parquet", system="S")
    assert (source[1].id, content(source[1])[0]) == ("1", ("system", [("text", "S")]))


# -- messages with media beside them ---------------------------------------------------------------------------------


ANSWER = {"type": "text", "text": "A."}


def chat(*parts: dict[str, Any], **keys: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": list(parts)}, {"role": "assistant", "content": [ANSWER]}]
    return {"messages": messages, **keys}


def test_parts_may_stand_for_media_that_the_row_lists(context, tmp_path):
    row = chat(
        {"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}, images=[{"bytes": b"1"}, {"bytes": b"2"}]
    )
    write_parquet(tmp_path / "rows.parquet", [row])
    parts = content(build("parquet", context, path="rows.parquet")[0])[0][1]
    assert parts == [("image", b"1"), ("text", "and"), ("image", b"2")]
    for part, said in (
        ([{"type": "image"}], "lists more 'image'"),
        ([{"type": "image"}] * 3, "none left under 'images'"),
    ):
        write_parquet(tmp_path / "bad.parquet", [chat(*part, images=[{"bytes": b"1"}, {"bytes": b"2"}])])
        with pytest.raises(DataError, match=said):
            build("parquet", context, path="bad.parquet")[0]


def test_tags_in_text_stand_for_media_that_the_row_lists(context, tmp_path):
    said = [{"type": "text", "text": "<image> or <image>?"}]
    row = chat(*said, images=[{"bytes": b"1"}, {"bytes": b"2"}])
    write_parquet(tmp_path / "rows.parquet", [row])
    parts = content(build("parquet", context, path="rows.parquet")[0])[0][1]
    assert parts == [("image", b"1"), ("text", " or "), ("image", b"2"), ("text", "?")]


@pytest.mark.parametrize("layout", ["parquet", "hf_dataset"])
@pytest.mark.parametrize("pictures", [None, {"bytes": None, "path": None}, [None], [{"bytes": None, "path": None}]])
def test_nulls_count_as_absent(context, tmp_path, layout, pictures):
    rows = [
        {"conversations": turns("<image>Q"), "image": [{"bytes": b"1", "path": None}]},
        {"conversations": turns("Q"), "image": pictures if isinstance(pictures, list) else [pictures]},
    ]
    (write_parquet if layout == "parquet" else write_dataset)(tmp_path / "rows.parquet", rows)
    source = build(layout, context, path="rows.parquet")
    assert content(source[0])[0][1][0] == ("image", b"1")
    assert content(source[1])[0][1] == [("text", "Q")]


@pytest.mark.parametrize("name", ["parquet", "hf_dataset", "saved", "stream"])
def test_values_of_several_kinds_are_those_of_the_file(context, tmp_path, name):
    (tmp_path / "a.png").write_bytes(b"1")
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "a.png"}}]
    rows = [
        {"id": 7, "messages": [{"role": "user", "content": said}, {"role": "assistant", "content": 'A "cat".'}]}
        for said in ("Hello", parts)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    options = {"path": "json", "data_files": "rows.jsonl"}
    if name in ("parquet", "saved"):
        dataset = datasets.load_dataset("json", data_files=str(tmp_path / "rows.jsonl"), split="train")
        (dataset.to_parquet if name == "parquet" else dataset.save_to_disk)(str(tmp_path / "rows"))
        options = {"path": "rows", "media": "."}
    if name == "stream":
        options |= {"streaming": True, "num_samples": 2}
    source = build("parquet" if name == "parquet" else "hf_dataset", context, **options)
    assert [content(sample) for sample in (source[0], source[1])] == [
        [("user", [("text", said)]) if isinstance(said, str) else ("user", said), ("assistant", [("text", 'A "cat".')])]
        for said in ("Hello", [("text", "What?"), ("image", b"1")])
    ]


@pytest.mark.parametrize("name", ["parquet", "webdataset", "hf_dataset"])
def test_paths_are_relative_to_the_folder_of_their_file(context, tmp_path, name):
    row = {"conversations": turns("<image>Q"), "image": "0.png"}
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.png").write_bytes(folder.encode())
        write_parquet(tmp_path / folder / "x.parquet", [row])
        write_shard(tmp_path / folder / "x.tar", [("0", {"json": json.dumps(row).encode()})])
        (tmp_path / folder / "x.jsonl").write_text(json.dumps(row))
    (tmp_path / "0.png").write_bytes(b"wrong")
    if name == "hf_dataset":
        source = build(name, context, path="json", data_files="b/x.jsonl")
        assert content(source[0])[0][1][0] == ("image", b"b")
        return
    source = build(name, context, path="*/x.parquet" if name == "parquet" else "{a,b}/x.tar")
    assert [content(source[i])[0][1][0] for i in range(2)] == [("image", b"a"), ("image", b"b")]


def test_a_dataset_saved_as_one_split_is_no_other(context, tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"conversations": turns(split)}))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    datasets.load_dataset("json", data_files=files)["test"].save_to_disk(str(tmp_path / "one"))
    for options in ({}, {"split": "test"}):
        assert content(build("hf_dataset", context, path="one", **options)[0])[0][1] == [("text", "test")]
    with pytest.raises(DataError, match=r"'test'.*'train'"):
        build("hf_dataset", context, path="one", split="train")


# -- webdataset ------------------------------------------------------------------------------------------------------


def turns(question: str, answer: str = "A.") -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.mark.parametrize(
    ("row", "members", "found"),
    [
        ({"image": "x/1.left.png"}, {"left.png": b"L", "right.png": b"R"}, b"L"),
        ({"image": "1.left.png"}, {"left.png": b"L", "right.png": b"R"}, b"L"),
        ({"image": "left.png"}, {"right.png": b"R", "left.png": b"L"}, b"L"),
        ({"image": ".PNG"}, {"png": b"P"}, b"P"),
        ({}, {"PNG": b"P", "wav": b""}, b"P"),
        ({}, {"image": b"P"}, b"P"),
        ({}, {"tiff8": b"P"}, b"P"),
        ({"image": "on_disk.png"}, {"png": b"P"}, b"D"),
    ],
)
def test_members_are_media_by_name_or_ending(context, tmp_path, row, members, found):
    (tmp_path / "on_disk.png").write_bytes(b"D")
    raw = json.dumps({**row, "conversations": turns("<image>Q")}).encode()
    write_shard(tmp_path / "s.tar", [("x/1", {"json": raw, **members})])
    source = build(
        "webdataset", DataContext(tmp_path, {"image": "<image>"}, tmp_path), path="s.tar", endings={"image": ["tiff8"]}
    )
    assert content(source[0])[0][1][0] == ("image", found)
    assert (source[0].id, source[0].location) == ("x/1", f"{tmp_path}/s.tar:x/1")


def test_texts_are_answers_to_a_question(context, tmp_path):
    groups = [(f"{i}", {"jpg": b"J", "json": b'{"caption": "C"}', "txt": f"a cat {i}".encode()}) for i in range(3)]
    write_shard(tmp_path / "s.tar", groups)
    source = build("webdataset", context, path="s.tar", question="<image>What?")
    assert content(source[2]) == [("user", [("image", b"J"), ("text", "What?")]), ("assistant", [("text", "a cat 2")])]
    assert content(build("webdataset", context, path="s.tar", question="Q", answer="{{ caption }}")[0])[1][1] == [
        ("text", "C")
    ]
    with pytest.raises(DataError, match=r"s\.tar:0.*'conversations'.*'messages'.*question and answer"):
        build("webdataset", context, path="s.tar")[0]


def test_the_index_is_kept_until_the_shard_changes(context, tmp_path, monkeypatch):
    from adaptkit.data.formats import webdataset

    scanned = []
    monkeypatch.setattr(webdataset, "scan", lambda shard: scanned.append(shard) or scan(shard))
    path = tmp_path / "s.tar"
    for total in (1, 4):
        write_shard(path, [(f"{i}", {"json": b'{"n": %d}' % i}) for i in range(total)])
        for _ in range(2):
            assert [row["n"] for row in WebDatasetRows([path], tmp_path / "cache")] == list(range(total))
    assert len(scanned) == 2
    for kept in (tmp_path / "cache").rglob("*.npz"):
        kept.write_bytes(kept.read_bytes()[:99])
    assert len(WebDatasetRows([path], tmp_path / "cache")) == 4
    assert len(scanned) == 3


def test_a_group_is_a_run_of_members_with_one_key(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name in (
            "./a/1.png",
            "./a/1.json",
            "./a/" + "long" * 60 + ".json",
            "./b/1.json",
            "./b/.hidden",
            "./b/README",
            "__m.x",
        ):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    groups = scan(tmp_path / "s.tar")
    assert [[name for name, *_ in group] for group in groups] == [
        ["./a/1.png", "./a/1.json"], ["./a/" + "long" * 60 + ".json"], ["./b/1.json"],
    ]  # fmt: skip
    assert split_name("a.b/c.seg.PNG") == ("a.b/c", "seg.png")


def test_media_of_a_group_are_in_the_order_of_their_numbers(context, tmp_path):
    row = json.dumps({"conversations": turns("<image>" * 12)}).encode()
    write_shard(tmp_path / "s.tar", [("k", {"json": row} | {f"{i}.png": str(i).encode() for i in range(12)})])
    parts = content(build("webdataset", context, path="s.tar")[0])[0][1]
    assert parts == [("image", str(i).encode()) for i in range(12)]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_not_left_out_unsaid(context, tmp_path, kind):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("1.json"), io.BytesIO())
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(DataError, match=r"'1\.png' is a link to '/etc/passwd'"):
        build("webdataset", context, path="s.tar")


@pytest.mark.parametrize("damage", ["zeros", "cut at a header", "joined", "no end"])
def test_shards_that_are_not_whole_are_refused(context, tmp_path, damage):
    raw = write_shard(tmp_path / "s.tar", [(str(i), {"json": b"{}" * 400}) for i in range(30)]).read_bytes()
    assert len(build("webdataset", context, path="s.tar")) == 30
    damaged = {
        "zeros": raw[: 15 * 1536] + b"\0" * (len(raw) - 15 * 1536),
        "cut at a header": raw[: 15 * 1536],
        "joined": raw + raw,
        "no end": raw[: 30 * 1536],
    }
    (tmp_path / "s.tar").write_bytes(damaged[damage])
    with pytest.raises(DataError, match=r"cut short: it has no end|not fetched whole"):
        build("webdataset", context, path="s.tar")


@pytest.mark.parametrize("padding", [1024, 10240, 128 * 1024])
def test_records_of_any_usual_size_end_a_shard(context, tmp_path, padding):
    path = write_shard(tmp_path / "s.tar", [("1", {"json": b"{}"})])
    members = path.read_bytes()[:1024]
    size = len(members) + 1024
    path.write_bytes(members + b"\0" * (1024 + (-size % padding if padding > 1024 else 0)))
    assert len(build("webdataset", context, path="s.tar")) == 1


@pytest.mark.parametrize("damage", ["header", "middle", "tail", "gzip", "text", "empty"])
def test_damaged_shards_are_data_errors(context, tmp_path, damage):
    path = write_shard(tmp_path / "s.tar", [(str(i), {"json": b"{}" * 400}) for i in range(30)])
    raw = bytearray(path.read_bytes())
    if damage in ("header", "middle"):
        raw[100 if damage == "header" else 15 * 1536 + 100] ^= 0xFF
    elif damage == "gzip":
        raw[:4] = b"\x1f\x8b\x08\0"
        raw[257:262] = b"?????"
    raw = {"tail": raw[: 20 * 1536 - 600], "text": bytearray(b"not a tar" * 200), "empty": bytearray()}.get(damage, raw)
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match=r"damaged|cut short|compressed|no member"):
        build("webdataset", context, path="s.tar")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"json": b"[1]"}, "is an object with keys, not list"),
        ({"json": b'{"a": '}, "not valid JSON"),
        ({"json": b"{}", "txt": b"caf\xe9s"}, "is not UTF-8"),
        ({"png": b""}, "neither 'conversations'"),
        ({"json": b"{}", "JSON": b"{}"}, "two members of the sample have one ending"),
    ],
)
def test_bad_groups_spoil_only_themselves(context, tmp_path, members, said):
    good = {"json": json.dumps({"conversations": turns("Q")}).encode()}
    write_shard(tmp_path / "s.tar", [("1", good), ("2", members), ("3", good)])
    source = build("webdataset", context, path="s.tar")
    assert [source[i].id for i in (0, 2)] == ["1", "3"]
    with pytest.raises(DataError, match=said) as caught:
        source[1]
    assert f"{tmp_path}/s.tar:2" in str(caught.value)


def test_a_shard_that_changed_is_noticed(context, tmp_path):
    raw = json.dumps({"conversations": turns("<image>Q")}).encode()
    path = write_shard(tmp_path / "s.tar", [("1", {"json": raw, "png": b"x" * 5000})])
    (medium, *_) = build("webdataset", context, path="s.tar")[0].messages[0]["content"]
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"1\.png is cut short"):
        medium["image"].read()


# -- Hugging Face datasets -------------------------------------------------------------------------------------------


def test_a_saved_dataset_is_read_undecoded(context, samples, tmp_path):
    rows = [
        row_of("sharegpt", sample, TAGS, lambda path: {"bytes": path.read_bytes(), "path": None})
        for sample in samples[:2]
    ]
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "conversations": datasets.List({"from": datasets.Value("string"), "value": datasets.Value("string")}),
            "images": datasets.List(datasets.Image()),
            "audios": datasets.List(datasets.Audio()),
        }
    )
    rows = [{key: row.get(key) for key in features} for row in rows]
    dataset = datasets.Dataset(
        pa.Table.from_pylist(rows).cast(features.arrow_schema), info=datasets.DatasetInfo(features=features)
    )
    datasets.DatasetDict({"train": dataset, "test": dataset.select([1])}).save_to_disk(str(tmp_path / "saved"))
    source = build("hf_dataset", context, path="saved")
    assert [content(source[i]) for i in range(2)] == [content(sample) for sample in samples[:2]]
    assert len(build("hf_dataset", context, path="saved", split="test")) == 1
    with pytest.raises(DataError, match=r"'dev'.*train, test"):
        build("hf_dataset", context, path="saved", split="dev")


def test_local_files_are_datasets_too(context, samples, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    rows = [row_of("llava", sample, TAGS) for sample in samples]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = build(
        "hf_dataset", context, path="json", data_files="rows.jsonl", streaming=True, num_samples=12, media="."
    )
    assert source.is_stream
    assert [content(source[i]) for i in range(12)] == [content(sample) for sample in samples]
    assert missing("hf_dataset", context, path="json", data_files="rows.jsonl") is None
    assert "gone.jsonl" in str(missing("hf_dataset", context, path="json", data_files="gone.jsonl"))


def test_an_empty_dataset_cannot_be_a_stream(context, tmp_path):
    save_table(tmp_path / "saved", pa.table({"id": pa.array([], pa.string())}))
    source = build("hf_dataset", context, path="saved", streaming=True, num_samples=2)
    for _ in range(2):
        with pytest.raises(DataError, match=r"saved\[train\] cannot be a stream") as caught:
            source[0]
        assert caught.value.kind == "unreadable_file"


@pytest.mark.parametrize("layout", ["parquet", "hf_dataset"])
def test_numbers_of_few_bits_are_read_as_short_as_they_are(context, tmp_path, layout):
    values = pa.table(
        {
            "half": pa.array([np.float16(0.1)], pa.float16()),
            "single": pa.array([0.1], pa.float32()),
            "double": pa.array([0.1], pa.float64()),
            "boxes": pa.array([[[0.3, 0.7]]], pa.list_(pa.list_(pa.float32()))),
            "within": pa.array(
                [{"score": 0.9, "none": None}], pa.struct([("score", pa.float32()), ("none", pa.float32())])
            ),
        }
    )
    pq.write_table(values, tmp_path / "rows.parquet")
    answer = "{{ half }} {{ single }} {{ double }} {{ boxes }} {{ within.score }}"
    path = {"path": "rows.parquet"} if layout == "parquet" else {"path": "parquet", "data_files": "rows.parquet"}
    source = build(layout, context, **path, question="Q", answer=answer)
    assert content(source[0])[1][1] == [("text", "0.1 0.1 0.1 [[0.3, 0.7]] 0.9")]


@pytest.mark.parametrize("streaming", [False, True])
def test_labels_of_classes_are_read_as_their_names(context, tmp_path, streaming):
    kind = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features({"label": kind, "several": datasets.Sequence(kind)})
    rows = {"label": [1, 0, -1], "several": [[0, 1], [], [1]]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    options = {"streaming": True, "num_samples": 3} if streaming else {}
    source = build("hf_dataset", context, path="saved", question="Q", answer="{{ label }} {{ several }}", **options)
    assert content(source[0])[1][1] == [("text", "dog ['cat', 'dog']")]
    assert content(source[1])[1][1] == [("text", "cat []")]
    with pytest.raises(DataError, match="a value of the row is null"):
        source[2]
