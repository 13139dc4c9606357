"""Chat messages, text and media to a model's inputs."""

import shutil

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, pipeline

import adaptkit
from adaptkit.errors import DataError, ModelError
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer

POSITIONS = 16


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    """Model and processor, saved beside their base and loaded again."""
    folder = tmp_path_factory.mktemp("workflow")
    base = tiny_decoder("llama")
    base.save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    base = type(base).from_pretrained(folder / "base")
    model = adaptkit.adapt(base, {"image": {"encoder": tiny_clip_vision(), "projector": "linear"}})
    model.save_pretrained(folder / "vision")
    return folder / "vision"


@pytest.fixture(scope="module")
def processor(workflow):
    return adaptkit.load_processor(workflow)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (40, 24), (200, 30, 30)).save(path)
    return path


def user(*parts):
    return {"role": "user", "content": list(parts)}


def text(words):
    return {"type": "text", "text": words}


def encode(processor, messages, **options):
    return processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, add_generation_prompt=True, **options
    )


def test_one_placeholder_per_position_where_the_medium_stands(processor, picture):
    placeholder = processor.placeholder_ids["image"]
    batch = encode(processor, [user(text("a"), {"type": "image", "image": picture}, text("b"))])
    ids = batch["input_ids"][0].tolist()
    start = ids.index(placeholder)
    assert ids[start : start + POSITIONS] == [placeholder] * POSITIONS
    assert ids.count(placeholder) == POSITIONS
    assert processor.decode(ids[:start]).endswith("a")
    assert processor.decode(ids[start + POSITIONS :]).startswith("b")
    assert batch["pixel_values"].shape == (1, 3, 32, 32)


def test_media_in_any_turn_and_rows_without_any(processor, picture):
    medium = {"type": "image", "path": str(picture)}
    rows = [
        [user(medium, text("one")), {"role": "assistant", "content": "yes"}, user(text("two"), medium)],
        [user(text("only words"))],
    ]
    left = encode(processor, rows)
    right = encode(processor, rows, padding_side="right")
    assert left["pixel_values"].shape[0] == 2
    assert (left["input_ids"] == processor.placeholder_ids["image"]).sum(1).tolist() == [2 * POSITIONS, 0]
    assert left["attention_mask"][1, 0] == 0 == right["attention_mask"][1, -1]
    for row in range(2):
        kept = [batch["input_ids"][row][batch["attention_mask"][row] == 1] for batch in (left, right)]
        assert torch.equal(*kept)


def test_text_with_tags_equals_messages(processor, picture):
    messages = [user({"type": "image", "image": picture}, text("what?"))]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert "<image>" in prompt
    from_text = processor(text=prompt, images=Image.open(picture), add_special_tokens=False)
    from_messages = encode(processor, messages)
    assert torch.equal(from_text["input_ids"], from_messages["input_ids"])
    assert torch.equal(from_text["pixel_values"], from_messages["pixel_values"])


@pytest.mark.parametrize(("prompt", "count", "words"), [
    ("<image> and <image>", 1, "more <image> tags than image items"),
    ("<image>", 2, r"2 image item\(s\) were given, but the text has 1"),
])  # fmt: skip
def test_tags_and_items_must_agree(processor, picture, prompt, count, words):
    with pytest.raises(DataError, match=words):
        processor(text=prompt, images=[picture] * count)


def test_wrong_input_is_refused_in_words(processor, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.png"):
        encode(processor, [user({"type": "image", "image": tmp_path / "nowhere.png"})])
    with pytest.raises(DataError, match="no part type named 'imag'"):
        encode(processor, [user({"type": "imag", "imag": "x"})])
    with pytest.raises(DataError, match="no kind of media named 'audio'"):
        processor(text="hello", audio=[b""])
    with pytest.raises(DataError, match="needs text"):
        processor(images=[])
    with pytest.raises(DataError, match="PyTorch tensors"):
        processor(text="hello", return_tensors="np")


def test_a_saved_processor_comes_back_through_the_auto_class(workflow, processor, picture, tmp_path):
    folder = shutil.copytree(workflow, tmp_path / "copy")
    processor.save_pretrained(folder)
    loaded = AutoProcessor.from_pretrained(folder)
    messages = [user({"type": "image", "image": picture}, text("what?"))]
    one, other = encode(loaded, messages), encode(processor, messages)
    assert type(loaded) is type(processor)
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_folder_without_a_tokenizer_is_refused_in_words(workflow, tmp_path):
    with pytest.raises(ModelError, match="is not a folder"):
        adaptkit.load_processor(tmp_path / "nowhere")


def test_generation_and_stock_pipelines_take_the_batch(workflow, processor, picture):
    model = adaptkit.load(workflow)
    messages = [user({"type": "image", "path": str(picture)}, text("what?"))]
    output = model.generate(**encode(processor, messages).to("cpu"), max_new_tokens=3, do_sample=False)
    pipe = pipeline("image-text-to-text", model=model, processor=processor)
    answer = pipe(text=messages, generate_kwargs={"max_new_tokens": 3, "do_sample": False}, return_full_text=False)
    expected = processor.decode(output[0, -3:], skip_special_tokens=True)
    assert answer[0]["generated_text"] == expected
