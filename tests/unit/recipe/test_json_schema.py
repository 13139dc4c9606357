"""The schema for editors accepts what loads, and refuses what an editor can know to be wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from adaptkit.recipe import recipe_json_schema

from .conftest import SMALL_RECIPE, Workplace


@pytest.fixture
def validator(workplace: Workplace) -> Draft202012Validator:
    schema = json.loads(json.dumps(recipe_json_schema(workplace.plugins)))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


CHILD = """\
extends: parent.yaml
base: {revision: null}
modalities: {picture: {encoder: {scale: 2.0, crop: {size: 3}}, projector: mlp3x}}
workflows: {pointing: {like: sight}, sight: {insertion: {placement: {layers: [0, 2]}}}}
data: {pairs: null}
stage_defaults: {max_length: 32}
stages: {align: null, instruct: {max_steps: 3}}
evaluation: {tasks: [quiz, {name: quiz, rank: 3}]}
"""


@pytest.mark.parametrize("text", [SMALL_RECIPE, CHILD])
def test_accepts(validator: Draft202012Validator, text: str) -> None:
    assert [error.message for error in validator.iter_errors(_plain(text))] == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("base: {revision: null}", "base: {revison: null}"),
        ("scale: 2.0", "scal: 2.0"),
        ("size: 3", "sise: 3"),
        ("projector: mlp3x", "projector: mlp33x"),
        ("layers: [0, 2]", "layers: [-1]"),
        ("{like: sight}", "{lke: sight}"),
        ("max_length: 32", "max_length: long"),
        ("max_steps: 3", "max_step: 3"),
        ("rank: 3", "rank: many"),
        ("extends:", "extend:"),
    ],
)
def test_refuses(validator: Draft202012Validator, right: str, wrong: str) -> None:
    assert right in CHILD
    assert not validator.is_valid(_plain(CHILD.replace(right, wrong)))


def test_says_what_options_mean(workplace: Workplace) -> None:
    choices = recipe_json_schema(workplace.plugins)["$defs"]["EncoderConfig"]["anyOf"]
    assert {choice["title"] for choice in choices if "title" in choice} >= {"encoder eye", "encoder ear"}


def _plain(text: str) -> Any:
    return yaml.safe_load(text.replace("1e-3", "0.001"))
