"""The world's tokenizer: words, and numbers together with the punctuation of a box."""

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adaptkit.world.facts import DIGITS, fact_words
from adaptkit.world.scenes import BOX_BINS, CELLS, COLORS, SHAPES, SIZES

NUM_RESERVED = 8
SPECIAL_TOKENS = (
    "<pad>",
    "<unk>",
    "<|begin|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<image>",
    "<audio>",
    *(f"<|reserved_{i}|>" for i in range(NUM_RESERVED)),
)

_PUNCTUATION = ". , ; : ? ! '".split()
_SCENE_WORDS = "scene object objects cell color shape size describe repeat list recall by in at".split()
# What tutorials on other modalities and statements about images say.
_OTHER_WORDS = """
    a all an and answer any are as assistant be black both box boxes caption contains describe digit edge
    each else every exactly fewer following gray hear helpful image in is it item items least less listen many
    more most no none not of on only or other picture please question running same see sensor short sit sitting
    sound speak spoken standing statement than that the there this touching tower track two wall base walking
    watch what where which white with word yes you different left-most right-most above below
""".split()

CHAT_TEMPLATE = """\
{{- '<|begin|>' -}}
{%- for message in messages -%}
{{- '<|' + message['role'] + '|> ' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{{- part['text'] if part['type'] == 'text' else '<' + part['type'] + '>' -}}
{{- ' ' if not loop.last -}}
{%- endfor -%}
{%- endif -%}
{{- ' <|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>' -}}
{%- endif -%}
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Builds the tokenizer from its word list; the same list gives the same ids."""
    vocabulary = {token: number for number, token in enumerate(_vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    number = r"\[?\d+\.\d+[,\]]?"
    word = r"[a-z]+(?:-[a-z]+)*"
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{number}|{word}|\d|\S"), "removed", invert=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<|begin|>",
        eos_token="<|end|>",
        additional_special_tokens=[t for t in SPECIAL_TOKENS if t not in ("<pad>", "<unk>", "<|begin|>", "<|end|>")],
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _vocabulary() -> list[str]:
    numbers = [f"{k / BOX_BINS:.3f}" for k in range(BOX_BINS + 1)]
    boxes = [f"[{n}," for n in numbers] + [f"{n}," for n in numbers] + [f"{n}]" for n in numbers]
    words = sorted(
        {
            *SHAPES,
            *COLORS,
            *SIZES,
            *CELLS,
            *DIGITS,
            *map(str, range(10)),
            *fact_words(),
            *_SCENE_WORDS,
            *_OTHER_WORDS,
        }
        - set(_PUNCTUATION)
    )
    return [*SPECIAL_TOKENS, *_PUNCTUATION, *boxes, *words]
