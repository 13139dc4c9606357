"""`adaptkit data check`: that it finds what training would, counts it by kind, and judges as training does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from adaptkit import build
from adaptkit.cli import cli
from adaptkit.cli.data_report import histogram
from adaptkit.data.files import find_files
from adaptkit.data_tools.check import CheckedDataset, Plan, look_at_spread, plan_files, plan_recipe, run_check
from adaptkit.data_tools.check.answer_boxes import box_problems
from adaptkit.errors import DataError, ModelError
from adaptkit.interfaces import Sample
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.recipe import load_recipe
from adaptkit.run.rehearsal import sample_conversations
from adaptkit.testing import tiny_decoder, tiny_tokenizer

REPOSITORY = Path(__file__).parents[4]
TINY = REPOSITORY / "recipes" / "iaa_vision_tiny.yaml"

BAD_ROWS: dict[str, list[Any]] = {
    "missing_media": [{"image": "gone.png"}, {"image": "http://example.org/a.png"}],
    "unreadable_media": [{"image": "cut.png"}, {"image": "empty.png"}, {"image": "text.png"}],
    "tag_count": [{"question": "what color is it ?"}, {"question": "<image><image>"}],
    "empty_answer": [{"answer": " "}, {"conversations": [{"from": "human", "value": "<image>"}]}],
    "malformed": [{"conversations": None}, {"conversations": [{"from": "robot", "value": "x"}]}, ["no", "object"]],
    "conversation": [{"answer": "a noncharacter \ufdd0"}],
    "not_rendered": [
        {"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "red", "thinking": "hm"}]}
    ],
    "too_long": [{"question": "<image>\n" + "what color is it ? " * 300}],
}
NOTED_ROWS: dict[str, list[Any]] = {
    "unknown_words": [{"answer": "a crimson velociraptor ."}],
    "cut": [{"answer": "red " * 600}],
    "doubtful_media": [{"image": "plain.png"}],
    "box_range": [{"answer": "[12,20,300,400]"}],
    "box_order": [{"answer": "[0.500,0.250,0.375,0.500]"}],
    "box_area": [{"answer": "[0.125,0.250,0.375,0.500]; [0.125,0.250,0.125,0.500]"}],
    "same_id": [{"id": "0", "answer": "green"}],
    "same_content": [{"answer": "red"}],
    "special_tokens": [{"answer": "red <|end|> blue"}],
}
NEED_TOKENS = ("too_long", "cut", "unknown_words", "special_tokens")
EXPECTED = {kind: len(rows) for kind, rows in (BAD_ROWS | NOTED_ROWS).items()} | {"unknown_words": 2}
"""The built-in world has no words for pixels either."""


def in_words(number: int) -> str:
    """A number in words that the built-in world's tokenizer knows."""
    return " ".join("no" if digit == "0" else "yes" for digit in f"{number:b}")


def rows_of(kinds: dict[str, list[Any]], num_good: int = 0) -> list[Any]:
    """Good rows, and after them the malformed ones."""
    rows: list[Any] = []
    answers = ["red"] + [f"red {'blue ' * (i % 40)}{in_words(i)}" for i in range(1, num_good)]
    for changes in [*({"answer": answer} for answer in answers[:num_good]), *(r for rs in kinds.values() for r in rs)]:
        if not isinstance(changes, dict):
            rows.append(changes)
            continue
        given = {"question": "<image>\nwhat color is it ?", "answer": f"blue {in_words(len(rows))}"} | changes
        turns = [
            {"from": "human", "value": given.pop("question")},
            {"from": "gpt", "value": given.pop("answer")},
        ]
        rows.append({"id": str(len(rows)), "image": "a.png", "conversations": turns} | given)
    return rows


@pytest.fixture
def write(tmp_path: Path) -> Callable[[list[Any]], Path]:
    """Writes rows beside two pictures, one of them of one colour, and three files that are none."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.new("LA", (64, 64)).save(tmp_path / "plain.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")

    def write_rows(rows: list[Any]) -> Path:
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(rows), encoding="utf-8")
        return path

    return write_rows


def tiny_recipe(data_root: Path, *overrides: str) -> list[str]:
    """Arguments that train the first two stages of the miniature recipe on `rows.json`."""
    path = data_root / "recipe.yaml"
    nothing = ", ".join(f"world_{name}: null" for name in ("captions", "questions", "boxes"))
    path.write_text(
        f"extends: {TINY}\nname: mine\ndata_root: {data_root}\n"
        f"data: {{{nothing}, mine: {{format: llava, path: rows.json}}}}\n"
        "stages:\n"
        + "".join(
            f"  {name}: {{data: {{{nothing}, mine: 1.0}}, max_length: {length}}}\n"
            for name, length in (("align", 512), ("pretrain", 600), ("instruct", 700), ("ground", 800))
        )
    )
    return [str(path), *overrides]


def counts(findings: Any) -> dict[str, int]:
    return {kind: count for kind, count in findings.counts.items() if count}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_kind_is_told_apart(
    write: Callable[[list[Any]], Path], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr("adaptkit.data_tools.check.running.MIN_CHUNKS_PER_WORKER", 1)
    path = write(rows_of(BAD_ROWS | NOTED_ROWS, num_good=100))
    plan = plan_recipe(load_recipe(*_split(tiny_recipe(path.parent))))
    seen: list[tuple[int, int, str]] = []
    report = run_check(plan, workers=workers, progress=lambda *state: seen.append(state))
    (found,) = report.findings.values()
    assert counts(found) == EXPECTED
    assert found.num_bad == sum(map(len, BAD_ROWS.values()))
    assert found.num_samples == len(found.lengths) + found.num_bad
    assert found.media == {"image": len(found.lengths)}
    assert seen[-1] == (found.num_samples, found.num_samples, "checking mine")
    for kind, problems in found.examples.items():
        assert [p.kind for p in problems] == [kind] * min(3, EXPECTED[kind])
        assert all(f"rows.json[{p.index}]" in p.message for p in problems)
    assert sorted(report.reasons) == [
        f"stage {name}: 15 of 124 samples are bad; max_bad_fraction 0.01 allows 1"
        for name in ("align", "ground", "instruct", "pretrain")
    ]


def _split(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    return Path(arguments[0]), list(arguments[1:])


def test_what_is_bad_here_is_bad_in_training_and_nothing_else(
    write: Callable[[list[Any]], Path], tmp_path: Path
) -> None:
    path = write(rows_of(BAD_ROWS | NOTED_ROWS, num_good=12))
    recipe = load_recipe(*_split(tiny_recipe(path.parent, "max_bad_fraction=1.0")))
    (found,) = run_check(plan_recipe(recipe), workers=1, num_examples=100).findings.values()
    checked = {p.index: p.message for kind in BAD_ROWS for p in found.examples[kind]}

    base, tokenizer = build.build_base(recipe.base), build.build_tokenizer(recipe.base)
    stage = recipe.stage("align")
    processor = build.build_processor(build.modality_specs(recipe, stage.workflow, tokenizer, base), tokenizer)
    sources = build.build_sources(recipe, ["mine"])
    log = tmp_path / "bad_samples.jsonl"
    conversations = build.build_stage_data(recipe, stage, sources, build.MediaStore(processor), log).conversations
    lengths = {i: len(conversations[i]["input_ids"]) for i in range(len(conversations))}
    reasons = [json.loads(line) for line in log.read_text().splitlines()]
    assert {int(r["location"].removeprefix("mine[")[:-1]): r["reason"] for r in reasons} == checked
    assert found.num_tokens == sum(lengths[i] for i in found.indices)


def test_a_recipe_whose_base_is_elsewhere_is_checked_but_for_lengths(write: Callable[[list[Any]], Path]) -> None:
    path = write(rows_of(BAD_ROWS | NOTED_ROWS, num_good=30))
    missing = ["base.path=nobody/no-such-model", "base.model_type=llama", "modalities.image.placeholder=null"]
    encoder = "modalities.image.encoder.path=nobody/no-such-encoder"
    plan = plan_recipe(load_recipe(*_split(tiny_recipe(path.parent, *missing, encoder))))
    assert "Lengths in tokens and unknown words are not checked" in plan.notes[0]
    assert {"lengths in tokens", "words that the tokenizer does not know"} < set(plan.unchecked)
    assert "media are read, but not prepared" in plan.notes[1]
    (found,) = run_check(plan, workers=1).findings.values()
    expected = {kind: count for kind, count in EXPECTED.items() if kind not in NEED_TOKENS}
    assert counts(found) == expected
    assert found.num_tokens == 0


# -- files -----------------------------------------------------------------------------------------------------------


def test_the_formats_of_real_files_are_told(shared: Path) -> None:
    formats = shared / "data" / "formats"
    names = ["llava_conversations.json", "allava.json", "sharegpt.jsonl", "openai_messages.jsonl"]
    report = run_check(plan_files([formats / name for name in names], media_roots=[shared / "data"]), workers=1)
    assert [found.num_samples for found in report.findings.values()] == [7, 1, 2, 5]
    assert not report.reasons
    found = sum((found.counts for found in report.findings.values()), Counter())
    assert found == {"doubtful_media": 1}, "one of them has a picture of one colour"


@pytest.mark.parametrize("name", ["llava", "sharegpt", "messages", "parquet", "webdataset"])
def test_formats_are_told_and_read(write: Callable[[list[Any]], Path], tmp_path: Path, name: str) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow")
    write([])
    component = get_plugin_manager().get("data source", name)
    samples = sample_conversations({"image": [tmp_path / "a.png"]}, 12)
    options = component.stand_in(component.options(path="anything"), tmp_path / "data", samples, {"image": "<image>"})
    paths = find_files(Path(), options.path, (".tar", ".parquet", ".json", ".jsonl"))
    report = run_check(plan_files(paths, media_roots=[tmp_path]), workers=1)
    assert not report.reasons
    assert sum(found.num_samples for found in report.findings.values()) == 12
    assert sum(found.media["image"] for found in report.findings.values()) == 12


@pytest.mark.parametrize("name", ["parquet", "webdataset", "hf_dataset"])
def test_a_folder_is_read_as_a_dataset(write: Callable[[list[Any]], Path], tmp_path: Path, name: str) -> None:
    pytest.importorskip("datasets" if name == "hf_dataset" else "pyarrow")
    write([])
    component = get_plugin_manager().get("data source", name)
    samples = sample_conversations({"image": [tmp_path / "a.png"]}, 12)
    written = component.stand_in(component.options(path="anything"), tmp_path / "data", samples, {"image": "<image>"})
    files = [Path(written.path)] if name == "hf_dataset" else find_files(Path(), written.path, (".tar", ".parquet"))
    folder = files[0] if files[0].is_dir() else files[0].parent
    (folder / "notes.txt").touch()
    plan = plan_files([folder])
    assert any("not read: notes.txt" in note for note in plan.notes) == (name != "hf_dataset")
    report = run_check(plan, workers=1)
    assert not report.reasons
    assert sum(found.num_samples for found in report.findings.values()) == 12


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("t.csv", "a table is checked through a recipe"),
        ("s.tar.gz", "is compressed: unpack it"),
        ("k.json", r"'\ud800'"),
    ],
)
def test_what_cannot_be_told_says_why(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_text('[{"\\ud800": 1}]')
    (problem,) = plan_files([tmp_path / name]).unopened
    assert said in str(problem.message)


def test_words_are_checked_before_there_is_an_encoder(write: Callable[[list[Any]], Path]) -> None:
    path = write(rows_of({"unknown_words": [{"answer": "a crimson velociraptor ."}] * 3}))
    result = run(*tiny_recipe(path.parent, "modalities.image.encoder.path=nobody/no-such-encoder"))
    assert "velociraptor" in result.stdout
    assert "encoder of 'image'" in " ".join(result.stdout.partition("Not checked:")[2].split())
    clean = run(*tiny_recipe(write(rows_of({}, num_good=3)).parent))
    assert "3 samples checked: nothing is wrong." in clean.stdout
    assert "Not checked" not in clean.stdout
    some = run(*tiny_recipe(path.parent), "--sample", "2", "--no-media")
    assert "nothing is wrong" not in some.stdout
    assert "Not checked: 1 of 3 samples, whether media can be read." in some.stdout


# -- dry runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".png", ".dat", ""])
def test_a_dry_run_looks_at_every_kind_of_content(write: Callable[[list[Any]], Path], ending: str) -> None:
    """Of 300 pictures 40, in the middle, are something else, whatever their names say."""
    path = write(rows_of({}, num_good=300))
    (path.parent / f"other{ending}").write_bytes(b"RIFF" + bytes(200))
    rows = json.loads(path.read_text())
    for row in rows[130:170]:
        row["image"] = f"other{ending}"
    path.write_text(json.dumps(rows))
    (dataset,) = plan_files([path]).datasets
    found = look_at_spread(dataset.source, dataset.media)
    assert (found.num_rows, found.num_bad) == (300, 40)
    assert f"other{ending}" in found.problems[0]


def test_a_dry_run_that_would_stop_says_so(write: Callable[[list[Any]], Path]) -> None:
    path = write(rows_of({}, num_good=100))
    rows = json.loads(path.read_text())
    for row in rows[50:60]:
        row["image"] = "text.png"
    path.write_text(json.dumps(rows))
    arguments = tiny_recipe(path.parent, "stages.pretrain=null", "stages.instruct=null", "stages.ground=null")
    result = CliRunner().invoke(cli, ["train", *arguments, "--dry-run"])
    assert result.exit_code == 2
    assert "10 of 100 samples looked at are bad" in result.output
    assert "text.png" in "".join(result.output.split())  # a long path is wrapped


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_line_is_a_bad_sample(
    write: Callable[[list[Any]], Path], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr("adaptkit.data_tools.check.running.MIN_CHUNKS_PER_WORKER", 1)
    rows = [json.dumps(row) for row in rows_of({}, num_good=9)]
    path = write([]).with_suffix(".jsonl")
    path.write_text("\n".join([rows[0][:-3], *rows[1:]]))
    (found,) = run_check(plan_files([path]), workers=workers).findings.values()
    assert (found.num_samples, counts(found)) == (9, {"malformed": 1})
    path.write_text("\n".join(row[:-3] for row in rows))
    (problem,) = plan_files([path]).unopened
    assert "rows.jsonl: line 1: not valid JSON" in problem.message


def test_nulls_tell_no_format(write: Callable[[list[Any]], Path]) -> None:
    rows = [{**row, "system": None, "images": None} for row in rows_of({}, num_good=3)]
    report = run_check(plan_files([write(rows)]), workers=1)
    assert not report.reasons
    assert not any(found.counts for found in report.findings.values())


def test_halves_of_characters_are_escaped(write: Callable[[list[Any]], Path]) -> None:
    rows = [{**row, "id": "\ud800x"} for row in rows_of({"tag_count": BAD_ROWS["tag_count"]})]
    result = run(str(write(rows)), "--json")
    assert result.exit_code == 2
    assert "\\ud800x" in json.dumps(json.loads(result.stdout))


def test_lengths_are_those_of_the_tokenizer(write: Callable[[list[Any]], Path]) -> None:
    path = write(rows_of({}, num_good=3))
    one, many = (
        run_check(plan_files([path], tokenizer="world:decoder", positions=n), workers=1).findings["rows.json"]
        for n in (1, 577)
    )
    assert [b - a for a, b in zip(one.lengths, many.lengths)] == [576] * 3
    assert one.num_labelled == many.num_labelled > 0


def test_media_are_decoded_unless_told_not_to(write: Callable[[list[Any]], Path]) -> None:
    path = write(rows_of({"unreadable_media": BAD_ROWS["unreadable_media"]}, num_good=3))
    read, unread = (run_check(plan_files([path], reads_media=reads), workers=1) for reads in (True, False))
    assert counts(read.findings["rows.json"]) == {"unreadable_media": 3}
    assert counts(unread.findings["rows.json"]) == {}


# -- any source ------------------------------------------------------------------------------------------------------


class Numbers:
    """Samples that say their number; negative ones fail in unforeseen ways."""

    def __init__(self, numbers: Sequence[int], is_stream: bool = False) -> None:
        self.numbers = numbers
        self.is_stream = is_stream
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Sample:
        self.asked.append(index)
        if self.numbers[index] < 0:
            raise ZeroDivisionError("unforeseen")
        if self.numbers[index] == 0:
            raise DataError("naught")
        said = [("user", "what is it ?"), ("assistant", str(self.numbers[index]))]
        messages: Any = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]
        return Sample(str(index), messages)


@pytest.fixture
def plan_of(write: Callable[[list[Any]], Path]) -> Callable[..., Plan]:
    """Plans for sources of numbers, one mixture for all."""

    def make(*sources: Numbers, fraction: float = 0.01) -> Plan:
        media = plan_files([write(rows_of({}, num_good=1))]).datasets[0].media
        datasets = [CheckedDataset(f"numbers{i}", source, media) for i, source in enumerate(sources)]
        return Plan(datasets, mixtures={"all": [d.name for d in datasets]}, max_bad_fraction=fraction)

    return make


def test_the_verdict(plan_of: Callable[..., Plan]) -> None:
    good = range(1, 101)

    def reasons(*sources: Numbers, **options: Any) -> list[str]:
        fraction = options.pop("fraction", 0.01)
        return run_check(plan_of(*sources, fraction=fraction), workers=1, **options).reasons

    assert reasons(Numbers(good)) == []
    assert reasons(Numbers([*good[1:], 0])) == []
    assert reasons(Numbers([*good[2:], 0, 0])) == ["all: 2 of 100 samples are bad; max_bad_fraction 0.01 allows 1"]
    assert reasons(Numbers([*good[2:], 0, 0]), Numbers(good)) == []
    assert reasons(Numbers([*good, 0]), fraction=0.0)
    assert reasons(Numbers([])) == ["numbers0 is empty"]
    assert reasons(Numbers([0, 0, 0]), fraction=1.0) == ["all 3 samples of numbers0 are bad"]
    begin = "the first 8 rows of numbers0 are all bad, so training does not begin"
    assert reasons(Numbers([0] * 8 + [*good]), fraction=1.0) == [begin]
    assert reasons(Numbers([-1, *good])) == ["1 samples of numbers0 would stop training"]
    copies = Numbers([5, 6, 5, 5])
    assert reasons(copies) == []
    assert reasons(copies, strict=True) == ["2 further problems, which --strict does not tolerate"]


def test_what_nobody_foresaw_is_named(plan_of: Callable[..., Plan]) -> None:
    report = run_check(plan_of(Numbers([1, -1, 2])), workers=1)
    (problem,) = report.examples("crash", 3)
    assert problem.message == "numbers0[1]: ZeroDivisionError: unforeseen"


def test_what_is_not_the_data_s_fault_is_raised(plan_of: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaptkit.data_tools.check.running.MIN_CHUNKS_PER_WORKER", 1)
    plan = plan_of(Numbers(range(1, 100)))
    processor = plan.datasets[0].media.processor
    processor.tokenizer.chat_template = processor.chat_template = None
    for workers in (1, 2):
        with pytest.raises(ModelError, match="chat template"):
            run_check(plan, workers=workers)


def test_a_stream_is_read_forwards_in_one_process(
    plan_of: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaptkit.data_tools.check.running.MIN_CHUNKS_PER_WORKER", 1)
    stream, other = Numbers(range(1, 100), is_stream=True), Numbers(range(1, 200))
    report = run_check(plan_of(stream, other), workers=2)
    assert stream.asked == list(range(99))
    assert other.asked == [], "others are read elsewhere"
    assert [found.num_samples for found in report.findings.values()] == [99, 199]


def test_a_sample_of_the_samples(plan_of: Callable[..., Plan]) -> None:
    stream, other = Numbers(range(1, 100), is_stream=True), Numbers(range(1, 2000))
    run_check(plan_of(stream, other), workers=1, sample=50)
    assert stream.asked == list(range(50))
    assert len(set(other.asked)) == 50
    assert max(other.asked) > 1000


@pytest.mark.parametrize(
    ("answer", "kinds"),
    [
        ("[0.100,0.200,0.300,0.400]", []),
        ("[0,0,1,1]; [0.5, 0.5, 0.75, 0.75]", []),
        ("[0.1,0.2,1.3,0.4]", ["box_range"]),
        ("[-0.1,0.2,0.3,0.4]; [-0.2,0.2,0.3,0.4]", ["box_range"]),
        ("[0.5,0.2,0.3,0.4]; [120,200,50,90]", ["box_order", "box_range"]),
        ("[0.5,0.2,0.5,0.4]", ["box_area"]),
        ("it is at [12,20,300,400]", []),  # not an answer of boxes alone
        ("[1, 2, 3]", []),
        ("[a,b,c,d]", []),
        ("", []),
    ],
)
def test_boxes(answer: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in box_problems(answer)] == kinds


@pytest.mark.parametrize(
    "lengths", [[5], [1] * 99 + [9_000], [*range(1000)], [0, 0], [37, 37, 38], [3, *range(600, 900), 10**7]]
)
def test_the_histogram_counts_every_length_once(lengths: list[int]) -> None:
    bars = histogram(lengths)
    assert 1 <= len(bars) <= 16
    assert all(end + 1 == start for (_, end, _), (start, _, _) in pairwise(bars))
    for first, last, count in bars:
        assert count == sum(first <= length and (last is None or length <= last) for length in lengths)
    assert sum(count for *_, count in bars) == len(lengths)


# -- the command line ------------------------------------------------------------------------------------------------


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["data", "check", *arguments, "--workers", "1"])


def test_a_clean_file(write: Callable[[list[Any]], Path]) -> None:
    result = run(str(write(rows_of({}, num_good=5))))
    assert result.exit_code == 0, result.output
    assert "5 samples checked: no problem found." in result.stdout
    assert "Not checked: lengths in tokens, words that the tokenizer does not know" in result.stdout
    assert "█" in result.stdout


def test_problems_with_their_first_examples(write: Callable[[list[Any]], Path]) -> None:
    path = write(rows_of({"missing_media": BAD_ROWS["missing_media"] * 3}, num_good=5))
    result = run(str(path), "--examples", "2")
    assert result.exit_code == 2
    said = " ".join(result.stdout.split())
    assert "6 media that are not there (skipped in training)" in said
    assert "and 4 more" in said
    unwrapped = "".join(result.stdout.split())
    assert "gone.png" in unwrapped
    assert "rows.json[6]" in unwrapped
    assert "rows.json[7]" not in unwrapped
    assert "the files together: 6 of 11 samples are bad" in result.stderr
    tolerated = run(str(path), "--max-bad-fraction", "0.9")
    assert tolerated.exit_code == 0
    assert "fit for training; 6 samples would be skipped" in tolerated.stdout


def test_json(write: Callable[[list[Any]], Path]) -> None:
    path = write(rows_of(BAD_ROWS, num_good=5))
    result = run(*tiny_recipe(path.parent), "--json")
    assert result.exit_code == 2
    report = json.loads(result.stdout)
    assert report["usable"] is False
    assert report["mixtures"] == {f"stage {s}": ["mine"] for s in ("align", "pretrain", "instruct", "ground")}
    mine = report["datasets"]["mine"]
    assert {kind: entry["count"] for kind, entry in mine["problems"].items()} == {
        k: len(v) for k, v in BAD_ROWS.items()
    }
    example = mine["problems"]["missing_media"]["examples"][0]
    assert (example["dataset"], example["index"]) == ("mine", 5)
    assert mine["lengths"]["unit"] == "tokens"
    assert mine["tokens"] > mine["learned_tokens"] > 0


def test_a_dataset_that_is_not_there_does_not_hide_the_others(write: Callable[[list[Any]], Path]) -> None:
    path = write(rows_of({}, num_good=3))
    result = run(*tiny_recipe(path.parent, "data.mine.path=other.json"))
    assert result.exit_code == 2
    assert "no data file" in result.stdout
    both = run(str(path), str(path.with_name("other.json")))
    assert both.exit_code == 2
    assert "cannot read the data file" in both.stdout
    assert "rows.json" in both.stdout
    assert "1 of 2 datasets cannot be opened" in both.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rows.json", "--format", "lava"], "Did you mean 'llava'?"),
        (["rows.json", "--format", "table"], "needs more than a file (answer, question)"),
        (["rows.json", "--modality", "imag"], "Did you mean 'image'?"),
        (["rows.json", "--tokenizer", "nowhere"], "no folder 'nowhere' with a tokenizer"),
        (["rows.json", "--media", "nowhere"], "does not exist"),
        (["recipe.yaml", "rows.json"], "rows.json: after a recipe only its settings"),
        (["recipe.yaml", "--media", "."], "go with files"),
        (["recipe.yaml", "data.mine.pth=x"], "pth"),
        (["nothing.yaml"], "nothing.yaml"),
        (["."], "the data are not fit"),
        (["empty"], "1 of 1 datasets cannot be opened"),
        (["a.png"], "1 of 1 datasets cannot be opened"),
        (["table.csv"], "1 of 1 datasets cannot be opened"),
        (["shard.tar.gz"], "1 of 1 datasets cannot be opened"),
    ],
)
def test_mistakes_are_named(
    write: Callable[[list[Any]], Path], monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    path = write(rows_of({}, num_good=1))
    tiny_recipe(path.parent)
    (path.parent / "empty").mkdir()
    for name in ("table.csv", "shard.tar.gz"):
        (path.parent / name).write_bytes(b"x")
    monkeypatch.chdir(path.parent)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr


def test_what_a_tokenizer_lacks_is_said(write: Callable[[list[Any]], Path], tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", "<|stop|>")
    tokenizer.save_pretrained(tmp_path / "base")
    path = write(rows_of({}, num_good=1))
    tiny_decoder("llama").config.save_pretrained(tmp_path / "base")
    plan = plan_files([path], tokenizer=str(tmp_path / "base"), modalities=["image"])
    assert any("<|stop|>" in note for note in plan.notes)
    tokenizer.add_tokens([f"<loc{i}>" for i in range(3)])
    tokenizer.save_pretrained(tmp_path / "base")
    tiny_decoder("llama", vocab_size=260).config.save_pretrained(tmp_path / "base")
    with pytest.raises(ModelError, match=r"262 token ids, .*260 rows.*'<loc1>' \(id 260\)"):
        plan_files([path], tokenizer=str(tmp_path / "base"), modalities=["image"])
