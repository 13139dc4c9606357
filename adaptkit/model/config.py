"""Configuration of a workflow: what a checkpoint says beside its tensors, checked where it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import adaptkit
from adaptkit.errors import ArgumentError, ModelError, PluginError
from adaptkit.files.generation_config import check_kinds
from adaptkit.files.loading import is_distribution_name, is_plain_name
from adaptkit.model.modality import Text, read_modalities
from adaptkit.plugin_manager import get_plugin_manager

MODEL_TYPE = "adaptkit"


class AdaptkitConfig(PreTrainedConfig):  # type: ignore[misc]
    """One workflow through a frozen base.

    Args:
        text_config: Config of the workflow's decoder, insertions included. It is not declared as a transformers
            sub-config: the decoder is built already, and must keep its own attention implementation.
        base: Where the base came from and what it held; see `adaptkit.model.reference`.
        modalities: For each modality its `encoder` reference, `projector`, `placeholder_id` and `placeholder`.
        insertion: Policy, placement and the policy's options.
        replace_ends: Whether embedding, final norm and LM head are the workflow's own.
        layer_map: For each layer of the decoder `[kind, source]`; see `adaptkit.surgery.LayerRecord`.
        packages: Where its components came from when it was saved; see `packages_of`.
    """

    model_type = MODEL_TYPE

    def __init__(
        self,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        base: dict[str, Any] | None = None,
        modalities: dict[str, dict[str, Any]] | None = None,
        insertion: dict[str, Any] | None = None,
        replace_ends: bool = False,
        layer_map: list[list[Any]] | None = None,
        packages: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(text_config, dict):
            text_config = CONFIG_MAPPING[text_config["model_type"]](**text_config)
        self.text_config = text_config
        self.base = base or {}
        self.modalities = modalities or {}
        self.insertion = insertion or {}
        self.replace_ends = replace_ends
        self.layer_map = layer_map or []
        self.packages = packages or {}
        kwargs.setdefault("adaptkit_version", adaptkit.__version__)
        kwargs.setdefault("tie_word_embeddings", bool(getattr(text_config, "tie_word_embeddings", False)))
        super().__init__(**kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """Not supported: a config alone would name folders of this machine, and no tensors would come with it.

        Raises:
            ModelError: Always.
        """
        raise ModelError(f"a workflow's config is uploaded with the workflow: model.push_to_hub({repo_id!r}).")

    @property
    def _attn_implementation(self) -> str | None:
        return self._attn_implementation_internal

    @_attn_implementation.setter
    def _attn_implementation(self, value: str | dict[str, str] | None) -> None:
        """As of stock configs, whose decoder has the name `text_config`."""
        if isinstance(value, dict):
            others = sorted(set(value) - {"", "text_config"})
            if others:
                raise ArgumentError(
                    f"attn_implementation: a workflow's decoder is 'text_config'; {others} is not known."
                )
            value = value.get("text_config", value.get(""))
        self._attn_implementation_internal = value


# -- config.json -------------------------------------------------------------------------------------------------------


class _Saved(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Base(_Saved):
    name_or_path: Text = ""
    revision: Text | None = None
    architecture: Text | None = None
    dtype: Literal["float16", "bfloat16", "float32", "float64", "auto"]
    content_hash: Text | None = None
    quantization: Text | None = None


class _Config(_Saved):
    text_config: dict[str, Any]
    base: _Base
    modalities: dict[str, Any] = Field(default_factory=dict)
    insertion: dict[str, Any] = Field(default_factory=dict)
    replace_ends: bool = False
    layer_map: list[Annotated[list[str | int | None], Field(min_length=2, max_length=2)]] = Field(default_factory=list)
    packages: dict[str, Text] = Field(default_factory=dict)


def check_saved_config(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Check what a workflow's `config.json` says, by key.

    Returns:
        The values, with encoders in folders as they are found from the checkpoint.

    Raises:
        ModelError: Keys are missing or unknown, or their values are of a wrong kind; the message names them.
    """
    modalities = read_modalities(check_kinds(_Config, values, path).modalities, path)
    check_names(modalities, path)
    return {**values, "modalities": {name: m.resolved(path.parent).to_dict() for name, m in modalities.items()}}


def check_names(modalities: Iterable[str], path: Path) -> None:
    """Raise a `ModelError` where a modality's name cannot be that of a folder in `encoders/`, too."""
    for name in modalities:
        if not is_plain_name(name):
            raise ModelError(f"{path}: {name!r} is not a valid name of a modality.")


# -- the packages that a workflow needs --------------------------------------------------------------------------------


def packages_of(config: AdaptkitConfig) -> dict[str, str]:
    """`distribution version` of each component that a workflow names, by `kind name`."""
    found = {f"{kind} {name}": _package(kind, name) for kind, name in _used(config)}
    return {component: package for component, package in found.items() if package is not None}


def require_packages(config: AdaptkitConfig, directory: Path) -> None:
    """Say at once what has to be installed for a checkpoint.

    Raises:
        PluginError: A component is not installed; the message names the package it came from.
    """
    missing = {
        package.rpartition(" ")[0]: f"the {kind} {name!r}"
        for kind, name in _used(config)
        if (package := config.packages.get(f"{kind} {name}")) and _package(kind, name) is None
    }
    if not missing:
        return
    problems = {package: get_plugin_manager().problem_of(package) for package in missing}
    reasons = [f"{problem}." for problem in problems.values() if problem is not None]
    if None in problems.values():
        valid = [name for name, problem in problems.items() if problem is None and is_distribution_name(name)]
        advice = f": if you trust what it names, `pip install {' '.join(valid)}`." if valid else "."
        reasons.append(f"Not installed here{advice}")
    what = ", ".join(f"{component} of {_shown(package)}" for package, component in missing.items())
    raise PluginError(
        f"{directory}: this workflow was made with {what}. {' '.join(reasons)} `adaptkit plugins` lists what is "
        "installed."
    )


def _shown(package: str) -> str:
    """A package's name as a checkpoint has it, where it is one; any text may be there."""
    return package if is_distribution_name(package) else "a package without a valid name"


def _used(config: AdaptkitConfig) -> Iterator[tuple[str, str]]:
    used: list[tuple[str, Any]] = []
    for name, described in read_modalities(config.modalities, "config").items():
        used += [("modality", described.type or name), ("encoder", described.encoder_name)]
        used.append(("projector", described.projector.get("name")))
    used.append(("insertion policy", config.insertion.get("policy")))
    return ((kind, name) for kind, name in used if isinstance(name, str))


def _package(kind: str, name: str) -> str | None:
    try:
        return get_plugin_manager().get(kind, name).package
    except PluginError:
        return None
