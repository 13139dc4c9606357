"""Training of workflows: packed rows, and a loss where there are labels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from adaptkit.errors import DataError, ModelError
from adaptkit.model.loss import (
    IGNORE_INDEX,
    LossMode,
    chosen_mode,
    divided,
    enlarged_inputs,
    given_to_head,
    mean_loss,
    summed_loss,
    token_scores,
    with_loss,
    without_head,
)
from adaptkit.model.packing import Method, Segments, TrainingTraits, attention_for_packing, packed_pass

ACCEPTS_MASK = hasattr(transformers.modeling_utils, "slice_logits_to_keep")


# A mixin beside the model class, whose methods it calls
_Model: Any = PreTrainedModel if TYPE_CHECKING else object


class WorkflowTrunk:
    """A workflow without its LM head, as trainers call it that compute a loss from hidden states themselves."""

    _tp_plan: Mapping[str, Any] = MappingProxyType({})
    _pp_plan: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, workflow: Any) -> None:
        self._workflow = workflow

    def __call__(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPast:
        """As the workflow's forward, without labels."""
        with given_to_head(self._workflow.language_model) as hidden_states:
            output = self._workflow(*args, **kwargs)
        return BaseModelOutputWithPast(
            last_hidden_state=hidden_states[-1],
            past_key_values=output.get("past_key_values"),
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
        )


class WorkflowTrainingMixin(_Model):  # type: ignore[misc]
    """How a composite computes the batches of a stage."""

    features_given: Mapping[str, Tensor] = MappingProxyType({})
    """Features like those of an item, `(positions, feature_size)`, of modalities whose batches hold no raw inputs."""

    @property
    def base_model(self) -> Any:
        """The workflow without its LM head; the base is `base`."""
        return WorkflowTrunk(self)

    def get_decoder(self) -> Any:
        """The workflow's decoder."""
        return self.language_model

    _packing: Method | None = None
    _loss_mode: LossMode = "plain"
    _scores_tokens = False

    @contextlib.contextmanager
    def prepared_for_training(
        self, *, packing: bool = False, loss: LossMode = "auto", traits: TrainingTraits | None = None
    ) -> Iterator[None]:
        """Choose how batches are computed, for as long as a stage trains.

        Args:
            packing: Whether conversations share rows, with `segment_lengths`.
            loss: `plain` holds the logits of all supervised positions, `chunked` of some at a time, `liger` takes
                Liger's kernel; `auto` chooses. A head whose output a family changes is always `plain`.
            traits: From `find_traits` of a model of the same family, where this one has no values to try.

        Raises:
            ModelError: The policy or the decoder cannot be packed, or the loss cannot be computed as asked.
        """
        if packing and not self.policy.supports_packing:
            raise ModelError(
                f"the policy {type(self.policy).__name__} needs a row for each conversation: train with packing: false."
            )
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, self, "_packing", None)
            stack.callback(setattr, self, "_loss_mode", "plain")
            if packing:
                stack.enter_context(attention_for_packing(self, traits.packing if traits else None))
            if loss != "plain" and not (traits.head_comes_last if traits else self._head_comes_last()):
                if loss != "auto":
                    raise ModelError(
                        f"loss: {loss} needs a decoder whose LM head gives its logits; take plain or auto."
                    )
                loss = "plain"
            self._loss_mode = loss
            yield

    @contextlib.contextmanager
    def scoring_tokens(self) -> Iterator[None]:
        """Let passes with labels score every supervised token, in evaluation mode and without gradients.

        Their output has, in reading order, the loss of each as `loss` and whether it is the likeliest as `logits`, both
        `(num_supervised,)`.
        """
        modes = {module: module.training for module in self.modules()}
        self.eval()
        self._scores_tokens = True
        try:
            with torch.no_grad():
                yield
        finally:
            self._scores_tokens = False
            for module, training in modes.items():
                module.training = training

    def find_traits(self, *, packing: bool) -> TrainingTraits:
        """Try how the decoder is trained.

        Raises:
            ModelError: It cannot be packed.
        """
        with attention_for_packing(self) if packing else contextlib.nullcontext():
            return TrainingTraits(self._head_comes_last(), self._packing)

    @torch.no_grad()
    def _head_comes_last(self) -> bool:
        """Whether the head makes logits of what is there without it: a scale commutes with it, a soft-cap does not.

        A soft-cap shows in large logits only, so the head is given large inputs.
        """
        was_training = self.training
        self.eval()
        try:
            words = range(min(16, self.config.get_text_config().vocab_size))
            ids = torch.tensor([[i for i in words if i not in self._placeholder_ids()]], device=self.device)
            with enlarged_inputs(self.language_model):
                logits = self(input_ids=ids).logits
            with without_head(self.language_model) as head, enlarged_inputs(self.language_model):
                hidden = self(input_ids=ids).logits
            with self.compute_dtype():
                same: bool = torch.equal(head(hidden).float(), logits.float())
        finally:
            self.train(was_training)
        return same

    @contextlib.contextmanager
    def _packed(self, segment_lengths: Sequence[int] | None) -> Iterator[dict[str, Any]]:
        if segment_lengths is None:
            yield {}
            return
        if self._packing is None:
            raise ModelError("packed batches are for training: call this within prepared_for_training(packing=True).")
        segments = Segments.of(segment_lengths, self.device)
        with packed_pass(segments, self._packing, self.language_model) as arguments:
            yield arguments

    def _loss_at_supervised(
        self, inputs: dict[str, Any], labels: Tensor, num_items_in_batch: Tensor | int | None
    ) -> CausalLMOutputWithPast:
        """Logits and loss only where the next token is supervised."""
        targets = F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)
        supervised = targets != IGNORE_INDEX
        inputs = {**inputs, "use_cache": False}
        num_supervised = int(supervised.sum())
        if not num_supervised and not num_items_in_batch and not self._scores_tokens:
            raise DataError("no position of this batch is supervised: every label is -100.")
        if not num_supervised:  # others of the global batch are: this process goes along, with a loss of zero
            supervised[:, 0] = True
            num_supervised = len(supervised)
        targets = targets[supervised]
        head = self.get_output_embeddings()
        mode = chosen_mode(self._loss_mode, head, num_supervised * self.config.get_text_config().vocab_size)
        if mode == "plain":
            output = self._decode_at(inputs, supervised)
            if self._scores_tokens:
                return _scored(output, nn.Identity(), targets)
            return with_loss(output, mean_loss(output.logits, targets, num_items_in_batch))
        with without_head(self.language_model):
            output = self._decode_at(inputs, supervised)
        if self._scores_tokens:
            return _scored(output, head, targets)
        loss = divided(summed_loss(output.logits, head, targets, mode), targets, num_items_in_batch)
        return with_loss(output, loss, logits=None)

    def _decode_at(self, inputs: dict[str, Any], positions: Tensor) -> CausalLMOutputWithPast:
        """The decoder's output with logits `(num_positions, vocab)` where a mask `(batch, seq)` is true."""
        if not self._takes_logits_to_keep:
            output = self._decode(inputs, 0)
            output.logits = output.logits[positions]
        elif ACCEPTS_MASK:
            output = self._decode(inputs, positions)
        else:
            columns = positions.any(0).nonzero().squeeze(1)
            output = self._decode(inputs, columns)
            output.logits = output.logits[positions[:, columns]]
        return output


def _scored(output: Any, head: nn.Module, targets: Tensor) -> Any:
    losses, hits = token_scores(output.logits, head, targets)
    return with_loss(output, losses, logits=hits)
