"""Recipes over recipes, overrides over both, and environment variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptkit.errors import RecipeError

from .conftest import SMALL_RECIPE, Workplace


@pytest.fixture
def parent(workplace: Workplace) -> Path:
    return workplace.write(SMALL_RECIPE, "parent.yaml")


@pytest.mark.usefixtures("parent")
class TestExtends:
    def test_mappings_merge_key_by_key(self, workplace: Workplace) -> None:
        recipe = workplace.load("extends: parent.yaml\nbase: {revision: v1}\n")
        assert (recipe.base.path, recipe.base.revision) == ("some/decoder", "v1")
        assert recipe.name == "small"

    def test_stages_merge_by_name_and_keep_their_order(self, workplace: Workplace) -> None:
        new = "{name: more, workflow: sight, train: [projector], data: {pairs: 1}, optimizer: {learning_rate: 1}}"
        text = f"extends: parent.yaml\nstages:\n  - {{name: instruct, max_steps: 3}}\n  - {new}\n"
        recipe = workplace.load(text)
        assert [(stage.name, stage.max_steps) for stage in recipe.stages] == [
            ("align", -1), ("instruct", 3), ("more", -1),
        ]  # fmt: skip

    def test_stages_by_key_and_removed(self, workplace: Workplace) -> None:
        text = "extends: parent.yaml\nstages: {align: null, instruct: {start_from: null, max_steps: 3}}\n"
        assert [(stage.name, stage.max_steps) for stage in workplace.load(text).stages] == [("instruct", 3)]

    def test_mixture_and_placement_are_replaced_whole(self, workplace: Workplace) -> None:
        recipe = workplace.load(
            "extends: parent.yaml\n"
            "workflows: {sight: {insertion: {placement: {layers: [0]}}}}\n"
            "stages: [{name: instruct, data: {answers: 2}}]\n"
        )
        assert recipe.stage("instruct").data == {"answers": 2}
        placement = recipe.workflows["sight"].insertion.placement
        assert placement is not None
        assert placement.model_dump(exclude_none=True) == {"layers": [0]}

    def test_block_of_another_plugin_is_replaced_whole(self, workplace: Workplace) -> None:
        other = workplace.load("extends: parent.yaml\nmodalities: {picture: {encoder: {name: ear}}}\n")
        assert other.modalities["picture"].encoder.values() == {"sample_rate": 16000}
        same = workplace.load("extends: parent.yaml\nmodalities: {picture: {encoder: {name: eye, scale: 2}}}\n")
        assert same.modalities["picture"].encoder.values()["path"] == "some/encoder"

    def test_other_policy_drops_the_placement(self, workplace: Workplace) -> None:
        text = "extends: parent.yaml\nworkflows: {sight: {insertion: {policy: low_rank, rank: 2}}}\n"
        insertion = workplace.load(text).workflows["sight"].insertion
        assert (insertion.policy, insertion.placement, insertion.values()) == ("low_rank", None, {"rank": 2})

    def test_null_takes_a_key_back(self, workplace: Workplace) -> None:
        recipe = workplace.load(
            "extends: parent.yaml\ndata: {answers: {limit: null}, unused: null}\n"
            "stages: {instruct: {optimizer: {weight_decay: null}}}\n"
        )
        assert recipe.data["answers"].values()["limit"] is None
        assert recipe.stage("instruct").optimizer.weight_decay == 0.0

    def test_null_in_a_child_wins_over_stage_defaults(self, workplace: Workplace) -> None:
        text = "extends: parent.yaml\nstage_defaults: {max_length: 9}\nstages: {align: {max_length: null}}\n"
        assert [stage.max_length for stage in workplace.load(text).stages] == [2048, 9]

    def test_chain_through_folders(self, workplace: Workplace) -> None:
        workplace.write("extends: ../parent.yaml\nseed: 1\nmax_bad_fraction: 0.5\n", "more/middle.yaml")
        recipe = workplace.load("extends: more/middle.yaml\nseed: 2\n")
        assert (recipe.seed, recipe.max_bad_fraction, recipe.base.path) == (2, 0.5, "some/decoder")

    def test_name_and_description_are_not_inherited(self, workplace: Workplace) -> None:
        workplace.write("extends: parent.yaml\nname: middle\ndescription: x\n", "middle.yaml")
        recipe = workplace.load("extends: middle.yaml\n", name="last.yaml")
        assert (recipe.name, recipe.description) == ("last", "")

    def test_problems_name_the_file_that_holds_the_key(self, workplace: Workplace) -> None:
        workplace.write(SMALL_RECIPE.replace("limit: 10", "limit: 0"), "parent.yaml")
        errors = workplace.errors("extends: parent.yaml\nbase: {dtype: float31}\n", "base.revison=a")
        assert errors == [
            "parent.yaml:13: data.answers.limit: should be greater than or equal to 1, not 0",
            "small.yaml:2: base.dtype: no choice named 'float31'. Did you mean 'float32'? "
            "Known: auto, bfloat16, float16, float32.",
            "command line: base.revison: no key named 'revison'. Did you mean 'revision'? Known: "
            "attn_implementation, chat_template, dtype, model_type, path, quantization, revision, "
            "special_tokens_in_text, trust_remote_code.",
        ]

    def test_circle(self, workplace: Workplace) -> None:
        workplace.write("extends: small.yaml\n", "other.yaml")
        assert workplace.errors("# x\nextends: other.yaml\n") == [
            "other.yaml:1: extends: recipes extend each other in a circle: small.yaml extends other.yaml extends "
            "small.yaml"
        ]

    def test_missing_parent(self, workplace: Workplace) -> None:
        assert workplace.errors("seed: 1\nextends: parnt.yaml\n") == [
            "small.yaml:2: extends: no recipe at parnt.yaml. Did you mean parent.yaml? `adaptkit recipes` lists "
            "those that are here."
        ]
        assert workplace.errors("extends: [parent.yaml]\n") == [
            "small.yaml:1: extends: should be the path of one recipe, not ['parent.yaml']"
        ]

    def test_child_stages_as_a_mapping_must_exist(self, workplace: Workplace) -> None:
        assert workplace.errors("extends: parent.yaml\nstages: {algn: null}\n") == [
            "small.yaml:2: stages.algn: no stage named 'algn'. Did you mean 'align'? Known: align, instruct."
        ]


class TestOverrides:
    def test_values_are_yaml(self, workplace: Workplace) -> None:
        recipe = workplace.load(
            SMALL_RECIPE,
            "stages.align.train=[projector, insertion]",
            "stages.align.optimizer.learning_rate=3e-4",
            "stages.instruct.optimizer.groups={insertion: {name: muon}}",
            "base.path=/models/a=b",
            "base.revision='7'",
        )
        assert recipe.stage("align").train == ["projector", "insertion"]
        assert recipe.stage("align").optimizer.learning_rate == 3e-4
        assert recipe.stage("instruct").optimizer.groups["insertion"].name == "muon"
        assert (recipe.base.path, recipe.base.revision) == ("/models/a=b", "7")

    def test_one_weight_of_a_mixture(self, workplace: Workplace) -> None:
        recipe = workplace.load(SMALL_RECIPE, "stages.instruct.data.pairs=0.25")
        assert recipe.stage("instruct").data == {"pairs": 0.25, "answers": 1.0}
        whole = workplace.load(SMALL_RECIPE, "stages.instruct.data={pairs: 0.25}")
        assert whole.stage("instruct").data == {"pairs": 0.25}

    @pytest.mark.parametrize("reverse", [False, True])
    def test_order_of_different_keys_does_not_matter(self, workplace: Workplace, reverse: bool) -> None:
        overrides = ["workflows.sight.insertion.policy=low_rank", "workflows.sight.insertion.placement.last=1"]
        recipe = workplace.load(SMALL_RECIPE, *(overrides[::-1] if reverse else overrides))
        insertion = recipe.workflows["sight"].insertion
        assert insertion.policy == "low_rank"
        assert insertion.placement is not None
        assert insertion.placement.last == 1

    def test_last_of_one_key_holds(self, workplace: Workplace) -> None:
        assert workplace.load(SMALL_RECIPE, "seed=1", "seed=2").seed == 2

    def test_stage_by_place_and_removed(self, workplace: Workplace) -> None:
        recipe = workplace.load(SMALL_RECIPE, "stages.0=", "stages.1.start_from=", "stages.instruct.seed=3")
        assert [(stage.name, stage.seed, stage.start_from) for stage in recipe.stages] == [("instruct", 3, None)]

    def test_new_entries(self, workplace: Workplace) -> None:
        recipe = workplace.load(
            SMALL_RECIPE, "data.mine.format=json", "data.mine.path=mine.json", "stages.align.data={mine: 1}"
        )
        assert recipe.data["mine"].values()["path"] == "mine.json"

    @pytest.mark.parametrize(
        ("override", "expected"),
        [
            ("seed", "command line: 'seed' is not an override: write a.b.c=value, as in stages.align.max_steps=10"),
            ("a..b=1", "command line: 'a..b=1' is not an override: write a.b.c=value, as in "
             "stages.align.max_steps=10"),
            ("base.path=[1", "command line: base.path: not valid YAML: while parsing a flow sequence expected ',' or "
             "']', but got '<stream end>' (in the value '[1'; quote it if it is text)"),
            ("data.answrs.limit=1", "command line: data.answrs: no data source named 'answrs'. Did you mean "
             "'answers'? Known: answers, pairs."),
            ("workflows.site.insertion.placement.count=1", "command line: workflows.site: no workflow named 'site'. "
             "Did you mean 'sight'? Known: sight."),
            ("stages.align.optimizer.learning_rate=fast", "command line: stages.align.optimizer.learning_rate: "
             "should be a number, not 'fast'"),
            ("stages.align.train.7=ends", "command line: stages.align.train.7: no item named '7'. Known: 0."),
            ("base={a: 1, a: 2}", "command line: base: duplicate key 'a', first on line 1; keep one of them"),
        ],
    )  # fmt: skip
    def test_wrong_override(self, workplace: Workplace, override: str, expected: str) -> None:
        assert expected in workplace.errors(SMALL_RECIPE, override)


class TestVariables:
    def test_expanded_where_used(self, workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MODELS", "/models")
        monkeypatch.delenv("STEPS", raising=False)
        recipe = workplace.load(SMALL_RECIPE, "base.path=${MODELS}/x", "stages.align.max_steps=${STEPS:-12}")
        assert recipe.base.path == "/models/x"
        assert recipe.stage("align").max_steps == 12

    def test_unset(self, workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NOWHERE", raising=False)
        text = SMALL_RECIPE.replace("some/decoder", '"${NOWHERE}/x"').replace("pairs.json", '"${NOWHERE"')
        assert workplace.errors(text) == [
            "small.yaml:2: base.path: the environment variable NOWHERE is not set; set it, or write "
            "${NOWHERE:-default}",
            "small.yaml:12: data.pairs.path: '${' in '${NOWHERE' is not followed by NAME}; write ${NAME}, or $${ "
            "for the characters",
        ]

    def test_unset_where_nothing_uses_it(self, workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NOWHERE", raising=False)
        text = SMALL_RECIPE.replace("answers.json", '"${NOWHERE}.json"')
        assert "NOWHERE" in workplace.errors(text)[0]
        recipe = workplace.load(text, "stages.instruct.data={pairs: 1}")
        assert recipe.data["answers"].values()["path"] == "${NOWHERE}.json"

    def test_data_root_waits_until_data_is_read(self, workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NOWHERE", raising=False)
        recipe = workplace.load(SMALL_RECIPE + "data_root: ${NOWHERE}/data\n")
        with pytest.raises(RecipeError, match=r"^data_root: .* NOWHERE is not set"):
            recipe.data_folder()
        monkeypatch.setenv("NOWHERE", "/somewhere")
        assert recipe.data_folder() == Path("/somewhere/data")
        assert workplace.load().data_folder() == Path()
