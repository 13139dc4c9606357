"""What a `generation_config.json` may say: transformers itself takes its values as they come, and fails later."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model

from adaptkit.errors import ModelError

Kind = TypeVar("Kind")
_Text = Annotated[str, Field(max_length=10_000)]
_Id = Annotated[int, Field(ge=-1, lt=1 << 31)]
_Count = Annotated[int, Field(ge=0, lt=1 << 31)]
_GENERATION: dict[Any, tuple[str, ...]] = {
    _Id | list[_Id] | None: ("eos_token_id", "pad_token_id", "bos_token_id", "forced_bos_token_id",
                             "forced_eos_token_id", "decoder_start_token_id"),
    list[_Id] | None: ("suppress_tokens", "begin_suppress_tokens"),
    list[list[_Id]] | None: ("bad_words_ids", "force_words_ids"),
    _Text | list[_Text] | None: ("stop_strings",),
    bool | None: ("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values", "return_dict_in_generate",
                  "output_scores", "output_logits", "token_healing", "disable_compile"),
    bool | list[int] | None: ("output_attentions", "output_hidden_states"),
    bool | Literal["never"] | None: ("early_stopping",),
    _Count | None: ("max_length", "max_new_tokens", "min_length", "min_new_tokens", "num_beams", "num_beam_groups",
                    "num_return_sequences", "top_k", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
                    "prompt_lookup_num_tokens", "max_matching_ngram_size", "prefill_chunk_size"),
    float | None: ("temperature", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
                   "repetition_penalty", "encoder_repetition_penalty", "length_penalty", "diversity_penalty",
                   "guidance_scale", "penalty_alpha", "max_time"),
    _Text | None: ("cache_implementation",),
}  # fmt: skip
_FIELDS: dict[str, Any] = {name: (kind, None) for kind, names in _GENERATION.items() for name in names}
_Generation = create_model("_Generation", __config__=ConfigDict(extra="allow", strict=True), **_FIELDS)


def check_generation_config(values: Mapping[str, Any], path: Path) -> None:
    """Check the kinds of settings of generation.

    Raises:
        ModelError: A value is of a wrong kind; the message names its key.
    """
    check_kinds(_Generation, values, path)


def check_kinds(kind: type[Kind], values: Any, place: Path | str, prefix: str = "") -> Kind:
    """Check values that were read from a file, or given by a user.

    Args:
        kind: A pydantic model or dataclass.
        place: What an error names.
        prefix: Put before the keys that an error names.

    Returns:
        The values as that kind.

    Raises:
        ModelError: Some are of a wrong kind; the first are named.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        problems = [f"{prefix}{'.'.join(map(str, e['loc']))}: {e['msg']}{_got(e)}" for e in error.errors()[:5]]
        raise ModelError(f"{place}: {'; '.join(problems)}.") from error


def _got(error: Any) -> str:
    value = error["input"]
    return "" if error["type"] == "missing" else f", got {type(value).__name__} {reprlib.repr(value)}"
