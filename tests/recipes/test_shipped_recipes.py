"""Every YAML under recipes/ is valid, and says what the paper says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adaptkit.errors import RecipeError
from adaptkit.plugin_manager import get_plugin_manager
from adaptkit.recipe import (
    Recipe,
    dump_recipe,
    find_recipes,
    load_encoder_recipe,
    load_recipe,
    opening_comment,
    recipe_json_schema,
)

RECIPES = Path(__file__).parents[2] / "recipes"
WORLD = RECIPES / "world"
ENCODERS = RECIPES / "real" / "encoders"
ALL = sorted(path for path in RECIPES.rglob("*.y*ml"))
LISTED = [path for path in ALL if WORLD not in path.parents]
TRAINING = [path for path in LISTED if ENCODERS not in path.parents]
PAPER = RECIPES / "iaa_vision_llama3.yaml"


def _id(path: Path) -> str:
    return str(path.relative_to(RECIPES))


def test_recipes_are_found() -> None:
    assert {path.stem for path in TRAINING} >= {
        "cogvlm_llama3",
        "every_format_llama3",
        "flamingo_llama3",
        "iaa14_vision_llama3",
        "iaa_vision_llama3",
        "iaa_vision_llama3_1m2",
        "iaa_vision_mistral",
        "iaa_vision_qwen2",
        "iaa_vision_small",
        "iaa_vision_tiny",
        "llava_llama3",
        "llava_lora_llama3",
        "llava_qwen2",
        "series_llama3",
        "whisper_librispeech_llama3",
        "whisper_speech_llama3",
    }
    assert [summary.path for summary in find_recipes([RECIPES])] == LISTED


@pytest.mark.parametrize("path", TRAINING, ids=_id)
def test_recipe_is_valid(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAPTKIT_DATA", raising=False)
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    copy = tmp_path / path.name
    copy.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(copy) == recipe


@pytest.mark.parametrize("path", sorted(set(LISTED) - set(TRAINING)), ids=_id)
def test_encoder_recipe_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAPTKIT_DATA", raising=False)
    recipe = load_encoder_recipe(path)
    assert recipe.name == path.stem
    comment = opening_comment(path.read_text(encoding="utf-8"))
    assert f"adaptkit train-encoder recipes/{_id(path)}" in comment
    for heading in ("Trains:", "Data:", "Command:"):
        assert f"\n{heading}" in comment


def test_world_recipes_are_valid() -> None:
    from adaptkit.world.build_decoder import DecoderOptions
    from adaptkit.world.build_encoder import EncoderOptions
    from adaptkit.world.storage import load_options

    types = {"decoder": DecoderOptions, "encoder": EncoderOptions}
    paths = {path.stem: path for path in set(ALL) - set(LISTED)}
    assert paths.keys() == types.keys()
    for name, path in paths.items():
        assert isinstance(load_options(path, types[name]), types[name])


@pytest.mark.parametrize("path", ALL, ids=_id)
def test_recipe_opens_with_what_it_is(path: Path) -> None:
    comment = opening_comment(path.read_text(encoding="utf-8"))
    assert comment
    if path in TRAINING:
        assert f"adaptkit train recipes/{_id(path)}" in comment
        for heading in ("Trains:", "Data:", "Hardware:", "Command:", "Expected:"):
            assert f"\n{heading}" in comment


@pytest.mark.parametrize("path", TRAINING, ids=_id)
def test_editors_accept_it(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    import yaml

    errors = jsonschema.Draft202012Validator(recipe_json_schema()).iter_errors(yaml.safe_load(path.read_text()))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@pytest.mark.parametrize(
    ("name", "right", "wrong", "expected"),
    [
        (PAPER.name, "feature_layer: -2", "feature_lyer: -2",
         "iaa_vision_llama3.yaml:{line}: modalities.image.encoder.feature_lyer: no key named 'feature_lyer'. Did you "
         "mean 'feature_layer'?"),
        (PAPER.name, "name: mlp2x_gelu", "name: mpl2x_gelu",
         "iaa_vision_llama3.yaml:{line}: modalities.image.projector.name: no projector named 'mpl2x_gelu'."),
        ("iaa_vision_tiny.yaml", "num_images: 3000", "num_image: 3000",
         "iaa_vision_tiny.yaml:{line}: data.world_questions.num_image: no key named 'num_image'. Did you mean "
         "'num_images'?"),
        ("iaa14_vision_llama3.yaml", "placement: {layers:", "placement: {layer:",
         "iaa14_vision_llama3.yaml:{line}: workflows.vision.insertion.placement.layer: no key named 'layer'. Did you "
         "mean 'layers'?"),
    ],
)  # fmt: skip
def test_a_broken_recipe_is_found(tmp_path: Path, name: str, right: str, wrong: str, expected: str) -> None:
    shutil.copytree(RECIPES, tmp_path / "recipes")
    path = tmp_path / "recipes" / name
    text = path.read_text(encoding="utf-8")
    assert right in text
    path.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    line = text[: text.index(right)].count("\n") + 1
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert expected.format(line=line) in str(caught.value)
    assert [summary.path.name for summary in find_recipes([tmp_path]) if not summary.valid]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(PAPER)


class TestPaper:
    """What the paper states, so that tuning the miniature cannot change it."""

    def test_models(self, recipe: Recipe) -> None:
        image = recipe.modalities["image"]
        assert recipe.base.path == "meta-llama/Meta-Llama-3-8B-Instruct"
        assert recipe.base.dtype == "bfloat16"
        assert image.encoder.values()["path"] == "openai/clip-vit-large-patch14-336"
        assert image.encoder.values()["feature_layer"] == -2
        assert not image.encoder.values()["keep_cls"]
        assert image.projector.name == "mlp2x_gelu"
        assert image.placeholder == "<|reserved_special_token_44|>"

    def test_workflows(self, recipe: Recipe) -> None:
        vision, grounding = recipe.workflows["vision"], recipe.workflows["grounding"]
        assert vision == grounding
        assert vision.replace_ends
        assert vision.insertion.policy == "inner_adapter"
        assert vision.insertion.placement is not None
        assert vision.insertion.placement.count == 8

    def test_stages(self, recipe: Recipe) -> None:
        everything = ["projector", "insertion", "ends"]
        assert [(s.name, s.workflow, s.train, s.start_from, s.optimizer.learning_rate) for s in recipe.stages] == [
            ("align", "vision", ["projector"], None, 1e-3),
            ("pretrain", "vision", everything, "align", 2e-5),
            ("instruct", "vision", everything, "pretrain", 2e-5),
            ("ground", "grounding", everything, "instruct", 2e-5),
        ]

    def test_llava_values(self, recipe: Recipe) -> None:
        assert [s.train_batch_size for s in recipe.stages] == [256, 256, 128, 128]
        for stage in recipe.stages:
            assert (stage.num_train_epochs, stage.max_steps) == (1, -1)
            assert (stage.lr_scheduler_type, stage.warmup_ratio) == ("cosine", 0.03)
            assert stage.optimizer.weight_decay == 0.0
            assert stage.max_length == 2048
            assert stage.bf16

    def test_data(self, recipe: Recipe) -> None:
        aligned = {"llava_558k": 1.0, "allava_caption_zh_100k": 1.0}
        assert recipe.stage("align").data == recipe.stage("pretrain").data == aligned
        assert set(recipe.stage("instruct").data) == {
            "llava_665k", "docvqa_50k", "vsr_10k", "scienceqa_21k", "allava_instruct_zh_40k",
        }  # fmt: skip
        assert set(recipe.stage("ground").data) == {"refcoco", "coco", "flickr30k_entities", "objects365"}
        assert recipe.data["allava_caption_zh_100k"].values()["limit"] == 100_000
        assert recipe.data["allava_instruct_zh_40k"].values()["limit"] == 40_000

    def test_accelerator(self, recipe: Recipe) -> None:
        assert recipe.accelerator.strategy == "zero2"


def test_fourteen_layers() -> None:
    recipe = load_recipe(RECIPES / "iaa14_vision_llama3.yaml")
    for workflow in recipe.workflows.values():
        assert workflow.insertion.placement is not None
        assert workflow.insertion.placement.layers == [0, 1, 5, 6, 10, 11, 15, 16, 20, 21, 25, 26, 30, 31]


def test_llava_data_only() -> None:
    recipe = load_recipe(RECIPES / "iaa_vision_llama3_1m2.yaml")
    assert [(stage.name, set(stage.data)) for stage in recipe.stages] == [
        ("align", {"llava_558k"}), ("pretrain", {"llava_558k"}), ("instruct", {"llava_665k"}),
    ]  # fmt: skip
    assert set(recipe.data) == {"llava_558k", "llava_665k"}
    assert set(recipe.workflows) == {"vision"}


def test_one_recipe_has_every_format() -> None:
    recipe = load_recipe(RECIPES / "every_format_llama3.yaml")
    used = {recipe.data[name].format for stage in recipe.stages for name in stage.data}
    ours = {c.name for c in get_plugin_manager().components("data source") if c.plugin == "adaptkit-data"}
    assert used >= ours - {"pairs", "llava"}


def test_lavin() -> None:
    recipe = load_recipe(RECIPES / "lavin_mma_llama.yaml")
    encoder, insertion = recipe.modalities["image"].encoder.values(), recipe.workflows["vision"].insertion
    assert (encoder["feature_layers"], encoder["tokens"]) == ([4, 8, 12, 16, 20, 24], "cls")
    assert (insertion.policy, insertion.placement) == ("mma", None)
    (stage,) = recipe.stages
    batch_size = stage.train_batch_size
    assert (batch_size, stage.num_train_epochs, stage.warmup_ratio) == (32, 20, 2 / 20)
    assert stage.optimizer.learning_rate == pytest.approx(9e-3 * batch_size / 256)
    assert (stage.optimizer.weight_decay, stage.optimizer.betas) == (0.02, (0.9, 0.95))
    assert stage.train == ["projector", "insertion"]
    assert not recipe.workflows["vision"].replace_ends


def test_other_backbone_changes_nothing_else() -> None:
    paper, qwen = load_recipe(PAPER), load_recipe(RECIPES / "iaa_vision_qwen2.yaml")
    assert qwen.base.path == "Qwen/Qwen2-7B-Instruct"
    assert qwen.modalities["image"].placeholder is None
    assert qwen.stages == paper.stages
    assert qwen.workflows == paper.workflows


@pytest.mark.parametrize("name", ["iaa_vision_tiny", "iaa_vision_small"])
def test_miniatures_keep_the_paper_s_shape(name: str) -> None:
    paper, tiny = load_recipe(PAPER), load_recipe(RECIPES / f"{name}.yaml")
    assert tiny.base.path == "world:decoder"
    assert tiny.base.dtype == "float32"
    assert tiny.modalities["image"].encoder.values()["path"] == "world:encoder"
    assert tiny.accelerator.strategy == "none"
    assert {data.format for data in tiny.data.values()} == {"world"}
    assert tiny.data_root is None
    assert tiny.workflows == paper.workflows
    assert [(s.name, s.workflow, s.train, s.start_from) for s in tiny.stages] == [
        (s.name, s.workflow, s.train, s.start_from) for s in paper.stages
    ]
    assert [task.name for task in tiny.evaluation.tasks] == ["world"]


def test_recipes_name_only_what_is_installed_here() -> None:
    names = {component.name for component in get_plugin_manager().components()}
    assert {"image", "clip", "mlpNx_gelu", "inner_adapter", "llava", "world"} <= names
