"""What a wrong recipe is told: everything at once, each with file, line, dotted key and a way out."""

from __future__ import annotations

import pytest

from adaptkit.errors import RecipeError
from adaptkit.recipe import load_recipe

from .conftest import SMALL_RECIPE, Workplace


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
    assert workplace.errors(text, "seed=x", "stages.algn.max_steps=1") == [
        "small.yaml:2: base.path: is required",
        "small.yaml:2: base.pth: no key named 'pth'. Did you mean 'path'? Known: attn_implementation, "
        "chat_template, dtype, model_type, path, quantization, revision, special_tokens_in_text, trust_remote_code.",
        "small.yaml:5: modalities.picture.encoder.name: no encoder named 'eie'. Did you mean 'eye'? "
        "Known: ear, eye. See `adaptkit plugins` for their sources.",
        "small.yaml:6: modalities.picture.projector.bias: no key named 'bias'. Known: name.",
        "small.yaml:9: workflows.sight.insertion.placement: give exactly one of every, count, first, last, "
        "layers; both count and last given",
        "small.yaml:13: data.answers.limit: should be a whole number, not 'many'",
        "small.yaml:16: stages.align.workflow: no workflow named 'site'. Did you mean 'sight'? Known: sight.",
        "small.yaml:17: stages.align.train.0: no choice named 'projecter'. Did you mean 'projector'? "
        "Known: ends, insertion, projector.",
        "small.yaml:23: stages.instruct.start_from: no earlier stage named 'alin'. Did you mean 'align'? Known: align. "
        "With null the stage begins anew.",
        "small.yaml:24: stages.instruct.data.answer: no data source named 'answer'. Did you mean 'answers'? "
        "Known: answers, pairs.",
        "small.yaml:25: stages.instruct.optimizer.weight_decay: should be greater than or equal to 0, not -0.1",
        "command line: stages.algn: no stage named 'algn'. Did you mean 'align'? Known: align, instruct.",
        "command line: seed: should be a whole number, not 'x'",
    ]


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ("path: some/encoder", "path: a, crop: {sise: 1}", "5: modalities.picture.encoder.crop.sise: no key named "
         "'sise'. Did you mean 'size'? Known: size."),
        ("path: some/encoder", "path: a, pad: sqare", "5: modalities.picture.encoder.pad: no choice named 'sqare'. "
         "Did you mean 'square'? Known: none, square."),
        ("path: some/encoder", "feature_lyer: 1, path: a", "5: modalities.picture.encoder.feature_lyer: no key named "
         "'feature_lyer'. Did you mean 'feature_layer'? Known: crop, feature_layer, name, pad, path, scale."),
        ("name: eye, ", "", "5: modalities.picture.encoder.name: is required: the name of the encoder. "
         "Known: ear, eye."),
        ("{count: 2}", "{cout: 2}", "9: workflows.sight.insertion.placement.cout: no key named 'cout'. Did you mean "
         "'count'? Known: count, every, first, last, layers."),
        ("{count: 2}", "{}", "9: workflows.sight.insertion.placement: give exactly one of every, count, first, last, "
         "layers; none given"),
        ("{count: 2}", "{layers: [0, -1]}", "9: workflows.sight.insertion.placement.layers.1: should be greater than "
         "or equal to 0, not -1"),
        (", placement: {count: 2}", "", "9: workflows.sight.insertion.placement: the policy 'inner' needs one: give "
         "every, count, first, last or layers"),
        ("replace_ends: true", "replace_ends: false", "22: stages.instruct.train.2: the workflow 'sight' has no ends "
         "of its own; set workflows.sight.replace_ends to true"),
        ("  picture:", "  picure:", "4: modalities.picure.type: no modality named 'picure'. Did you mean 'picture'? "
         "Known: picture, sound. See `adaptkit plugins` for their sources."),
        ("replace_ends: true", "modalities: [sound]\n    replace_ends: true", "10: workflows.sight.modalities.0: no "
         "modality named 'sound'. Known: picture."),
        ("data: {pairs: 1.0}", "data: {}", "18: stages.align.data: is empty; give at least one"),
        ("data: {pairs: 1.0}", "data: {pairs: 0}", "18: stages.align.data.pairs: should be greater than 0, not 0"),
        ("name: instruct", "name: align", "20: stages.align.name: 2 stages are named 'align'; names are unique"),
        ("name: instruct", "name: a/b", "20: stages.a/b.name: the name 'a/b' is part of dotted keys and folders: use "
         "letters, digits, '_' and '-'"),
        ("name: align\n", "name: align\n    warmup_steps: 5\n    warmup_ratio: 0.1\n", "15: stages.align: give "
         "warmup_ratio or warmup_steps, not both; null takes one back"),
        ("base: {path: some/decoder}", "base: some/decoder", "2: base: should be a mapping of keys to values, not "
         "'some/decoder'"),
        ("path: some/decoder", "path: some/decoder, revision: 1234567", "2: base.revision: should be text, not "
         "1234567; put it in quotes"),
        ("1e-3", ".inf", "19: stages.align.optimizer.learning_rate: should be a finite number, not inf"),
        ("base:", "bse: 1\nbase:", "2: bse: no key named 'bse'. Did you mean 'base'? Known: accelerator, base, data, "
         "data_root, date, description, evaluation, extends, logging, max_bad_fraction, modalities, name, output_dir, "
         "seed, stage_defaults, stages, workflows."),
        ("replace_ends: true", "lke: x\n    replace_ends: true", "10: workflows.sight.lke: no key named 'lke'. Did "
         "you mean 'like'? Known: insertion, like, modalities, replace_ends."),
        ("replace_ends: true", "replace_ends: true\n  other: {like: sigt}", "11: workflows.other.like: no workflow "
         "named 'sigt'. Did you mean 'sight'? Known: other, sight."),
    ],
)  # fmt: skip
def test_one_problem(workplace: Workplace, right: str, wrong: str, expected: str) -> None:
    assert right in SMALL_RECIPE
    assert f"small.yaml:{expected}" in workplace.errors(SMALL_RECIPE.replace(right, wrong, 1))


def test_features_of_an_adapted_encoder_are_not_cached(workplace: Workplace) -> None:
    cached = SMALL_RECIPE.replace("projector: {name: mlp2x}", "projector: {name: mlp2x}\n    cache_features: true")
    workplace.load(cached)
    assert workplace.errors(cached.replace("policy: inner", "policy: adapter")) == [
        "small.yaml:7: modalities.picture.cache_features: features of 'picture' cannot be cached: the policy 'adapter' "
        "of the workflow 'sight' adapts its encoder, so they change as it is trained; set cache_features to false",
    ]


def test_policy_that_inserts_nothing(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("policy: inner", "policy: nothing")
    assert workplace.errors(text) == [
        "small.yaml:9: workflows.sight.insertion.placement: the policy 'nothing' inserts nothing; leave the "
        "placement out",
        "small.yaml:22: stages.instruct.train.1: the workflow 'sight' inserts nothing: its policy is 'nothing'",
    ]


def test_two_modalities_with_one_placeholder(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("    encoder:", "    placeholder: <x>\n    encoder:").replace(
        "workflows:", "  sound: {encoder: ear, projector: linear, placeholder: <x>}\nworkflows:"
    )
    assert workplace.errors(text) == [
        "small.yaml:8: modalities.sound.placeholder: '<x>' is the placeholder of 'picture' already; give each "
        "modality its own"
    ]


def test_problem_in_stage_defaults_is_shown_once(workplace: Workplace) -> None:
    assert workplace.errors(SMALL_RECIPE + "stage_defaults: {max_lenth: 3}\n") == [
        "small.yaml:26: stage_defaults.max_lenth: "
        + workplace.errors(SMALL_RECIPE, "stages.align.max_lenth=3")[0].split(": ", 2)[2]
    ]


def test_problem_copied_by_like_is_shown_once(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("count: 2", "count: 0").replace(
        "    replace_ends: true", "    replace_ends: true\n  copy: {like: sight}"
    )
    assert workplace.errors(text) == [
        "small.yaml:9: workflows.sight.insertion.placement.count: should be greater than or equal to 1, not 0"
    ]


def test_workflows_like_each_other(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("    replace_ends: true", "  a: {like: b}\n  b: {like: a}")
    assert "small.yaml:11: workflows.b.like: workflows are like each other in a circle: a is like b is like a" in (
        workplace.errors(text)
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "small.yaml: a recipe is a mapping of keys to values; this file is empty"),
        ("- a\n- b\n", "small.yaml: a recipe is a mapping of keys to values; this file is a list"),
        ("just words\n", "small.yaml: a recipe is a mapping of keys to values; this file is text or a number"),
        ("a: [1\nb: 2\n", "small.yaml:2: not valid YAML: while parsing a flow sequence expected ',' or ']', but got "
         "':'"),
        ("a: 1\n\tb: 2\n", "small.yaml:2: not valid YAML: while scanning for the next token found character '\\t' "
         "that cannot start any token"),
        ("a: &x [*x]\n", "small.yaml:1: not valid YAML: an alias refers to itself"),
        ("1: a\n", "small.yaml:1: not valid YAML: the key '1' is not text; put it in quotes"),
        ("a: !!python/object/apply:os.system ['true']\n", "small.yaml:1: not valid YAML: the tag "
         "'tag:yaml.org,2002:python/object/apply:os.system' is not allowed; recipes are text, numbers, lists and "
         "mappings"),
        ("a: 1\n---\nb: 2\n", "small.yaml:2: not valid YAML: expected a single document in the stream but found "
         "another document"),
        ("a: \x07\n", "small.yaml: not valid YAML: a character that is not allowed at position 3: special characters "
         "are not allowed"),
        ("a: " + "[" * 1000, "small.yaml: not a recipe: nested too deeply"),
    ],
)  # fmt: skip
def test_not_a_recipe(workplace: Workplace, text: str, expected: str) -> None:
    assert workplace.errors(text) == [expected]


def test_aliases_cannot_expand_without_bound(workplace: Workplace) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "more than 20000 values once aliases are expanded" in workplace.errors("\n".join(lines))[0]


def test_duplicate_keys_are_reported_with_the_rest(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("  picture:\n", "  picture:\n    encoder: ear\n") + "sed: 1\n"
    errors = workplace.errors(text)
    assert errors[0] == ("small.yaml:6: modalities.picture: duplicate key 'encoder', first on line 5; keep one of them")
    assert errors[1].startswith("small.yaml:27: sed: no key named 'sed'. Did you mean 'seed'?")


def test_missing_file_names_the_nearest(workplace: Workplace) -> None:
    path = workplace.write(SMALL_RECIPE, "vision_tiny.yaml")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path.with_name("vision_tny.yaml"))
    assert str(caught.value) == (
        f"no recipe at {path.with_name('vision_tny.yaml')}. Did you mean {path}? "
        "`adaptkit recipes` lists those that are here."
    )


def test_folder_and_binary_file(workplace: Workplace) -> None:
    with pytest.raises(RecipeError, match="is a folder; name the recipe file in it"):
        load_recipe(workplace.folder)
    path = workplace.folder / "weights.yaml"
    path.write_bytes(b"\x80\x81\xff")
    with pytest.raises(RecipeError, match=r"weights\.yaml: not UTF-8 text \(byte 0\), so not a recipe"):
        load_recipe(path)
    path.write_bytes(b"#" * 2_000_000)
    with pytest.raises(RecipeError, match="more than 1 MB, so not a recipe"):
        load_recipe(path)


def test_options_that_no_plugin_has_name_broken_plugins(workplace: Workplace) -> None:
    line = workplace.errors(SMALL_RECIPE, "modalities.picture.encoder.name=nose")[0]
    assert line == (
        "command line: modalities.picture.encoder.name: no encoder named 'nose'. Known: ear, eye. "
        "See `adaptkit plugins` for their sources."
    )


def test_media_beside_the_text_need_their_modules_in_every_stage(workplace: Workplace) -> None:
    text = SMALL_RECIPE.replace("{policy: inner, placement: {count: 2}}", "{policy: beside}")
    assert workplace.errors(text) == [
        "small.yaml:17: stages.align.train: the policy 'beside' of the workflow 'sight' keeps media out of the "
        "sequence, so its inserted modules are needed from the first stage on; add insertion, here or in a stage that "
        "this one starts from"
    ]
    early = text.replace("train: [projector]", "train: [projector, insertion]")
    workplace.load(early)
    workplace.load(early.replace("train: [projector, insertion, ends]", "train: [projector]"))
    apart = early.replace("train: [projector, insertion, ends]\n    start_from: align", "train: [projector]")
    assert len(workplace.errors(apart)) == 1
