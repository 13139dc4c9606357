"""What an installation holds, and how `make setup` gets there."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def uv_wrapper() -> Any:
    """The module `.ci/uv`, which has no suffix."""
    return types.SimpleNamespace(**runpy.run_path(str(REPOSITORY / ".ci" / "uv")))


def test_uv_uses_the_indexes_that_pip_uses(uv_wrapper: Any) -> None:
    listing = "\n".join(
        [
            ":env:.disable-pip-version-check='1'",
            ":env:.find-links='/from/environment'",
            "global.cert='/certificates.pem'",
            "global.extra-index-url='file:///one/simple\\nfile:///two/simple'",
            "global.find-links='/from/file'",
            "install.index-url='https://mirror.invalid/simple'",
        ]
    )
    assert uv_wrapper.uv_environment(listing, {"SSL_CERT_FILE": "/already/set.pem"}) == {
        "UV_DEFAULT_INDEX": "https://mirror.invalid/simple",
        "UV_INDEX": "file:///one/simple file:///two/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/from/environment",
    }


def test_uv_is_left_alone_where_pip_is_not_configured(uv_wrapper: Any) -> None:
    assert uv_wrapper.uv_environment("", {}) == {}


def test_constraints_name_versions_and_nothing_else() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+", line) for line in lines)
    assert lines == sorted(set(lines))


def test_every_dependency_is_constrained() -> None:
    constrained = {line.split("==")[0] for line in (REPOSITORY / "constraints.txt").read_text().splitlines()}
    projects = [PYPROJECT, *(tomllib.loads(p.read_text()) for p in REPOSITORY.glob("plugins/*/pyproject.toml"))]
    wanted = {
        re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")
        for project in projects
        for requirement in [*project["project"]["dependencies"], *project.get("dependency-groups", {}).get("dev", [])]
    }
    assert wanted - {PYPROJECT["project"]["name"]} - {p.name for p in (REPOSITORY / "plugins").iterdir()} <= constrained


def test_nobody_is_told_to_install_the_other_adaptkit() -> None:
    extras = "|".join(PYPROJECT["project"]["optional-dependencies"])
    wrong = re.compile(rf"(?<![-\w])adaptkit\[({extras})\b|pip install ['\"`]?adaptkit(?![-\w/_])")
    suffixes = {".py", ".md", ".yaml", ".toml", ".jinja"}
    places = [REPOSITORY / name for name in ("adaptkit", "docs", "plugins", "recipes")]
    files = [p for place in places for p in place.rglob("*") if p.suffix in suffixes] + [REPOSITORY / "README.md"]
    found = [str(p.relative_to(REPOSITORY)) for p in files if wrong.search(p.read_text(encoding="utf-8"))]
    assert not found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_a_wheel_holds_models_templates_and_types(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    source = REPOSITORY / "adaptkit"
    wanted = {str(p.relative_to(REPOSITORY)) for p in source.rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert wanted <= packed
    assert {"adaptkit/py.typed", "adaptkit/world/models/decoder/model.safetensors"} <= packed
    assert wheel.stat().st_size < 16e6


def test_recipes_of_a_wheel_go_by_name(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    script = (
        "import json; from adaptkit.recipe import find_recipes, load_recipe, shipped_folder; folder = shipped_folder();"
        "names = [r.name for r in find_recipes([folder])];"
        "print(json.dumps([str(folder), names, load_recipe('iaa_vision_tiny').name]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *sys.path])}
    (tmp_path / "empty").mkdir()
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "empty", env=environment, capture_output=True, check=True
    )
    folder, names, loaded = json.loads(run.stdout)
    assert folder == str(tmp_path / "site" / "adaptkit" / "recipes")
    assert loaded == "iaa_vision_tiny"
    assert len(names) >= len(list((REPOSITORY / "recipes").glob("*.yaml")))


@pytest.mark.parametrize(
    "target", ["help", "setup", "quickstart", "test", "wheels", "test-wheels", "docs", "constraints", "clean"]
)
def test_make_knows_its_targets(target: str) -> None:
    run = subprocess.run(["make", "--dry-run", target], cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
