"""Converters of question sets and recordings, from small releases to the exact conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from adaptkit.cli import cli
from adaptkit.data_tools.convert import TurnOptions, convert_docvqa, convert_scienceqa, convert_vsr
from adaptkit.errors import DataError
from adaptkit.interfaces import DataContext
from adaptkit.plugin_manager import get_plugin_manager
from tests import releases

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
ASKED = "Question: Which is a mammal?\nContext: {}\nOptions: (A) trout (B) dolphin"


def convert(*arguments: object) -> str:
    """What the command prints."""
    result = CliRunner().invoke(cli, ["data", "convert", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(*arguments: object) -> str:
    """The message of a command that is refused."""
    result = CliRunner().invoke(cli, ["data", "convert", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    return result.output


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


def row(key: str, media: str | None, *texts: str, modality: str = "image") -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"id": key, **({} if media is None else {modality: media}), "conversations": turns}


def test_docvqa(tmp_path: Path) -> None:
    file, output = releases.write_docvqa(tmp_path), tmp_path / "out.json"
    said = convert("docvqa", file, "--output", output)
    assert read(output) == [
        row("docvqa_1", "documents/a_1.png", f"<image>\nWhat is the date?{SHORT}", "May 5"),
        row("docvqa_2", "documents/a_1.png", f"<image>\nWho signs?{SHORT}", "Ann Lee"),
    ]
    assert said.strip().endswith("1 picture, 2 conversations, 2 answers. Skipped: nothing.")
    convert("docvqa", file, "--output", output, "--group", "picture", "--instruction", "", "--strip-folders", 1)
    assert read(output) == [row("docvqa_1", "a_1.png", "<image>\nWhat is the date?", "May 5", "Who signs?", "Ann Lee")]


def test_textvqa(tmp_path: Path) -> None:
    convert("textvqa", releases.write_textvqa(tmp_path), "--output", tmp_path / "out.json")
    question = f"<image>\nwhat is the brand of phone?{SHORT}"
    assert read(tmp_path / "out.json") == [row("textvqa_34602", "train_images/0054c91397f2fe05.jpg", question, "nokia")]


def test_vqav2_has_one_conversation_a_picture(tmp_path: Path) -> None:
    questions, annotations = releases.write_vqav2(tmp_path)
    convert("vqav2", questions, annotations, "--output", tmp_path / "out.json", "--prefix", "coco")
    name = "coco/train2014/COCO_train2014_000000000{:03}.jpg"
    assert read(tmp_path / "out.json") == [
        row("vqav2_9000", name.format(9), f"<image>\nIs it raining?{SHORT}", "no", "What animal?", "cat"),
        row("vqav2_25000", name.format(25), f"<image>\nHow many?{SHORT}", "2"),
    ]


@pytest.mark.parametrize(
    ("form", "asked", "yes", "no"),
    [
        ("yes-no", "Is the following statement about the image true? ", "Yes", "No"),
        ("true-false", "Is the following statement about the image true or false? ", "True", "False"),
    ],
)
def test_vsr(tmp_path: Path, form: str, asked: str, yes: str, no: str) -> None:
    convert("vsr", releases.write_vsr(tmp_path), "--output", tmp_path / "out.json", "--form", form)
    assert read(tmp_path / "out.json") == [
        row("vsr_train_0", "000000000009.jpg", f"<image>\n{asked}The cat is on the mat.{SHORT}", yes),
        row("vsr_train_1", "000000000025.jpg", f"<image>\n{asked}The mat is on the cat.{SHORT}", no),
    ]


def test_scienceqa_asks_for_letters(tmp_path: Path) -> None:
    folder, output = releases.write_scienceqa(tmp_path / "sqa"), tmp_path / "out.json"
    said = convert("scienceqa", folder, "--output", output, "--media", folder)
    asked = f"Which is a mammal?\nA. trout\nB. dolphin{LETTER}"
    assert read(output) == [
        row("scienceqa_7", "images/train/7/image.png", f"<image>\nLook at the pond.\n{asked}", "B"),
        row("scienceqa_8", None, asked, "B"),
    ]
    assert "1 picture, 2 conversations, 2 answers" in said
    convert("scienceqa", folder, "--output", output, "--split", "all")
    assert [one["id"] for one in read(output)] == ["scienceqa_7", "scienceqa_8", "scienceqa_9"]


def test_scienceqa_in_the_words_of_lavin(tmp_path: Path) -> None:
    folder, output = releases.write_scienceqa(tmp_path / "sqa"), tmp_path / "out.json"
    captions = releases.write_json(tmp_path / "captions.json", {"captions": {"7": "a pond"}})
    convert("scienceqa", folder, "--output", output, "--prompt-format", "QCM-ALE", "--captions", captions)
    because = "The answer is B. BECAUSE:"
    context = ASKED.format("Look at the pond. a pond")
    assert read(output) == [
        row("scienceqa_7", "images/train/7/image.png", f"Image: <image>{context}",
            f"{because} Mammals\\nbreathe. It is the dolphin."),
        row("scienceqa_8", None, f"Image: N/A{ASKED.format('N/A')}", because),
    ]  # fmt: skip
    assert "QCM-ALE" in fails("scienceqa", folder, "--output", output, "--prompt-format", "QCM-LAE")
    assert "'train'" in fails("scienceqa", folder, "--output", output, "--split", "trian")


def test_the_cauldron(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    folder, output = releases.write_cauldron(tmp_path / "the_cauldron"), tmp_path / "out" / "cauldron.json"
    said = convert("the-cauldron", folder, "--output", output)
    first, second = read(output)
    red, blue = second["image"]
    assert first == row("ai2d_0", red, "<image>\nWhat colour?", "Red.", "Sure?", "Yes.")
    assert second["conversations"][0]["value"] == "<image>\n<image>\nAre they alike?"
    assert sorted(path.relative_to(output.parent).as_posix() for path in output.parent.rglob("*.[pj]*g")) == sorted(
        [red, blue]
    )
    assert red.endswith(".png")
    assert blue.endswith(".jpg")
    assert "2 pictures, 2 conversations, 3 answers. Skipped: malformed rows of ai2d (1; the first: " in said
    assert "ai2d" in fails("the-cauldron", folder, "--output", output, "--subset", "ai2")


def test_librispeech(tmp_path: Path) -> None:
    folder, output = tmp_path / "LibriSpeech", tmp_path / "out.json"
    releases.write_librispeech(folder)
    said = convert("librispeech", folder, "--output", output, "--subset", "train-clean-100", "--case", "lower")
    place, asked = "train-clean-100/103/1240/103-1240-000", "<audio>\nTranscribe the recording."
    assert read(output) == [
        row("librispeech_103-1240-0000", f"{place}0.flac", asked, "chapter one", modality="audio"),
        row("librispeech_103-1240-0001", f"{place}1.flac", asked, "missus rachel", modality="audio"),
    ]
    assert "2 recordings, 2 conversations" in said
    assert "trans.txt" in fails("librispeech", tmp_path / "nowhere", "--output", output)


def test_common_voice(tmp_path: Path) -> None:
    folder, output = releases.write_common_voice(tmp_path / "en"), tmp_path / "out.json"
    said = convert("commonvoice", folder, "--output", output, "--max-seconds", 30, "--prompt", "What is said?")
    clip = "clips/common_voice_en_1.mp3"
    assert read(output) == [
        row("commonvoice_common_voice_en_1", clip, "<audio>\nWhat is said?", 'She said "no".', modality="audio")
    ]
    assert "recordings of more than 30 seconds (1)" in said


# -- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["/etc/passwd", "../../secret.png", "documents/../../a.png", "", "..\\a.png"])
def test_paths_that_lead_elsewhere_are_skipped(tmp_path: Path, file: str) -> None:
    rows = [{"questionId": 1, "question": "?", "image": name, "answers": ["a"]} for name in (file, "documents/a.png")]
    path = releases.write_json(tmp_path / "train.json", {"data": rows})
    summary = convert_docvqa([path], tmp_path / "out.json")
    assert summary.skipped == {"pictures outside the media folder": 1}
    assert [one["image"] for one in read(tmp_path / "out.json")] == ["documents/a.png"]


def test_what_cannot_be_used_is_counted_with_the_first_of_each(tmp_path: Path) -> None:
    good = {"questionId": 1, "question": "Is <image> it?", "image": "a.png", "answers": ["\N{ROCKET}"]}
    bad = [
        {**good, "question": " "},
        {**good, "answers": []},
        {**good, "answers": "yes"},
        {**good, "question": "half \ud83d"},
        {**good, "image": None},
        7,
    ]
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"data": [good, *bad]}))
    summary = convert_docvqa([path], tmp_path / "out.json")
    assert summary.skipped == {
        "malformed questions": 3,
        "empty questions": 1,
        "questions without an answer": 1,
        "questions that are not Unicode": 1,
    }
    assert "question 4: 'answers'" in str(summary)
    assert read(tmp_path / "out.json") == [row("docvqa_1", "a.png", f"<image>\nIs   it?{SHORT}", "\N{ROCKET}")]


@pytest.mark.parametrize(
    ("command", "content", "words"),
    [
        ("docvqa", "[]", ["train.json", "data"]),
        ("docvqa", '{"questions": []}', ["train.json", "data"]),
        ("docvqa", '{"data": []}', ["train.json", "no conversation"]),
        ("textvqa", '{"data": [', ["train.json", "JSON"]),
        ("vsr", '{"image": "a.jpg"}', ["train.json line 1", "'caption'"]),
        ("vsr", "", ["train.json", "empty"]),
    ],
)
def test_files_of_another_layout(tmp_path: Path, command: str, content: str, words: list[str]) -> None:
    releases.write_text(tmp_path / "train.json", content)
    message = fails(command, tmp_path / "train.json", "--output", tmp_path / "out.json")
    assert not [word for word in words if word not in message.replace("\n", " ")], message
    assert not (tmp_path / "out.json").exists()


def test_folders_of_another_layout(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    assert "problems.json" in fails("scienceqa", tmp_path, "--output", output)
    assert "train.tsv" in fails("commonvoice", tmp_path, "--output", output)
    assert "parquet" in fails("the-cauldron", tmp_path, "--output", output)
    assert "trans.txt" in fails("librispeech", tmp_path, "--output", output)
    assert "_train2014_questions.json" in fails(
        "vqav2", releases.write_json(tmp_path / "questions.json", {}), tmp_path / "a.json", "--output", output
    )
    assert "--limit" in fails("vsr", releases.write_vsr(tmp_path), "--output", output, "--seed", 1)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one name"):
        convert_vsr([releases.write_vsr(tmp_path / "a"), releases.write_vsr(tmp_path / "b")], tmp_path / "out.json")


def test_a_limit_draws_and_repeats(tmp_path: Path) -> None:
    rows = [{"questionId": n, "question": "?", "image": "a.png", "answers": ["a"]} for n in range(40)]
    path = releases.write_json(tmp_path / "train.json", {"data": rows})
    drawn = []
    for _ in range(2):
        convert_docvqa([path], tmp_path / "out.json", TurnOptions(limit=10, seed=3))
        drawn.append([one["id"] for one in read(tmp_path / "out.json")])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 10


def test_what_is_written_is_read_by_the_ordinary_reader(tmp_path: Path) -> None:
    releases.write_scienceqa(tmp_path)
    convert_scienceqa(tmp_path, tmp_path / "out.json", prompt_format="QCM-ALE")
    llava = get_plugin_manager().get("data source", "llava")
    source = llava.build(llava.options(path="out.json"), DataContext(tmp_path, {"image": "<image>"}, tmp_path))
    samples = [source[i] for i in range(len(source))]
    assert [[part["type"] for part in sample.messages[0]["content"]] for sample in samples] == [
        ["text", "image", "text"],
        ["text"],
    ]
