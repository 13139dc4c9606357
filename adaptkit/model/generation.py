"""Generation for workflows: stock transformers generation, with features carried beside the prompt."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    GenerationMixin,
    LogitsProcessorList,
    NoBadWordsLogitsProcessor,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.generation.candidate_generator import CandidateGenerator

from adaptkit.errors import DataError
from adaptkit.files.loading import load_stock
from adaptkit.model.in_vocabulary import (
    CandidatesInVocabulary,
    CriteriaInVocabulary,
    ProcessorsInVocabulary,
    appended_words,
    nearest_words,
)
from adaptkit.model.splice import ProjectedFeatures, check_counts, expand_for_beams, keep_last_positions
from adaptkit.surgery import InsertionPolicy


class WorkflowGenerationMixin(GenerationMixin):  # type: ignore[misc]
    """What a composite adds to transformers' `generate`."""

    encoders: nn.ModuleDict
    language_model: PreTrainedModel
    policy: InsertionPolicy

    stop_tokenizer: Any = None
    """Recognises stop strings of the generation config where `generate` gets no tokenizer: one, or where it lies."""

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, **kwargs: Any) -> Any:
        """Generate as transformers does; `features=` or stock names carry the media of the prompts."""
        named = {e.input_name: kwargs.pop(e.input_name, None) for e in self._encoders()}
        given = self._collect(kwargs.pop("features", None), named)
        if given:
            kwargs["features"] = given
            self._refuse_with_features(kwargs)
        return super().generate(inputs, **kwargs)

    def _refuse_with_features(self, kwargs: Mapping[str, Any]) -> None:
        """Options of `generate` under which the features of a prompt would not stand at their placeholders."""
        if kwargs.get("inputs_embeds") is not None:
            raise DataError(
                "generate takes media with input_ids, not with inputs_embeds: their place is where the placeholder ids "
                "are. Leave inputs_embeds out, or put the projected features into them and pass no media."
            )
        config = kwargs.get("generation_config") or self.generation_config
        if kwargs.get("prefill_chunk_size", config.prefill_chunk_size) is not None:
            raise DataError("prefill_chunk_size cannot divide a prompt with media: leave it out.")

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *args: Any, inputs_embeds: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """As the decoder's family does; features are handed on only while the step's input holds their placeholders."""
        features = kwargs.pop("features", None)
        prepare = self.language_model.prepare_inputs_for_generation
        if inputs_embeds is not None:
            kwargs["inputs_embeds"] = inputs_embeds
        prepared = cast(dict[str, Any], prepare(input_ids, *args, **kwargs))
        step_ids = prepared.get("input_ids")
        if not features or step_ids is None or (step_ids.shape[1] == 1 < input_ids.shape[1]):
            return prepared
        full_masks, step_masks = self._placeholder_masks(input_ids), self._placeholder_masks(step_ids)
        kept: dict[str, Any] = {}
        for modality, given in features.items():
            projected = self._project_for_generation(modality, given)
            if projected.tensor.shape[0] == int(full_masks[modality].sum()) != int(step_masks[modality].sum()):
                tensor = keep_last_positions(projected.tensor, full_masks[modality], step_ids.shape[1])
                projected = ProjectedFeatures(tensor, projected.num_items)
            if projected.tensor.shape[0]:
                kept[modality] = projected
        if kept:
            prepared["features"] = kept
        return prepared

    def _supports_default_dynamic_cache(self) -> bool:
        """Whether the decoder's family takes the library's caches; `generate` tells by class."""
        return bool(type(self.language_model)._supports_default_dynamic_cache())

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """As stock, under the name by which the decoder takes it: `generate` tells state-space families by class."""
        parameters = inspect.signature(self.language_model.forward).parameters
        renamed = "cache_params" in parameters and "past_key_values" not in parameters
        if renamed and "cache_params" in model_kwargs:
            model_kwargs["past_key_values"] = model_kwargs.pop("cache_params")
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        if renamed and "past_key_values" in model_kwargs:
            model_kwargs["cache_params"] = model_kwargs.pop("past_key_values")

    def _valid_auto_compile_criteria(self, *args: Any, **kwargs: Any) -> bool:
        """As stock, for policies that compile."""
        return self.policy.supports_compile and bool(super()._valid_auto_compile_criteria(*args, **kwargs))

    def _project_for_generation(self, modality: str, given: Any) -> ProjectedFeatures:
        with self.compute_dtype():
            projected: ProjectedFeatures = self._project(modality, given)
        return projected

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        features = model_kwargs.pop("features", None)
        if features and input_ids is not None:
            masks = self._placeholder_masks(input_ids)
            expanded: dict[str, Any] = {}
            for modality, given in features.items():
                projected = self._project_for_generation(modality, given)
                counts = masks[modality].sum(1)
                num_features = projected.tensor.shape[0]
                check_counts(int(counts.sum()), num_features, modality=modality, num_items=projected.num_items)
                tensor = (
                    expand_for_beams(projected.tensor, counts, expand_size) if expand_size > 1 else projected.tensor
                )
                expanded[modality] = ProjectedFeatures(tensor, projected.num_items * expand_size)
            features = expanded
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        if features:
            model_kwargs["features"] = features
        return input_ids, model_kwargs

    def stop_at(self, settings: Mapping[str, Any]) -> None:
        """Let generation stop where a chat template ends a turn; it is saved with the workflow.

        The base's own generation config stays as it is.

        Args:
            settings: What `AdaptkitProcessor.stop_settings` says of this workflow's generation config.
        """
        self.generation_config._from_model_config = False
        self.generation_config.eos_token_id = settings["eos_token_id"]
        self.generation_config.stop_strings = settings.get("stop_strings")
        self.stop_tokenizer = settings.get("tokenizer")

    def _get_logits_processor(self, *args: Any, **kwargs: Any) -> LogitsProcessorList:
        """Stock processors, and one that never lets a placeholder be generated."""
        rows, outside = self._vocab_size(), self._placeholders_outside()
        prompt = kwargs.get("encoder_input_ids")
        if outside and prompt is not None and not prompt.is_floating_point():
            kwargs["encoder_input_ids"] = appended_words(prompt, rows, outside)
        processors = super()._get_logits_processor(*args, **kwargs)
        suppressed = sorted(i for i in self._placeholder_ids() if i < rows)
        if suppressed:
            processors.append(NoBadWordsLogitsProcessor([[token_id] for token_id in suppressed]))
        return ProcessorsInVocabulary(processors, rows, outside) if outside else processors

    def _get_stopping_criteria(
        self, generation_config: Any, stopping_criteria: Any = None, tokenizer: Any = None, **kwargs: Any
    ) -> StoppingCriteriaList:
        """As stock; the tokenizer that stop strings need is the one of the workflow where none is given."""
        if generation_config.stop_strings and tokenizer is None:
            if isinstance(self.stop_tokenizer, str):
                revision = self.config.base.get("revision")  # a folder has none
                self.stop_tokenizer = load_stock(AutoTokenizer, self.stop_tokenizer, revision=revision)
            tokenizer = self.stop_tokenizer
        criteria = super()._get_stopping_criteria(generation_config, stopping_criteria, tokenizer=tokenizer, **kwargs)
        if self._placeholders_outside():
            criteria = CriteriaInVocabulary(criteria)
            criteria.vocab_size = self._vocab_size()
        return criteria

    def _get_candidate_generator(self, *, model_kwargs: dict[str, Any], **kwargs: Any) -> CandidateGenerator:
        """As stock; an assistant without media, such as the base, sees the words of a prompt alone."""
        assistant = kwargs.get("assistant_model")
        media = assistant is not None and hasattr(assistant, "_placeholder_masks")
        if not media:
            model_kwargs = {name: value for name, value in model_kwargs.items() if name != "features"}
            if assistant is not None and self._placeholders_outside():
                kwargs["input_ids"] = nearest_words(kwargs["input_ids"], self._vocab_size())
        generator = super()._get_candidate_generator(model_kwargs=model_kwargs, **kwargs)
        if media or not self._placeholders_outside():
            return generator
        return CandidatesInVocabulary(generator, self._vocab_size())

    def _vocab_size(self) -> int:
        head = self.get_output_embeddings()
        return int(head.weight.shape[0] if head is not None else self.config.get_text_config().vocab_size)

    def _placeholder_ids(self) -> set[int]:
        return {entry["placeholder_id"] for entry in self.config.modalities.values()}

    def _placeholders_outside(self) -> list[int]:
        return sorted(i for i in self._placeholder_ids() if i >= self._vocab_size())
