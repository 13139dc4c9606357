"""Arguments of transformers' `from_pretrained`: those that a workflow honours, and those it cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from adaptkit.errors import ArgumentError, unknown_name
from adaptkit.model.config import AdaptkitConfig

AUTO_CLASS_OPTIONS = frozenset(
    (*("adapter_kwargs", "code_revision", "trust_remote_code", "_from_auto", "_from_pipeline", "_commit_hash"),)
)
"""What transformers' Auto classes pass on and a workflow's own files have no use for: they hold no code or adapters."""

RUNTIME_SETTINGS = ("output_attentions", "output_hidden_states", "return_dict", "use_cache")
"""Settings of a configuration that change no tensor."""

_NO_SETTINGS = ("transformers_version", "_name_or_path", "architectures", "adaptkit_version", "packages")
_REFUSED = {
    "state_dict": "Load the workflow, and use load_own_tensors.",
    "ignore_mismatched_sizes": "The tensors of a checkpoint belong to one workflow, on one base.",
    "key_mapping": "The tensors of a checkpoint belong to one workflow, on one base.",
    "gguf_file": "Load the base from it, and pass it: adaptkit.load(directory, base=base).",
}
"""Arguments that a workflow cannot honour, and what to do instead."""


def check_arguments(options: dict[str, Any]) -> None:
    """Bring arguments to one spelling, in place.

    Raises:
        ArgumentError: One cannot be honoured, or two contradict each other.
    """
    for name, advice in _REFUSED.items():
        if options.pop(name, None) not in (None, False):
            raise ArgumentError(f"{name} is not supported for a workflow. {advice}")
    if options.pop("output_loading_info", False):
        raise ArgumentError("output_loading_info is for from_pretrained: adaptkit.load returns the model, or raises.")
    older = options.pop("torch_dtype", None)
    if older is not None and options.get("dtype") not in (None, older):
        raise ArgumentError(f"torch_dtype={older} and dtype={options['dtype']} were given: pass dtype alone.")
    options["dtype"] = older if options.get("dtype") is None else options["dtype"]
    _check_dtype(options["dtype"])
    if isinstance(options.get("attn_implementation"), dict):
        options["attn_implementation"] = AdaptkitConfig(
            attn_implementation=options["attn_implementation"]
        )._attn_implementation


def _check_dtype(dtype: Any) -> None:
    known = {name for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
    if isinstance(dtype, str) and dtype not in {"auto", *known}:
        usual = ("auto", "bfloat16", "float16", "float32", "float64")
        raise ArgumentError(unknown_name("dtype", dtype, usual))


def loading_options(
    options: Mapping[str, Any], stored: Callable[[], AdaptkitConfig]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of `from_pretrained` as those of `adaptkit.load`, and settings to make afterwards.

    Auto classes put arguments into the configuration that they pass on, where a configuration has such a setting.

    Raises:
        ArgumentError: An argument cannot be honoured.
    """
    left = {name: value for name, value in options.items() if name not in ("config", *AUTO_CLASS_OPTIONS)}
    if options.get("trust_remote_code"):
        left["trust_remote_code"] = True  # of the base
    given = options.get("config")
    if given is None:
        return left, {}
    if not isinstance(given, AdaptkitConfig):
        raise ArgumentError(f"config is a {type(given).__name__}, and not a workflow's AdaptkitConfig.")
    if left.get("attn_implementation") is None and given._attn_implementation_internal is not None:
        left["attn_implementation"] = given._attn_implementation_internal
    values, own = given.to_dict(), stored().to_dict()
    changed = {name for name in values.keys() | own.keys() if values.get(name) != own.get(name)} - {*_NO_SETTINGS}
    if "dtype" in changed:
        left.setdefault("dtype", given.dtype)
    settings = {name: getattr(given, name) for name in RUNTIME_SETTINGS if name in changed}
    for name in sorted(changed - {"dtype", *settings}):
        raise ArgumentError(
            f"config: {name} is {values.get(name)!r:.60}, unlike the checkpoint's; it cannot be changed."
        )
    return left, settings
