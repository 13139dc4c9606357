"""`adaptkit doctor`: tells what is missing from what is broken, and what to do about either."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from adaptkit.cli import cli, doctor, environment
from adaptkit.errors import DISTRIBUTION

HEALTHY: dict[str, Any] = {
    "required_packages": [{"name": "torch", "status": "ok", "version": "2.15.0", "supported": ">=2.10"}],
    "devices": {"cpu_cores": 2, "torch_threads": 2, "accelerators": [], "mps": False},
    "optional_packages": [
        {
            "name": "flash-attn",
            "status": "missing",
            "version": None,
            "supported": ">=2.7",
            "purpose": "faster attention",
            "install": "pip install 'inner-adaptkit[flash-attn]'",
        }
    ],
    "plugins": {"loaded": {"clip": {"package": "adaptkit-clip 1", "offers": {"encoder": ["clip"]}}}, "broken": {}},
    "world_models": [{"name": "decoder", "status": "ok", "path": "/there", "bytes": 3_000_000}],
    "foreign_package": None,
}


def run_doctor(monkeypatch: pytest.MonkeyPatch, *args: str, **changes: Any) -> Result:
    for name, value in (HEALTHY | changes).items():
        monkeypatch.setattr(environment, name, lambda value=value: value)
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["doctor", *args])


def test_a_healthy_machine_with_an_optional_package_missing_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_doctor(monkeypatch)
    assert result.exit_code == 0
    assert "faster attention" in result.stdout
    assert "pip install 'inner-adaptkit[flash-attn]'" in result.stdout
    assert "no GPU" in result.stdout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {
                "required_packages": [
                    {"name": "torch", "status": "unsupported", "version": "2.1", "supported": ">=2.10"}
                ]
            },
            "torch 2.1: adaptkit needs >=2.10; run `pip install 'torch>=2.10'`.",
        ),
        (
            {"plugins": {"loaded": {}, "broken": {"ear": {"package": "ear 0.1", "problem": "ImportError: no soxr"}}}},
            "plugin ear (ear 0.1) does not load: ImportError: no soxr.",
        ),
        ({"foreign_package": "0.0.3"}, "`pip uninstall adaptkit`"),
        (
            {"world_models": [{"name": "decoder", "status": "missing", "path": "/gone", "bytes": None}]},
            "the built-in decoder is not at /gone",
        ),
        ({"devices": {"cpu_cores": 2, "problem": "torch: OSError: libcudart"}}, "torch: OSError: libcudart"),
    ],
)
def test_what_is_broken_is_named_and_fails(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    result = run_doctor(monkeypatch, **changes)
    assert result.exit_code == 1
    assert words in result.stderr


def test_json_is_only_json(monkeypatch: pytest.MonkeyPatch) -> None:
    report = json.loads(run_doctor(monkeypatch, "--json").stdout)
    assert set(report) == {"required", "devices", "optional", "plugins", "world", "problems"}
    assert report["problems"] == []


def test_required_packages_are_those_of_the_metadata() -> None:
    rows = {row["name"]: row for row in environment.required_packages()}
    assert {"python", "torch", "transformers", "accelerate", "pydantic"} <= set(rows)
    assert "deepspeed" not in rows
    assert all(row["status"] == "ok" for row in rows.values())
    assert rows["python"]["supported"] == ">=3.11"


def test_each_extra_is_an_optional_package_that_doctor_explains() -> None:
    from importlib.metadata import metadata

    extras = set(metadata(DISTRIBUTION).get_all("Provides-Extra") or [])
    assert extras - {"all"} == {package.extra for package in environment.OPTIONAL_PACKAGES if package.extra}


def test_a_package_that_cannot_be_imported_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    package = environment.OptionalPackage("click", "a stand-in", "deepspeed", "no_such_module_anywhere")
    monkeypatch.setattr(environment, "OPTIONAL_PACKAGES", (package,))
    (row,) = environment.optional_packages()
    assert row["status"] == "broken"
    assert "No module named 'no_such_module_anywhere'" in row["problem"]


def test_this_machine_can_be_examined() -> None:
    report = doctor.examine()
    assert report["devices"]["cpu_cores"] >= 1
    assert "adaptkit-policies" in report["plugins"]["loaded"]
