"""Files translated by models that behave, lose things, or are killed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from adaptkit.cli import cli
from adaptkit.data_tools.translate import LostError, Translated, find_language, running, translate_file
from adaptkit.errors import DataError

ZH = find_language("zh")
SETTINGS = {"model": "fake", "from": "en", "to": "zh"}
ROW = {
    "id": "a",
    "image": "pictures/a.jpg",
    "conversations": [
        {"from": "human", "value": "<image>\nWhere is the cat?"},
        {"from": "gpt", "value": "The cat is at [0.1,0.2,0.3,0.4]. There are 3 of them."},
    ],
}


def chinese(text: str) -> str:
    """Every word a character, marks and numbers as they are."""
    return re.sub(r"[A-Za-z']+", "字", text).replace(" ", "")


class Fake:
    """Translates by a function; counts its calls."""

    def __init__(self, one: Callable[[str], str] = chinese, *, by_sentence: bool = True) -> None:
        self.one, self.by_sentence = one, by_sentence
        self.seen: list[str] = []

    def translate(self, texts: Sequence[str]) -> list[str | LostError]:
        self.seen += texts
        return [self.one(text) for text in texts]


def write(path: Path, rows: Sequence[Any]) -> Path:
    lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows), encoding="utf-8")
    return path


def run(source: Path, fake: Fake, output: Path | None = None, **options: Any) -> tuple[Translated, list[Any]]:
    output = output or source.with_name(f"out{source.suffix}")
    summary = translate_file(source, output, ZH, lambda: fake, SETTINGS, **options)
    text = output.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()] if source.suffix == ".jsonl" else json.loads(text)
    return summary, rows


def test_a_conversation_is_translated_around_what_it_keeps(tmp_path: Path) -> None:
    summary, (row,) = run(write(tmp_path / "in.json", [ROW]), Fake())
    assert row["conversations"] == [
        {"from": "human", "value": "<image>\n字字字字?"},
        {"from": "gpt", "value": "字字字字[0.1,0.2,0.3,0.4].字字3字字."},
    ]
    assert (row["id"], row["image"]) == ("a", "pictures/a.jpg")
    assert (summary.num_rows, summary.num_translated, dict(summary.untranslated)) == (1, 1, {})


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        (
            {"system": "Be brief here.", "images": ["a.jpg"],
             "conversations": [{"from": "user", "value": "What is it?"}, {"from": "assistant", "value": "A cat."}]},
            ["字字字.", "字字字?", "字字."],
        ),
        (
            {"messages": [
                {"role": "system", "content": "Be brief here."},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.jpg"}},
                                             {"type": "text", "text": "What is it?"}]},
                {"role": "assistant", "content": "A cat."},
            ]},
            ["字字字.", "字字字?", "字字."],
        ),
        ({"images": ["a.jpg"], "texts": [{"user": "What is it?", "assistant": "A cat.", "source": "x"}]},
         ["字字字?", "字字."]),
        (
            {"conversations": [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A cat."}]},
            ["字字字?", "字字."],
        ),
    ],
)  # fmt: skip
def test_every_layout_is_written_as_it_was_read(tmp_path: Path, row: dict[str, Any], texts: list[str]) -> None:
    from adaptkit.data_tools.translate.rows import texts_of

    for name in ("in.json", "in.jsonl"):
        _, (found,) = run(write(tmp_path / name, [row]), Fake())
        assert [container[key] for container, key in texts_of(found)] == texts
        assert list(found) == list(row)


def test_what_is_lost_leaves_the_conversation_as_it_was(tmp_path: Path) -> None:
    def forgets_numbers(text: str) -> str:
        return re.sub(r"\[\[\d+\]\]|\d+", "", chinese(text))

    other = {"conversations": [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A cat."}]}
    code = {"conversations": [{"from": "human", "value": "Yes?"}, {"from": "gpt", "value": "```\nx\n```\n42"}]}
    source = write(tmp_path / "in.json", [ROW, other, code, {"rows": 1}])
    summary, rows = run(source, Fake(forgets_numbers))
    assert rows[0] == ROW
    assert rows[1]["conversations"][1]["value"] == "字字."
    assert (summary.num_rows, summary.num_translated) == (4, 2)
    assert summary.untranslated == {
        "numbers lost or added": 1,
        "not a conversation: neither 'conversations' nor 'messages'": 1,
    }
    assert "There are 3 of them." in str(summary)
    summary, rows = run(source, Fake(forgets_numbers), untranslated="drop")
    assert len(rows) == summary.num_rows == 2


def test_marks_that_are_lost_are_worked_around(tmp_path: Path) -> None:
    """The box is lost as a mark, and kept where the sentence is cut around it."""

    def forgets_marks(text: str) -> str:
        return re.sub(r"\[\[\d+\]\]", "", chinese(text))

    _, (row,) = run(write(tmp_path / "in.json", [ROW]), Fake(forgets_marks))
    assert row["conversations"][1]["value"] == "字字字字[0.1,0.2,0.3,0.4].字字3字字."


def test_numbers_in_words_are_tried_again_as_marks(tmp_path: Path) -> None:
    fake = Fake(lambda text: chinese(text).replace("3", "三"))
    _, (row,) = run(write(tmp_path / "in.json", [ROW]), fake)
    assert row["conversations"][1]["value"].endswith("字字3字字.")
    assert "There are [[1]] of them." in fake.seen


def test_what_is_equal_is_translated_once(tmp_path: Path) -> None:
    fake = Fake()
    run(write(tmp_path / "in.json", [ROW] * 10), fake)
    assert sorted(fake.seen) == ["The cat is at [[1]].", "There are 3 of them.", "Where is the cat?"]


def rows_of(number: int) -> list[dict[str, Any]]:
    return [{**ROW, "id": str(i), "conversations": [
        {"from": "human", "value": f"What is number {i} here?"}, {"from": "gpt", "value": "A cat."}
    ]} for i in range(number)]  # fmt: skip


class Killed(BaseException):
    """As a signal ends a process: nothing catches it."""


@pytest.mark.parametrize("cut_bytes", [0, 1, 40])
def test_a_killed_translation_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_bytes: int) -> None:
    monkeypatch.setattr(running, "WINDOW", 4)
    source = write(tmp_path / "in.json", rows_of(14))
    whole = Fake()
    run(source, whole, tmp_path / "whole.json")

    def dies(text: str) -> str:
        if "number 9 " in text:
            raise Killed
        return chinese(text)

    first, second = Fake(dies), Fake()
    with pytest.raises(Killed):
        run(source, first)
    journal = next(tmp_path.glob(".staging-out.json*"))
    raw = journal.read_bytes()
    journal.write_bytes(raw[: len(raw) - cut_bytes])
    run(source, second)
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    done = 4 if cut_bytes else 8
    assert second.seen == whole.seen[2 * done - done // 4 * 3 :]  # "A cat." once a window
    assert not journal.exists()


def test_other_settings_do_not_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "WINDOW", 4)
    source, output = write(tmp_path / "in.json", rows_of(9)), tmp_path / "out.json"

    def dies(text: str) -> str:
        if "number 5 " in text:
            raise Killed
        return chinese(text)

    with pytest.raises(Killed):
        translate_file(source, output, ZH, lambda: Fake(dies), SETTINGS)
    with pytest.raises(DataError, match="another model, from"):
        translate_file(source, output, ZH, Fake, {**SETTINGS, "model": "other", "from": "de"})
    write(source, rows_of(10))
    with pytest.raises(DataError, match="another file"):
        translate_file(source, output, ZH, Fake, SETTINGS)


def test_a_mistyped_model_does_not_stand_in_the_way(tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.json", rows_of(3)), tmp_path / "out.json"

    def missing() -> Fake:
        raise DataError("no such model")

    with pytest.raises(DataError, match="no such model"):
        translate_file(source, output, ZH, missing, {**SETTINGS, "model": "fkae"})
    assert translate_file(source, output, ZH, Fake, SETTINGS).num_translated == 3


@pytest.mark.parametrize("number", [500, 2])
def test_a_model_that_translates_nothing_is_stopped_early(tmp_path: Path, number: int) -> None:
    fake = Fake(str.upper)
    with pytest.raises(DataError, match=r"no letter of Chinese.*What is number 0"):
        run(write(tmp_path / "in.json", rows_of(number)), fake)
    assert len(fake.seen) < 300
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"]


def test_bad_lines_and_a_limit(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows_of(5))
    source.write_text("{broken\n" + source.read_text())
    summary, rows = run(source, Fake(), limit=3)
    assert [row["id"] for row in rows] == ["0", "1"]
    assert summary.untranslated == {"unreadable rows, dropped": 1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "zj"], ["'zj'", "zh."]),
        (["--to", "zh", "--from", "zh"], ["--from", "--to"]),
        (["--to", "zh"], ["nowhere"]),
        (["--to", "zh", "--output", "in.json"], ["--output"]),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.json", [ROW])
    result = CliRunner().invoke(cli, ["data", "translate", "in.json", "--model", "./nowhere", *arguments])
    assert result.exit_code == 2
    assert not [word for word in words if word not in result.output], result.output
