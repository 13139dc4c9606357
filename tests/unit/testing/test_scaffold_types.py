"""Scaffolded packages pass a type checker as strict as ours, and it finds what is misspelt in them."""

from pathlib import Path

import pytest

from adaptkit.plugin_manager import PluginManager
from adaptkit.scaffold import write_scaffold
from tests.unit.testing.scaffolds import MODULE, NAME

KINDS = {"modality": None, "encoder": "image", "projector": None, "policy": None}


@pytest.mark.integration  # a cold mypy reads torch for a minute
@pytest.mark.parametrize("kind", KINDS)
def test_a_scaffold_passes_mypy(kind: str, tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    package = write_scaffold(NAME, tmp_path, kind=kind, modality=KINDS[kind], manager=PluginManager())
    hooks = package / "src" / MODULE / "__init__.py"
    found, _, status = api.run(["--strict", str(package / "src")])
    assert status == 0, found
    hooks.write_text(hooks.read_text().replace("description=", "descripton="))
    found, _, _ = api.run(["--strict", str(package / "src")])
    assert 'did you mean "description"' in found
