"""A tokenizer's vocabulary against what it is used with: a model's embedding, and the words of data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from adaptkit.chat.markup import token_ids
from adaptkit.errors import DataError, ModelError, first_few
from adaptkit.interfaces import DataSource, Message

NUM_SAMPLES = 100
"""Samples of each dataset that `describe_unknown_words` looks at."""

_STANDARD_NAMES = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}


def unknown_words(tokenizer: Any, messages: Sequence[Message]) -> list[str]:
    """Words of a conversation that become the unknown token, each once.

    Tokenizers that spell every word out of bytes know all of them.
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
    return [text for text, ids in zip(texts, token_ids(tokenizer, texts)) if tokenizer.unk_token_id in ids]


def list_words(words: Iterable[str]) -> str:
    """The first few words, quoted."""
    return first_few([f"{word!r:.40}" for word in words])


def describe_unknown_words(tokenizer: Any, name: str, source: DataSource) -> str | None:
    """A warning if words in the first samples of a dataset are unknown, else None."""
    if tokenizer.unk_token is None:
        return None
    what = f"words that the tokenizer does not know, and that are read and learned as {tokenizer.unk_token}"
    return _describe(name, source, lambda messages: unknown_words(tokenizer, messages), what)


def describe_special_tokens(
    name: str, source: DataSource, find: Callable[[Sequence[Message]], list[str]], *, as_tokens: bool
) -> str | None:
    """A warning if texts in the first samples of a dataset hold the words of special tokens, else None.

    Args:
        as_tokens: Whether they become those tokens, rather than text.
    """
    fate = "read as those tokens, so that text can end or begin a turn" if as_tokens else "read and learned as text"
    advice = "" if as_tokens else " (base.special_tokens_in_text: true reads them as tokens)"
    return _describe(name, source, find, f"special tokens in their text, which are {fate}{advice}")


def _describe(name: str, source: DataSource, find: Callable[[Sequence[Message]], list[str]], what: str) -> str | None:
    words: dict[str, None] = {}
    num_samples, num_found = min(NUM_SAMPLES, len(source)), 0
    for index in range(num_samples):
        with suppress(DataError):
            found = find(source[index].messages)
            words |= dict.fromkeys(found)
            num_found += bool(found)
    if not num_found:
        return None
    return (
        f"data.{name}: {num_found:,} of the first {num_samples:,} conversations have {what}: {list_words(words)}. "
        "`adaptkit data check` finds all of them."
    )


def num_token_ids(tokenizer: Any) -> int:
    """Ids that a tokenizer may give, added tokens included: one more than the highest."""
    return 1 + max(tokenizer.get_vocab().values(), default=-1)


def check_vocabulary(tokenizer: Any, num_rows: int, where: str = "") -> None:
    """Make sure that every token of a tokenizer has a row in an embedding.

    Tokens that a family names for media of its own may lie beyond: some text models ship the tokenizer of a larger one.

    Args:
        where: What to begin the message with.

    Raises:
        ModelError: Some have none.
    """
    num_ids = num_token_ids(tokenizer)
    if num_ids <= num_rows:
        return
    standard = {token for name, token in tokenizer.special_tokens_map.items() if name in _STANDARD_NAMES}
    named = set(tokenizer.special_tokens_map.values()) - standard
    beyond = sorted((i, token) for token, i in tokenizer.get_vocab().items() if i >= num_rows and token not in named)
    if not beyond:
        return
    shown = first_few([f"{token!r:.40} (id {i})" for i, token in beyond])
    raise ModelError(
        f"{where}the tokenizer has {num_ids:,} token ids, but the model's embedding has {num_rows:,} rows. Without a "
        f"row: {shown}. Use the tokenizer that belongs to the model; or, if these tokens were added on purpose, "
        "enlarge the model before it is adapted: model.resize_token_embeddings(len(tokenizer)), and save_pretrained of "
        "both."
    )
