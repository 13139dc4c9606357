"""The model card that save_pretrained writes: what it says, what it never says, and what people write beside it."""

import json
import re
import shutil

import pytest
import torch
import yaml
from adaptkit_clip.preprocessing import default_processor
from huggingface_hub import ModelCard, constants
from PIL import Image
from transformers import AutoModelForCausalLM, CLIPVisionModel

import adaptkit
from adaptkit.errors import ModelError
from adaptkit.model.card.facts import Card, Dataset, Proof, Score, Stage, read_card
from adaptkit.model.card.readme import BEGIN, END
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer

STAGE = Stage(
    name="align", workflow="vision", train=["projector"], num_trainable=1234, num_steps=7, batch_size=32,
    optimizer="adamw", learning_rate=2e-5, data={"pictures": "weight 0.5", "talk": "100 samples an epoch"},
)  # fmt: skip
SCORE = Score(
    section="held_out", metric="accuracy", value=0.8125, num_samples=64, baselines={"blind": 0.25}, task="answers",
    dataset="held_out", rules="adaptkit 0.1.0",
)  # fmt: skip
PROOF = Proof(
    identical=True, prompts=["1 2 3", "4"], num_written=1, num_positions=4, num_answers=2, logits_sha256="a" * 64,
    answers_sha256="b" * 64, environment={"torch": "2.0", "dtype": "float32"},
)  # fmt: skip
FACTS = Card(
    name="run-vision", stages=[STAGE], scores=[SCORE], proof=PROOF,
    data=[Dataset(name="pictures", format="llava", num_samples=5), Dataset(name="talk", format="x", hub_id="org/talk")],
)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny_decoder("llama", num_hidden_layers=4).save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    tiny_clip_vision().save_pretrained(folder / "clip")
    default_processor(tiny_clip_vision().config).save_pretrained(folder / "clip")
    return folder


def adapt(base, encoder, **options):
    insertion = {"policy": "inner_adapter", "placement": {"layers": [1, 3]}, **options}
    return adaptkit.adapt(base, {"image": {"encoder": encoder, "projector": "linear"}}, insertion)


@pytest.fixture
def model(models):
    base = AutoModelForCausalLM.from_pretrained(models / "base")
    model = adapt(base, {"name": "clip", "path": str(models / "clip")})
    model.card = FACTS.model_copy(deep=True)
    return model


def metadata(folder):
    return ModelCard.load(folder / "README.md").data.to_dict()


def test_a_bare_workflow_has_a_card_of_what_is_known(models, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(models / "base")
    adapt(base, CLIPVisionModel.from_pretrained(models / "clip")).save_pretrained(tmp_path)
    data, text = metadata(tmp_path), (tmp_path / "README.md").read_text()
    assert (data["library_name"], data["pipeline_tag"]) == ("adaptkit", "image-text-to-text")
    assert data["tags"] == ["adaptkit", "inner_adapter", "image"]
    assert not data.keys() & {"base_model", "datasets", "model-index", "license", "language"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["base"]["content_hash"] in text
    assert config["modalities"]["image"]["encoder"]["content_hash"] in text
    assert "| 0–1 | frozen | base layer 0–1 |" in text
    assert "| 2 | inserted | started as a copy of base layer 1 |" in text
    assert "after the layers 1, 3" in text
    assert "encoders/image" in text
    assert text.count("othing is recorded") == 2


def test_facts_of_training_scores_and_proof_are_shown(model, tmp_path):
    model.save_pretrained(tmp_path)
    data, text = metadata(tmp_path), (tmp_path / "README.md").read_text()
    assert data["datasets"] == ["pictures", "org/talk"]
    [index] = yaml.safe_load(text.split("---")[1])["model-index"]
    [result] = index["results"]
    assert (index["name"], result["dataset"]["name"]) == ("run-vision", "held_out")
    assert result["metrics"] == [{"type": "accuracy", "value": 0.8125, "name": "held_out accuracy", "verified": False}]
    for fact in (
        "`align` | projector | 1,234 | 7 | 32 samples | 2e-05",
        "a" * 64,
        "b" * 64,
        "torch `2.0`",
        "blind 0.25",
    ):
        assert fact in text


def test_a_card_names_no_folder_and_is_the_same_each_time(models, model, tmp_path):
    model.save_pretrained(tmp_path / "one")
    again = adaptkit.load(tmp_path / "one")
    again.save_pretrained(tmp_path / "two")
    one, two = ((tmp_path / name / "README.md").read_text() for name in ("one", "two"))
    assert one == two
    facts = (tmp_path / "one" / "adaptkit_card.json").read_text()
    for path in (tmp_path, models):
        assert str(path) not in one + facts
        assert str(path.parent) not in one + facts


def test_ids_of_the_hub_are_the_base_model(models, model, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--org--base" / "snapshots" / ("a" * 40)
    shutil.copytree(models / "base", snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    adapt(AutoModelForCausalLM.from_pretrained("org/base"), tiny_clip_vision()).save_pretrained(tmp_path / "out")
    data = metadata(tmp_path / "out")
    assert (data["base_model"], data["base_model_relation"]) == ("org/base", "adapter")
    assert f"| `org/base` | `{'a' * 40}` |" in (tmp_path / "out" / "README.md").read_text()


def test_modalities_say_what_the_hub_calls_the_model(models, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(models / "base")
    tags = {}
    for names in (["image"], ["image", "sound"], ["thing"]):
        spec = {"encoder": tiny_clip_vision(), "projector": "linear"}
        kinds = {"image": "image", "sound": "audio", "thing": None}
        given = {name: {**spec, "type": kinds[name]} for name in names}
        adaptkit.adapt(base, given).save_pretrained(tmp_path / names[-1])
        tags[names[-1]] = metadata(tmp_path / names[-1]).get("pipeline_tag")
    assert tags == {"image": "image-text-to-text", "sound": "any-to-any", "thing": None}


def test_the_code_of_a_card_runs(models, model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    adaptkit.AdaptkitProcessor.from_model(model).save_pretrained(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    Image.new("RGB", (8, 8)).save(tmp_path / "FILE", format="png")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    unnamed = adapt(tiny_decoder("llama", num_hidden_layers=4), tiny_clip_vision())
    unnamed.save_pretrained(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.DOTALL)
    compile(code, "README.md", "exec")
    assert 'from_pretrained("BASE")' in code


# -- what people write ---------------------------------------------------------------------------------------------


def test_what_a_person_wrote_is_kept_wherever_it_is_saved(model, tmp_path):
    model.save_pretrained(tmp_path / "one")
    readme = tmp_path / "one" / "README.md"
    text = readme.read_text().replace("tags:\n", "license: mit\ntags:\n- mine\n").replace("- org/talk", "- org/more")
    readme.write_text(text.replace(BEGIN, f"Mine, above.\n\n{BEGIN}") + "\nMine, below.\n")
    loaded = adaptkit.load(tmp_path / "one")
    for place in ("one", "two"):
        loaded.save_pretrained(tmp_path / place)
        text, data = (tmp_path / place / "README.md").read_text(), metadata(tmp_path / place)
        assert text.index("Mine, above.") < text.index(BEGIN) < text.index(END) < text.index("Mine, below.")
        assert data["license"] == "mit"
        assert {"mine", "adaptkit"} <= {*data["tags"]}
        assert data["datasets"] == ["pictures", "org/talk", "org/more"]
    model.card = Card()
    model.save_pretrained(tmp_path / "one")  # what was generated before is not a person's
    assert metadata(tmp_path / "one")["datasets"] == ["org/more"]
    assert "model-index" not in metadata(tmp_path / "one")


def test_a_readme_of_ones_own_is_kept_and_what_is_generated_is_added(model, tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\nbase_model: org/known\ntags: one\n---\n# Mine\n")
    model.save_pretrained(tmp_path)
    text, data = (tmp_path / "README.md").read_text(), metadata(tmp_path)
    assert text.index("# Mine") < text.index(BEGIN)
    assert (data["license"], data["base_model"]) == ("mit", "org/known")
    assert "one" in data["tags"]


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe\x00", b"---\na: [\n---\n", f"{BEGIN}\ntext".encode(), f"{END}{BEGIN}".encode(), b"---\n- a\n---\n"],
)
def test_a_readme_that_cannot_be_read_is_not_overwritten(model, tmp_path, content):
    (tmp_path / "README.md").write_bytes(content)
    with pytest.raises(ModelError, match=r"README\.md"):
        model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    model.save_pretrained(tmp_path, model_card=False)
    assert (tmp_path / "README.md").read_bytes() == content
    adaptkit.load(tmp_path, base=model.base)


# -- facts ---------------------------------------------------------------------------------------------------------


def test_facts_survive_and_scores_are_of_the_tensors_they_were_measured_with(model, tmp_path):
    model.save_pretrained(tmp_path / "one")
    loaded = adaptkit.load(tmp_path / "one", base=model.base)
    loaded.save_pretrained(tmp_path / "two")
    assert read_card(tmp_path / "two") == read_card(tmp_path / "one")
    with torch.no_grad():
        next(iter(loaded.trainable_state_dict().values())).add_(1)
    loaded.save_pretrained(tmp_path / "two")
    card = read_card(tmp_path / "two")
    assert (card.scores, card.changed_since, card.stages) == ([], True, [STAGE])
    assert card.proof == PROOF
    assert "have been changed" in (tmp_path / "two" / "README.md").read_text()


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"stages": 3}', b'{"proof": {"prompts": ["a"]}}', b"\xff"])
def test_damaged_facts_are_refused_by_name(model, tmp_path, damage):
    model.save_pretrained(tmp_path)
    (tmp_path / "adaptkit_card.json").write_bytes(damage)
    with pytest.raises(ModelError, match=r"adaptkit_card\.json"):
        adaptkit.load(tmp_path, base=model.base)
    (tmp_path / "adaptkit_card.json").unlink()
    assert adaptkit.load(tmp_path, base=model.base).card == Card()
