"""What the `config.json` of a workflow may say: checked as it is read, so that nothing wrong in it fails later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from adaptkit.errors import ModelError
from adaptkit.loading import is_plain_name

_Text = Annotated[str, Field(max_length=10_000)]


class _Saved(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Encoder(_Saved):
    name: _Text | None = None
    options: dict[str, Any] | None = None
    object: _Text | None = None
    adopted_by: _Text | None = None
    content_hash: _Text | None = None


class _Projector(_Saved):
    name: _Text | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    object: _Text | None = None


class Modality(_Saved):
    """How a modality is recorded, in `config.json` as in the processor's configuration."""

    encoder: _Encoder
    projector: _Projector
    placeholder_id: int = Field(ge=0, lt=1 << 31)
    placeholder: _Text | None = None
    start: _Text | None = None
    end: _Text | None = None
    type: _Text | None = None
    options: dict[str, Any] | None = None
    feature_mode: _Text | None = None


class _Base(_Saved):
    name_or_path: _Text = ""
    revision: _Text | None = None
    architecture: _Text | None = None
    dtype: Literal["float16", "bfloat16", "float32", "float64", "auto"]
    content_hash: _Text | None = None
    quantization: _Text | None = None


class _Config(_Saved):
    text_config: dict[str, Any]
    base: _Base
    modalities: dict[str, Modality] = Field(default_factory=dict)
    insertion: dict[str, Any] = Field(default_factory=dict)
    replace_ends: bool = False
    layer_map: list[Annotated[list[str | int | None], Field(min_length=2, max_length=2)]] = Field(default_factory=list)
    packages: dict[str, _Text] = Field(default_factory=dict)


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
_Generation = create_model(  # type: ignore[call-overload]
    "_Generation", __base__=_Saved, **{name: (kind, None) for kind, names in _GENERATION.items() for name in names}
)


def check_generation_config(values: Mapping[str, Any], path: Path) -> None:
    """Check the kinds of what a `generation_config.json` says, which transformers itself takes as they come.

    Raises:
        ModelError: A value is of a wrong kind.
    """
    _check(_Generation, values, path)


def check_saved_config(values: Mapping[str, Any], path: Path) -> None:
    """Check what a workflow's configuration says, by key.

    Raises:
        ModelError: Something is missing or of a wrong kind; all of it is named.
    """
    _check(_Config, values, path)
    for name in values.get("modalities") or ():
        _check_name(name, path)


def check_saved_modality(values: Any, path: Path, name: str) -> None:
    """Check what a processor's configuration says of one modality; see `check_saved_config`."""
    _check_name(name, path)
    _check(Modality, values, path, f"modalities.{name}.")


def _check_name(name: str, path: Path) -> None:
    """A modality's name is that of a folder in `encoders/`, too."""
    if not is_plain_name(name):
        raise ModelError(f"{path}: {name!r} is no name of a modality.")


def _check(kind: type[BaseModel], values: Any, path: Path, prefix: str = "") -> None:
    try:
        kind.model_validate(values)
    except ValidationError as error:
        problems = [f"{prefix}{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]]
        raise ModelError(f"{path}: {'; '.join(problems)}.") from error
