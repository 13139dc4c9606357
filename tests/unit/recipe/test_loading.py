"""What a valid recipe becomes."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from adaptkit.errors import RecipeError
from adaptkit.recipe import Recipe, dump_recipe, load_recipe, opening_comment, recipe_from_values, schema

from .conftest import SMALL_RECIPE, EyeOptions, Workplace


def test_small_recipe(workplace: Workplace) -> None:
    recipe = workplace.load()
    assert recipe.name == "small"
    picture = recipe.modalities["picture"]
    assert picture.type == "picture"
    assert picture.values() == {"max_pixels": 100}
    assert isinstance(picture.encoder.options, EyeOptions)
    assert picture.encoder.options.feature_layer == -2
    assert picture.encoder.values()["path"] == "some/encoder"
    assert picture.projector.name == "mlp2x"
    insertion = recipe.workflows["sight"].insertion
    assert (insertion.policy, insertion.values()) == ("inner", {})
    assert insertion.placement is not None
    assert insertion.placement.count == 2
    assert recipe.data["answers"].values() == {"path": "answers.json", "limit": 10}
    assert recipe.stage("instruct").data == {"pairs": 0.5, "answers": 1.0}


def test_exponent_without_a_point_is_a_number(workplace: Workplace) -> None:
    recipe = workplace.load(SMALL_RECIPE, "modalities.picture.encoder.scale=1e-3")
    assert recipe.stage("align").optimizer.learning_rate == 1e-3
    assert recipe.modalities["picture"].encoder.values()["scale"] == 1e-3


def test_date_stays_text(workplace: Workplace) -> None:
    assert workplace.load(SMALL_RECIPE, "base.revision=2024-01-01").base.revision == "2024-01-01"


def test_bare_name_stands_for_a_block(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("{name: mlp2x}", "linear") + "evaluation: {tasks: [quiz]}\n"
    recipe = workplace.load(text, "evaluation.tasks.quiz.rank=3")
    assert recipe.modalities["picture"].projector.name == "linear"
    assert recipe.evaluation.tasks[0].values() == {"rank": 3}


def test_anchors_and_merge_keys(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("optimizer: {learning_rate: 1e-3}", "optimizer: &o {learning_rate: 1e-3}")
    text = text.replace(
        "optimizer: {learning_rate: 2.0e-5, weight_decay: 0.1}", "optimizer: {<<: *o, weight_decay: 0.2}"
    )
    assert workplace.load(text).stage("instruct").optimizer.learning_rate == 1e-3
    assert workplace.load(text).stage("instruct").optimizer.weight_decay == 0.2


def test_recipe_is_immutable(workplace: Workplace) -> None:
    recipe = workplace.load()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.base.path = "other"


def test_stage_defaults_lie_below_stages(workplace: Workplace) -> None:
    defaults = "stage_defaults: {max_length: 64, warmup_ratio: 0.1, optimizer: {weight_decay: 0.3, eps: 1e-6}}\n"
    recipe = workplace.load(SMALL_RECIPE + defaults, "stages.align.max_length=32", "stages.align.warmup_ratio=")
    align, instruct = recipe.stages
    assert (align.max_length, instruct.max_length) == (32, 64)
    assert (align.warmup_ratio, instruct.warmup_ratio) == (0.0, 0.1)
    assert (align.optimizer.weight_decay, instruct.optimizer.weight_decay) == (0.3, 0.1)
    assert instruct.optimizer.eps == 1e-6


def test_seed_and_logging_steps_reach_stages(workplace: Workplace) -> None:
    recipe = workplace.load(SMALL_RECIPE + "seed: 7\nlogging: {logging_steps: 3}\n", "stages.align.seed=1")
    assert [(stage.seed, stage.logging_steps) for stage in recipe.stages] == [(1, 3), (7, 3)]


def test_like_copies_a_workflow(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("data:\n  pairs", "  pointing: {like: sight, replace_ends: false}\ndata:\n  pairs")
    recipe = workplace.load(text, "workflows.sight.insertion.placement.last=1")
    pointing = recipe.workflows["pointing"]
    assert pointing.insertion == recipe.workflows["sight"].insertion
    assert pointing.insertion.placement is not None
    assert pointing.insertion.placement.model_dump(exclude_none=True) == {"last": 1}
    assert not pointing.replace_ends


def test_dump_loads_as_the_same_recipe(workplace: Workplace) -> None:
    recipe = workplace.load(
        SMALL_RECIPE + "data_root: ${NOT_SET_ANYWHERE}\n",
        "base.revision='1e5'",
        "base.chat_template='{{ x }} $${y} 2024-01-01 \u2014 no'",
        "modalities.picture.encoder.scale=1e-3",
    )
    text = dump_recipe(recipe, plugins=workplace.plugins)
    assert text.startswith("# Resolved recipe; made with inner-adaptkit ")
    assert "data_root: ${NOT_SET_ANYWHERE}\n" in text
    assert workplace.load(text, name="elsewhere.yaml") == recipe
    assert recipe.base.chat_template == "{{ x }} ${y} 2024-01-01 \u2014 no"


def test_recipe_from_values(workplace: Workplace) -> None:
    recipe = workplace.load()
    again = recipe_from_values(recipe.model_dump(mode="json"), plugins=workplace.plugins)
    assert again == recipe
    with pytest.raises(RecipeError, match=r"recipe: base\.pth: no key named 'pth'\. Did you mean 'path'\?"):
        recipe_from_values({**recipe.model_dump(), "base": {"pth": "x"}}, plugins=workplace.plugins)


def test_recipe_model_validates_what_it_dumps(workplace: Workplace) -> None:
    recipe = workplace.load()
    context = {"plugins": workplace.plugins}
    assert Recipe.model_validate(recipe.model_dump(), context=context) == recipe


def test_opening_comment() -> None:
    assert opening_comment("# One.\n#\n# Two\n\n# not this\nname: x\n") == "One.\n\nTwo"
    assert opening_comment("name: x\n") == ""


def test_loading_needs_only_the_file(workplace: Workplace) -> None:
    path = workplace.write("\ufeff" + SMALL_RECIPE)
    assert load_recipe(str(path), plugins=workplace.plugins).name == "small"


def test_null_is_the_default_wherever_it_is_accepted() -> None:
    """Loading leaves keys out whose value is null, so that null can mean nothing else."""
    types = {value for value in vars(schema).values() if isinstance(value, type) and issubclass(value, BaseModel)}
    fields = [(kind.__name__, name, field) for kind in types for name, field in kind.model_fields.items()]
    other = [
        f"{kind}.{name}"
        for kind, name, field in fields
        if not field.is_required() and field.get_default(call_default_factory=True) is not None and _takes_null(field)
    ]
    assert not other


def _takes_null(field: FieldInfo) -> bool:
    try:
        TypeAdapter(field.annotation).validate_python(None)
    except ValidationError:
        return False
    return True
