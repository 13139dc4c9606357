"""Words that a tokenizer does not have: they become its unknown token, and are read and learned as that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from adaptkit.errors import DataError
from adaptkit.interfaces import DataSource, Message

NUM_SAMPLES = 100
"""Samples of each dataset that `describe_unknown_words` looks at."""

_NUM_SHOWN = 5


def unknown_words(tokenizer: Any, messages: Sequence[Message]) -> list[str]:
    """Words of a conversation that become the unknown token, each once.

    Tokenizers that spell every word out of bytes know all of them.

    Args:
        tokenizer: A transformers tokenizer.
        messages: Turns in order; media are left aside.
    """
    unknown = tokenizer.unk_token
    if unknown is None:
        return []
    parts = [part for message in messages for part in message["content"] if part["type"] == "text"]
    texts = [part["text"].replace(unknown, " ") for part in parts]  # that one stands there on purpose
    if not _with_unknown(tokenizer, texts):
        return []
    words = list(dict.fromkeys(word for text in texts for word in text.split()))
    return _with_unknown(tokenizer, words) or _with_unknown(tokenizer, texts)


def _with_unknown(tokenizer: Any, texts: list[str]) -> list[str]:
    """Those of some texts in whose ids the unknown token is."""
    if not texts:
        return []
    encoding = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    return [text for text, ids in zip(texts, encoding["input_ids"]) if tokenizer.unk_token_id in ids]


def list_words(words: Iterable[str]) -> str:
    """The first few words, quoted."""
    words = list(words)
    shown = ", ".join(f"{word!r:.40}" for word in words[:_NUM_SHOWN])
    return shown + (f" and {len(words) - _NUM_SHOWN} more" if len(words) > _NUM_SHOWN else "")


def describe_unknown_words(tokenizer: Any, name: str, source: DataSource) -> str | None:
    """A warning if words in the first samples of a dataset are unknown, else None.

    Args:
        tokenizer: A transformers tokenizer.
        name: Of the dataset.
        source: Its samples; bad ones are passed over.
    """
    if tokenizer.unk_token is None:
        return None
    words: dict[str, None] = {}
    number = min(NUM_SAMPLES, len(source))
    num_found = 0
    for index in range(number):
        try:
            found = unknown_words(tokenizer, source[index].messages)
        except DataError:
            continue
        words |= dict.fromkeys(found)
        num_found += bool(found)
    if not num_found:
        return None
    return (
        f"data.{name}: {num_found:,} of the first {number:,} conversations have words that the tokenizer does not "
        f"know, and that are read and learned as {tokenizer.unk_token}: {list_words(words)}. "
        "`adaptkit data check` finds all of them."
    )
