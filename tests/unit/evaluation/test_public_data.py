"""Public benchmarks on local data: copies of the hub's datasets, released layouts, and what is missing or broken."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

datasets = pytest.importorskip("datasets")
pytest.importorskip("soundfile")

from adaptkit.errors import DataError  # noqa: E402
from adaptkit.evaluation.public_data import StockTask, find_tasks, list_tasks, local_datasets  # noqa: E402
from adaptkit.evaluation.public_data.benchmarks import BENCHMARKS, RULES  # noqa: E402
from adaptkit.evaluation.public_data.hub_folders import names_of  # noqa: E402
from tests.unit.evaluation import benchmark_files as files  # noqa: E402

MME = "lmms-lab-encoder/MME"
MMBENCH = "lmms-lab-encoder/MMBench"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


def task(dataset: str, split: str, config: str | None = None) -> StockTask:
    return StockTask("a_task", "lmms-eval", dataset, config, (split,))


def load(data_dir: Path, dataset: str, split: str, config: str | None = None) -> list[dict[str, Any]]:
    """The rows of a split, as a harness loads them."""
    with local_datasets([task(dataset, split, config)], data_dir):
        return list(datasets.load_dataset(path=dataset, name=config, token=True)[split])


def write_copy(path: Path, *ids: str) -> None:
    files.write_hub(path, files.mmmu_features(), [{"id": one, "image_1": files.embedded(0)} for one in ids])


def fails(data_dir: Path, *needed: StockTask) -> str:
    with pytest.raises(DataError) as raised, local_datasets(needed, data_dir):
        pass
    return str(raised.value)


@pytest.mark.parametrize(
    ("place", "dataset"),
    [
        ("org/Set/data/val-00000-of-00001.parquet", "org/Set"),
        ("org/Set/default/val/0000.parquet", "org/Set"),
        ("Set/val.parquet", "org/Set"),
        ("org--Set/data/val-00000-of-00001.parquet", "org/Set"),
        ("datasets--org--Set/snapshots/1f/data/val-00000-of-00001.parquet", "org/Set"),
        ("hub/datasets--org--Set/snapshots/1f/data/val-00000-of-00001.parquet", "org/Set"),
        ("lmms-lab/Set/data/val-00000-of-00001.parquet", "lmms-lab-encoder/Set"),
    ],
)
def test_a_copy_of_a_hub_dataset_is_used_however_it_was_fetched(tmp_path: Path, place: str, dataset: str) -> None:
    data_dir = tmp_path / "data [1] of me"
    write_copy(data_dir / place, "one", "two")
    assert [row["id"] for row in load(data_dir, dataset, "val")] == ["one", "two"]


def test_splits_that_were_not_fetched_do_not_matter(tmp_path: Path) -> None:
    card = "---\nconfigs:\n- config_name: a\n  data_files:\n" + "".join(
        f"  - split: {split}\n    path: a/{split}-*\n" for split in ("train", "dev")
    )
    files.text(tmp_path / "org/Set/README.md", f"{card}---\n# A set\n")
    write_copy(tmp_path / "org/Set/a/dev-00000-of-00002.parquet", "one")
    write_copy(tmp_path / "org/Set/a/dev-00001-of-00002.parquet", "two")
    assert [row["id"] for row in load(tmp_path, "org/Set", "dev", "a")] == ["one", "two"]
    message = fails(tmp_path, task("org/Set", "train", "a"))
    assert "'train'" in message
    assert "dev" in message
    assert "'b'" in fails(tmp_path, task("org/Set", "dev", "b"))


@pytest.mark.parametrize("place", ["MMMU/MMMU", "MMMU", "datasets--MMMU--MMMU/snapshots/1f"])
@pytest.mark.parametrize("with_card", [True, False])
def test_subjects_are_merged(tmp_path: Path, place: str, with_card: bool) -> None:
    files.write_mmmu(tmp_path / "written")
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "written/MMMU/MMMU").rename(tmp_path / place)
    if not with_card:
        (tmp_path / place / "README.md").unlink()
    rows = load(tmp_path, "lmms-lab-encoder/MMMU", "validation")
    assert [row["id"] for row in rows] == ["validation_Art_1", "validation_Math_1", "validation_Math_2"]


def test_a_dataset_of_json_lines_is_used(tmp_path: Path) -> None:
    files.jsonl(tmp_path / "org/Set/test.jsonl", [{"id": "one"}])
    files.text(tmp_path / "org/Set/README.md", "---\nconfigs:\n- config_name: default\n  data_files: test.jsonl\n---\n")
    with local_datasets([task("org/Set", "train")], tmp_path):
        assert datasets.load_dataset("org/Set")["train"][0] == {"id": "one"}


def test_other_code_of_a_harness_gets_copies_too(tmp_path: Path) -> None:
    import huggingface_hub

    write_copy(tmp_path / "org/Set/data/val-00000-of-00001.parquet", "one")
    files.jsonl(tmp_path / "mine.jsonl", [{"id": 1}])
    with local_datasets([], tmp_path):
        assert Path(huggingface_hub.snapshot_download("org/Set", repo_type="dataset")) == tmp_path / "org/Set"
        assert len(datasets.load_dataset("org/Set", split="val")) == 1
        assert len(datasets.load_dataset("json", data_files=str(tmp_path / "mine.jsonl"))["train"]) == 1
        with pytest.raises(DataError, match="org/Other"):
            datasets.load_dataset("org/Other")
        kept = datasets.load_dataset
    assert datasets.load_dataset is not kept
    assert kept("json", data_files=str(tmp_path / "mine.jsonl"))["train"].num_rows == 1


def test_what_is_missing_is_said_at_once_with_where_it_goes(tmp_path: Path) -> None:
    message = fails(tmp_path, task(MME, "test"), task("org/Set", "val"), task("cais/mmlu", "test", "anatomy"))
    for part in ("hf download lmms-lab/MME", str(tmp_path / "mme"), "hf download org/Set", "SUBJECT_test.csv"):
        assert part in message
    with pytest.raises(DataError, match="nowhere"), local_datasets([], tmp_path / "nowhere"):
        pass


@pytest.mark.parametrize(
    "content", [b"PAR1cut short", b"version https://git-lfs.github.com/spec/v1\n", b"<html>no</html>"]
)
def test_a_damaged_copy_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "org/Set/data/val-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert str(path) in fails(tmp_path, task("org/Set", "val"))


def test_rows_have_the_columns_of_the_hub(tmp_path: Path) -> None:
    files.write_mme(tmp_path)
    rows = load(tmp_path, MME, "test")
    assert len(rows) == 28
    assert {**rows[0], "image": rows[0]["image"].size} == {
        "question_id": "existence/0000.jpg",
        "image": files.SIZES[0],
        "question": "Is there a existence? Please answer yes or no.",
        "answer": "Yes",
        "category": "existence",
    }


def test_pictures_by_the_index_of_another_row_are_found(tmp_path: Path) -> None:
    files.write_mmbench(tmp_path)
    rows = load(tmp_path, MMBENCH, "dev", "en")
    assert [row["image"].size for row in rows] == [files.SIZES[0]] * 3
    assert rows[2]["hint"] == "nan"


def test_boxes_and_expressions_of_every_split(tmp_path: Path) -> None:
    files.write_refcoco(tmp_path)
    for split in ("val", "testA", "testB", "test"):
        (row,) = load(tmp_path, "lmms-lab-encoder/RefCOCO", split)
        assert row["bbox"] == [2, 3, 8, 6]
        assert row["answer"] == ["man on the left", "the tall one"]


def test_a_release_is_converted_again_only_when_it_changed(tmp_path: Path) -> None:
    files.write_vsr(tmp_path)
    load(tmp_path, "cambridgeltl/vsr_random", "test")
    (written,) = (tmp_path / ".adaptkit").rglob("*.parquet")
    before = written.stat().st_mtime_ns
    load(tmp_path, "cambridgeltl/vsr_random", "test")
    assert written.stat().st_mtime_ns == before
    path = tmp_path / "visual-spatial-reasoning/data/splits/random/test.jsonl"
    first = json.loads(path.read_text().split("\n")[0])
    files.jsonl(path, [{**first, "caption": "changed"}])
    assert [row["caption"] for row in load(tmp_path, "cambridgeltl/vsr_random", "test")] == ["changed"]


def test_what_cannot_be_written_beside_the_data_goes_to_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_vsr(tmp_path / "data")
    monkeypatch.setenv("ADAPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert load(tmp_path / "data", "cambridgeltl/vsr_random", "test")
    assert list((tmp_path / "cache").rglob("*.parquet"))
    assert not (tmp_path / "data/.adaptkit").exists()


def spoil_picture(data_dir: Path) -> StockTask:
    files.write_pope(data_dir)
    (data_dir / "coco/val2014/COCO_val2014_000000000042.jpg").write_bytes(b"no picture")
    return task("lmms-lab-encoder/POPE", "random", "Full")


def lose_picture(data_dir: Path) -> StockTask:
    files.write_pope(data_dir)
    (data_dir / "coco/val2014/COCO_val2014_000000000042.jpg").unlink()
    return task("lmms-lab-encoder/POPE", "random", "Full")


def leave_folder(data_dir: Path) -> StockTask:
    files.write_pope(data_dir)
    files.picture(data_dir.parent / "secret.jpg", 0)
    row = {"question_id": 1, "image": "../../../secret.jpg", "text": "Is it?", "label": "yes"}
    files.jsonl(data_dir / "pope/coco_pope_random.json", [row])
    return task("lmms-lab-encoder/POPE", "random", "Full")


def drop_column(data_dir: Path) -> StockTask:
    files.table(
        data_dir / "mmbench/CCBench.tsv", [["index", "question", "A", "B", "image"], [0, "?", "a", "b", "x"]], "\t"
    )
    return task(MMBENCH, "test", "cc")


def break_base64(data_dir: Path) -> StockTask:
    files.write_mmbench(data_dir)
    path = data_dir / "LMUData/CCBench.tsv"
    path.write_text(path.read_text().replace(files.encoded(0)[:8], "%%%%"))
    return task(MMBENCH, "test", "cc")


class Code:
    """Would run a command where a pickle is read without care."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch pickled-code-ran",)


def pickle_code(data_dir: Path) -> StockTask:
    files.write_refcoco(data_dir)
    (data_dir / "refcoco/refs(unc).p").write_bytes(pickle.dumps([Code()]))
    return task("lmms-lab-encoder/RefCOCO", "val")


def wrong_letter(data_dir: Path) -> StockTask:
    files.table(
        data_dir / "mmlu/test/anatomy_test.csv", [["?", "1", "2", "3", "4", "A"], ["?", "1", "2", "3", "4", "E"]]
    )
    return task("cais/mmlu", "test", "anatomy")


def lose_task(data_dir: Path) -> StockTask:
    files.write_mme(data_dir, ("existence", "OCR"))
    return task(MME, "test")


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (spoil_picture, ["coco_pope_random.json line 1", "is not a picture"]),
        (lose_picture, ["coco_pope_random.json line 1", "COCO_val2014_000000000042.jpg", "val2014"]),
        (leave_folder, ["coco_pope_random.json line 1", "outside"]),
        (drop_column, ["CCBench.tsv", "answer", "category"]),
        (break_base64, ["CCBench.tsv line 2", "base64"]),
        (pickle_code, ["refs(unc).p", "system"]),
        (wrong_letter, ["anatomy_test.csv line 2", "letter"]),
        (lose_task, ["MME_Benchmark_release_version", "code_reasoning"]),
    ],
)
def test_broken_data_are_named_with_their_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], StockTask], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    message = fails(tmp_path / "data", spoil(tmp_path / "data"))
    assert all(part in message for part in parts), message
    assert not (tmp_path / "pickled-code-ran").exists()


def test_the_list_says_what_can_run(tmp_path: Path) -> None:
    files.write_pope(tmp_path)
    files.write_mmlu(tmp_path, ["anatomy", "virology"])
    rows = {row.task: row for row in list_tasks(tmp_path)}
    installed = rows["pope"].lacks != "lmms-eval is not installed"
    assert (rows["pope"].where == tmp_path / "pope") is installed
    assert rows["mme"].where is None
    assert rows["vsr_random"].is_own
    assert rows["pope"].official == "POPE's evaluate.py"
    assert "57 subjects" in rows["mmlu"].lacks or "not installed" in rows["mmlu"].lacks
    assert all(row.where is None for row in list_tasks())


def test_tasks_of_copies_that_no_benchmark_names_are_listed(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    features = datasets.Features({"question": datasets.Value("string")})
    for split in ("train", "test"):
        files.write_hub(tmp_path / f"openai/gsm8k/main/{split}-00000-of-00001.parquet", features, [{"question": "?"}])
    assert any(row.task == "gsm8k" and row.where == tmp_path / "openai/gsm8k" for row in list_tasks(tmp_path))


@pytest.mark.parametrize(
    ("name", "harness", "number"),
    [("mmlu", "lm-eval", 57), ("mmmu_val", "lmms-eval", 1), ("refcoco_bbox_rec", "lmms-eval", 4)],
)
def test_names_of_groups_and_tags_give_their_tasks(name: str, harness: str, number: int) -> None:
    pytest.importorskip("lm_eval")
    if find_spec("lmms_eval") is None:
        pytest.skip("lmms-eval is not installed")
    found = find_tasks(name)
    assert (len(found), {task.harness for task in found}) == (number, {harness})
    assert all(task.splits for task in found)


def test_recordings_are_decoded_without_torchcodec(tmp_path: Path) -> None:
    files.write_librispeech(tmp_path)
    row = load(tmp_path, "lmms-lab-audio/librispeech", "librispeech_test_clean", "librispeech_test_clean")[0]
    sound = row["audio"]
    assert (len(sound["array"]), sound["sampling_rate"], sound["type"]) == (8_000, 16_000, "audio")
    (tmp_path / "LibriSpeech/test-clean/61/70968/61-70968-0000.flac").write_bytes(b"no recording")
    with pytest.raises(DataError, match=r"61-70968-0000\.flac"):
        load(tmp_path, "lmms-lab-audio/librispeech", "librispeech_test_clean", "librispeech_test_clean")


def test_the_documentation_has_every_task_dataset_and_rule() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs/reference/public-benchmarks.md").read_text(encoding="utf-8")
    for benchmark in BENCHMARKS:
        assert f"`{benchmark.tasks[0]}`" in page
        assert all(
            f"{name}`" in page or f"…_{name.split('_', 1)[1].removeprefix('bbox_rec_')}`" in page
            for name in benchmark.tasks
        )
        assert not benchmark.hub_has_media or names_of(benchmark.dataset)[-1] in page
        assert benchmark.home in page or benchmark.home.startswith("huggingface.co")
        assert all(f"{layout.folders[0]}/" in page for layout in benchmark.layouts[:1])
    words = page.replace("`", "")
    assert all(rule.split(",")[0] in words for rule in RULES.values())
