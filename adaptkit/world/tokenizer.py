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

_PUNCTUATION = ". , ; : ? ! '"
_SCENE_WORDS = "scene object objects cell color shape size box describe repeat list recall by in at"
# What tutorials on other modalities and statements about images say.
_OTHER_WORDS = """
    a above all an and answer any are as assistant base be below black both box boxes caption contains
    describe different digit each edge else every exactly fewer following gray hear helpful image in is it
    item items least left-most less listen many more most no none not of on only or other picture please
    question right-most running same see sensor short sit sitting sound speak spoken standing statement than
    that the there this touching tower track two walking wall watch what where which white with word yes you
"""

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
            *_SCENE_WORDS.split(),
            *_OTHER_WORDS.split(),
        }
        - set(_PUNCTUATION.split())
    )
    return [*SPECIAL_TOKENS, *_PUNCTUATION.split(), *boxes, *words]
