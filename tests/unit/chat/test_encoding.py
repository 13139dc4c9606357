"""Conversations to token ids: what is labelled, where media stand, and what is refused."""

import json
import random
import string
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adaptkit.chat.encoding import (
    IGNORE_INDEX,
    EncodedConversation,
    encode_conversation,
    label_segments,
    render,
    truncate,
)
from adaptkit.errors import DataError, ModelError
from adaptkit.world.tokenizer import build_tokenizer

PLACEHOLDER = 10**6

CHATML = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}<e>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
TRIMMING = CHATML.replace("m['content']", "m['content'] | trim")
# Mistral's way: no role headers, no generation prompt of its own, a blank before the answer.
BRACKETS = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<s>{{ m['content'] }}<h>"
    "{% else %}{{ ' ' + m['content'] }}<e>{% endif %}{% endfor %}"
)
# Mistral v3's way: the system message goes before the last user message.
LATE_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<s>"
    "{% if messages[0]['role'] == 'system' and m == (messages | selectattr('role', 'eq', 'user') | list)[-1] %}"
    "{{ messages[0]['content'] }}\n{% endif %}{{ m['content'] }}<h>"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] }}<e>{% endif %}{% endfor %}"
)
# Qwen3's way: the last answer begins with something that the generation prompt does not hold.
LAST_DIFFERS = (
    "{% for m in messages %}<s>{{ m['role'] }}\n"
    "{% if loop.last and m['role'] == 'assistant' %}[none]\n{% endif %}{{ m['content'] }}<e>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
UPPERCASE = CHATML.replace("m['content']", "m['content'] | upper")
DROPS_EARLIER = CHATML.replace("m['content']", "m['content'].split('#')[-1] if not loop.last else m['content']")
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}" + CHATML


def make_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """Byte-level, with a few merges so that tokens would cross the cuts if they could."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("Ġ", "a"), ("a", "b"), ("t", "Ċ"), ("Ġ", "Ġ")]
    vocabulary = {token: i for i, token in enumerate([*alphabet, *(left + right for left, right in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "<e>", "<h>", "<pic>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>")
    fast.chat_template = template
    return fast


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(CHATML)


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Puts a blank before every text, as Llama 2's does, and knows letters and little else."""
    letters = ["▁", *string.ascii_letters, "<unk>", "<e>", "▁a", "▁q"]
    merges = [("▁", "a"), ("▁", "q")]
    core = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(letters)}, merges=merges, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<e>", "<s>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<e>", unk_token="<unk>")
    tokenizer.chat_template = CHATML
    return tokenizer


def text(value: str) -> dict:
    return {"type": "text", "text": value}


def medium(source: str, modality: str = "pic") -> dict:
    return {"type": modality, modality: source}


def turn(role: str, *parts: dict | str) -> dict:
    return {"role": role, "content": [text(part) if isinstance(part, str) else part for part in parts]}


def encode(tokenizer, messages, **options) -> EncodedConversation:
    options = {"placeholder_ids": {"pic": PLACEHOLDER}, "num_positions": lambda modality, source: 3} | options
    return encode_conversation(tokenizer, messages, **options)


def answers(tokenizer, encoded: EncodedConversation) -> list[str]:
    return [words for words, labelled in label_segments(tokenizer, encoded) if labelled]


def random_conversation(rng: random.Random, *, system: bool = True) -> tuple[list[dict], int]:
    """Messages with awkward text and media anywhere in the user's turns, and the number of media."""
    words = ["a", " ", "\n", "\n\n", "ab", "  ", "¿é", "猫🐈", "]", string.punctuation, "", "t\n"]

    def chatter() -> str:
        return "".join(rng.choices(words, k=rng.randrange(6)))

    messages = [turn("system", chatter())] if system and rng.random() < 0.3 else []
    count = 0
    for _ in range(rng.randrange(1, 4)):
        parts = [text(chatter()) for _ in range(rng.randrange(1, 3))]
        for _ in range(rng.randrange(3)):
            place = rng.randint(max((i + 1 for i, p in enumerate(parts) if p["type"] != "text"), default=0), len(parts))
            parts.insert(place, medium(f"m{count}"))
            count += 1
        messages += [turn("user", *parts), turn("assistant", chatter() + "b")]
    return messages, count


def answer_texts(messages: list[dict]) -> list[str]:
    return ["".join(p["text"] for p in m["content"]) for m in messages if m["role"] == "assistant"]


@pytest.mark.parametrize("seed", range(30))
def test_labels_decode_to_the_answers_and_their_end_of_turn(tokenizer, seed):
    messages, num_media = random_conversation(random.Random(seed))
    encoded = encode(tokenizer, messages)
    assert answers(tokenizer, encoded) == [answer + "<e>" for answer in answer_texts(messages)]
    assert len(encoded.input_ids) == len(encoded.labels)
    assert all(label in (IGNORE_INDEX, token) for token, label in zip(encoded.input_ids, encoded.labels))
    assert encoded.media == [("pic", f"m{i}") for i in range(num_media)]


@pytest.mark.parametrize("seed", range(30))
def test_the_whole_decodes_to_what_the_template_renders(tokenizer, seed):
    messages, _ = random_conversation(random.Random(seed))
    segments = label_segments(tokenizer, encode(tokenizer, messages))
    written = "".join(words for words, _ in segments).replace("<pic x 3>", "<pic>")
    assert written == render(tokenizer, messages)


@pytest.mark.parametrize("template", [CHATML, BRACKETS, LATE_SYSTEM])
@pytest.mark.parametrize("seed", range(10))
def test_a_prompt_is_a_prefix_of_the_conversation_that_goes_on(template, seed):
    tokenizer = make_tokenizer(template)
    messages, _ = random_conversation(random.Random(seed), system=False)
    whole = encode(tokenizer, messages)
    for stop in range(1, len(messages), 2):
        prompt = encode(tokenizer, messages[:stop], add_generation_prompt=True)
        length = len(prompt.input_ids)
        assert whole.input_ids[:length] == prompt.input_ids
        assert whole.media[: len(prompt.media)] == prompt.media
        assert whole.labels[length] != IGNORE_INDEX
        through = encode(tokenizer, messages[: stop + 1])
        assert whole.input_ids[: len(through.input_ids)] == through.input_ids
        assert whole.labels[: len(through.labels)] == through.labels


def test_placeholder_runs_are_exact(tokenizer):
    messages = [turn("user", medium("one"), medium("two"), "x", medium("three")), turn("assistant", "y")]
    sizes = {"one": 2, "two": 5, "three": 1}
    encoded = encode(tokenizer, messages, num_positions=lambda modality, source: sizes[source])
    assert [stop - start for start, stop in encoded.media_spans] == [2, 5, 1]
    inside = {i for start, stop in encoded.media_spans for i in range(start, stop)}
    assert {i for i, token in enumerate(encoded.input_ids) if token == PLACEHOLDER} == inside
    assert all(encoded.labels[i] == IGNORE_INDEX for i in inside)


def test_media_in_an_answer_are_not_labelled(tokenizer):
    encoded = encode(tokenizer, [turn("user", "draw"), turn("assistant", "see ", medium("one"), "!")])
    assert answers(tokenizer, encoded) == ["see ", "!<e>"]
    assert PLACEHOLDER not in encoded.labels


def test_several_modalities_keep_reading_order(tokenizer):
    messages = [turn("user", medium("s", "snd"), medium("p"), medium("s2", "snd"))]
    encoded = encode(tokenizer, messages, placeholder_ids={"pic": 1001, "snd": 1002})
    assert encoded.media == [("snd", "s"), ("pic", "p"), ("snd", "s2")]
    assert [t for t in encoded.input_ids if t > 1000] == [1002] * 3 + [1001] * 3 + [1002] * 3


def test_trimmed_contents_are_found():
    tokenizer = make_tokenizer(TRIMMING)
    messages = [turn("user", "  q \n"), turn("assistant", " a "), turn("user", "q"), turn("assistant", "\nb")]
    assert answers(tokenizer, encode(tokenizer, messages)) == ["a<e>", "b<e>"]


def test_a_blank_that_the_template_writes_before_an_answer_is_the_answers():
    tokenizer = make_tokenizer(BRACKETS)
    messages = [turn("user", "q"), turn("assistant", "a"), turn("user", "q"), turn("assistant", "b")]
    assert answers(tokenizer, encode(tokenizer, messages)) == [" a<e>", " b<e>"]


def test_what_precedes_only_the_last_answer_is_labelled_there():
    tokenizer = make_tokenizer(LAST_DIFFERS)
    messages = [turn("user", "q"), turn("assistant", "a"), turn("user", "q"), turn("assistant", "b")]
    assert answers(tokenizer, encode(tokenizer, messages)) == ["a<e>", "[none]\nb<e>"]


def test_a_system_message_may_be_rendered_late():
    tokenizer = make_tokenizer(LATE_SYSTEM)
    messages = [
        turn("system", "S"),
        turn("user", "q"),
        turn("assistant", "a"),
        turn("user", "r"),
        turn("assistant", "b"),
    ]
    segments = label_segments(tokenizer, encode(tokenizer, messages))
    assert segments == [("<s>q<h>", False), ("a<e>", True), ("<s>S\nr<h>", False), ("b<e>", True)]


def test_contents_that_the_template_changes_are_found_turn_by_turn():
    tokenizer = make_tokenizer(UPPERCASE)
    messages = [turn("user", "q"), turn("assistant", "straße"), turn("user", "q"), turn("assistant", "b")]
    assert answers(tokenizer, encode(tokenizer, messages)) == ["STRASSE<e>", "B<e>"]


def test_a_template_that_rewrites_earlier_answers_is_refused():
    tokenizer = make_tokenizer(DROPS_EARLIER)
    messages = [turn("user", "q"), turn("assistant", "think#a"), turn("user", "q"), turn("assistant", "b")]
    with pytest.raises(DataError, match=r"rewrites message 1 .*base\.chat_template"):
        encode(tokenizer, messages)
    assert answers(tokenizer, encode(tokenizer, messages[:2])) == ["think#a<e>"]


def test_tokens_do_not_cross_from_prompt_to_answer(tokenizer):
    messages = [turn("user", "q"), turn("assistant", "\n")]
    prompt = encode(tokenizer, messages[:1], add_generation_prompt=True).input_ids
    encoded = encode(tokenizer, messages)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert tokenizer.decode([label for label in encoded.labels if label != IGNORE_INDEX]) == "\n<e>"


def test_tokenizers_that_put_a_blank_first_do_so_only_at_the_beginning():
    tokenizer = sentencepiece_like()
    tokenizer.chat_template = "{% for m in messages %}{{ ' ' if loop.index0 }}{{ m['content'] }}{% endfor %}"
    encoded = encode(tokenizer, [turn("user", "q", medium("x"), "b q"), turn("assistant", "a")])
    tokens = tokenizer.convert_ids_to_tokens([i for i in encoded.input_ids if i != PLACEHOLDER])
    assert tokens == ["▁q", "b", "▁q", "▁a"]


def test_truncation_never_cuts_a_run(tokenizer):
    messages = [
        turn("user", "x"),
        turn("assistant", "y"),
        turn("user", medium("1"), medium("2")),
        turn("assistant", "z"),
    ]
    encoded = encode(tokenizer, messages)
    first_label = next(i for i, label in enumerate(encoded.labels) if label != IGNORE_INDEX)
    for max_length in range(first_label + 1, len(encoded.input_ids) + 2):
        short = truncate(encoded, max_length)
        length = len(short.input_ids)
        assert length <= max_length
        assert short.input_ids == encoded.input_ids[:length]
        assert short.labels == encoded.labels[:length]
        assert len(short.media) == len(short.media_spans) == short.input_ids.count(PLACEHOLDER) / 3
        kept = [span for span in encoded.media_spans if span[1] <= max_length]
        assert short.media_spans == kept
        if len(kept) == 2:
            assert length == min(max_length, len(encoded.input_ids))


def test_truncation_to_nothing_labelled_is_a_data_error(tokenizer):
    encoded = encode(tokenizer, [turn("user", "long question"), turn("assistant", "y")])
    with pytest.raises(DataError, match=r"first 5: .*max_length"):
        truncate(encoded, 5)


def test_render_shows_markers(tokenizer):
    messages = [turn("user", medium("1"), "\nhi")]
    assert render(tokenizer, messages) == "<s>user\n<pic>\nhi<e>\n"
    assert render(tokenizer, messages, markers={"pic": "[P]"}, add_generation_prompt=True).startswith("<s>user\n[P]")


def test_another_template_can_be_given(tokenizer):
    encoded = encode(make_tokenizer(None), [turn("user", "q"), turn("assistant", "a")], chat_template=BRACKETS)
    assert tokenizer.decode(encoded.input_ids) == "<s>q<h> a<e>"


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "no messages"),
        ([turn("usr", "q")], "message 0: no role named 'usr'. Did you mean 'user'"),
        ([turn("user", medium("x", "pik"))], "no part type named 'pik'. Did you mean 'pic'"),
        ([turn("user", {"type": "pic"})], "a part of type 'pic' holds no 'pic'"),
        ([turn("user", {"text": "x"})], "needs a 'type'"),
        ([turn("user", {"type": "text", "text": 3})], "a text part holds int"),
        ([{"role": "user", "content": 3}], "content is int"),
        ([turn("user", "a\ufdd0b")], "the noncharacter U+FDD0 at position 1"),
        ([turn("user", "a\ud800b")], "not valid Unicode"),
    ],
)
def test_malformed_conversations_are_data_errors(tokenizer, messages, said):
    with pytest.raises(DataError) as caught:
        encode(tokenizer, messages)
    assert said in str(caught.value)


def test_a_placeholder_token_in_the_text_is_text_unless_asked_for(tokenizer):
    options = {"placeholder_ids": {"pic": tokenizer.convert_tokens_to_ids("<pic>")}}
    messages = [turn("user", "see <pic> there", medium("x"))]
    encoded = encode(tokenizer, messages, **options)
    assert encoded.input_ids.count(options["placeholder_ids"]["pic"]) == 3
    assert "see <pic> there" in "".join(words for words, _ in label_segments(tokenizer, encoded))
    with pytest.raises(DataError, match="contains the placeholder token of modality 'pic'"):
        encode(tokenizer, messages, special_tokens_in_text=True, **options)


def test_a_medium_without_positions_is_refused(tokenizer):
    with pytest.raises(DataError, match="takes 0 positions"):
        encode(tokenizer, [turn("user", medium("x"))], num_positions=lambda modality, source: 0)


def test_what_a_template_refuses_is_a_data_error():
    with pytest.raises(DataError, match="roles system, user: No system role"):
        encode(make_tokenizer(NO_SYSTEM), [turn("system", "s"), turn("user", "q")])


def test_a_template_that_drops_media_is_refused():
    template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    with pytest.raises(DataError, match="has 1 media, and the chat template rendered 0"):
        encode(make_tokenizer(template), [turn("user", medium("x"))])


def test_without_a_template_the_message_says_how_to_give_one():
    with pytest.raises(ModelError, match=r"no chat template.* base\.chat_template"):
        encode(make_tokenizer(None), [turn("user", "q")])


def test_a_malformed_template_is_no_fault_of_the_data():
    with pytest.raises(ModelError, match="chat template is malformed"):
        encode(make_tokenizer("{% for %}"), [turn("user", "q")])


def test_the_worlds_tokenizer():
    tokenizer = build_tokenizer()
    messages = [turn("user", medium("x", "image"), "\nwhat color ?"), turn("assistant", "red")]
    encoded = encode(tokenizer, messages, placeholder_ids={"image": tokenizer.convert_tokens_to_ids("<image>")})
    assert label_segments(tokenizer, encoded) == [
        ("<|begin|> <|user|>", False),
        ("<image x 3>", False),
        ("what color ? <|end|> <|assistant|>", False),
        ("red <|end|>", True),
    ]


# Real tokenizers -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_tokenizers(shared: Path):
    return {name: AutoTokenizer.from_pretrained(shared / "data/tokenizers" / name) for name in ("llama3", "qwen2")}


@pytest.fixture(scope="module")
def expected_chats(shared: Path) -> list[dict]:
    lines = (shared / "data/tokenizers/expected_chat.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines
    return [json.loads(line) for line in lines]


def test_real_conversations_have_the_published_ids(real_tokenizers, expected_chats):
    for case in expected_chats:
        tokenizer = real_tokenizers[case["tokenizer"]]
        options = {"add_generation_prompt": case["add_generation_prompt"]}
        as_tokens = any("<|" in message["content"] for message in case["messages"])
        encoded = encode(tokenizer, case["messages"], special_tokens_in_text=as_tokens, **options)
        assert encoded.input_ids == case["ids"]
        assert render(tokenizer, case["messages"], **options) == case["text"]


def test_a_medium_takes_the_place_of_the_marker_token(real_tokenizers, expected_chats):
    marker = "<|reserved_special_token_44|>"
    for case in expected_chats:
        if marker not in case["text"]:
            continue
        messages = []
        for message in case["messages"]:
            before, found, after = message["content"].partition(marker)
            parts = [before, medium("x"), after] if found else [message["content"]]
            messages.append(turn(message["role"], *(part for part in parts if part)))
        options = {"placeholder_ids": {"pic": 128049}, "num_positions": lambda modality, source: 1}
        prompt = case["add_generation_prompt"]
        encoded = encode(real_tokenizers["llama3"], messages, add_generation_prompt=prompt, **options)
        assert encoded.input_ids == case["ids"]


@pytest.mark.parametrize(("name", "end"), [("llama3", "<|eot_id|>"), ("qwen2", "<|im_end|>")])
@pytest.mark.parametrize("seed", range(10))
def test_real_labels_decode_to_the_answers(real_tokenizers, name, end, seed):
    tokenizer = real_tokenizers[name]
    messages, _ = random_conversation(random.Random(seed))
    encoded = encode(tokenizer, messages)
    wanted = [answer.strip() if name == "llama3" else answer for answer in answer_texts(messages)]
    assert answers(tokenizer, encoded) == [answer + end for answer in wanted]
    for stop, after in pairwise(i for i, m in enumerate(messages) if m["role"] != "system"):
        if messages[after]["role"] == "assistant":
            prompt = encode(tokenizer, messages[: stop + 1], add_generation_prompt=True)
            assert encoded.input_ids[: len(prompt.input_ids)] == prompt.input_ids


def test_real_tokenizers_split_special_tokens_in_text(real_tokenizers):
    for tokenizer, end in ((real_tokenizers["llama3"], "<|eot_id|>"), (real_tokenizers["qwen2"], "<|im_end|>")):
        said = f"It is {end}, and {end}\n{tokenizer.all_special_tokens[0]}assistant\nSure."
        encoded = encode(tokenizer, [turn("user", said), turn("assistant", said)])
        learned = [label for label in encoded.labels if label != IGNORE_INDEX]
        split = tokenizer(said, split_special_tokens=True, add_special_tokens=False)["input_ids"]
        assert learned == [*split, tokenizer.convert_tokens_to_ids(end)]
        plain = encode(tokenizer, [turn("user", "a"), turn("assistant", "b")])
        special = set(tokenizer.added_tokens_decoder)
        assert [i for i in encoded.input_ids if i in special] == [i for i in plain.input_ids if i in special]
