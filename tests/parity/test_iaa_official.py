"""Imported checkpoints of the authors against what their own code computed (float32, tolerance 1e-4)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import adaptkit
from adaptkit.importers import import_iaa_official
from tests.parity.iaa_batches import PAD_ID, expand, left_pad, right_pad

# Independent implementations of the same model agree to 1.1e-5 in float32; logits have a standard deviation of 2.2
TOLERANCE = 1e-4
WITH_MEDIA = ["MM", "G", "MM_two_images"]
WITHOUT_MEDIA = ["MM_noimage", "G_noimage", "Text"]
MEDIA = {"MM_two_images": [2, 3]}
INPUTS = {"MM_two_images": "two_images_input_ids", **dict.fromkeys(WITHOUT_MEDIA, "text_input_ids")}


@pytest.fixture(scope="module")
def variant(shared):
    folder = shared / "data" / "parity" / "iaa_official" / "llama8"
    if not (folder / "reference.safetensors").is_file():
        pytest.skip(f"no recording of the authors' code at {folder}")
    return folder


@pytest.fixture(scope="module")
def reference(variant):
    return load_file(variant / "reference.safetensors")


@pytest.fixture(scope="module")
def imported(variant, tmp_path_factory):
    return import_iaa_official(variant, tmp_path_factory.mktemp("iaa"))


@pytest.fixture(scope="module")
def workflows(imported):
    """One base and one encoder in memory, and both workflows on them."""
    vision = adaptkit.load(imported.workflows["vision"])
    grounding = adaptkit.load(imported.workflows["grounding"], base=vision.base, encoders=dict(vision.encoders.items()))
    return {"MM": vision, "G": grounding, "Text": vision.base}


def model_of(case, workflows):
    return workflows[case.split("_")[0]]


def inputs_of(case, reference):
    ids = reference["inputs/" + INPUTS.get(case, "input_ids")]
    inputs = {"input_ids": torch.tensor([expand(row) for row in ids.tolist()])}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if case in WITH_MEDIA:
        inputs["pixel_values"] = reference["inputs/pixel_values"][MEDIA.get(case, [0, 1])]
    return inputs


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def run(model, inputs, **options):
    return model(**inputs, **options)


@pytest.mark.parametrize("case", [*WITH_MEDIA, *WITHOUT_MEDIA])
def test_logits(case, workflows, reference):
    close(run(model_of(case, workflows), inputs_of(case, reference)).logits, reference[f"{case}/logits"])


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("case", [*WITH_MEDIA, *WITHOUT_MEDIA])
def test_generated_ids_and_their_logits(case, use_cache, workflows, reference):
    model, inputs = model_of(case, workflows), inputs_of(case, reference)
    prompt = reference["inputs/" + INPUTS.get(case, "input_ids")].shape[1]
    theirs = reference[f"{case}/generated_ids"][:, prompt:]
    output = model.generate(
        **inputs, max_new_tokens=theirs.shape[1], do_sample=False, use_cache=use_cache,
        return_dict_in_generate=True, output_logits=True, pad_token_id=PAD_ID,
    )  # fmt: skip
    assert torch.equal(output.sequences[:, inputs["input_ids"].shape[1] :], theirs)
    close(torch.stack(output.logits), reference[f"{case}/generate_step_logits"])


@pytest.mark.parametrize("case", ["MM", "G", "MM_two_images", "MM_noimage"])
def test_hidden_states_at_every_layer(case, workflows, reference):
    model = model_of(case, workflows)
    ours = run(model, inputs_of(case, reference), output_hidden_states=True).hidden_states
    frozen = [index for index, (kind, _) in enumerate(model.config.layer_map) if kind == "frozen"]
    theirs = reference[f"{case}/hidden_states"]
    close(torch.stack([*(ours[index] for index in frozen), ours[-1]]), theirs)


@pytest.mark.parametrize(("case", "inserted"), [("MM", "cache_condition"), ("G", "cache_condition_grounding")])
def test_the_cache_of_frozen_and_inserted_layers(case, inserted, workflows, reference):
    model = model_of(case, workflows)
    cache = run(model, inputs_of(case, reference), use_cache=True).past_key_values
    for kind, name in (("frozen", "cache_base"), ("inserted", inserted)):
        layers = [cache.layers[i] for i, (k, _) in enumerate(model.config.layer_map) if k == kind]
        ours = torch.stack([torch.stack([layer.keys, layer.values]) for layer in layers])
        close(ours, reference[f"{case}/{name}"])


def test_encoder_and_projectors(workflows, reference):
    pixel_values = reference["inputs/pixel_values"]
    features = workflows["MM"].encode("image", pixel_values)
    close(features, reference["vision/tower_out"])
    with torch.no_grad():
        close(workflows["MM"].projectors["image"](features), reference["vision/features_MM"])
        close(workflows["G"].projectors["image"](features), reference["vision/features_G"])


@torch.no_grad()
def test_text_with_a_picture_is_the_base_behind_the_grounding_projector(workflows, reference):
    """Their `Text` given images: a curiosity of their code, here by hand."""
    base, grounding = workflows["Text"], workflows["G"]
    inputs = inputs_of("MM", reference)
    media = inputs["input_ids"] == grounding.config.modalities["image"]["placeholder_id"]
    embeds = base.get_input_embeddings()(inputs["input_ids"].masked_fill(media, 0))
    features = grounding.projectors["image"](grounding.encode("image", inputs["pixel_values"]))
    embeds[media] = features.flatten(0, 1)
    close(base(inputs_embeds=embeds).logits, reference["Text_withimage/logits"])


@pytest.mark.parametrize(("case", "name", "item"), [("MM_ragged", "ragged", 0), ("MM_ragged_first", "ragged_first", 1)])
def test_rows_with_and_without_a_picture(case, name, item, workflows, reference):
    """Their code spends an image on a row without placeholder; ours is given only the one that is used."""
    rows = [expand(row) for row in reference[f"inputs/{name}_input_ids"].tolist()]
    inputs = {**right_pad(rows), "pixel_values": reference["inputs/pixel_values"][item : item + 1]}
    logits = run(workflows["MM"], inputs).logits
    for row, ids in enumerate(rows):
        close(logits[row, : len(ids)], reference[f"{case}/logits"][row, : len(ids)])


def left_padded(reference):
    ids, mask = reference["inputs/leftpad_input_ids"], reference["inputs/leftpad_attention_mask"]
    rows = [expand(row[m.bool()].tolist()) for row, m in zip(ids, mask)]
    assert len(rows[0]) > len(rows[1])  # the second row is the padded one
    return rows, {**left_pad(rows), "pixel_values": reference["inputs/pixel_values"][:2]}


def test_left_padding_is_right_where_theirs_is_shifted(workflows, reference):
    model = workflows["MM"]
    rows, inputs = left_padded(reference)
    logits = run(model, inputs).logits
    theirs = reference["MM_leftpad_quirk/logits"]
    for row, ids in enumerate(rows):
        alone = {"input_ids": torch.tensor([ids]), "pixel_values": inputs["pixel_values"][row : row + 1]}
        close(logits[row, -len(ids) :], run(model, alone).logits[0])
    close(logits[0], theirs[0])
    assert (logits[1, -1] - theirs[1, -1]).abs().max() > 0.1  # they mask real tokens and attend to padding


@pytest.mark.parametrize("use_cache", [True, False])
def test_left_padded_rows_generate_what_they_generate_alone(use_cache, workflows, reference):
    model = workflows["MM"]
    rows, inputs = left_padded(reference)
    options = {"max_new_tokens": 8, "do_sample": False, "use_cache": use_cache, "pad_token_id": PAD_ID}
    together = model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
    for row, ids in enumerate(rows):
        alone = {"input_ids": torch.tensor([ids]), "pixel_values": inputs["pixel_values"][row : row + 1]}
        assert torch.equal(model.generate(**alone, **options)[0, len(ids) :], together[row])


def test_the_base_is_the_stock_llm(imported, workflows, reference):
    from transformers import AutoModelForCausalLM

    stock = AutoModelForCausalLM.from_pretrained(imported.base)
    assert type(stock).__name__ == "LlamaForCausalLM"
    with torch.no_grad():
        logits = stock(reference["inputs/text_input_ids"]).logits
        assert torch.equal(logits, workflows["Text"](reference["inputs/text_input_ids"]).logits)
    close(logits, reference["Text/logits"])


def test_every_tensor_of_their_checkpoint_is_somewhere(imported, variant):
    def values(folder):
        return [t for f in Path(folder).glob("*.safetensors") for t in load_file(f).values()]

    folders = [imported.base, imported.encoder, *imported.workflows.values()]
    written = {(tuple(t.shape), t.double().sum().item()) for folder in folders for t in values(folder)}
    theirs = load_file(variant / "model.safetensors")
    assert {(tuple(t.shape), t.double().sum().item()) for t in theirs.values()} == written
