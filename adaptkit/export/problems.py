"""Why a workflow cannot become a stock `LlavaForConditionalGeneration`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from adaptkit.errors import ModelError
from adaptkit.export.copies import copy_to_write, low_rank_modules
from adaptkit.export.parts import find_trunk, measure_head
from adaptkit.files.loading import cause
from adaptkit.model.composite import AdaptkitForConditionalGeneration

VISION_MODELS = ("clip_vision_model", "siglip_vision_model")
"""Families that stock LLaVA and `adaptkit-clip` share."""


def llava_problems(model: AdaptkitForConditionalGeneration, *, merge: bool = False) -> list[str]:
    """Reasons why a workflow has no stock LLaVA that computes the same; empty where it has.

    Two tokens are run through the decoder to see how it makes logits.

    Args:
        model: The workflow.
        merge: Judge it as it is after folding low-rank differences into the weights.
    """
    problems = [*_media_problems(model), *policy_problems(model, merge, "LLaVA")]
    if not problems:
        tied = getattr(model.base.config.get_text_config(decoder=True), "tie_word_embeddings", False)
        problems += family_problems(copy_to_write(model, model.base.dtype, merge=merge), tied)
    return problems


def policy_problems(model: AdaptkitForConditionalGeneration, merge: bool, title: str) -> Iterator[str]:
    """What stands against a workflow's policy in any stock model, called `title`."""
    policy, name = model.policy, model.config.insertion.get("policy", "projector_only")
    wrapped = low_rank_modules(model.language_model)
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


def count_problems(model: AdaptkitForConditionalGeneration, title: str) -> Iterator[str]:
    """A complaint where a workflow has not one modality."""
    names = list(model.encoders)
    if len(names) != 1:
        yield f"the workflow has {len(names)} modalities ({', '.join(names) or 'none'}); stock {title} has one encoder."


def _media_problems(model: AdaptkitForConditionalGeneration) -> Iterator[str]:
    names = list(model.encoders)
    if len(names) != 1:
        yield from count_problems(model, "LLaVA")
        return
    encoder, projector = cast(Any, model.encoders[names[0]]), model.projectors[names[0]]
    yield from encoder_problems(encoder)
    if not is_llava_projector(projector, encoder.feature_size, hidden_size_of(model)):
        reference = model.config.modalities[names[0]]["projector"]
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


def is_llava_projector(projector: nn.Module, feature_size: int, hidden_size: int) -> bool:
    """Whether a projector is the one that LLaVA-1.5 has."""
    if not isinstance(projector, nn.Sequential) or len(projector) != 3:
        return False
    first, activation, second = projector
    return (
        isinstance(first, nn.Linear)
        and isinstance(second, nn.Linear)
        and isinstance(activation, nn.GELU)
        and activation.approximate == "none"
        and first.bias is not None
        and second.bias is not None
        and (first.in_features, first.out_features, second.out_features) == (feature_size, hidden_size, hidden_size)
    )


def hidden_size_of(model: AdaptkitForConditionalGeneration) -> int:
    """Width of the decoder's token embedding."""
    weight = cast(torch.Tensor, model.get_input_embeddings().weight)
    return int(weight.shape[1])


def family_problems(model: AdaptkitForConditionalGeneration, tied: bool) -> Iterator[str]:
    """What stands against a decoder in any stock model.

    Args:
        model: The workflow as it is to be written.
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
