"""Configuration of a workflow: what a checkpoint says beside its tensors."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import adaptkit
from adaptkit.errors import ArgumentError, ModelError

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
        packages: Where its components came from when it was saved; see `adaptkit.model.packages`.
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
