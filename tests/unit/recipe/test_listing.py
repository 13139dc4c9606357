"""`adaptkit recipes`, and what stands behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from adaptkit.cli.recipes import recipes
from adaptkit.errors import RecipeError
from adaptkit.plugin_manager import PluginManager
from adaptkit.recipe import find_recipe, find_recipes, load_recipe, reference

from .conftest import SMALL_RECIPE, Workplace


@pytest.fixture
def folder(workplace: Workplace, monkeypatch: pytest.MonkeyPatch, plugins: PluginManager) -> Path:
    workplace.write(SMALL_RECIPE, "recipes/small.yaml")
    workplace.write("extends: ../small.yaml\ndescription: Deeper [down]\n", "recipes/deep/er/child.yaml")
    workplace.write("# What is broken. It stays so.\nextends: ../nowhere.yaml\n", "recipes/deep/broken.yml")
    workplace.write("num_steps: 3\n", "recipes/world/settings.yaml")
    workplace.write(SMALL_RECIPE, "recipes/.hidden/small.yaml")
    workplace.write(SMALL_RECIPE.replace("# A recipe", "name: mine\n# A recipe"), "mine/own.yaml")
    workplace.write("extends: ../../small.yaml\n", "recipes/deep/er/other.yaml")
    monkeypatch.chdir(workplace.folder)
    monkeypatch.setattr("adaptkit.recipe.loading.get_plugin_manager", lambda: plugins)
    monkeypatch.setattr("adaptkit.cli.recipes.recipe_json_schema", lambda: {"type": "object"})
    return workplace.folder


def test_finds_recipes_recursively(folder: Path, plugins: PluginManager) -> None:
    found = {str(summary.path): summary for summary in find_recipes(["recipes", "mine"], plugins)}
    assert list(found) == [
        "mine/own.yaml",
        "recipes/deep/broken.yml",
        "recipes/deep/er/child.yaml",
        "recipes/deep/er/other.yaml",
        "recipes/small.yaml",
    ]
    small = found["recipes/small.yaml"]
    assert (small.name, small.description, small.valid) == ("small", "A recipe for tests.", True)
    broken = found["recipes/deep/broken.yml"]
    assert (broken.name, broken.description, broken.valid) == ("broken", "What is broken.", False)
    assert broken.problems == [
        "recipes/deep/broken.yml:2: extends: no recipe at recipes/nowhere.yaml. `adaptkit recipes` lists those that "
        "are here."
    ]
    assert not found["recipes/deep/er/child.yaml"].valid
    assert found["mine/own.yaml"].name == "mine"


def test_unknown_folder() -> None:
    with pytest.raises(RecipeError, match="no folder at nowhere"):
        find_recipes(["nowhere"])


def test_command_prints_a_table_and_what_is_wrong(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(recipes, [])
    assert result.exit_code == 2
    assert "A recipe for tests." in result.output
    assert "recipes/deep/broken.yml:2: extends: no recipe at" in result.output


def test_command_succeeds_where_all_are_valid(folder: Path) -> None:
    for path in (folder / "recipes" / "deep").rglob("*.y*ml"):
        path.unlink()
    result = CliRunner().invoke(recipes, ["mine", "--json"])
    assert result.exit_code == 0
    assert [(r["name"], r["path"], r["valid"], r["problems"]) for r in json.loads(result.output)] == [
        ("mine", "mine/own.yaml", True, []),
        ("small", "recipes/small.yaml", True, []),
    ]


def test_command_where_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(recipes, ["--json"])
    assert result.exit_code == 0
    assert {"iaa_vision_tiny", "lora"} <= {Path(r["path"]).stem for r in json.loads(result.stdout)}
    monkeypatch.setattr("adaptkit.cli.recipes.shipped_folder", lambda: None)
    result = CliRunner().invoke(recipes, [])
    assert isinstance(result.exception, RecipeError)
    assert "no folder ./recipes here" in str(result.exception)


def test_recipes_go_by_name(folder: Path) -> None:
    assert find_recipe("small") == Path("recipes/small.yaml")
    assert find_recipe("other.yaml") == Path("recipes/deep/er/other.yaml")
    assert find_recipe("deep/er/child") == Path("recipes/deep/er/child.yaml")
    shipped = find_recipe("ablations/lora")
    assert shipped == find_recipe("lora")
    assert shipped.parts[-3:] == ("recipes", "ablations", "lora.yaml")
    assert reference(shipped) == "ablations/lora"
    assert find_recipe("nowhere") == Path("nowhere")


def test_a_local_recipe_comes_before_a_shipped_one(folder: Path) -> None:
    (folder / "lora.yaml").write_text(SMALL_RECIPE)
    (folder / "lora").mkdir()
    assert find_recipe("lora") == Path("lora.yaml")


def test_several_recipes_of_one_name_are_not_chosen_from(folder: Path) -> None:
    (folder / "recipes" / "deep" / "small.yaml").write_text(SMALL_RECIPE)
    assert find_recipe("recipes/small.yaml") == Path("recipes/small.yaml")
    assert find_recipe("deep/small") == Path("recipes/deep/small.yaml")
    (folder / "recipes" / "deep" / "er" / "small.yaml").write_text(SMALL_RECIPE)
    (folder / "recipes" / "small.yaml").unlink()
    with pytest.raises(RecipeError) as caught:
        find_recipe("small")
    assert "recipes/deep/er/small.yaml" in str(caught.value)
    assert "recipes/deep/small.yaml" in str(caught.value)


def test_an_unknown_recipe_comes_with_the_nearest(folder: Path) -> None:
    for given, nearest in (("iaa_vision_tny", "iaa_vision_tiny"), ("recipes/smal.yaml", "recipes/small.yaml")):
        with pytest.raises(RecipeError, match=f"no recipe at {given}. Did you mean {nearest}"):
            load_recipe(given)


def test_a_recipe_may_extend_one_that_ships_with_adaptkit(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: iaa_vision_tiny\nseed: 7\n")
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert (recipe.name, recipe.seed, recipe.base.path) == ("mine", 7, "world:decoder")


def test_schema_to_screen_and_file(folder: Path) -> None:
    assert json.loads(CliRunner().invoke(recipes, ["schema"]).stdout) == {"type": "object"}
    result = CliRunner().invoke(recipes, ["schema", "--output", "editor/recipe.json"])
    assert result.exit_code == 0
    assert json.loads((folder / "editor" / "recipe.json").read_text()) == {"type": "object"}
    assert CliRunner().invoke(recipes, ["--output", "x.json"]).exit_code == 2


def test_recipes_need_no_torch() -> None:
    code = (
        "import sys, adaptkit.recipe, adaptkit.cli.recipes; adaptkit.recipe.recipe_json_schema();"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
