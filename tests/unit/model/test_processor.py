"""Chat messages, text and media to a model's inputs."""

import copy
import functools
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, pipeline

import adaptkit
from adaptkit.errors import ArgumentError, DataError, ModelError
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


# -- keywords of stock processors ------------------------------------------------------------------------------------


def test_rows_are_padded_and_cut_as_asked(processor, picture):
    rows = {"text": ["<image> a", "<image> a longer one"], "images": [picture, picture]}
    padded = processor(**rows, padding=True, return_tensors="pt")
    width = padded["input_ids"].shape[1]
    assert padded["attention_mask"][0, 0] == 0
    assert processor(**rows, padding_side="right")["attention_mask"][0].tolist()[-1] == 0
    assert processor(**rows, padding="max_length", max_length=40)["input_ids"].shape == (2, 40)
    assert processor(**rows, pad_to_multiple_of=32)["input_ids"].shape == (2, 32)
    assert processor(**rows, truncation=True, max_length=width - 3)["input_ids"].shape == (2, width - 3)
    assert processor(**rows, text_kwargs={"max_length": 40, "padding": "max_length"})["input_ids"].shape == (2, 40)
    assert processor(**rows, padding="max_length", max_length=np.int64(40))["input_ids"].shape == (2, 40)
    with pytest.raises(ArgumentError, match="'tokenizer_kwargs'"):
        processor(**rows, tokenizer_kwargs={"padding": True})
    lists = processor(**rows, padding=False, return_tensors=None)["input_ids"]
    assert [len(row) for row in lists] == padded["attention_mask"].sum(1).tolist()
    with pytest.raises(DataError, match="padding=True"):
        processor(**rows, padding=False)
    with pytest.raises(DataError, match=r"max_length=9.*'image'"):
        processor(**rows, truncation=True, max_length=9)
    with pytest.raises(DataError, match="truncation=True"):
        processor(**rows, padding=True, max_length=20)


def test_what_a_batch_holds_beside_ids(processor, picture):
    names = ("mm_token_type_ids", "token_type_ids", "special_tokens_mask", "length")
    batch = processor(text="<image> a", images=picture, **{f"return_{name}": True for name in names})
    assert batch["mm_token_type_ids"][0].tolist() == [1] * POSITIONS + [0, 0]
    assert batch["length"].tolist() == [POSITIONS + 2]
    assert batch["token_type_ids"].shape == batch["special_tokens_mask"].shape == batch["input_ids"].shape
    assert "attention_mask" not in processor(text="a", return_attention_mask=False)
    assert list(processor(images=[[picture], [picture]])) == ["pixel_values"]


@pytest.mark.parametrize(("options", "words"), [
    ({"paddin": True}, "'padding'"),
    ({"text_kwargs": {"paddin": True}}, "'padding'"),
    ({"text_kwargs": {"padding": True}, "padding": True}, "twice"),
    ({"padding": "longst"}, "'longest'"),
    ({"padding_side": "lft"}, "'left'"),
    ({"max_length": 0}, "max_length"),
    ({"do_resize": False}, "do_resize.*encoder"),
    ({"images_kwargs": {"do_resize": False}}, "images_kwargs.*encoder"),
    ({"return_offsets_mapping": True}, "return_offsets_mapping"),
    ({"audio": [b""]}, "'audio'"),
])  # fmt: skip
def test_keywords_that_cannot_be_honoured_are_refused_by_name(processor, options, words):
    with pytest.raises(TypeError, match=words) as caught:
        processor(text="hello", **options)
    assert isinstance(caught.value, DataError)


def test_media_come_before_text_where_neither_is_named(processor, picture):
    named = processor(images=[picture], text=["<image> a"])
    assert torch.equal(processor([picture], ["<image> a"])["input_ids"], named["input_ids"])
    with pytest.raises(DataError, match="media, then text"):
        processor(["<image> a"], [picture])


def test_templates_are_told_what_they_ask_for(processor):
    messages = [user(text("a"))]
    template = "{% if enable_thinking %}T{% endif %}{% for t in tools or [] %}{{ t['name'] }}{% endfor %}"
    template += "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }};{% endfor %}"
    render = functools.partial(processor.apply_chat_template, messages, chat_template=template)
    assert render() == render(enable_thinking=False, tools=None) == "user:a;"
    assert render(enable_thinking=True, tools=[{"name": "f{%x"}]) == "Tf{%xuser:a;"
    ids = render(enable_thinking=True, tokenize=True)
    assert processor.decode(ids[0]) == "Tuser:a;"
    for unknown in ({"enable_thinking": True}, {"tools": [{}]}, {"add_generation_promt": True}):
        with pytest.raises(TypeError, match=next(iter(unknown))):
            processor.apply_chat_template(messages, **unknown)


def test_a_message_is_continued_where_it_ends(processor, picture):
    answer = {"role": "assistant", "content": "a red"}
    messages = [user({"type": "image", "image": picture}, text("what?"))]
    opened = processor.apply_chat_template([*messages, answer], continue_final_message=True)
    assert opened == processor.apply_chat_template(messages, add_generation_prompt=True) + "a red"
    batch = processor.apply_chat_template(
        [*messages, answer], continue_final_message=True, tokenize=True, return_dict=True
    )
    prompt = encode(processor, messages)["input_ids"][0].tolist()
    ids = batch["input_ids"][0].tolist()
    assert ids[: len(prompt)] == prompt
    assert processor.decode(ids[len(prompt) :]) == "a red"
    with pytest.raises(TypeError, match="add_generation_prompt"):
        processor.apply_chat_template([*messages, answer], continue_final_message=True, add_generation_prompt=True)
    marked = processor.apply_chat_template(
        [*messages, answer], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    said = marked["input_ids"][marked["assistant_masks"] == 1]
    assert processor.decode(said, skip_special_tokens=True) == "a red"


def test_media_may_be_given_beside_messages_that_only_place_them(processor, picture):
    placed, whole = ([user(part, text("a"))] for part in ({"type": "image"}, {"type": "image", "image": picture}))
    assert processor.apply_chat_template(placed) == processor.apply_chat_template(whole)
    one, other = encode(processor, placed, processor_kwargs={"images": [picture]}), encode(processor, whole)
    assert torch.equal(one["input_ids"], other["input_ids"])
    address = user({"type": "image_url", "image_url": {"url": str(picture)}}, text("a"))
    assert torch.equal(encode(processor, [address])["pixel_values"], other["pixel_values"])
    with pytest.raises(DataError, match="'image'"):
        encode(processor, placed)


def test_decoding_takes_what_tokenizers_take(processor):
    rows = torch.tensor([[40, processor.placeholder_ids["image"]], [41, 2]])
    assert processor.decode(rows, skip_special_tokens=True) == processor.batch_decode(rows, skip_special_tokens=True)
    assert processor.decode(40) == processor.decode([40]) == processor.post_process_image_text_to_text(rows)[0]
    assert (processor.image_token, processor.image_token_id) == ("<image>", processor.placeholder_ids["image"])
    assert not hasattr(processor, "audio_token")


def test_processors_are_built_pickled_and_loaded_with_settings(workflow, processor, picture, tmp_path):
    model = adaptkit.load(workflow)
    messages = [user({"type": "image", "image": picture}, text("what?"))]
    expected = encode(processor, messages)
    built = adaptkit.AdaptkitProcessor.from_model(model)
    given = adaptkit.AdaptkitProcessor.from_model(model, tiny_tokenizer(), chat_template=processor.chat_template)
    for other in (built, given, copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
        batch = encode(other, messages)
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
    load = AutoProcessor.from_pretrained
    assert load(workflow, chat_template="x").apply_chat_template([user(text("a"))]) == "x"
    assert load(workflow, padding_side="right")(text=["a", "aaa"])["attention_mask"][0, -1] == 0
    with pytest.raises(TypeError, match="'padding_side'"):
        load(workflow, paddin_side="right")


def test_a_tokenizer_beside_the_model_is_taken(workflow, tmp_path):
    folder = shutil.copytree(workflow, tmp_path / "base" / "copy")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "its own"
    tokenizer.save_pretrained(folder)
    assert adaptkit.load_processor(folder).apply_chat_template([user(text("a"))]) == "its own"


def test_generation_and_stock_pipelines_take_the_batch(workflow, processor, picture):
    model = adaptkit.load(workflow)
    messages = [user({"type": "image", "path": str(picture)}, text("what?"))]
    output = model.generate(**encode(processor, messages).to("cpu"), max_new_tokens=3, do_sample=False)
    pipe = pipeline("image-text-to-text", model=model, processor=processor)
    answer = pipe(text=messages, generate_kwargs={"max_new_tokens": 3, "do_sample": False}, return_full_text=False)
    expected = processor.decode(output[0, -3:], skip_special_tokens=True)
    assert answer[0]["generated_text"] == expected
    other = [user({"type": "image", "path": str(picture)}, text("what else is there?"))]
    options = {"generate_kwargs": {"max_new_tokens": 3, "do_sample": False}, "return_full_text": False}
    one, both = pipe(text=[messages, other], **options), pipe(text=[messages, other], batch_size=2, **options)
    assert [row[0]["generated_text"] for row in both] == [row[0]["generated_text"] for row in one]
