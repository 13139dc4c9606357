"""`adaptkit score`: a table, JSON alone, and a user's mistakes."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from adaptkit.cli import cli


def score(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["score", *arguments])


def folder(place: Path) -> str:
    (place / "preds.txt").write_text("1\n0\n")
    (place / "test.jsonl").write_text('{"relation": "on", "label": 1}\n{"relation": "[red]on", "label": 1}\n')
    (place / "rel_meta_category_dict.txt").write_text("Topological: on\n")
    return str(place)


def test_a_table_for_people_and_json_for_programs(tmp_path: Path) -> None:
    result = score("vsr", folder(tmp_path))
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.stdout
    assert "0.5" in result.stdout
    assert "[red]on" in result.stdout
    assert "[red]on" in result.stderr  # a note
    result = score("vsr", str(tmp_path), "--json")
    assert json.loads(result.stdout) == {
        "accuracy": 0.5,
        "n": 2,
        "by_relation": {"on": [1.0, 1], "[red]on": [0.0, 1]},
        "by_meta_category": {"Topological": [1.0, 1]},
    }


def test_the_table_leaves_single_questions_to_json(tmp_path: Path) -> None:
    (tmp_path / "gt.jsonl").write_text('{"sent_id": 1, "bbox": [0, 0, 1, 1], "width": 2, "height": 2}')
    (tmp_path / "pred.jsonl").write_text('{"question_id": 1, "text": "[0,0,0.5,0.5]"}')
    result = score("refcoco", str(tmp_path))
    assert "precision" in result.stdout
    assert "items" not in result.stdout
    assert "items" in json.loads(score("refcoco", str(tmp_path), "--json").stdout)


def test_mistakes_exit_with_2(tmp_path: Path) -> None:
    for arguments in (["vsrr", folder(tmp_path)], ["vsr", str(tmp_path / "missing")], ["mme", str(tmp_path)]):
        result = score(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert "'vsr'" in score("vsrr", str(tmp_path)).stderr
