"""What a processor's callers may ask of the text's rows: padding, truncation, and which tensors a batch holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, SupportsIndex

import torch

from adaptkit.errors import ArgumentError, DataError, unknown_name

Row = dict[str, list[int]]
"""Lists of equal length by name, `input_ids` among them."""

PADDING = {True: "longest", False: "do_not_pad"}
TRUNCATION = {True: "longest_first", False: "do_not_truncate", None: "do_not_truncate"}

_PREPROCESSING = "how media are prepared is the encoder's, in training too: set it in the options of its encoder"
_PIECES = "text is tokenised in pieces around the media, so that this cannot be given"
_PAIRS = "a prompt is one text"
REFUSED = {
    **dict.fromkeys(
        ("return_offsets_mapping", "return_overflowing_tokens", "return_text_replacement_offsets"), _PIECES
    ),
    **dict.fromkeys(("is_split_into_words", "stride"), _PIECES),
    **dict.fromkeys(("text_pair", "text_target", "text_pair_target"), _PAIRS),
    **dict.fromkeys(("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_pad"), _PREPROCESSING),
    **dict.fromkeys(("do_rescale", "rescale_factor", "do_normalize", "do_convert_rgb"), _PREPROCESSING),
    **dict.fromkeys(("data_format", "input_data_format", "device", "num_frames", "fps"), _PREPROCESSING),
    "sampling_rate": "give each item as (samples, rate)",
}
"""Keywords of transformers' processors that a workflow's has no use for, and why."""

MEDIA_OPTIONS = "_kwargs"
"""How transformers' keywords end that hold the options of one kind of input."""


@dataclass(frozen=True)
class TextOptions:
    """Options of transformers' tokenizers that a processor honours; those for media are their encoder's.

    Attributes:
        add_special_tokens: Whether to begin with the tokenizer's own special tokens where the text does not.
        padding: True or `"longest"`, `"max_length"`, False or `"do_not_pad"`; the longest row by default.
        truncation: True (`"longest_first"`, `"only_first"`) or False; a medium is never cut in half.
        max_length: In positions; the tokenizer's `model_max_length` where not given.
        pad_to_multiple_of: Width of a padded batch.
        padding_side: `"left"` for generation.
        return_tensors: `"pt"`, or None for lists.
        return_attention_mask: Whether the batch has one.
        return_mm_token_type_ids: Whether the batch tells text (0) from media (1 and up).
        return_token_type_ids: Whether the batch has zeros of that name.
        return_special_tokens_mask: Whether the batch marks special tokens.
        return_length: Whether the batch has the number of positions of each row.
        verbose: As for tokenizers.
    """

    add_special_tokens: bool = True
    padding: bool | str | None = None
    truncation: bool | str | None = None
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    padding_side: Literal["left", "right"] = "left"
    return_tensors: str | None = "pt"
    return_attention_mask: bool = True
    return_mm_token_type_ids: bool = False
    return_token_type_ids: bool = False
    return_special_tokens_mask: bool = False
    return_length: bool = False
    verbose: bool = True

    def __post_init__(self) -> None:
        _check("padding", self.padding, [None, True, False, "longest", "max_length", "do_not_pad"])
        allowed = [None, True, False, "longest_first", "only_first", "do_not_truncate"]
        _check("truncation", self.truncation, allowed)
        _check("padding_side", self.padding_side, ["left", "right"])
        for name in ("max_length", "pad_to_multiple_of"):
            value = getattr(self, name)
            if isinstance(value, bool) or not (value is None or (isinstance(value, SupportsIndex) and int(value) > 0)):
                raise ArgumentError(f"{name}={value!r}: a positive whole number is needed.")
        if self.return_tensors not in (None, "pt", "auto"):
            raise ArgumentError(
                f"return_tensors={self.return_tensors!r}: a batch holds PyTorch tensors ('pt'), or lists (None)."
            )

    @classmethod
    def of(
        cls, given: Mapping[str, Any], others: Collection[str] = (), hint: str = "", media: Collection[str] = ()
    ) -> TextOptions:
        """Options by keyword, flat or in `text_kwargs` and `common_kwargs`.

        Errors suggest `others`, and end in the hint. `media` have options of their own, such as `images_kwargs`.

        Raises:
            ArgumentError: A keyword is unknown, was given twice, or is one that a workflow cannot honour.
        """
        known = [field.name for field in fields(cls)]
        options: dict[str, Any] = {}
        for name, value in given.items():
            if name in ("text_kwargs", "common_kwargs"):
                for inner, one in (value or {}).items():
                    if inner in given or inner in options:
                        raise ArgumentError(f"{inner} was given twice: in {name} and beside it.")
                    options[inner] = one
            elif name.endswith(MEDIA_OPTIONS) and name.removesuffix(MEDIA_OPTIONS) in media:
                if value:
                    raise ArgumentError(f"{name}={value!r}: {_PREPROCESSING}.")
            else:
                options[name] = value
        for name in options:
            if name in REFUSED:
                raise ArgumentError(f"{name}: {REFUSED[name]}.")
            if name not in known:
                raise ArgumentError(unknown_name("keyword of this processor", name, [*known, *others], hint=hint))
        if options.get("return_tensors") == "auto":
            options["return_tensors"] = "pt"
        values = {n: v for n, v in options.items() if v is not None or n in ("return_tensors", "truncation", "padding")}
        return cls(**values)

    def truncate(self, rows: list[Row], tokenizer: Any, media_ids: Mapping[str, int]) -> list[Row]:
        """Rows no longer than asked.

        Raises:
            DataError: Positions of a medium would be cut off, or a row is too long and truncation is off.
        """
        wanted = TRUNCATION.get(self.truncation, self.truncation) != "do_not_truncate"  # type: ignore[arg-type]
        if self.truncation is None and self.padding is None and self.max_length is not None:
            wanted = True  # as tokenizers understand a length alone
        limit = self.max_length or (_limit_of(tokenizer) if wanted else None)
        longest = max(len(row["input_ids"]) for row in rows)
        if limit is None or longest <= limit:
            return rows
        if not wanted:
            raise DataError(f"a text takes {longest} positions, and max_length is {limit}: pass truncation=True too.")
        kept = slice(-limit, None) if tokenizer.truncation_side == "left" else slice(limit)
        shorter = [{name: values[kept] for name, values in row.items()} for row in rows]
        for name, token_id in media_ids.items():
            before = sum(row["input_ids"].count(token_id) for row in rows)
            after = sum(row["input_ids"].count(token_id) for row in shorter)
            if before != after:
                raise DataError(
                    f"truncation to max_length={limit} would cut {before - after} of {before} positions of {name!r} "
                    "off: raise max_length, or shorten the text or the media."
                )
        return shorter

    def pad(self, rows: list[Row], tokenizer: Any, pad_token_id: int) -> dict[str, Any]:
        """Rows of equal length, as tensors or lists, with a mask of what is not padding.

        Raises:
            DataError: Lengths differ and padding is off, where tensors are asked for.
        """
        lengths = [len(row["input_ids"]) for row in rows]
        padding = "longest" if self.padding is None else PADDING.get(self.padding, self.padding)  # type: ignore[arg-type]
        width = None if padding == "do_not_pad" else max(lengths)
        if padding == "max_length":
            limit = self.max_length or _limit_of(tokenizer)
            if limit is None:
                raise ArgumentError("padding='max_length' needs max_length: the tokenizer has no model_max_length.")
            width = max(limit, *lengths)
        if width is not None and self.pad_to_multiple_of:
            width = -(-width // self.pad_to_multiple_of) * self.pad_to_multiple_of
        if width is None and self.return_tensors and len(set(lengths)) > 1:
            raise DataError(f"rows of {min(lengths)} to {max(lengths)} positions make no tensor: pass padding=True.")
        batch: dict[str, Any] = {}
        fill = {"input_ids": pad_token_id, "special_tokens_mask": 1}
        masked = [{**row, "attention_mask": [1] * length} for row, length in zip(rows, lengths)]
        for name in masked[0]:
            batch[name] = [self._fill(row[name], width, fill.get(name, 0)) for row in masked]
        if not self.return_attention_mask:
            del batch["attention_mask"]
        if self.return_length:
            batch["length"] = lengths
        return {n: torch.tensor(v, dtype=torch.long) for n, v in batch.items()} if self.return_tensors else batch

    def _fill(self, values: Sequence[int], width: int | None, filling: int) -> list[int]:
        more = [filling] * (0 if width is None else width - len(values))
        return [*more, *values] if self.padding_side == "left" else [*values, *more]


def _check(name: str, value: Any, allowed: Sequence[Any]) -> None:
    if not any(value is one or (isinstance(value, str) and value == one) for one in allowed):
        choices = [str(one) for one in allowed if one is not None]
        raise ArgumentError(unknown_name(f"value of {name}", str(value), choices))


def _limit_of(tokenizer: Any) -> int | None:
    """The tokenizer's longest input; None where it names none (transformers then has a very large number)."""
    limit = tokenizer.model_max_length
    return int(limit) if limit is not None and limit < 10**20 else None
