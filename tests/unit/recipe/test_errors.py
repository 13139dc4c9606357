"""What a wrong recipe is told: everything at once, each with file, line, dotted key and a way out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from adaptkit.errors import RecipeError
from adaptkit.recipe import load_recipe

from .conftest import SMALL_RECIPE, Workplace


def assert_said(errors: Sequence[str], *expected: str) -> None:
    """Each error has a place, `small.yaml:5: dotted.key: `, and names what is expected of it: `place: word word …`."""
    assert len(errors) == len(expected), errors
    for error, (source, key, words) in zip(errors, (text.split(": ", 2) for text in expected)):
        assert error.startswith(f"{source}: {key}: "), error
        assert all(word in error.removeprefix(f"{source}: {key}: ") for word in words.split()), error


def test_all_problems_together(workplace: Workplace) -> None:
    text = SMALL_RECIPE
    for right, wrong in [
        ("path: some/decoder", "pth: some/decoder"),
        ("name: eye", "name: eie"),
        ("{name: mlp2x}", "{name: mlp2x, bias: true}"),
        ("count: 2", "count: 2, last: 1"),
        ("limit: 10", "limit: many"),
        ("workflow: sight\n    train: [projector]", "workflow: site\n    train: [projecter]"),
        ("start_from: align", "start_from: alin"),
        ("answers: 1.0", "answer: 1.0"),
        ("weight_decay: 0.1", "weight_decay: -0.1"),
    ]:
        assert right in text
        text = text.replace(right, wrong)
    assert_said(
        workplace.errors(text, "seed=x", "stages.algn.max_steps=1"),
        "small.yaml:2: base.path: required",
        "small.yaml:2: base.pth: 'pth' 'path'? Known attn_implementation trust_remote_code",
        "small.yaml:5: modalities.picture.encoder.name: 'eie' 'eye'? ear `adaptkit plugins`",
        "small.yaml:6: modalities.picture.projector.bias: 'bias' Known name",
        "small.yaml:9: workflows.sight.insertion.placement: every first layers count last",
        "small.yaml:13: data.answers.limit: number 'many'",
        "small.yaml:16: stages.align.workflow: 'site' 'sight'?",
        "small.yaml:17: stages.align.train.0: 'projecter' 'projector'? ends insertion",
        "small.yaml:23: stages.instruct.start_from: 'alin' 'align'? null",
        "small.yaml:24: stages.instruct.data.answer: 'answer' 'answers'? pairs",
        "small.yaml:25: stages.instruct.optimizer.weight_decay: 0 -0.1",
        "command line: stages.algn: 'algn' 'align'? instruct",
        "command line: seed: number 'x'",
    )


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ("path: some/encoder", "path: a, crop: {sise: 1}", "5: modalities.picture.encoder.crop.sise: 'sise' 'size'?"),
        ("path: some/encoder", "path: a, pad: sqare", "5: modalities.picture.encoder.pad: 'sqare' 'square'? none"),
        ("path: some/encoder", "feature_lyer: 1, path: a",
         "5: modalities.picture.encoder.feature_lyer: 'feature_lyer' 'feature_layer'? crop name pad path scale"),
        ("name: eye, ", "", "5: modalities.picture.encoder.name: required encoder ear, eye"),
        ("{count: 2}", "{cout: 2}", "9: workflows.sight.insertion.placement.cout: 'cout' 'count'? every first last"),
        ("{count: 2}", "{}", "9: workflows.sight.insertion.placement: every count first last layers"),
        ("{count: 2}", "{layers: [0, -1]}", "9: workflows.sight.insertion.placement.layers.1: 0 -1"),
        (", placement: {count: 2}", "", "9: workflows.sight.insertion.placement: 'inner' every count layers"),
        ("replace_ends: true", "replace_ends: false",
         "22: stages.instruct.train.2: 'sight' workflows.sight.replace_ends true"),
        ("  picture:", "  picure:", "4: modalities.picure.type: 'picure' 'picture'? sound `adaptkit plugins`"),
        ("replace_ends: true", "modalities: [sound]\n    replace_ends: true",
         "10: workflows.sight.modalities.0: 'sound' picture"),
        ("data: {pairs: 1.0}", "data: {}", "18: stages.align.data: empty"),
        ("data: {pairs: 1.0}", "data: {pairs: 0}", "18: stages.align.data.pairs: greater 0"),
        ("name: instruct", "name: align", "20: stages.align.name: 2 'align' unique"),
        ("name: instruct", "name: a/b", "20: stages.a/b.name: 'a/b' letters digits"),
        ("name: align\n", "name: align\n    warmup_steps: 5\n    warmup_ratio: 0.1\n",
         "15: stages.align: warmup_ratio warmup_steps null"),
        ("base: {path: some/decoder}", "base: some/decoder", "2: base: mapping 'some/decoder'"),
        ("path: some/decoder", "path: some/decoder, revision: 1234567", "2: base.revision: text 1234567 quotes"),
        ("1e-3", ".inf", "19: stages.align.optimizer.learning_rate: finite inf"),
        ("base:", "bse: 1\nbase:", "2: bse: 'bse' 'base'? accelerator data_root extends stage_defaults workflows"),
        ("replace_ends: true", "lke: x\n    replace_ends: true", "10: workflows.sight.lke: 'lke' 'like'? insertion"),
        ("replace_ends: true", "replace_ends: true\n  other: {like: sigt}",
         "11: workflows.other.like: 'sigt' 'sight'?"),
    ],
)  # fmt: skip
def test_one_problem(workplace: Workplace, right: str, wrong: str, expected: str) -> None:
    assert right in SMALL_RECIPE
    errors = workplace.errors(SMALL_RECIPE.replace(right, wrong, 1))
    place = ": ".join(f"small.yaml:{expected}".split(": ", 2)[:2])
    assert_said([error for error in errors if error.startswith(f"{place}: ")], f"small.yaml:{expected}")


def test_features_of_an_adapted_encoder_are_not_cached(workplace: Workplace) -> None:
    cached = SMALL_RECIPE.replace("projector: {name: mlp2x}", "projector: {name: mlp2x}\n    cache_features: true")
    workplace.load(cached)
    errors = workplace.errors(cached.replace("policy: inner", "policy: adapter"))
    assert_said(errors, "small.yaml:7: modalities.picture.cache_features: 'picture' 'adapter' 'sight' false")


def test_what_a_stage_that_trains_the_encoder_excludes_and_what_needs_one(workplace: Workplace) -> None:
    trained = SMALL_RECIPE.replace("insertion, ends]", "insertion, ends, encoder]")
    lora = ("projector: {name: mlp2x}", "projector: {name: mlp2x}\n    encoder_lora: {rank: 2}")
    assert workplace.load(trained.replace(*lora)).modalities["picture"].encoder_lora.rank == 2
    errors = workplace.errors(SMALL_RECIPE.replace(*lora))
    assert_said(errors, "small.yaml:7: modalities.picture.encoder_lora: no stage 'picture' encoder train")
    errors = workplace.errors(trained.replace(lora[0], f"{lora[0]}\n    cache_features: true"))
    assert_said(errors, "small.yaml:7: modalities.picture.cache_features: 'picture' 'sight' false")
    errors = workplace.errors(trained.replace("policy: inner", "policy: adapter"))
    assert_said(errors, "small.yaml:22: stages.instruct.train.3: 'adapter' 'sight' encoders")
    decaying = ("weight_decay: 0.1}", "weight_decay: 0.1, groups: {ends: {layer_decay: 0.9}}}")
    errors = workplace.errors(trained.replace(*decaying))
    assert_said(errors, "small.yaml:25: stages.instruct.optimizer: groups.ends.layer_decay encoder")


def test_policy_that_inserts_nothing(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("policy: inner", "policy: nothing")
    assert_said(
        workplace.errors(text),
        "small.yaml:9: workflows.sight.insertion.placement: 'nothing' placement",
        "small.yaml:22: stages.instruct.train.1: 'sight' 'nothing'",
    )


def test_two_modalities_with_one_placeholder(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("    encoder:", "    placeholder: <x>\n    encoder:").replace(
        "workflows:", "  sound: {encoder: ear, projector: linear, placeholder: <x>}\nworkflows:"
    )
    assert_said(workplace.errors(text), "small.yaml:8: modalities.sound.placeholder: '<x>' 'picture'")


def test_problem_in_stage_defaults_is_shown_once(workplace: Workplace) -> None:
    assert workplace.errors(SMALL_RECIPE + "stage_defaults: {max_lenth: 3}\n") == [
        "small.yaml:26: stage_defaults.max_lenth: "
        + workplace.errors(SMALL_RECIPE, "stages.align.max_lenth=3")[0].split(": ", 2)[2]
    ]


def test_problem_copied_by_like_is_shown_once(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("count: 2", "count: 0").replace(
        "    replace_ends: true", "    replace_ends: true\n  copy: {like: sight}"
    )
    assert_said(workplace.errors(text), "small.yaml:9: workflows.sight.insertion.placement.count: 1 0")


def test_workflows_like_each_other(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("    replace_ends: true", "  a: {like: b}\n  b: {like: a}")
    errors = [error for error in workplace.errors(text) if error.startswith("small.yaml:11: workflows.b.like: ")]
    assert_said(errors, "small.yaml:11: workflows.b.like: circle a b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "small.yaml: mapping empty"),
        ("- a\n- b\n", "small.yaml: mapping list"),
        ("just words\n", "small.yaml: mapping text"),
        ("a: [1\nb: 2\n", "small.yaml:2: YAML sequence ',' ':'"),
        ("a: 1\n\tb: 2\n", "small.yaml:2: YAML '\\t'"),
        ("a: &x [*x]\n", "small.yaml:1: alias itself"),
        ("1: a\n", "small.yaml:1: key '1' quotes"),
        ("a: !!python/object/apply:os.system ['true']\n", "small.yaml:1: tag python/object/apply:os.system allowed"),
        ("a: 1\n---\nb: 2\n", "small.yaml:2: single document"),
        ("a: \x07\n", "small.yaml: character allowed 3"),
        ("a: " + "[" * 1000, "small.yaml: nested"),
    ],
)
def test_not_a_recipe(workplace: Workplace, text: str, expected: str) -> None:
    (error,) = workplace.errors(text)
    place, _, words = expected.partition(" ")
    assert error.startswith(f"{place} ")
    assert all(word in error for word in words.split())


def test_aliases_cannot_expand_without_bound(workplace: Workplace) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "more than 20000 values once aliases are expanded" in workplace.errors("\n".join(lines))[0]


def test_duplicate_keys_are_reported_with_the_rest(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("  picture:\n", "  picture:\n    encoder: ear\n") + "sed: 1\n"
    errors = workplace.errors(text)
    assert_said(errors, "small.yaml:6: modalities.picture: 'encoder' line 5", "small.yaml:27: sed: 'sed' 'seed'?")


def test_missing_file_names_the_nearest(workplace: Workplace) -> None:
    path = workplace.write(SMALL_RECIPE, "vision_tiny.yaml")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path.with_name("vision_tny.yaml"))
    assert all(word in str(caught.value) for word in ("vision_tny.yaml", f"Did you mean {path}?", "`adaptkit recipes`"))


def test_folder_and_binary_file(workplace: Workplace) -> None:
    with pytest.raises(RecipeError, match="is a folder; name the recipe file in it"):
        load_recipe(workplace.folder)
    path = workplace.folder / "weights.yaml"
    path.write_bytes(b"\x80\x81\xff")
    with pytest.raises(RecipeError, match=r"weights\.yaml.*UTF-8.*byte 0"):
        load_recipe(path)
    path.write_bytes(b"#" * 2_000_000)
    with pytest.raises(RecipeError, match="1 MB"):
        load_recipe(path)


def test_options_that_no_plugin_has_name_broken_plugins(workplace: Workplace) -> None:
    errors = workplace.errors(SMALL_RECIPE, "modalities.picture.encoder.name=nose")
    assert_said(errors[:1], "command line: modalities.picture.encoder.name: 'nose' ear, eye `adaptkit plugins`")


def test_media_beside_the_text_need_their_modules_in_every_stage(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("{policy: inner, placement: {count: 2}}", "{policy: beside}")
    assert_said(workplace.errors(text), "small.yaml:17: stages.align.train: 'beside' 'sight' insertion")
    early = text.replace("train: [projector]", "train: [projector, insertion]")
    workplace.load(early)
    workplace.load(early.replace("train: [projector, insertion, ends]", "train: [projector]"))
    apart = early.replace("train: [projector, insertion, ends]\n    start_from: align", "train: [projector]")
    assert len(workplace.errors(apart)) == 1
