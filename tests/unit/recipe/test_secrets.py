"""What environment variables hold, and what files that are no recipes say, is neither saved nor shown."""

from __future__ import annotations

import pytest

from adaptkit.errors import AdaptkitError, RecipeError
from adaptkit.files.hashing import hash_of_text, same_text
from adaptkit.recipe import dump_recipe, load_recipe, load_values, without_variables, written_description
from tests.unit.recipe.conftest import SMALL_RECIPE, Workplace

VALUE = "hf_3xamp1eS3cret"


def test_a_saved_recipe_names_variables_and_never_their_values(workplace: Workplace, monkeypatch, tmp_path, plugins):
    monkeypatch.setenv("HF_TOKEN", VALUE)
    monkeypatch.setenv("STEPS", "7")
    monkeypatch.setenv("RATE", "1e-2")
    overrides = [
        "description='by ${HF_TOKEN}, $${x}'",
        "stages.align.max_steps=${STEPS}",
        "stages.align.optimizer.learning_rate=${RATE}",
        "data.pairs.path='Be ${HF_TOKEN}'",
        "data.answers.path=${UNSET_ANYWHERE:-rows.json}",
    ]
    recipe = workplace.load(SMALL_RECIPE, *overrides)
    assert recipe.description == f"by {VALUE}, ${{x}}"
    assert recipe.stage("align").max_steps == 7
    text = dump_recipe(recipe.model_copy(update={"seed": 3}), plugins=plugins)
    assert VALUE not in text
    assert "max_steps: ${STEPS}" in text
    assert written_description(recipe) == "by ${HF_TOKEN}, $${x}"
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert load_recipe(path, plugins=plugins).model_dump() == recipe.model_copy(update={"seed": 3}).model_dump()
    assert load_values(path)["stages"][0]["max_steps"] in ("7", 7)
    saved = without_variables(recipe)["data"]["pairs"]["path"]
    assert VALUE not in saved
    assert same_text(saved, f"Be {VALUE}")
    assert not same_text(saved, "Be another")
    assert hash_of_text(saved) == hash_of_text(f"Be {VALUE}")
    monkeypatch.setenv("STEPS", "9")
    assert load_recipe(path, plugins=plugins).stage("align").max_steps == 9
    moved = recipe.model_copy(update={"description": "changed since"})
    assert "description: changed since" in dump_recipe(moved, plugins=plugins)


@pytest.mark.parametrize(
    "setting", ["stages.align.max_steps", "stages.align.data.pairs", "data.pairs.format", "evaluation.limit"]
)
def test_messages_name_variables_and_never_their_values(workplace: Workplace, monkeypatch, setting):
    monkeypatch.setenv("MY_SETTING", VALUE)
    with pytest.raises(RecipeError) as error:
        workplace.load(SMALL_RECIPE, f"{setting}=${{MY_SETTING}}")
    assert VALUE not in str(error.value)
    assert "${MY_SETTING}" in str(error.value)


@pytest.mark.parametrize("setting", ["base.revision", "workflows.sight.insertion.policy", "modalities.picture.start"])
def test_secrets_do_not_get_into_checkpoints(workplace: Workplace, monkeypatch, setting):
    monkeypatch.setenv("HF_TOKEN", VALUE)
    with pytest.raises(RecipeError, match="HF_TOKEN is a secret"):
        workplace.load(SMALL_RECIPE, f"{setting}=${{HF_TOKEN}}")


@pytest.mark.parametrize(
    "content",
    [
        f"root:x:0:0:{VALUE}:/root:/bin/bash\n",
        f"- {VALUE}\n",
        f"{{auths: {{host: {{auth: {VALUE}}}}}}}\n",
        f"apiVersion: v1\nkind: Secret\ndata: {{password: {VALUE}}}\n",
        f"name: {VALUE} x\n{VALUE}: 1\n{VALUE}: 2\n",
        f"key = {VALUE}\n[section]\n",
        f"a: b: {VALUE}\n",
    ],
)
def test_nothing_is_shown_of_a_file_that_is_no_recipe(workplace: Workplace, content):
    workplace.write(content, "other.yaml")
    with pytest.raises(AdaptkitError) as error:
        workplace.load("extends: other.yaml\n" + SMALL_RECIPE)
    assert VALUE not in str(error.value)
    assert "other.yaml" in str(error.value)


def test_a_file_without_jinja_is_no_chat_template(tmp_path):
    from adaptkit.chat.shipped import load_chat_template

    path = tmp_path / "passwd"
    path.write_text(VALUE)
    with pytest.raises(AdaptkitError, match="not a chat template") as error:
        load_chat_template(str(path))
    assert VALUE not in str(error.value)
