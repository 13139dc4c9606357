"""The composite model: a workflow's decoder, encoders and projectors, and the base they share tensors with."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from adaptkit.errors import DataError, ModelError, PluginError, unknown_name, wrong_type
from adaptkit.files.loading import cause, is_out_of_memory
from adaptkit.interfaces import EncodedFeatures, Encoder
from adaptkit.model.card.facts import Card
from adaptkit.model.config import AdaptkitConfig
from adaptkit.model.encoders import as_inputs, is_sharded, like, run_encoder
from adaptkit.model.generation import WorkflowGenerationMixin
from adaptkit.model.loss import IGNORE_INDEX, shifted_loss, with_loss
from adaptkit.model.own_encoders import distances_from_top, train_own
from adaptkit.model.passes import PassContexts, cache_of
from adaptkit.model.saving import WorkflowSavingMixin
from adaptkit.model.splice import (
    ProjectedFeatures,
    check_counts,
    check_projected_width,
    check_width,
    splice_features,
)
from adaptkit.model.stock_methods import StockMethodsMixin
from adaptkit.model.training import WorkflowTrainingMixin
from adaptkit.surgery import AdapterContext, InsertionPolicy, provide_context

PARTS = ("projector", "insertion", "ends", "encoder")
"""What a stage may train: projectors; inserted modules; embedding, final norm and LM head of the workflow; encoders."""


class AdaptkitForConditionalGeneration(
    WorkflowTrainingMixin,
    WorkflowGenerationMixin,
    WorkflowSavingMixin,
    StockMethodsMixin,
    PreTrainedModel,  # type: ignore[misc]
):
    """A workflow through a frozen base, as a transformers model with `generate()`.

    Build one with `adaptkit.adapt` or `adaptkit.load`. Calling it always runs the workflow; `model.base` is the text
    workflow.

    Attributes:
        language_model: The workflow's decoder, a stock causal LM.
        encoders: Encoders by modality: frozen, or copies that a policy adapts or that are trained.
        projectors: Trainable projectors by modality.
        policy_modules: What the policy inserted outside of layers.
        policy: The insertion policy.
        end_names: Modules of `language_model` that replace the base's ends: embedding, final norm, LM head.
    """

    config_class = AdaptkitConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(
        self,
        config: AdaptkitConfig,
        *,
        base: PreTrainedModel,
        language_model: PreTrainedModel,
        encoders: Mapping[str, Encoder],
        projectors: Mapping[str, nn.Module],
        ends: Collection[str],
        policy: InsertionPolicy,
        policy_modules: Mapping[str, nn.Module] | None = None,
        source_encoders: Mapping[str, Encoder] | None = None,
    ) -> None:
        super().__init__(config)
        # No registered submodules: their tensors are here already
        object.__setattr__(self, "_base", base)
        object.__setattr__(self, "source_encoders", dict(source_encoders or encoders))
        self.language_model = language_model
        self.encoders = nn.ModuleDict(encoders)
        self.projectors = nn.ModuleDict(projectors)
        self.policy_modules = nn.ModuleDict(policy_modules or {})
        self.policy = policy
        self.card = Card()
        self.end_names = list(ends)
        self.input_modalities = ("text", *config.modalities)
        self._contexts = PassContexts(policy)
        self._own_names = self._find_own_names()
        self._takes_logits_to_keep = "logits_to_keep" in inspect.signature(language_model.forward).parameters
        self.generation_config = copy.deepcopy(base.generation_config)
        self.config._attn_implementation = language_model.config._attn_implementation
        self.post_init()
        # Trainers that resume read the own tensors alone, and warn of others
        self._keys_to_ignore_on_save = {*self.state_dict()} - {*self._own_names}

    # -- parts ---------------------------------------------------------------------------------------------------

    @property
    def base(self) -> PreTrainedModel:
        """The base, exactly as it was given: the text-only workflow."""
        return cast(PreTrainedModel, self._base)

    @property
    def dtype(self) -> torch.dtype:
        """In which the workflow computes: the base's, also where its own tensors are float32 masters."""
        return cast(torch.dtype, self.base.dtype)

    def _find_own_names(self) -> list[str]:
        frozen = {id(p) for p in self.base.parameters()}
        frozen |= {id(p) for encoder in self.source_encoders.values() for p in encoder.parameters()}
        return [name for name, p in self.named_parameters() if id(p) not in frozen]

    def trainable_parts(self) -> dict[str, list[str]]:
        """Names of the workflow's own parameters, by part (`projector`, `insertion`, `ends`, `encoder`)."""
        parts: dict[str, list[str]] = {part: [] for part in PARTS}
        trained = [name for name, entry in self.config.modalities.items() if entry.get("train_encoder")]
        for name in self._own_names:
            if name.startswith("projectors."):
                parts["projector"].append(name)
            elif name.startswith(tuple(f"language_model.{end}." for end in self.end_names)):
                parts["ends"].append(name)
            elif name.startswith(tuple(f"encoders.{modality}." for modality in trained)):
                parts["encoder"].append(name)
            else:
                parts["insertion"].append(name)
        return {part: names for part, names in parts.items() if names}

    def set_trainable(self, parts: Collection[str]) -> None:
        """Let only these parts of the workflow receive gradients.

        Args:
            parts: Names of `trainable_parts`; a single name stands for itself.

        Raises:
            ModelError: A part is unknown, or this workflow does not have it.
        """
        available = self.trainable_parts()
        if not isinstance(parts, str | Collection):
            raise ModelError(wrong_type("parts", f"a list of some of {', '.join(available)}", parts))
        parts = [parts] if isinstance(parts, str) else parts
        for part in parts:
            if part not in available:
                raise ModelError(unknown_name("trainable part of this workflow", part, available))
        wanted = {name for part in parts for name in available[part]}
        parameters = dict(self.named_parameters())
        for name in self._own_names:
            parameters[name].requires_grad_(name in wanted)

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """The workflow's own tensors by name, whether a stage trains them at the moment or not."""
        parameters = dict(self.named_parameters())
        return {name: parameters[name].detach() for name in self._own_names}

    def load_own_tensors(self, tensors: Mapping[str, Tensor], *, partial: bool = False) -> None:
        """Copy values into the workflow's own tensors.

        Args:
            tensors: Values by name.
            partial: Whether names that one side lacks are fine (a stage that builds on a smaller workflow).

        Raises:
            ModelError: A name or a shape does not fit.
        """
        own = self.trainable_state_dict()
        missing, unexpected = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
        if unexpected or (missing and not partial):
            raise ModelError(
                "the tensors do not belong to this workflow: "
                f"{len(missing)} missing {missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}."
            )
        for name, value in tensors.items():
            if own[name].shape != value.shape:
                raise ModelError(f"{name}: shape {tuple(value.shape)} given, {tuple(own[name].shape)} expected.")
            own[name].copy_(value)

    def get_input_embeddings(self) -> nn.Module:
        """The workflow's token embedding."""
        return cast(nn.Module, self.language_model.get_input_embeddings())

    def get_output_embeddings(self) -> nn.Module:
        """The workflow's LM head."""
        return cast(nn.Module, self.language_model.get_output_embeddings())

    def train(self, mode: bool = True) -> AdaptkitForConditionalGeneration:
        """Set training mode, in which encoders stay in evaluation mode, but for what the workflow trains in them."""
        super().train(mode)
        own = {id(self.get_parameter(name)) for name in self._own_names}
        for encoder in self._encoders():
            train_own(encoder, own, mode)
        return self

    def encoder_distances(self) -> dict[str, int]:
        """For each parameter of the encoders, how many of their blocks come after it; see `distances_from_top`.

        Raises:
            ModelError: An encoder has no transformer blocks.
        """
        return {
            f"encoders.{modality}.{name}": distance
            for modality, encoder in self.encoders.items()
            for name, distance in distances_from_top(cast(Encoder, encoder)).items()
        }

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AdaptkitForConditionalGeneration:
        """Move or cast base and workflow together, so that they keep sharing their tensors."""
        self._check_apply(fn)
        done: dict[int, tuple[Tensor, Tensor]] = {}

        def once(tensor: Tensor) -> Tensor:
            if id(tensor) not in done:
                result = fn(tensor)
                done[id(tensor)] = (tensor, result)
                done[id(result)] = (result, result)
            return done[id(tensor)][1]

        super()._apply(once, recurse)
        self.base._apply(once, recurse)
        for encoder in self.source_encoders.values():
            encoder._apply(once, recurse)
        return self

    # -- features ------------------------------------------------------------------------------------------------

    def encode(self, modality: str, inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Encoder features of raw inputs, `(num_items, positions, feature_size)`; no gradient where it is frozen.

        Args:
            modality: Whose encoder.
            inputs: `(num_items, ...)`, or a list where the shapes of items differ.

        Returns:
            A list of `(positions, feature_size)` where the number of positions differs.

        Raises:
            DataError: The inputs are no tensors, or the modality is unknown.
        """
        encoder = self._encoder(modality)
        inputs = as_inputs(inputs, modality)
        adapted = any(p.requires_grad for p in encoder.parameters())
        with torch.set_grad_enabled(adapted and torch.is_grad_enabled()):
            return run_encoder(encoder, inputs)

    def _encoders(self) -> list[Encoder]:
        return [cast(Encoder, encoder) for encoder in self.encoders.values()]

    def _encoder(self, modality: str) -> Encoder:
        if modality not in self.encoders:
            raise DataError(unknown_name("modality of this workflow", modality, self.encoders.keys()))
        return cast(Encoder, self.encoders[modality])

    def _project(self, modality: str, given: Any) -> ProjectedFeatures:
        if isinstance(given, ProjectedFeatures):
            return given
        encoded = isinstance(given, EncodedFeatures)
        items = given.items if encoded else as_inputs(given, modality)
        if isinstance(items, list) and self.training:
            self._refuse_uneven(modality, encoded=encoded)
        if encoded:
            check_width(given.feature_size, self._encoder(modality).feature_size, modality)
        features = items if encoded else self._encode_given(modality, items)
        projector = self.projectors[modality]
        features = like(features, next(projector.parameters()))
        if isinstance(features, Tensor):
            return ProjectedFeatures.of(projector(features), self.policy.feature_mode)
        items = [projector(item.unsqueeze(0))[0] for item in features]
        return ProjectedFeatures.of(items, self.policy.feature_mode)

    def _encode_given(self, modality: str, inputs: Any) -> Tensor | list[Tensor]:
        """As `encode`; where that fails with what looks like features, the error says how to pass those."""
        try:
            return self.encode(modality, inputs)
        except Exception as error:
            if is_out_of_memory(error) or isinstance(error, PluginError):
                raise
            shape = tuple(getattr(inputs[0] if isinstance(inputs, list) else inputs, "shape", ()))
            if len(shape) not in (2, 3) or shape[-1] != self._encoder(modality).feature_size:
                raise
            raise DataError(
                f"the encoder of {modality!r} does not take inputs of shape {shape} ({cause(error)}). Features "
                "that are encoded already are passed as adaptkit.EncodedFeatures(features)."
            ) from error

    def _refuse_uneven(self, modality: str, *, encoded: bool) -> None:
        """Media of different shapes go one by one, so processes that shard those weights would wait for others."""
        parameters = [p for p in self.projectors[modality].parameters() if hasattr(p, "ds_id")]  # FSDP gathers it once
        parameters += [] if encoded else [p for p in self._encoder(modality).parameters() if is_sharded(p)]
        if parameters:
            raise ModelError(
                f"media of {modality!r} differ in shape, and the weights that they go through one by one are sharded "
                "over processes, which would wait for each other. Take accelerator.strategy zero2 or ddp, or fsdp with "
                f"modalities.{modality}.cache_features."
            )

    def _collect(self, features: Mapping[str, Any] | None, named: Mapping[str, Any]) -> dict[str, Any]:
        """Join `features=` with stock keyword names such as `pixel_values`."""
        if not isinstance(features, Mapping | None):
            raise DataError(wrong_type("features", "{modality: tensor}", features))
        collected = {name: value for name, value in (features or {}).items() if value is not None}
        for name in collected:
            self._encoder(name)
        for input_name, value in named.items():
            if value is None:
                continue
            takers = [m for m, e in self.encoders.items() if cast(Encoder, e).input_name == input_name]
            if len(takers) != 1:
                raise DataError(
                    f"{input_name}= fits {len(takers)} modalities of this workflow ({', '.join(self.encoders)}); "
                    "pass features={modality: tensor} instead."
                )
            if takers[0] in collected:
                raise DataError(f"{takers[0]!r} is given twice, in features= and as {input_name}=. Leave one out.")
            collected[takers[0]] = value
        return collected

    def embed(self, input_ids: Tensor, features: Mapping[str, Any] | None = None) -> Tensor:
        """Embeddings of prompts with the features of their media in place, `(batch, seq, hidden)`.

        Args:
            input_ids: As in `forward`.
            features: As in `forward`.

        Raises:
            DataError: Placeholder and feature counts differ, or a modality is unknown.
        """
        with self.compute_dtype():
            projected, _ = self._project_all(self._collect(features, {}))
            return self._embed(input_ids, projected)

    def _embed(self, input_ids: Tensor, features: Mapping[str, ProjectedFeatures]) -> Tensor:
        """Token embeddings with features in their places, or, for context features, without them."""
        masks = self._placeholder_masks(input_ids)
        for modality, mask in masks.items():
            given = features.get(modality)
            if given is not None or input_ids.shape[1] > 1:
                num_features, num_items = (given.tensor.shape[0], given.num_items) if given is not None else (0, 0)
                check_counts(int(mask.sum()), num_features, modality=modality, num_items=num_items)
        if self.policy.feature_mode == "context":
            return self._embed_placeholders(input_ids)
        token_ids = input_ids
        for mask in masks.values():
            token_ids = token_ids.masked_fill(mask, 0)
        inputs_embeds = self.get_input_embeddings()(token_ids)
        for modality, projected in features.items():
            check_projected_width(projected.tensor.shape[-1], inputs_embeds.shape[-1], modality)
            inputs_embeds = splice_features(inputs_embeds, masks[modality], projected)
        return cast(Tensor, inputs_embeds)

    def _embed_placeholders(self, input_ids: Tensor) -> Tensor:
        """Embeddings where placeholders are words like others; those outside the vocabulary are zeros."""
        embedding = self.get_input_embeddings()
        outside = input_ids >= cast(Tensor, embedding.weight).shape[0]
        inputs_embeds = embedding(input_ids.masked_fill(outside, 0))
        return cast(Tensor, inputs_embeds.masked_fill(outside.unsqueeze(-1), 0))

    def _placeholder_masks(self, input_ids: Tensor) -> dict[str, Tensor]:
        return {name: input_ids == entry["placeholder_id"] for name, entry in self.config.modalities.items()}

    def _project_all(self, given: Mapping[str, Any]) -> tuple[dict[str, ProjectedFeatures], Tensor | None]:
        """Projected features of what a batch holds, and a zero that depends on the parts that it does not use.

        In training and validation on several processes, all must take part in the gradient of a projector and of what a
        policy put into an encoder, and, where weights are sharded, in their forward passes; in the same order, modality
        by modality. Else those whose batch has a medium would wait for one whose batch has none. In one process the
        trainable parameters get a gradient of zero as well, so that training is the same.
        """
        in_stage = self.training or self._scores_tokens
        distributed = in_stage and torch.distributed.is_available() and torch.distributed.is_initialized()
        projected: dict[str, ProjectedFeatures] = {}
        nothing: list[Tensor] = []
        for modality, projector in self.projectors.items():
            if modality in given:
                projected[modality] = self._project(modality, given[modality])
                continue
            if not in_stage:
                continue
            parameters = [*projector.parameters(), *self._encoder(modality).parameters()]
            learn = [p for p in parameters if p.requires_grad and not is_sharded(p)]
            if distributed and any(p.requires_grad or is_sharded(p) for p in parameters):
                nothing.append(projector(like(self._idle_features(modality), next(projector.parameters()))).sum() * 0)
            if torch.is_grad_enabled():
                nothing += [p.sum() * 0 for p in learn]
        return projected, torch.stack([zero.float() for zero in nothing]).sum() if nothing else None

    def _idle_features(self, modality: str) -> Tensor:
        """Features of the encoder's example, `(1, positions, feature_size)`; zeros where it gives none.

        Where features are computed before training no process runs the encoder, so this one does not either.
        """
        if modality in self.features_given:
            return self.features_given[modality].unsqueeze(0)
        encoder = self._encoder(modality)
        example = encoder.example_inputs()
        if example is not None:
            return next(iter(self.encode(modality, example))).unsqueeze(0)
        if any(map(is_sharded, encoder.parameters())):
            raise ModelError(
                f"a batch without {modality!r} would leave other processes waiting, since the weights of "
                f"{type(encoder).__name__} are sharded over processes and it has no example_inputs. Add that method."
            )
        return torch.zeros(1, 1, encoder.feature_size)

    # -- forward -------------------------------------------------------------------------------------------------

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        features: Mapping[str, Any] | None = None,
        pixel_values: Tensor | None = None,
        input_features: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        segment_lengths: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Run the workflow.

        Args:
            input_ids: Token ids with one placeholder id per feature position, `(batch, seq)`.
            attention_mask: 1 at tokens, 0 at padding, `(batch, seq)`.
            position_ids: `(batch, seq)`; derived where not given.
            past_key_values: A transformers cache.
            inputs_embeds: Ready embeddings instead of `input_ids`, `(batch, seq, hidden)`; then without `features`.
            labels: Token ids to predict, -100 where there is no loss, `(batch, seq)`. A label that is a
                placeholder id counts as -100, so `labels` may be a copy of `input_ids`.
            use_cache: Whether to return the cache.
            logits_to_keep: As in transformers.
            features: For each modality the raw encoder inputs `(num_items, ...)` of all items in reading order, row
                after row, a list of one tensor each where their shapes differ; or `adaptkit.EncodedFeatures`.
            pixel_values: Raw inputs of the modality whose encoder takes this name.
            input_features: The same.
            num_items_in_batch: Supervised tokens in the global batch, by which the summed loss is divided; the
                number in this batch where not given.
            segment_lengths: Lengths of the conversations that share the one row of a packed batch, without padding;
                see `prepared_for_training`.

        Returns:
            With `labels` in training mode, `logits` are those of supervised positions alone,
            `(num_supervised, vocab)`, or None where the loss is computed without holding them; else
            `(batch, seq, vocab)`.

        Raises:
            DataError: Placeholder and feature counts differ, or a modality is unknown.
        """
        given = self._collect(features, {"pixel_values": pixel_values, "input_features": input_features})
        if (input_ids is None) == (inputs_embeds is None):
            raise DataError("give input_ids or inputs_embeds, and not both.")
        if given and input_ids is None:
            raise DataError("features need input_ids: their place is where the placeholder ids are.")
        with self.compute_dtype(), self._packed(segment_lengths) as packed:
            projected, zero = self._project_all(given)
            if input_ids is not None:
                inputs_embeds = self._embed(input_ids, projected)
            assert inputs_embeds is not None
            if zero is not None:
                inputs_embeds = inputs_embeds + zero.to(inputs_embeds.dtype)
            inputs = {
                "inputs_embeds": inputs_embeds,
                "attention_mask": attention_mask,
                "position_ids": position_ids,
                "past_key_values": past_key_values,
                "use_cache": use_cache,
                **kwargs,
                **packed,
            }
            if self.policy.uses_context:
                inputs["adapter_context"] = self._build_context(input_ids, inputs, projected)
            if labels is None:
                return self._decode(inputs, logits_to_keep)
            labels = self._without_placeholders(labels)
            if self.training or self._scores_tokens:
                return self._loss_at_supervised(inputs, labels, num_items_in_batch)
            output = self._decode(inputs, 0)
            return with_loss(output, shifted_loss(output.logits, labels, num_items_in_batch))

    def _build_context(
        self,
        input_ids: Tensor | None,
        inputs: Mapping[str, Any],
        features: Mapping[str, ProjectedFeatures],
    ) -> AdapterContext:
        if input_ids is None:
            embeds = inputs["inputs_embeds"]
            input_ids = torch.full(embeds.shape[:2], -1, device=embeds.device)
        context = self._contexts.build(input_ids, self._placeholder_masks(input_ids), features, cache_of(inputs))
        self.policy.prepare(context, self.language_model, self.policy_modules)
        return context

    def context_of_rows(self, input_ids: Tensor, media_set: Tensor) -> AdapterContext:
        """The context of a pass whose rows continue prompts with these modalities; see `AdapterContext.media_set`.

        For policies that keep nothing beside a cache.
        """
        context = self._contexts.build(input_ids, self._placeholder_masks(input_ids), {}, None)
        context.media_set = media_set
        self.policy.prepare(context, self.language_model, self.policy_modules)
        return context

    def _decode(self, inputs: dict[str, Any], logits_to_keep: int | Tensor) -> CausalLMOutputWithPast:
        inputs = {name: value for name, value in inputs.items() if value is not None}
        context = inputs.pop("adapter_context", None)
        if self._takes_logits_to_keep:
            inputs["logits_to_keep"] = logits_to_keep
        inputs["return_dict"] = True
        if context is None:
            return cast(CausalLMOutputWithPast, self.language_model(**inputs))
        with provide_context(context):
            output = cast(CausalLMOutputWithPast, self.language_model(**inputs))
        self._contexts.keep(context, cache_of(output))
        return output

    def _without_placeholders(self, labels: Tensor) -> Tensor:
        for placeholder_id in self._placeholder_ids():
            labels = labels.masked_fill(labels == placeholder_id, IGNORE_INDEX)
        return labels

    @contextlib.contextmanager
    def compute_dtype(self) -> Iterator[None]:
        """Where the workflow's own tensors are float32 masters beside a half base, compute in the base's dtype."""
        dtype = self.base.dtype
        device_type = self.device.type
        mixed = dtype in (torch.bfloat16, torch.float16) and self.get_input_embeddings() is not None
        mixed = mixed and any(p.dtype == torch.float32 for p in self._own_parameters())
        if not mixed or torch.is_autocast_enabled(device_type):
            yield
            return
        with torch.autocast(device_type, dtype=dtype, cache_enabled=False):  # as in training
            yield

    def _own_parameters(self) -> Iterator[nn.Parameter]:
        for projector in self.projectors.values():
            yield from projector.parameters()
        if self._own_names:
            name = self._own_names[0]
            yield cast(nn.Parameter, self.get_parameter(name))
