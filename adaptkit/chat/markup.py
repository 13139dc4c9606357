"""Tokens that structure a conversation, kept apart from the text of its messages.

A tokenizer makes `<|im_end|>` the end of a turn wherever it stands. In a message it is text: there the occurrence is
broken by a character that no text has before the template is rendered, so that what is found whole afterwards is the
template's own.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from tokenizers import AddedToken

BREAK = "\ufdd4"
_STAND_IN = "\ufdd5"

P = ParamSpec("P")
T = TypeVar("T")

_caches: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def cached(compute: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Call a function of a tokenizer once for each vocabulary size and other arguments, which must be hashable."""

    @wraps(compute)
    def look_up(tokenizer: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        cache = _caches.setdefault(tokenizer, {})
        key = (compute, len(tokenizer), args, tuple(kwargs.items()))
        if key not in cache:
            cache[key] = compute(tokenizer, *args, **kwargs)
        found: T = cache[key]
        return found

    return look_up


def forget(tokenizer: Any) -> None:
    """Drop what `cached` functions know of a tokenizer, after a change that its vocabulary does not show."""
    _caches.pop(tokenizer, None)


def token_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Ids of each of some texts, without special tokens around them."""
    options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, **options)["input_ids"]
    return ids


def added_tokens(tokenizer: Any) -> dict[str, tuple[int, bool]]:
    """Id of each token that the tokenizer cuts out of a text before anything else, and whether it is special.

    Some tokenizers list runs of whitespace among them; these have no structure and are skipped.
    """
    known = {str(token): (token_id, bool(token.special)) for token_id, token in tokenizer.added_tokens_decoder.items()}
    ids = tokenizer.convert_tokens_to_ids(list(tokenizer.all_special_tokens))
    known |= {str(token): (token_id, True) for token, token_id in zip(tokenizer.all_special_tokens, ids)}
    return {token: entry for token, entry in known.items() if token.strip()}


class Markup:
    """The tokens that text of messages must not become.

    Args:
        written: What the template writes: added tokens that are not special count where they stand in it.
    """

    def __init__(self, tokenizer: Any, written: str, placeholder_ids: Collection[int]) -> None:
        added = added_tokens(tokenizer)
        self.tokens = {
            token: i
            for token, (i, special) in added.items()
            if special or (token in written and not token.strip().isalnum())
        }
        by_id = {i: token for token, (i, _) in added.items()}
        for placeholder_id in placeholder_ids:
            token = by_id.get(placeholder_id) or _text_of(tokenizer, placeholder_id)
            if token:
                self.tokens[token] = placeholder_id
        self.placeholder_ids = frozenset(placeholder_ids)
        self.ids = frozenset(self.tokens.values()) - {tokenizer.unk_token_id}
        self._tokenizer = tokenizer
        # A token of one character cannot be broken inside: the break follows it
        longest_first = sorted(self.tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_unbroken, longest_first)) or r"(?!)")

    def find(self, text: str) -> list[re.Match[str]]:
        """Occurrences in a text."""
        return list(self._pattern.finditer(text))

    def escape(self, text: str) -> str:
        """Break every occurrence, those that overlap included."""
        pieces: list[str] = []
        position = 0
        while match := self._pattern.search(text, position):
            pieces += [text[position : match.start() + 1], BREAK]
            position = match.start() + 1
        return "".join([*pieces, text[position:]]) if pieces else text

    def surplus(self, text: str, ids: Sequence[int]) -> set[int]:
        """Ids of these tokens that a piece of rendered text became without holding them whole."""
        found = [i for i in ids if i in self.ids]
        if not found:
            return set()
        return set(Counter(found) - Counter(self.tokens[match[0]] for match in self.find(text)))

    def encode(self, text: str) -> list[int] | None:
        """Ids of a piece of rendered text in which broken occurrences are text; None where the tokenizer cannot.

        What is whole is the template's, and gets its id.
        """
        splitting = _splitting(self._tokenizer, tuple(self.tokens))
        if splitting is None:
            return None
        encode, stand_in, pattern = splitting
        written = [self.tokens[match[0].strip()] for match in pattern.finditer(text)]
        ids: list[int] = encode(pattern.sub(_STAND_IN, text).replace(BREAK, ""))
        if ids.count(stand_in) != len(written):
            return None
        following = iter(written)
        return [next(following) if i == stand_in else i for i in ids]


@cached
def _splitting(
    tokenizer: Any, tokens: tuple[str, ...]
) -> tuple[Callable[[str], list[int]], int, re.Pattern[str]] | None:
    """A copy of a fast tokenizer that splits the tokens, and knows one that stands in for all of them.

    A copy, since how a tokenizer of that library splits is a state that all threads share.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    by_text = {str(token): token for token in tokenizer.added_tokens_decoder.values()}
    backend = copy.deepcopy(backend)
    backend.no_truncation()
    backend.no_padding()
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=by_text[t].normalized) for t in tokens if t in by_text]
    )
    backend.add_tokens([AddedToken(_STAND_IN, special=False, normalized=False)])
    backend.encode_special_tokens = True
    spaced = [_with_whitespace(token, by_text) for token in sorted(tokens, key=len, reverse=True)]

    def encode(text: str) -> list[int]:
        return list(backend.encode(text, add_special_tokens=False).ids)

    return encode, backend.token_to_id(_STAND_IN), re.compile("|".join(spaced) or r"(?!)")


def _text_of(tokenizer: Any, token_id: int) -> str:
    """How an id of the vocabulary reads; empty for others."""
    if token_id >= len(tokenizer):
        return ""
    return str(tokenizer.decode([token_id], clean_up_tokenization_spaces=False)).strip()


def _unbroken(token: str) -> str:
    return re.escape(token) + (f"(?!{BREAK})" if len(token) == 1 else "")


def _with_whitespace(token: str, by_text: Mapping[str, Any]) -> str:
    """A pattern of a token with the whitespace around it that it swallows."""
    entry = by_text.get(token)
    before, after = (r"\s*" if entry is not None and getattr(entry, side) else "" for side in ("lstrip", "rstrip"))
    return before + _unbroken(token) + after
