"""Chat templates that ship as text."""

import pickle
from datetime import datetime

import pytest

from adaptkit.chat.encoding import IGNORE_INDEX, encode_conversation
from adaptkit.chat.shipped import FAMILY_TEMPLATES, list_chat_templates, load_chat_template
from adaptkit.chat.template import fix_date, refuse_random, render_template
from adaptkit.errors import ModelError
from adaptkit.testing import tiny_tokenizer

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "picture", "picture": "a"}, {"type": "text", "text": "What?"}]},
    {"role": "assistant", "content": "A cat."},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes."},
]


def encode(template, messages=CONVERSATION):
    return encode_conversation(
        tiny_tokenizer(),
        messages,
        placeholder_ids={"picture": 999},
        num_positions=lambda *_: 2,
        chat_template=load_chat_template(template),
    )


@pytest.mark.parametrize("name", list_chat_templates())
def test_answers_alone_are_labelled(name):
    encoded = encode(name)
    labelled = [i for i in encoded.labels if i != IGNORE_INDEX]
    text = tiny_tokenizer().decode(labelled, skip_special_tokens=False)
    assert [text.count(answer) for answer in ("A cat.", "Yes.")] == [1, 1]
    assert not any(prompt in text for prompt in ("Be brief", "What?", "Sure?"))
    assert encoded.input_ids.count(999) == 2


def test_families_have_a_template_that_ships():
    assert set(FAMILY_TEMPLATES.values()) <= set(list_chat_templates())


def test_mistral_puts_the_system_message_into_the_first_turn():
    ids = [i for i in encode("mistral").input_ids if i != 999]
    text = tiny_tokenizer().decode(ids, skip_special_tokens=False)
    end = tiny_tokenizer().eos_token
    assert text == f"[INST] Be brief.\n\nWhat? [/INST]A cat.{end}[INST] Sure? [/INST]Yes.{end}"


def test_a_fixed_date_is_what_the_template_prints_in_any_format():
    template = (
        "\n{% if strftime_now is defined %}{% set day = '%-d/%m' %}{{ strftime_now('%d %b %Y') }}|"
        "{% macro late() %}{{ strftime_now('%B %-d, %Y at %H:%M:%S, %A, 100%%') }}{% endmacro %}{{ late() }}|"
        "{{ strftime_now(day) }}{% endif %}"
    )
    tokenizer, turns, form = tiny_tokenizer(), [{"role": "user", "content": "x"}], "\n%d %b %Y|%B %-d, %Y at "
    assert render_template(tokenizer, turns, False, template).startswith(datetime.now().strftime(form))
    date = datetime(2020, 1, 5, 9, 7, 3)
    fix_date(tokenizer, date)
    assert render_template(tokenizer, turns, False, template) == date.strftime(f"{form}%H:%M:%S, %A, 100%%|%-d/%m")
    assert (
        render_template(pickle.loads(pickle.dumps(tokenizer)), turns, False, template)[:12] == date.strftime(form)[:12]
    )


@pytest.mark.parametrize("template", ["{{ ['a', 'b'] | random }}", "{{ lipsum(2) }}"])
def test_a_template_that_draws_at_random_is_refused(template):
    with pytest.raises(ModelError, match=r"draws at random"):
        refuse_random(template)
    refuse_random("{{ messages[0].random }} is no filter, nor is 'a random' word")
