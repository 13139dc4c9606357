import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, GenerationConfig, LlavaForConditionalGeneration

import adaptkit
from adaptkit.errors import ModelError
from adaptkit.export import export_llava
from adaptkit.testing import tiny_tokenizer
from tests.unit.export.workflows import OUTSIDE, base_of, processor_of, save_towers, workflow

TOWERS = [
    ("clip", False, "square"),
    ("clip", True, "none"),
    ("siglip", False, "square"),
    ("siglip", False, "none"),
    ("clip", False, "stretch"),
]


def pictures():
    generator = np.random.default_rng(0)
    sizes = [(64, 64), (97, 41), (30, 50)]
    return [Image.fromarray(generator.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def conversation(items):
    parts = [
        {"type": "text", "text": "look: "},
        {"type": "image", "image": items[0]},
        {"type": "text", "text": "\nwhy?"},
    ]
    more = [{"type": "image", "image": item} for item in items[1:]]
    return [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "text", "text": "because"}]},
        {"role": "user", "content": [*more, {"type": "text", "text": "and these?"}]},
    ]


def exported(
    tmp_path, tower="clip", keep_cls=False, pad="square", normalization="checkpoint", *, tokenizer=None, **options
):
    features = {"keep_cls": keep_cls, "pad": pad, "normalization": normalization}
    encoder = {"name": "clip", "path": save_towers(tmp_path)[tower], **features}
    model = workflow(encoder=encoder, **options)
    processor = processor_of(model, tokenizer)
    report = export_llava(model, processor, tmp_path / "out")
    return model, processor, report, AutoProcessor.from_pretrained(tmp_path / "out", backend="pil")


@pytest.mark.parametrize("normalization", ["checkpoint", "imagenet"])
@pytest.mark.parametrize(("tower", "keep_cls", "pad"), TOWERS)
def test_both_processors_make_the_same_batch(tmp_path, tower, keep_cls, pad, normalization):
    _, ours, report, stock = exported(tmp_path, tower, keep_cls, pad, normalization)
    assert type(stock).__name__ == "LlavaProcessor"
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    mine = ours.apply_chat_template(conversation(pictures()), **options)
    theirs = stock.apply_chat_template(conversation(pictures()), **options)
    expected = mine["input_ids"].masked_fill(mine["input_ids"] == OUTSIDE, report.placeholder_id)
    assert torch.equal(theirs["input_ids"], expected)
    torch.testing.assert_close(theirs["pixel_values"], mine["pixel_values"], atol=1e-6, rtol=0)
    assert report.media_difference is not None
    assert report.media_difference < 1e-6


def test_the_stock_pair_answers_as_the_workflow(tmp_path):
    model, ours, _, stock = exported(tmp_path)
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    batch = ours.apply_chat_template(conversation(pictures()), **options)
    answer = model.generate(**batch, max_new_tokens=8, do_sample=False)[0, batch["input_ids"].shape[1] :]
    plain = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out")
    batch = stock.apply_chat_template(conversation(pictures()), **options)
    theirs = plain.generate(**batch, max_new_tokens=8, do_sample=False)[0, batch["input_ids"].shape[1] :]
    assert torch.equal(theirs, answer)


@pytest.fixture(scope="module")
def unlucky(tmp_path_factory):
    """An export of a base with settings that have no effect, and a tokenizer that pads on the right, if at all."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.padding_side = "right"
    base = base_of("llama")
    base.generation_config = GenerationConfig.from_dict(
        {"temperature": 0.9, "top_p": 0.6, "output_scores": True, "max_new_tokens": 5}
    )
    folder = tmp_path_factory.mktemp("unlucky")
    return *exported(folder, tokenizer=tokenizer, base=base), folder / "out"


def test_settings_without_effect_are_left_out_and_named(unlucky):
    _, _, report, _, folder = unlucky
    assert {*report.dropped_settings} == {"temperature", "top_p", "output_scores"}
    stock = LlavaForConditionalGeneration.from_pretrained(folder)
    assert stock.generation_config.max_new_tokens == 5
    stock.save_pretrained(folder.parent / "again")


def test_rows_of_a_batch_are_continued_as_they_are_alone(unlucky):
    model, ours, _, stock, folder = unlucky
    plain = LlavaForConditionalGeneration.from_pretrained(folder)
    chats = [conversation(pictures())[:2], conversation(pictures())]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    texts = stock.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    images = [pictures()[:1], pictures()]
    batch = stock(text=texts, images=images, padding=True, return_tensors="pt", add_special_tokens=False)
    together = plain.generate(**batch, do_sample=False)[:, batch["input_ids"].shape[1] :]
    for chat, row in zip(chats, together, strict=True):
        alone = ours.apply_chat_template(chat, **options)
        answer = model.generate(**alone, do_sample=False, max_new_tokens=5)[0]
        assert torch.equal(row, answer[alone["input_ids"].shape[1] :])


def test_a_placeholder_of_the_tokenizer_keeps_its_name(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|reserved|>"]})
    _, _, report, stock = exported(
        tmp_path, tokenizer=tokenizer, vocab_size=270, placeholder_id=259, placeholder="<|reserved|>"
    )
    assert (report.placeholder, report.placeholder_id, report.added_rows) == ("<|reserved|>", 259, 0)
    assert stock.image_token == "<|reserved|>"


def test_rows_that_the_vocabulary_has_to_spare_are_used_first(tmp_path):
    _, _, report, stock = exported(tmp_path, vocab_size=270, placeholder_id=270)
    assert (report.placeholder, report.placeholder_id, report.added_rows) == ("<image>", 259, 0)
    assert stock.image_token_id == 259


def test_the_workflows_own_tokenizer_is_left_alone(tmp_path):
    tokenizer = tiny_tokenizer()
    exported(tmp_path, tokenizer=tokenizer)
    assert len(tokenizer) == 259
    assert "<image>" not in tokenizer.get_vocab()


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    encoder = {"name": "clip", "path": save_towers(tmp_path)["clip"]}
    model = workflow(encoder=encoder, vocab_size=400, placeholder_id=300, placeholder="<|im_start|>")
    with pytest.raises(ModelError, match=r"placeholder_id is 300.*'<\|im_start\|>' 1"):
        export_llava(model, processor_of(model), tmp_path / "out")


def test_a_saved_workflow_exports_from_disk(tmp_path):
    encoder = {"name": "clip", "path": save_towers(tmp_path)["clip"]}
    model = workflow(encoder=encoder)
    model.base.save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    model.base.name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "vision")
    loaded, processor = adaptkit.load(tmp_path / "vision"), adaptkit.load_processor(tmp_path / "vision")
    assert export_llava(loaded, processor, tmp_path / "out").logits_difference < 1e-5


def test_text_around_pictures_is_kept(tmp_path):
    encoder = {"name": "clip", "path": save_towers(tmp_path)["clip"]}
    model = workflow(encoder=encoder)
    model.config.modalities["image"].update({"start": "<seen>'", "end": "\\</seen>\n"})
    processor = processor_of(model)
    export_llava(model, processor, tmp_path / "out")
    stock = AutoProcessor.from_pretrained(tmp_path / "out", backend="pil")
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    mine = processor.apply_chat_template(conversation(pictures()), **options)["input_ids"]
    theirs = stock.apply_chat_template(conversation(pictures()), **options)["input_ids"]
    assert torch.equal(theirs.masked_fill(theirs == stock.image_token_id, OUTSIDE), mine)
