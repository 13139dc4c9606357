"""Where a turn ends: one list, from the template, for training, evaluation, generation and export."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList

import adaptkit
from adaptkit.chat.encoding import IGNORE_INDEX, encode_conversation
from adaptkit.chat.template import TurnEnd, answer_frame, describe_end_of_turn, end_of_turn, stop_settings
from adaptkit.evaluation.questions import Question, generate_answers
from adaptkit.model.processor import AdaptkitProcessor
from adaptkit.testing import tiny_clip_vision, tiny_decoder, tiny_tokenizer
from tests.unit.chat.test_encoding import BRACKETS, CHATML, LAST_DIFFERS, UPPERCASE, make_tokenizer

TEXT_END = CHATML.replace("<e>", "<|im_end|>")
LAST_ONLY = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}{% if loop.last %}<e>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
NO_END = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
WORDS_AND_END = CHATML.replace("<e>", "\n### End\n<e>")
WORDS_EVERY_TIME = (
    "{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}[end]\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% else %}<e>{% endif %}"
)
NEXT_ROLE = "{% for m in messages %}{{ '<s>' if m['role'] == 'user' else '<h>' }}{{ m['content'] }}{% endfor %}"
RETURNS = CHATML.replace("<e>", "{{ '<h>' if loop.last and m['role'] == 'assistant' else '<e>' }}")
NEEDS_SYSTEM = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML


@pytest.mark.parametrize(
    ("template", "tokens", "strings"),
    [
        (CHATML, ["<e>"], ()),
        (BRACKETS, ["<e>"], ()),
        (LAST_DIFFERS, ["<e>"], ()),
        (UPPERCASE, ["<e>"], ()),
        (NEEDS_SYSTEM, ["<e>"], ()),
        (LAST_ONLY, ["<e>", "<s>"], ()),
        (RETURNS, ["<h>", "<e>"], ()),
        (NEXT_ROLE, ["<s>"], ()),
        (TEXT_END, [], ("<|im_end|>",)),
        (NO_END, [], ()),
        (WORDS_AND_END, ["<e>"], ()),
        (WORDS_EVERY_TIME, [], ("[end]",)),
    ],
)
def test_the_end_is_what_the_template_renders(template: str, tokens: list[str], strings: tuple[str, ...]) -> None:
    tokenizer = make_tokenizer(template)
    trailer = "### End" if template == WORDS_AND_END else ""
    end = TurnEnd(tuple(tokenizer.convert_tokens_to_ids(tokens)), strings, trailer)
    assert end_of_turn(tokenizer, template) == end
    assert (describe_end_of_turn(tokenizer, template) is None) == bool(tokens)
    messages = [{"role": role, "content": "b"} for role in ("user", "assistant", "user", "assistant")]
    messages = messages if template != NEEDS_SYSTEM else [{"role": "system", "content": "s"}, *messages]
    encoded = encode_conversation(tokenizer, messages, placeholder_ids={}, num_positions=lambda *_: 1)
    learned = tokenizer.decode([label for label in encoded.labels if label != IGNORE_INDEX])
    ends = [token for token in (*tokens, *strings) if token in learned]
    assert any(learned.endswith(end) for end in ends) or template in (NO_END, NEXT_ROLE)
    assert bool(ends) == bool(tokens or strings)  # what generation stops at was learned


def test_ends_that_are_configured_are_kept_and_named_once() -> None:
    tokenizer = make_tokenizer(RETURNS)
    h, e = tokenizer.convert_tokens_to_ids(["<h>", "<e>"])
    assert stop_settings(tokenizer, RETURNS, 7) == {"eos_token_id": [7, e, h]}
    assert stop_settings(tokenizer, RETURNS, [8, h]) == {"eos_token_id": [8, h, e]}
    assert stop_settings(tokenizer, None) == {"eos_token_id": [e]}


@pytest.fixture(scope="module")
def base() -> Any:
    model = tiny_decoder("llama")
    model.generation_config.eos_token_id = 0
    return model


def build(base: Any, tokenizer: Any) -> tuple[Any, AdaptkitProcessor]:
    model = adaptkit.adapt(base, {"image": {"encoder": tiny_clip_vision(), "projector": "linear"}})
    processor = AdaptkitProcessor(tokenizer)
    model.stop_at(processor.stop_settings(model.generation_config))
    return model, processor


def saying(tokenizer: Any, prompt_length: int, text: str) -> Any:
    """Lets `generate` say this text and nothing else, over and over."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return lambda _, row: [ids[(len(row) - prompt_length) % len(ids)]]


@pytest.mark.parametrize("end", ["<|im_start|>", "<|stop|>"])
def test_a_saved_workflow_stops_where_its_template_ends_a_turn(base: Any, tmp_path: Any, end: str) -> None:
    """Though neither the tokenizer's eos token nor the base's generation config names it."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", end)
    model, processor = build(base, tokenizer)
    base.save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "w")
    processor.save_pretrained(tmp_path / "w")
    loaded = adaptkit.load(tmp_path / "w", base=base)
    assert base.generation_config.eos_token_id == 0
    assert base.generation_config.stop_strings is None
    batch = processor.apply_chat_template(
        [{"role": "user", "content": "q"}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    length = batch["input_ids"].shape[1]
    script = saying(tokenizer, length, f"red{end} and more")
    for generator, options in ((loaded, {}), (base, processor.stop_settings(base.generation_config))):
        output = generator.generate(
            **batch, max_new_tokens=60, do_sample=False, prefix_allowed_tokens_fn=script, **options
        )
        assert tokenizer.decode(output[0, length:]) == f"red{end}"
        assert processor.decode_answers(output[:, length:])[0].startswith("red")
    if end == "<|stop|>":
        assert processor.decode_answers(output[:, length:]) == ["red"]


@pytest.mark.parametrize("end", ["<|im_start|>", "<|stop|>"])
@pytest.mark.parametrize("trailer", ["", "\n[over]\n"])
@pytest.mark.parametrize("lead", ["", "[none]\n"])
def test_evaluation_reads_an_answer_up_to_its_end(
    base: Any, monkeypatch: Any, end: str, lead: str, trailer: str
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = LAST_DIFFERS.replace("<s>", "@").replace("<e>", trailer + end).replace("[none]\n", lead)
    model, processor = build(base, tokenizer)

    text = f"{lead}Hello there.{trailer}{end} and so on and on"
    said = tokenizer(text, add_special_tokens=False)["input_ids"]

    def say(config: Any, *, input_ids_seq_length: int, **_: Any) -> LogitsProcessorList:
        def force(input_ids: Any, scores: Any) -> Any:
            token = said[input_ids.shape[1] - input_ids_seq_length]
            return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([token]), 0.0)

        return LogitsProcessorList([force])

    monkeypatch.setattr(model, "_get_logits_processor", say)
    assert generate_answers(model, processor, [Question("", "q", "Hello there.")]) == ["Hello there."]


def test_reasoning_is_no_part_of_an_answer_that_is_compared() -> None:
    reasoning = "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>\n{% endif %}"
    template = CHATML.replace("{{ m['content'] }}", reasoning + "{{ m['content'] }}")
    frame = answer_frame(make_tokenizer(template), template)
    assert (frame.lead, frame.separator) == ("", "</think>\n")
    assert frame.content("<think>hm, red?</think>\nred") == "red"
    assert frame.content("red") == "red"


def test_an_export_stops_at_the_same_ends(base: Any) -> None:
    from adaptkit.export.stock import stock_generation_config

    model, processor = build(base, tiny_tokenizer())
    config = stock_generation_config(model, SimpleNamespace(token_id=5))  # type: ignore[arg-type]
    assert config.eos_token_id == processor.stop_settings(base.generation_config)["eos_token_id"] == [0, 2]
