"""Encoders and preprocessors from checkpoints and from objects."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder as StockEncoder

from adaptkit.errors import ModelError, first_line
from adaptkit.files.checkpoints import has_processor, load_encoder_model
from adaptkit.files.loading import load_stock, reading
from adaptkit_whisper.checkpoint import ADVICE, find_openai_file, missing, resolve
from adaptkit_whisper.encoder import WhisperEncoder
from adaptkit_whisper.options import WhisperOptions
from adaptkit_whisper.preprocessing import LogMel, OpenAILogMel, TransformersLogMel, WhisperPreprocessor
from adaptkit_whisper.windows import Windows

_WHOLE_MODEL = r"^(model\.)?encoder\."
_READ_ERRORS = (OSError, ValueError, KeyError, TypeError, StrictDataclassError)


def load_encoder(options: WhisperOptions) -> WhisperEncoder:
    """Load a checkpoint, whole or the encoder alone.

    Raises:
        ModelError: It is not there, is of another family, is incomplete, or the options do not fit it.
    """
    if options.backend == "openai-whisper":
        checkpoint = _read_openai(options.path)
        model = _openai_model(checkpoint, options)
        return WhisperEncoder(model, options, _openai_preprocessor(checkpoint["dims"], options))
    preprocessor = load_preprocessor(options)
    model = load_encoder_model(
        StockEncoder,
        resolve(options.path),
        options.path,
        "encoder",
        advice=missing(options) or ADVICE,
        revision=options.revision,
        dtype=options.dtype,
        key_mapping={_WHOLE_MODEL: ""},
    )
    return WhisperEncoder(model, options, preprocessor)


def load_preprocessor(options: WhisperOptions) -> WhisperPreprocessor:
    """The preprocessing of a checkpoint, without its weights."""
    if options.backend == "openai-whisper":
        return _openai_preprocessor(_read_openai(options.path)["dims"], options)
    config = load_config(options)
    place = resolve(options.path)
    if not has_processor(place, options.revision, ADVICE):
        return _stock_preprocessor(config, default_extractor(config), options)
    extractor = load_stock(WhisperFeatureExtractor, place, revision=options.revision)
    return _stock_preprocessor(config, extractor, options)


def wrap_model(module: Any, options: dict[str, Any]) -> WhisperEncoder | None:
    """Adopt the encoder of a Whisper model object, whole or not; None where it is something else.

    The object itself becomes the encoder's `model`, and is frozen. Preprocessing is read from the folder that the
    object was loaded from, else takes Whisper's own with the model's number of mel bins.
    """
    inner = getattr(module, "model", module)
    model = inner if isinstance(inner, StockEncoder) else getattr(inner, "encoder", None)
    if not isinstance(model, StockEncoder):
        return None
    origin = str(getattr(module, "name_or_path", "") or "")
    known = WhisperOptions.model_validate({"path": origin or "(an object)", **options})
    if origin and Path(origin).is_dir():
        return WhisperEncoder(model, known, load_preprocessor(known))
    preprocessor = _stock_preprocessor(model.config, default_extractor(model.config), known)
    return WhisperEncoder(model, known, preprocessor)


def load_config(options: WhisperOptions) -> Any:
    """A checkpoint's `WhisperConfig`.

    Raises:
        ModelError: There is no checkpoint, or it is of another family.
    """
    config = load_stock(AutoConfig, resolve(options.path), advice=ADVICE, revision=options.revision)
    if config.model_type != "whisper":
        raise ModelError(f"{options.path}: model_type {config.model_type!r} is not 'whisper'. {ADVICE}")
    return config


def default_extractor(config: Any, **settings: Any) -> WhisperFeatureExtractor:
    """Whisper's feature extractor for a model that came without one: its mel bins, its window."""
    extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins, **{"chunk_length": 1, **settings})
    seconds = 2 * config.max_source_positions * extractor.hop_length / extractor.sampling_rate
    if "chunk_length" in settings:
        return extractor
    return WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=math.ceil(seconds), **settings)


def _stock_preprocessor(config: Any, extractor: Any, options: WhisperOptions) -> WhisperPreprocessor:
    windows = Windows(config.num_mel_bins, config.max_source_positions, options)
    return WhisperPreprocessor(windows, TransformersLogMel(extractor, config.num_mel_bins))


# -- the openai-whisper package --------------------------------------------------------------------------------------


def _read_openai(path: str) -> dict[str, Any]:
    """`dims` and `model_state_dict` of a `.pt` file; tensors and plain values only, never code.

    Raises:
        ModelError: It is not there, or no such file.
    """
    file = find_openai_file(path)
    with reading(file, advice="It should be a checkpoint of the openai-whisper package."):
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
        dims = {key: int(value) for key, value in checkpoint["dims"].items() if key.startswith("n_")}
        return {"dims": dims, "model_state_dict": checkpoint["model_state_dict"]}


def _openai_model(checkpoint: dict[str, Any], options: WhisperOptions) -> nn.Module:
    from whisper.model import AudioEncoder

    dims, prefix = checkpoint["dims"], "encoder."
    try:
        sizes = [dims[f"n_{key}"] for key in ("mels", "audio_ctx", "audio_state", "audio_head", "audio_layer")]
        with torch.device("meta"):
            model: nn.Module = AudioEncoder(*sizes)
        whole = checkpoint["model_state_dict"]
        state = {name.removeprefix(prefix): t for name, t in whole.items() if name.startswith(prefix)}
        dtype = None if options.dtype == "auto" else getattr(torch, options.dtype)
        model.load_state_dict({name: t.to(dtype or t.dtype, copy=True) for name, t in state.items()}, assign=True)
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{options.path} does not hold a whole Whisper encoder: {first_line(error)}.") from error
    return model


def _openai_preprocessor(dims: dict[str, int], options: WhisperOptions) -> WhisperPreprocessor:
    log_mel: LogMel = OpenAILogMel(dims["n_mels"])
    return WhisperPreprocessor(Windows(dims["n_mels"], dims["n_audio_ctx"], options), log_mel)
