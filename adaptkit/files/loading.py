"""Reading files of others: models, tokenizers, configurations and tensors, damaged or hostile as they may be.

Nothing here runs code that comes with a checkpoint unless the caller says `trust_remote_code=True`, and whatever goes
wrong while a file is read or used becomes an error that names it.
"""

from __future__ import annotations

import errno
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from adaptkit.errors import AdaptkitError, ArgumentError, ModelError
from adaptkit.files.generation_config import check_generation_config
from adaptkit.files.hub import HUB_OPTIONS, refusal_of

MAX_LAYERS = 10_000
MAX_SIZE = 1 << 40
"""Larger numbers in a model's configuration are damage: layers would be made, or memory taken, without end."""

_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
_LAYERS = re.compile(r"(num_|n_)\w*layers?|n_layer|num_layers|\w*_layers|depths?")
_UNKNOWN_ARGUMENT = re.compile(r"unexpected keyword argument '(\w+)'")
_UNSUPPORTED = re.compile(r"Unsupported (?:global|class|operand)\S*:?\s*(?:GLOBAL\s+)?([\w.]+)", re.IGNORECASE)


@contextmanager
def reading(place: Path | str, error_class: type[AdaptkitError] = ModelError, advice: str = "") -> Iterator[None]:
    """Turn what goes wrong while a file, or the files of a folder, are read and used into an error that names it.

    Args:
        place: The file or folder, or what else it is called, such as an id of the hub.
        error_class: What is raised.
        advice: A closing sentence: what to do.

    Raises:
        AdaptkitError: Something went wrong. Errors of adaptkit's own keep their class, and get the name where they
            lack it. An interruption and a lack of memory are let through.
    """
    try:
        yield
    except AdaptkitError as error:
        folder = str(place.parent) if isinstance(place, Path) else str(place)
        if folder in str(error) or not error.args:
            raise  # it names a file already
        error.args = (f"{place}: {error.args[0]}", *error.args[1:])
        raise
    except Exception as error:
        if is_out_of_memory(error) or _is_of_writing(error):
            raise
        config, culprit = Path(place) / "config.json", None
        if type(error).__name__.startswith("StrictDataclass") and config.is_file():
            culprit = config, error
        elif Path(place).is_dir():
            culprit = damaged_file(Path(place))
        what = _cannot(*(culprit or (place, error)))
        raise error_class(f"{what}. {advice}".rstrip()) from error


def _cannot(place: Path | str, error: BaseException) -> str:
    text = cause(error).rstrip(".")
    if type(error).__name__ == "SafetensorError":
        return f"{place} is damaged ({text.removeprefix('SafetensorError: ')})"
    is_clear = isinstance(error, json.JSONDecodeError | UnicodeError | OSError | _WrongKindError)
    return f"{place}: {text}" if is_clear else f"{place} cannot be used ({text})"


class _WrongKindError(ValueError):
    """The file holds JSON, but not an object."""


def cause(error: BaseException) -> str:
    """What an error of a library says, in one line that may be shown to a user."""
    if "huggingface_hub" in sys.modules and (refusal := refusal_of(error)) is not None:
        return refusal
    text = str(error).strip()
    if "weights_only" in text or "Weights only load failed" in text:
        found = _UNSUPPORTED.search(text)
        return f"it holds more than tensors{f' ({found[1]})' if found else ''}, and could run code when it is read"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({text})"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text (byte {error.start:,} is {error.object[error.start]:#04x})"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(error, KeyError):
        return f"the key {lines[0] if lines else '?'} is missing or unknown"
    # Validation of dataclasses names the field in the second line
    words = " ".join(lines[:2]) if lines and lines[0].endswith(":") else (lines or [""])[0]
    known = isinstance(error, ValueError | OSError) and words
    return words if known else f"{type(error).__name__}: {words}" if words else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or a device had too little memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )


def _is_of_writing(error: BaseException) -> bool:
    """Whether something could not be written while a file was read and used."""
    text = str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS)
    return full or "No space left on device" in text or "Error while serializing" in text


def read_text(path: Path, error_class: type[AdaptkitError] = ModelError, advice: str = "") -> str:
    """The text of a file, UTF-8 with or without a byte order mark."""
    with reading(path, error_class, advice):
        if not path.exists():
            raise error_class(f"{path} is missing. {advice}".rstrip())
        return path.read_text(encoding="utf-8-sig")


def read_json(path: Path, error_class: type[AdaptkitError] = ModelError, advice: str = "") -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        AdaptkitError: It is missing, cannot be read, is not JSON, or holds something else.
    """
    return _read_mapping(path, json.loads, "an object", error_class, advice)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; see `read_json`."""
    import yaml

    return _read_mapping(path, yaml.safe_load, "a mapping", ModelError)


def _read_mapping(
    path: Path, parse: Callable[[str], Any], needed: str, error_class: type[AdaptkitError], advice: str = ""
) -> dict[str, Any]:
    text = read_text(path, error_class, advice)
    with reading(path, error_class, advice):
        values = parse(text)
        if not isinstance(values, dict):
            raise error_class(f"{path}: holds {_kind(values)} where {needed} is needed. {advice}".rstrip())
        return values


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def indexed_files(index: Path) -> list[str]:
    """Names of the files that the index of a sharded checkpoint lists; all lie in its own folder.

    Raises:
        ModelError: The index is damaged, or names a file that is missing or lies elsewhere.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(n, str) for n in weight_map.values()):
        raise ModelError(f"{index}: weight_map should give a file for each tensor. Save the checkpoint again.")
    names = sorted(set(weight_map.values()))
    for name in names:
        if not is_plain_name(name):
            raise ModelError(f"{index} names {name!r}, which is not a file of this folder. Do not use the checkpoint.")
        if not (index.parent / name).is_file():
            raise ModelError(f"{index} names {name}, which is missing in this folder. Fetch it again.")
    return names


def is_plain_name(name: str) -> bool:
    """Whether a name means a file of the folder that it is looked up in, and nothing elsewhere."""
    return name not in ("", ".", "..") and not re.search(r"[/\\\0:]", name)


def is_distribution_name(name: str) -> bool:
    """Whether `pip install NAME` would install a distribution, and do nothing else."""
    from packaging.utils import InvalidName, canonicalize_name

    try:
        canonicalize_name(name, validate=True)
    except InvalidName:
        return False
    return len(name) <= 100 and name.isascii()


# -- stock models, tokenizers and processors -------------------------------------------------------------------------

_configs_only: ContextVar[bool] = ContextVar("configs_only", default=False)


@contextmanager
def from_configs() -> Iterator[None]:
    """Let `load_stock` build models from their configs, without reading weights."""
    token = _configs_only.set(True)
    try:
        yield
    finally:
        _configs_only.reset(token)


def load_stock(
    loader: Any,
    source: str | Path,
    *,
    advice: str = "",
    trust_remote_code: bool = False,
    error_class: type[AdaptkitError] = ModelError,
    **options: Any,
) -> Any:
    """`loader.from_pretrained(source, **options)`, which runs code only on request and never asks whether it may.

    Args:
        loader: A class of transformers.
        source: Folder or id.
        trust_remote_code: Whether code that comes with the model may be run.

    Raises:
        AdaptkitError: It cannot be loaded; the message names the folder, and the file where one is damaged.
    """
    with reading(source, error_class, advice):
        trust_remote_code = trust_remote_code is True  # transformers asks on the terminal where it is None
        _check_config(str(source), options, advice, trust_remote_code=trust_remote_code)
        try:
            build = getattr(loader, "from_config", None) or getattr(loader, "_from_config", None)
            if _configs_only.get() and build is not None:
                return _from_config(build, getattr(loader, "config_class", None), source, **options)
            loaded = loader.from_pretrained(source, trust_remote_code=trust_remote_code, **options)
            if getattr(loaded, "generation_config", None) is not None:
                check_generation_config(loaded.generation_config.to_dict(), Path(source) / "generation_config.json")
            return loaded
        except TypeError as error:
            unknown = _UNKNOWN_ARGUMENT.search(str(error))
            if unknown is None or unknown[1] not in options:
                raise
            raise ArgumentError(f"{source}: no argument named {unknown[1]!r}. Remove it.") from error
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise error_class(
                f"{source} comes with code of its own, which is not run unless you say so: read it, and if you trust "
                "it, pass trust_remote_code=True (--trust-remote-code; base.trust_remote_code: true in a recipe)."
            ) from error


def _from_config(build: Any, config_class: Any, source: str | Path, **options: Any) -> Any:
    """Build what `from_pretrained` returns, with random weights; options about weights are ignored."""
    from transformers import AutoConfig

    where = {name: options[name] for name in ("revision", "cache_dir", "subfolder") if name in options}
    config = options.get("config") or (config_class or AutoConfig).from_pretrained(source, **where)
    dtype = options.get("dtype")
    dtype = getattr(config, "dtype", None) if dtype == "auto" else dtype
    model = build(config, dtype=dtype or "float32").eval()
    return (model, {"missing_keys": [], "unexpected_keys": []}) if options.get("output_loading_info") else model


def _check_config(source: str, options: Mapping[str, Any], advice: str, *, trust_remote_code: bool) -> None:
    """Refuse a config whose numbers would never end, or that names code of the hub."""
    path = Path(source) / "config.json" if Path(source).exists() else _downloaded(source, options)
    if path is None or not path.is_file():
        return
    values = read_json(path, advice=advice)
    with reading(path):
        for key, value in _leaves(values):
            name = key.rpartition(".")[2]
            if isinstance(value, int) and abs(value) > (MAX_LAYERS if _LAYERS.fullmatch(name) else MAX_SIZE):
                raise ModelError(f"{path}: {key} is a number of {len(str(value))} digits, more than any model has.")
            if isinstance(value, str) and "/" in value and name in _KERNELS and not trust_remote_code:
                raise ModelError(
                    f"{path}: {key} names code of the hub ({value!r}), which is not run unless you say so: "
                    "trust_remote_code=True (--trust-remote-code)."
                )


def _downloaded(source: str, options: Mapping[str, Any]) -> Path | None:
    """The config.json of a model on the hub; None where it cannot be had, which is said where the model is loaded."""
    from huggingface_hub import hf_hub_download

    where = {name: options[name] for name in HUB_OPTIONS if options.get(name) is not None}
    try:
        return Path(hf_hub_download(source, "config.json", subfolder=options.get("subfolder") or None, **where))
    except Exception:  # a dozen transport and validation errors
        return None


def _leaves(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    children = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    if not isinstance(values, dict | list):
        yield key, values
    for name, child in children:
        yield from _leaves(child, f"{key}.{name}" if key else str(name))


def damaged_file(folder: Path) -> tuple[Path, Exception] | None:
    """The first file of a model's folder that cannot even be opened and parsed, and why; None where all can."""
    from safetensors import safe_open

    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors"), *folder.glob("*.jinja")]):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, framework="pt"):
                    pass
            elif path.suffix == ".jinja":
                path.read_text(encoding="utf-8")
            elif not isinstance(values := json.loads(path.read_text(encoding="utf-8")), dict | list):
                return path, _WrongKindError(f"holds {_kind(values)} where an object is needed")
        except Exception as error:  # whatever a parser says of damaged bytes
            return path, error
    return None
