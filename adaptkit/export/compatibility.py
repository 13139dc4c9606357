"""Why a workflow cannot become a stock `LlavaForConditionalGeneration`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from adaptkit.errors import ModelError
from adaptkit.export.merging import copy_to_write, low_rank_modules
from adaptkit.export.trunk import find_trunk, measure_head
from adaptkit.files.loading import cause
from adaptkit.model.composite import AdaptkitForConditionalGeneration

VISION_MODELS = ("clip_vision_model", "siglip_vision_model")
"""Families that stock LLaVA and `adaptkit-clip` share."""


def llava_problems(model: AdaptkitForConditionalGeneration, *, merge: bool = False) -> list[str]:
    """Reasons why a workflow has no stock LLaVA that computes the same; empty where it has.

    Two tokens are run through the decoder to see how it makes logits.

    Args:
        merge: Judge it as it is after folding low-rank differences into the weights.
    """
    return stock_problems(model, merge, "LLaVA", _media_problems, may_tie=True)


def stock_problems(
    model: AdaptkitForConditionalGeneration,
    merge: bool,
    title: str,
    media_problems: Callable[[AdaptkitForConditionalGeneration, str], Iterator[str]],
    *,
    may_tie: bool,
) -> list[str]:
    """What stands against a workflow as a stock model.

    Args:
        merge: Judge it as it is after folding low-rank differences into the weights.
        may_tie: Whether the stock model can tie its head to its embedding.
    """
    names = list(model.encoders)
    problems = list(media_problems(model, names[0])) if len(names) == 1 else [
        f"the workflow has {len(names)} modalities ({', '.join(names) or 'none'}); stock {title} has one encoder."
    ]  # fmt: skip
    problems += policy_problems(model, merge, title)
    if not problems:
        tied = may_tie and getattr(model.base.config.get_text_config(decoder=True), "tie_word_embeddings", False)
        problems += family_problems(copy_to_write(model, model.base.dtype, merge=merge), tied)
    return problems


def policy_problems(model: AdaptkitForConditionalGeneration, merge: bool, title: str) -> Iterator[str]:
    """What stands against a workflow's policy in any stock model, called `title`."""
    policy, name = model.policy, model.config.insertion.get("policy", "projector_only")
    wrapped = low_rank_modules(model.language_model)
    if any(low_rank_modules(encoder) for encoder in model.encoders.values()) and not merge:
        yield "low-rank differences of the encoder are apart from its weights: fold them in with --merge."
    if any(not p.is_floating_point() for p in model.language_model.parameters()):
        yield "the base is quantised: load the workflow on the unquantised base."
    if wrapped and not merge:
        yield f"policy {name!r} keeps low-rank differences apart from the weights: fold them in with --merge."
    elif not policy.exports_as_stock and not wrapped:
        yield (
            f"policy {name!r} wires modules into the decoder that no stock model has. Policies that end as a deeper "
            "stock decoder can be exported: inner_adapter, projector_only, full."
        )
    if policy.feature_mode != "splice":
        yield f"policy {name!r} keeps features out of the sequence; stock {title} puts them at the placeholders."
    if policy.adapts_encoders:
        yield f"policy {name!r} adapts the encoder, which stock {title} takes as it is."


def _media_problems(model: AdaptkitForConditionalGeneration, name: str) -> Iterator[str]:
    encoder, projector = cast(Any, model.encoders[name]), model.projectors[name]
    yield from encoder_problems(encoder)
    if not is_gelu_mlp(projector, encoder.feature_size, hidden_size_of(model), bias=True):
        reference = model.config.modalities[name]["projector"]
        yield (
            f"the projector is {reference.get('name') or reference.get('object')!r}; stock LLaVA has two linear maps "
            "with biases, GELU between them, and the decoder's width between: mlp2x_gelu."
        )


def encoder_problems(encoder: Any) -> Iterator[str]:
    """What stands against an encoder as stock LLaVA's vision tower."""
    vision = getattr(encoder, "model", None)
    family = getattr(getattr(vision, "config", None), "model_type", None)
    options: Any = getattr(encoder, "options", None)
    if family not in VISION_MODELS or not hasattr(options, "feature_layer"):
        yield (
            f"the encoder is a {type(encoder).__name__} over {family or 'no transformers model'}; the vision tower "
            f"must be a CLIP or SigLIP model of the encoder 'clip' ({', '.join(VISION_MODELS)})."
        )
        return
    if options.feature_layers is not None:
        yield "the encoder lines up the features of several layers (feature_layers); stock LLaVA joins their widths."
    if options.tokens != "patches":
        yield "the encoder gives the class token alone (tokens: cls), which stock LLaVA has no setting for."
    if options.tiles is not None:
        yield "the encoder cuts a picture into tiles (tiles); stock LLaVA has one square of each."
    if options.merge_size != 1:
        yield f"the encoder joins patches (merge_size {options.merge_size}); stock LLaVA has no such step."


def select_strategy(encoder: Any) -> str:
    """LLaVA's word for which features are used: `default` drops the class token, `full` keeps all."""
    return "default" if encoder.has_cls and not encoder.options.keep_cls else "full"


def is_gelu_mlp(projector: nn.Module, feature_size: int, hidden_size: int, *, bias: bool) -> bool:
    """Whether a projector is two linear maps with GELU between, as LLaVA-1.5 has it."""
    kinds = (nn.Linear, nn.GELU, nn.Linear)
    if not isinstance(projector, nn.Sequential) or len(projector) != 3 or not all(map(isinstance, projector, kinds)):
        return False
    first, activation, second = (cast(Any, module) for module in projector)
    sizes = (first.in_features, first.out_features, second.out_features)
    biases = (first.bias is not None, second.bias is not None)
    return (sizes, biases, activation.approximate) == ((feature_size, hidden_size, hidden_size), (bias, bias), "none")


def hidden_size_of(model: AdaptkitForConditionalGeneration) -> int:
    """Width of the decoder's token embedding."""
    weight = cast(torch.Tensor, model.get_input_embeddings().weight)
    return int(weight.shape[1])


def family_problems(model: AdaptkitForConditionalGeneration, tied: bool) -> Iterator[str]:
    """What stands against a decoder in any stock model.

    Args:
        tied: Whether its family ties its ends, and the stock model would have to.
    """
    language_model = cast(PreTrainedModel, model.language_model)
    family = type(language_model).__name__
    try:
        trunk = find_trunk(language_model)
        if tied and getattr(trunk, "embed_tokens", None) is not trunk.get_input_embeddings():
            yield (
                f"{family} ties its LM head to its embedding; stock LLaVA ties it to language_model.embed_tokens, "
                f"which {type(trunk).__name__} has not."
            )
            return
        measure_head(language_model)
    except ModelError as error:
        yield f"{family}: {error}"
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        yield f"{family} cannot be run on two tokens ({cause(error)})."
