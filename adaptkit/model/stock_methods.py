"""Methods of stock models that would change the frozen base or an encoder: kept to the workflow, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adaptkit.errors import ModelError
from adaptkit.surgery.quantization import check_move, quantization_of

_Model: Any = PreTrainedModel if TYPE_CHECKING else object

_REFUSED = {
    "add_adapter": "The insertion policy 'lora' trains low-rank differences.",
    "dequantize": "Load the base as it is to be.",
    "enable_peft_hotswap": "The insertion policy 'lora' trains low-rank differences.",
    "load_adapter": "Give adapt() the base with the adapter merged, or train the insertion policy 'lora'.",
    "resize_position_embeddings": "Load a base with as many positions as are needed.",
    "save_distributed_checkpoint": "Use save_pretrained.",
    "set_decoder": "Build another workflow with adapt().",
    "set_encoder": "Build another workflow with adapt().",
    "set_input_embeddings": "Change the weights of get_input_embeddings(), with replace_ends=True in adapt().",
    "set_output_embeddings": "Change the weights of get_output_embeddings(), with replace_ends=True in adapt().",
    "to_empty": "It would discard the weights of the base.",
}
"""Methods that have no meaning for a workflow, and what to do instead."""


class StockMethodsMixin(_Model):  # type: ignore[misc]
    """What a composite makes of methods of stock models that know nothing of a frozen base."""

    _own_names: list[str]

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Module:
        """Resize embedding and LM head as transformers does, where they are the workflow's own.

        Raises:
            ModelError: They are the base's, or a placeholder would get a row. Nothing was changed.
        """
        if new_num_tokens is None and pad_to_multiple_of is None:
            return cast(nn.Module, self.get_input_embeddings())
        own = {id(self.get_parameter(name)) for name in self._own_names}
        ends = [end for end in (self.get_input_embeddings(), self.get_output_embeddings()) if end is not None]
        if not all(id(parameter) in own for end in ends for parameter in end.parameters()):
            raise ModelError(
                "resize_token_embeddings: embedding and LM head are the frozen base's. Build the workflow with "
                "replace_ends=True, so that it has its own, or resize the base and adapt it anew."
            )
        rows = num_rows(self)
        wanted = rows if new_num_tokens is None else new_num_tokens
        if not isinstance(wanted, int) or wanted < 1:
            raise ModelError(f"resize_token_embeddings: {wanted!r} is not a number of tokens.")
        if pad_to_multiple_of:
            wanted = -(-wanted // pad_to_multiple_of) * pad_to_multiple_of
        for name, entry in self.config.modalities.items():
            if rows <= entry["placeholder_id"] < wanted:
                raise ModelError(
                    f"resize_token_embeddings: id {entry['placeholder_id']} stands for {name!r} and would become a "
                    f"token. Build the workflow with a placeholder_id of {wanted} or more."
                )
        embedding = self.language_model.resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        self._own_names = self._find_own_names()
        return cast(nn.Module, embedding)

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Leave ends tied or apart as they were built: those of the base are its own matter."""

    def init_weights(self) -> None:
        """Leave every tensor as it is: the base is loaded, copies are copied, projectors initialise themselves."""

    def initialize_weights(self) -> None:
        """As `init_weights`."""

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Switch gradients of the workflow's own parameters; base and encoders stay frozen."""
        for name in self._own_names:
            self.get_parameter(name).requires_grad_(requires_grad)
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load as any module does, except that frozen tensors are only compared.

        Raises:
            ModelError: A frozen tensor is to get other values, or tensors are to be replaced (`assign`).
        """
        if assign:
            raise ModelError("load_state_dict: assign=True would part the workflow's tensors from the base's.")
        frozen = {id(t) for module in (self.base, *self.source_encoders.values()) for t in _tensors(module).values()}
        current = {name: tensor for name, tensor in _tensors(self).items() if id(tensor) in frozen}
        for name, value in state_dict.items():
            if name in current and not _equal(current[name], value):
                raise ModelError(f"load_state_dict: {name} is frozen and would get other values. Leave it out.")
        return super().load_state_dict(state_dict, strict, assign)

    def _check_apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Refuse moves and casts, by whichever method, that a quantised base does not survive."""
        if quantization_of(self.base) is None:
            return
        before = torch.empty(1, dtype=self.base.dtype, device=self.base.device)
        after = fn(before)
        device = None if after.device == before.device else after.device
        check_move(self.base, device, None if after.dtype == before.dtype else after.dtype)


def num_rows(model: Any) -> int:
    """Rows of a model's token embedding."""
    return int(model.get_input_embeddings().weight.shape[0])


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all of their names."""
    return dict(chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)))


def _equal(here: Tensor, value: Any) -> bool:
    if type(here) not in (Tensor, nn.Parameter):  # sharded, or packed: not for comparison
        return True
    return here.shape == value.shape and torch.equal(value.to(here.device, here.dtype), here)


def _refusing(name: str, advice: str) -> Any:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise ModelError(f"{name} is not supported for a workflow, whose base is frozen. {advice}")

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = f"Not supported for a workflow. {advice}"
    return refuse


for _name, _advice in _REFUSED.items():
    setattr(StockMethodsMixin, _name, _refusing(_name, _advice))
