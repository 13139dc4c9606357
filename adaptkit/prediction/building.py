"""Models without values, on the meta device: built from configs alone, and packed as bitsandbytes packs them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from adaptkit.errors import ModelError, RecipeError, join_lines
from adaptkit.files.loading import from_configs, load_stock, reading
from adaptkit.files.paths import missing_model, resolve_model_path
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.prediction.fake import WithoutValues
from adaptkit.recipe import BaseConfig, Recipe, StageConfig
from adaptkit.run.loaded import LoadedModels, load_encoders

_BYTES = {"nf4": 0.5, "fp4": 0.5, "int8": 1.0}
_BLOCK, _BLOCK_OF_SCALES = 64, 256


@contextmanager
def without_weights() -> Iterator[None]:
    """Build models inside on the meta device; transformers' models need their configs alone."""
    with warnings.catch_warnings():
        # Plugins that read a file of weights themselves load it into such a model, which torch says tensor by tensor
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter.*")
        with from_configs(), torch.device("meta"), WithoutValues():
            yield


def load_skeletons(recipe: Recipe) -> LoadedModels:
    """The models of a recipe without weights and without a tokenizer: their configs are enough.

    Raises:
        RecipeError: The base's config is not on this machine.
    """
    missing = missing_model(recipe.base.path, recipe.base.revision)
    if missing:
        raise RecipeError(
            join_lines(
                [
                    f"recipe {recipe.name!r} names what is not on this machine:",
                    f"  base.path: {missing}.",
                    "Of models, their config.json is enough to predict what a run needs.",
                ]
            )
        )
    base = skeleton_base(recipe.base)
    try:
        with without_weights():
            return load_encoders(recipe, base)
    except ModelError:  # an encoder whose plugin computes with its weights while it is built: it is loaded
        with from_configs():
            return load_encoders(recipe, base)


def skeleton_base(config: BaseConfig) -> PreTrainedModel:
    """The base as its config describes it, without weights and not packed.

    Raises:
        ModelError: No model can be built from the config.
    """
    source = resolve_model_path(config.path)
    with reading(source):
        loaded = load_stock(AutoConfig, source, revision=config.revision, trust_remote_code=config.trust_remote_code)
        # Flash attention and PyTorch's own keep the same tensors, and only the latter runs without a GPU
        eager = config.attn_implementation == "eager"
        dtype = getattr(loaded, "dtype", None) or torch.float32
        with without_weights():
            base: PreTrainedModel = AutoModelForCausalLM.from_config(
                loaded,
                dtype=dtype if config.dtype == "auto" else getattr(torch, config.dtype),
                attn_implementation="eager" if eager else None,
                trust_remote_code=config.trust_remote_code,
            )
    return base.eval()


def skeleton_model(models: LoadedModels, stage: StageConfig) -> AdaptkitForConditionalGeneration:
    """A stage's workflow without weights, its base packed as the recipe says."""
    quantization = models.recipe.base.quantization or _packed_on_disk(models.base)
    if quantization is not None:  # packing changes the base that workflows share
        models = replace(models, base=skeleton_base(models.recipe.base))
    with without_weights():
        model = models.build_stage_model(stage)
    if quantization is not None:
        pack_base(model, quantization)
    return model


def _packed_on_disk(base: PreTrainedModel) -> str | None:
    """How a base's own checkpoint is packed.

    Raises:
        ModelError: By something else than bitsandbytes.
    """
    config = getattr(base.config, "quantization_config", None)
    if config is None:
        return None
    values = config if isinstance(config, dict) else config.to_dict()
    if values.get("load_in_8bit"):
        return "int8"
    if values.get("load_in_4bit"):
        return str(values.get("bnb_4bit_quant_type", "fp4"))
    raise ModelError(f"the base is quantised by {values.get('quant_method')}, which adaptkit cannot train on.")


# -- packed weights --------------------------------------------------------------------------------------------------


def pack_base(model: AdaptkitForConditionalGeneration, quantization: str) -> None:
    """Let the base's linear maps in a workflow take the memory of packed ones, in place.

    Args:
        model: On the meta device, with an unpacked base.
        quantization: `nf4`, `fp4` or `int8`.
    """
    shared = {id(p) for p in model.base.parameters()}
    heads = {id(m.get_output_embeddings()) for m in (model.base, model.language_model)}
    weights: dict[int, nn.Parameter] = {}
    for module in {id(m): m for m in chain(model.base.modules(), model.modules())}.values():
        if not isinstance(module, nn.Linear | Conv1D) or id(module) in heads or id(module.weight) not in shared:
            continue
        weight = module.weight
        if id(weight) not in weights:
            weights[id(weight)] = _packed(weight, quantization)
        rows, columns = weight.shape if isinstance(module, nn.Linear) else reversed(weight.shape)
        module.weight = weights[id(weight)]
        vars(module)["forward"] = _PackedForward(module, int(rows), int(columns))


def _packed(weight: Tensor, quantization: str) -> nn.Parameter:
    num_values = weight.numel()
    num_bytes = int(_BYTES[quantization] * num_values)
    if quantization == "int8":
        num_bytes += 4 * weight.shape[0]
    else:
        num_blocks = math.ceil(num_values / _BLOCK)
        num_bytes += num_blocks + 4 * math.ceil(num_blocks / _BLOCK_OF_SCALES)
    packed = nn.Parameter(torch.empty(num_bytes, dtype=torch.uint8, device="meta"), requires_grad=False)
    packed.num_packed = num_values  # type: ignore[attr-defined]
    return packed


class _PackedForward:
    """A packed map's forward: the weight is unpacked for each product, and again for its gradient."""

    def __init__(self, module: Any, rows: int, columns: int) -> None:
        self._module, self._shape = module, (rows, columns)

    def __call__(self, inputs: Tensor) -> Tensor:
        bias = self._module.bias
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else inputs.dtype
        with torch.autocast("cpu", enabled=False):
            output = _UnpackedProduct.apply(inputs.to(dtype), self._shape)
            output = output if bias is None else output + bias.to(dtype)
            return output.to(inputs.dtype)  # type: ignore[no-any-return]


class _UnpackedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.weight_shape = shape
        return F.linear(inputs, inputs.new_empty(shape))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient @ gradient.new_empty(ctx.weight_shape), None
