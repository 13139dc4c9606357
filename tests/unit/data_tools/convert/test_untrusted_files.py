"""Files from strangers: pickles that would run code, XML that would grow without end, splits that are not there."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from adaptkit.cli import cli
from adaptkit.data_tools.convert import convert_flickr30k, convert_refcoco
from adaptkit.data_tools.convert.flickr30k import read_phrases
from adaptkit.errors import DataError
from adaptkit.files.pickles import load_plain_pickle

REF = {
    "ref_id": 5,
    "ann_id": 1,
    "image_id": 2,
    "category_id": 3,
    "file_name": "COCO_7_1.jpg",
    "split": "train",
    "sentences": [{"sent": "the caf\xe9", "sent_id": 9, "raw": "The caf\xe9.", "tokens": ["the", "caf\xe9"]}],
}


class Attack:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch broken_in",)


def refcoco_folder(folder: Path, pickled: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    instances = {
        "images": [{"id": 2, "file_name": "COCO_7.jpg", "width": 40, "height": 20}],
        "annotations": [{"id": 1, "bbox": [4, 5, 10, 10], "image_id": 2, "category_id": 3}],
    }
    (folder / "instances.json").write_text(json.dumps(instances))
    (folder / "refs(unc).p").write_bytes(pickled)
    return folder


def python2(ref: dict[str, Any], encoding: str) -> bytes:
    """The list of one reference as Python 2 pickles it: its `str` is bytes, in opcodes of their own."""

    def encode(value: Any) -> bytes:
        if isinstance(value, str):
            raw = value.encode(encoding)
            return b"U" + bytes([len(raw)]) + raw
        if isinstance(value, int):
            return b"L" + str(value).encode() + b"L\n"
        if isinstance(value, list):
            return b"](" + b"".join(map(encode, value)) + b"e"
        return b"}(" + b"".join(encode(k) + encode(v) for k, v in value.items()) + b"u"

    return b"\x80\x02" + encode([ref]) + b"."


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_python_2_wrote_the_originals(tmp_path: Path, encoding: str) -> None:
    folder = refcoco_folder(tmp_path / "refcoco+", python2(REF, encoding))
    convert_refcoco([folder], tmp_path / "out.json")
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row["id"] == "refcoco+_9"
    assert row["image"] == "COCO_7.jpg"  # not the reference's own file_name
    assert row["conversations"][0]["value"].endswith("describes: the café")
    assert row["conversations"][1]["value"] == "[0.100,0.375,0.350,0.625]"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = refcoco_folder(tmp_path / "refcoco", pickle.dumps([REF, Attack()], protocol=protocol))
    with pytest.raises(DataError, match=r"refs\(unc\)\.p cannot be read .*'\w+\.system'.*could run any code"):
        convert_refcoco([folder], tmp_path / "out.json")
    assert not (tmp_path / "broken_in").exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"not a pickle",
        pickle.dumps([REF])[:-10],
        b"(i__builtin__\neval\n.",  # INST
        b"(c__builtin__\neval\nS'1'\no.",  # OBJ
        b"\x80\x02cos\nsystem\nU\x01x\x85R.",  # GLOBAL, REDUCE
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"Pwhatever\n.",  # PERSID
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a bytearray of 2**63 bytes
        b"].",
        b"]r\xff\xff\xff\x7f.",  # LONG_BINPUT at 2**31
        b"\x80\x02}q\x00.",
        pickle.dumps([1, 2]),
        pickle.dumps([{"split": 3}]),
    ],
)
def test_other_pickles_are_data_errors(tmp_path: Path, pickled: bytes) -> None:
    folder = refcoco_folder(tmp_path / "refcoco", pickled)
    with pytest.raises(DataError, match="refs"):
        convert_refcoco([folder], tmp_path / "out.json")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read(tmp_path: Path, protocol: int) -> None:
    value = [{"a": (1, 2.5, None, True, "text", 10**30), "b": [[], {}, ()]}]
    (tmp_path / "x.p").write_bytes(pickle.dumps(value, protocol=protocol))
    assert load_plain_pickle(tmp_path / "x.p") == value


def test_each_folder_has_one_of_the_splits_that_are_named(tmp_path: Path) -> None:
    first, second = (refcoco_folder(tmp_path / name, pickle.dumps([REF], protocol=2)) for name in ("one", "two"))
    for folder, other in ((first, "google"), (second, "umd")):
        (folder / f"refs({other}).p").write_bytes(pickle.dumps([{**REF, "split": "val"}], protocol=2))
    (second / "refs(unc).p").unlink()
    summary = convert_refcoco([first, second], tmp_path / "out.json", split="all", split_by=["unc", "umd"])
    assert summary.num_conversations == 2
    with pytest.raises(DataError, match=r"one .*google.*unc.*--split-by"):
        convert_refcoco([first], tmp_path / "out.json")
    with pytest.raises(DataError, match="one: no file of splits by named 'umd'"):
        convert_refcoco([first], tmp_path / "out.json", split_by=["umd"])


def test_references_that_lead_nowhere_are_counted(tmp_path: Path) -> None:
    odd = [
        REF,
        {**REF, "ann_id": 77},
        {**REF, "image_id": 88},
        {**REF, "sentences": None},
        {**REF, "sentences": [{"sent": 3}]},
        {**REF, "sentences": [{"sent": "  ", "sent_id": 1}]},
    ]
    folder = refcoco_folder(tmp_path / "refcoco", pickle.dumps(odd, protocol=2))
    summary = convert_refcoco([folder], tmp_path / "out.json")
    assert summary.num_conversations == 1
    assert summary.skipped == {
        "references without a box": 1,
        "references to pictures that are not listed": 1,
        "malformed references": 1,
        "malformed expressions": 1,
        "empty expressions": 1,
    }


# -- Flickr30k -------------------------------------------------------------------------------------------------------

ANNOTATION = """<annotation><filename>1.jpg</filename><size><width>50</width><height>100</height></size>
<object><name>1</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>26</xmax><ymax>51</ymax></bndbox></object>
</annotation>"""
BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;&x;&x;">]>'
    "<annotation><filename>&y;</filename></annotation>"
)
FOREIGN = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>'


def flickr_folder(folder: Path, annotation: str = ANNOTATION, sentence: str = "[/EN#1/people A man] stands .") -> Path:
    for name in ("Sentences", "Annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "Annotations" / "1.xml").write_text(annotation)
    (folder / "Sentences" / "1.txt").write_text(sentence)
    (folder / "train.txt").write_text("1\n2\n")
    return folder


def test_a_split_is_a_list_of_pictures(tmp_path: Path) -> None:
    twice = "[/EN#1/people/clothing A man] stands .\n[/EN#1/people A man] waits ."
    folder = flickr_folder(tmp_path / "flickr", sentence=twice)
    summary = convert_flickr30k(folder, tmp_path / "out.json")
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row["conversations"][1]["value"] == "[0.250,0.000,0.500,0.500]"
    assert summary.skipped == {"pictures without sentences or annotations": 1}


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (BOMB, "declares a document type"),
        (FOREIGN, "declares a document type"),
        ("<annotation>", "not valid XML"),
        ("", "not valid XML"),
        ("<annotation/>", "size of the picture is missing"),
        (ANNOTATION.replace("<xmin>1<", "<xmin>left<"), "<xmin> of <bndbox> is 'left'"),
        (ANNOTATION.replace("<width>50</width>", ""), "<width> of <size> is None"),
        ('<?xml version="1.0" encoding="no-such"?><a/>', "not valid XML"),
    ],
)
def test_malformed_annotations_are_named(tmp_path: Path, annotation: str, words: str) -> None:
    folder = flickr_folder(tmp_path / "flickr", annotation)
    with pytest.raises(DataError, match=words) as caught:
        convert_flickr30k(folder, tmp_path / "out.json")
    assert "1.xml" in str(caught.value)


def test_phrases() -> None:
    caption = "[/EN#12/people/other Two men , one old ,] and [/EN#0/notvisual it] [/EN#3 no type] [ brackets ]"
    assert read_phrases(caption) == [("12", "Two men , one old ,"), ("0", "it")]


# -- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["refcoco", "refcoco", "--split", "tran"], "Did you mean 'train'? Known: all, train."),
        (["refcoco", "refcoco", "--split-by", "umd"], "no file of splits by named 'umd'"),
        (["refcoco", "nowhere"], "no folder nowhere"),
        (["refcoco", "flickr"], "no file refs(...).p in it"),
        (["refcoco", "refcoco", "refcoco"], "two folders have one name"),
        (["flickr30k", "flickr", "--split", "trian"], "Did you mean 'train'?"),
        (["flickr30k", "nowhere"], "no folder nowhere/Sentences"),
        (["coco", "nowhere.json"], "cannot read the data file nowhere.json: No such file"),
        (["coco", "refcoco/instances.json"], "no list of categories"),
        (["coco", "refcoco/refs(unc).p"], "refs(unc).p"),
        (["objects365", "nowhere.json"], "cannot read the data file"),
        (["refcoco", "refcoco", "--seed", "1"], "give --limit"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    refcoco_folder(tmp_path / "refcoco", pickle.dumps([REF], protocol=2))
    flickr_folder(tmp_path / "flickr")
    result = CliRunner().invoke(cli, ["data", "convert", *arguments, "--output", "out.json"])
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert not Path("out.json").exists()


def test_the_closing_line_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refcoco_folder(tmp_path / "refcoco", pickle.dumps([REF, {**REF, "ann_id": 77}], protocol=2))
    result = CliRunner().invoke(cli, ["data", "convert", "refcoco", "refcoco", "--output", "new/out.json"])
    assert result.exit_code == 0, result.output
    written = "1 picture, 1 conversation, 1 region, 1 box"
    assert result.stdout == f"new/out.json: {written}. Skipped: references without a box (1).\n"
