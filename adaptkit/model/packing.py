"""Several conversations in one row, without padding and without seeing each other.

A packed row says where its conversations begin and end. Each decoder layer then attends within them alone: by flash
attention over sequences of different lengths where there is a GPU, by PyTorch's attention over conversations of like
length elsewhere, and by a mask of blocks where a family's attention takes no more than a mask. The decoder makes that
mask from the position ids, or is given it where it makes masks without looking at them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, create_masks_for_generate, sdpa_mask

from adaptkit.errors import ModelError

PACKED = "adaptkit_packed"
"""Name of the attention under which transformers finds `packed_attention`."""

Method = Literal["segments", "flash", "block_mask", "given_mask"]

_in_segments: ContextVar[bool] = ContextVar("in_segments", default=False)


@dataclass
class _Windows:
    """The windows that a pass asked of its masks, and those that it told its attention of."""

    of_masks: set[int] = field(default_factory=set)
    of_attention: set[int] = field(default_factory=set)


_windows: ContextVar[_Windows | None] = ContextVar("windows", default=None)


@dataclass(frozen=True)
class _Buckets:
    """Conversations of like length beside each other, filled up to the longest of their bucket."""

    shapes: tuple[tuple[int, int], ...]  # conversations and positions of each bucket
    gather: Tensor  # which position of the row stands at each place of the buckets, one bucket after the other
    filling: Tensor  # the places that only fill up, where the last position of a conversation stands again
    places: Tensor  # where each position of the row stands

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> _Buckets:
        """Of conversations of these lengths; those of one bucket differ by less than a fifth."""
        groups: dict[int, list[int]] = {}
        for number, length in enumerate(lengths):
            groups.setdefault(math.floor(4 * math.log2(length)), []).append(number)
        order = [number for group in groups.values() for number in group]
        shapes = tuple((len(group), max(lengths[i] for i in group)) for group in groups.values())
        filled = torch.tensor([longest for count, longest in shapes for _ in range(count)])
        starts = torch.tensor([0, *accumulate(lengths)])[order]
        real = torch.tensor(lengths)[order]
        offsets = torch.arange(int(filled.max())).unsqueeze(0)
        taken, is_real = offsets < filled.unsqueeze(1), offsets < real.unsqueeze(1)
        gather = (starts.unsqueeze(1) + offsets.minimum(real.unsqueeze(1) - 1))[taken]
        filling = ~is_real[taken]
        places = torch.empty(sum(lengths), dtype=torch.long)
        places[gather[~filling]] = (~filling).nonzero().squeeze(1)
        return cls(shapes, gather.to(device), filling.nonzero().squeeze(1).to(device), places.to(device))


@dataclass(frozen=True)
class Segments:
    """Where the conversations of a packed row begin and end.

    Attributes:
        lengths: Of each, in order.
        cumulative: Where each begins, and the end of the last, int32 `(num_conversations + 1,)`.
    """

    lengths: tuple[int, ...]
    cumulative: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Segments:
        """Of conversations of these lengths, one after the other."""
        starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
        return cls(tuple(lengths), starts)

    @cached_property
    def buckets(self) -> _Buckets:
        """The conversations by length."""
        return _Buckets.of(self.lengths, self.cumulative.device)

    @property
    def longest(self) -> int:
        """Positions of the longest conversation."""
        return max(self.lengths)

    def position_ids(self) -> Tensor:
        """Positions counted from the beginning of each conversation, `(1, seq)`."""
        device = self.cumulative.device
        return torch.cat([torch.arange(n, device=device) for n in self.lengths]).unsqueeze(0)


# -- attention -----------------------------------------------------------------------------------------------------


@torch.compiler.disable  # type: ignore[untyped-decorator]  # lengths differ from batch to batch: a graph made for some would be made again for others
def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    packed_segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention within the conversations of a packed row; PyTorch's own where none is packed.

    As transformers calls attention, with tensors `(batch, heads, seq, head_dim)`, of one row where it is packed; the
    mask is that of rows that are not packed.

    Returns:
        `(batch, seq, heads, head_dim)`, and no weights.

    Raises:
        ModelError: A family asks for what this attention does not do.
    """
    seen = _windows.get()
    if seen is not None and sliding_window is not None:
        seen.of_attention.add(sliding_window)
    if packed_segments is None:
        stock = AttentionInterface()["sdpa"]
        options = {"scaling": scaling, "dropout": dropout, "sliding_window": sliding_window, **kwargs}
        output: tuple[Tensor, None] = stock(module, query, key, value, attention_mask, **options)
        return output
    wanted = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if wanted or not getattr(module, "is_causal", True):
        raise ModelError(f"packed attention does not know {', '.join(wanted) or 'attention that is not causal'}.")
    window = sliding_window if sliding_window is not None and sliding_window < packed_segments.longest else None
    tensors = [tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value)]
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and not dropout and _varlen is not None:
        return _varlen(*tensors, packed_segments, scaling, window).unsqueeze(0), None
    return _attend_by_bucket(tensors, packed_segments.buckets, scaling, dropout, window).unsqueeze(0), None


class _Rearranged(torch.autograd.Function):
    """From the row to the buckets, or back; what fills up has no gradient, since causal attention hides it.

    The gradient is a plain gather; PyTorch would scatter that of an index with repeated positions.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, buckets: _Buckets, to_row: bool) -> Tensor:
        ctx.buckets, ctx.to_row = buckets, to_row
        return values.index_select(0, buckets.places if to_row else buckets.gather)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        if not ctx.to_row:
            return gradients[0].index_select(0, ctx.buckets.places), None, None
        flat = gradients[0].index_select(0, ctx.buckets.gather)
        return flat.index_fill_(0, ctx.buckets.filling, 0), None, None


def _attend_by_bucket(
    tensors: Sequence[Tensor], buckets: _Buckets, scaling: float | None, dropout: float, window: int | None
) -> Tensor:
    """Attention of each bucket's conversations beside each other; `(seq, heads, head_dim)` in and out."""
    sizes = [count * longest for count, longest in buckets.shapes]
    flat_by_bucket = [_Rearranged.apply(tensor, buckets, False).split(sizes) for tensor in tensors]
    outputs = []
    for shape, *flat in zip(buckets.shapes, *flat_by_bucket):
        query, key, value = (tensor.unflatten(0, shape).transpose(1, 2) for tensor in flat)
        mask = None if window is None else _band(shape[1], window, query.device)
        options = {"is_causal": mask is None, "scale": scaling, "enable_gqa": key.shape[1] != query.shape[1]}
        attended = F.scaled_dot_product_attention(query, key, value, mask, dropout, **options)
        outputs.append(attended.transpose(1, 2).flatten(0, 1))
    joined: Tensor = _Rearranged.apply(torch.cat(outputs), buckets, True)
    return joined


def _band(length: int, window: int, device: torch.device) -> Tensor:
    distance = torch.arange(length, device=device).unsqueeze(1) - torch.arange(length, device=device).unsqueeze(0)
    return (distance >= 0) & (distance < window)


def _find_varlen() -> Any:
    """PyTorch's flash attention over sequences of different lengths, whose keywords changed between versions."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    keywords = inspect.signature(varlen_attn).parameters
    if "scale" not in keywords or "window_size" not in keywords:
        return None  # before 2.11

    def attend(
        query: Tensor, key: Tensor, value: Tensor, segments: Segments, scaling: float | None, window: int | None
    ) -> Tensor:
        options: dict[str, Any] = {"scale": scaling, "window_size": (-1 if window is None else window - 1, 0)}
        if key.shape[1] != query.shape[1] and "enable_gqa" in keywords:
            options["enable_gqa"] = True
        elif key.shape[1] != query.shape[1]:
            repeats = query.shape[1] // key.shape[1]
            key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
        places, longest = segments.cumulative, segments.longest
        output: Any = varlen_attn(query, key, value, places, places, longest, longest, **options)
        return cast(Tensor, output)

    return attend


_varlen = _find_varlen()


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """No mask where segments say what is seen; else that of PyTorch's attention."""
    seen, window = _windows.get(), kwargs.get("local_size")
    if seen is not None and window is not None:
        seen.of_masks.add(window)
    mask: Tensor | None = None if _in_segments.get() else sdpa_mask(*args, **kwargs)
    return mask


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, _mask)


# -- passes --------------------------------------------------------------------------------------------------------


@contextmanager
def packed_pass(segments: Segments, method: Method, language_model: Any) -> Iterator[dict[str, Any]]:
    """Give the arguments of a decoder's forward on a packed row; its masks are made while this lasts."""
    position_ids = segments.position_ids()
    arguments: dict[str, Any] = {"position_ids": position_ids}
    if method == "given_mask":
        like = language_model.get_input_embeddings().weight.new_empty(*position_ids.shape, 1)
        arguments["attention_mask"] = create_masks_for_generate(
            config=language_model.config,
            inputs_embeds=like,
            attention_mask=None,
            past_key_values=None,
            position_ids=position_ids,
        )
    if method == "flash":
        arguments |= {"cu_seq_lens_q": segments.cumulative, "cu_seq_lens_k": segments.cumulative}
        arguments |= {"max_length_q": segments.longest, "max_length_k": segments.longest}
    if method == "segments":
        arguments["packed_segments"] = segments
    token = _in_segments.set(method == "segments")
    try:
        yield arguments
    finally:
        _in_segments.reset(token)


_CHOSEN = "it attends to tokens that are chosen among all of the row"
_SHOWN_BY_LONG_ROWS = {
    "attn_temperature_tuning": "the temperature of its attention follows the place in the row",  # Llama 4
    "index_topk": _CHOSEN,  # DeepSeek V3.2
    "indexer_budget": _CHOSEN,
    "keep_window_size": _CHOSEN,  # Doge
}
"""Settings of decoders that mix conversations only in rows of thousands of positions, so that a short trial passes."""


@dataclass(frozen=True)
class TrainingTraits:
    """What a trial of a decoder shows, and its config does not say.

    Attributes:
        head_comes_last: Whether nothing changes the logits after the LM head, so that they can be computed in chunks.
        packing: How conversations are kept apart in packed rows; None where that was not tried.
    """

    head_comes_last: bool
    packing: Method | None = None


@contextmanager
def attention_for_packing(workflow: Any, known: Method | None = None) -> Iterator[None]:
    """Prepare a workflow for packed rows, for as long as it trains on them.

    The method is the one known from before, or the fastest that the decoder's attention allows and that keeps two short
    conversations apart; the `_packing` of the composite model is set to it.

    Raises:
        ModelError: No method does, as where layers carry a state along the row.
    """
    language_model = workflow.language_model
    config: Any = language_model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    reasons = [reason for name, reason in _SHOWN_BY_LONG_ROWS.items() if getattr(config, name, None)]
    try:
        for method in [known] if known else [] if reasons else packing_methods(config):
            config._attn_implementation = PACKED if method == "segments" else before
            workflow._packing = method
            reason = None if known else _problem(workflow)
            if reason is None:
                yield
                return
            reasons.append(f"{method}: {reason}")
    finally:
        config._attn_implementation = before
        workflow._packing = None
    raise ModelError(
        f"{type(language_model).__name__} does not keep conversations apart that share a row ({'; '.join(reasons)}). "
        "Train with packing: false."
    )


def packing_methods(config: Any) -> list[Method]:
    """Methods that a decoder's attention may allow, the fastest first."""
    implementation = str(config._attn_implementation)
    if implementation.startswith("flash_attention"):
        return ["flash"]
    # Chunks of the row are no chunks of its conversations, which shows in long ones only
    chunked = "chunked_attention" in (getattr(config, "layer_types", None) or ())
    masks: list[Method] = ["block_mask", "given_mask"]
    return ["segments", *masks] if implementation == "sdpa" and not chunked else masks


def _problem(workflow: Any) -> str | None:
    """How a conversation that shares a row differs from itself alone; None where it does not."""
    words = [i for i in range(64) if i not in workflow._placeholder_ids()]
    ids = (range(1, 25), range(7, 127, 5), range(2, 122, 3))
    first, other, second = ([words[i % len(words)] for i in conversation] for conversation in ids)
    was_training = workflow.training
    workflow.eval()
    windows = _Windows()
    token = _windows.set(windows)
    try:
        alone = _logits(workflow, second, None)
        behind = [_logits(workflow, before + second, [24, 40])[24:] for before in (first, other)]
    except Exception as error:  # whatever a family raises that is given what it does not take
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    finally:
        _windows.reset(token)
        workflow.train(was_training)
    if windows.of_masks - windows.of_attention and _has_windows(workflow.language_model.config):
        return "the window of its attention is in its masks alone"
    scale = float(alone.abs().max())
    tolerance = (1e-4 if alone.dtype == torch.float32 else 5e-2) * scale
    if not float((behind[0] - behind[1]).abs().max()) <= tolerance / 10:
        return "one conversation sees another"
    moved = float((behind[0] - alone).abs().max())
    return None if moved <= tolerance else "a conversation is computed otherwise than alone"


def _has_windows(config: Any) -> bool:
    """Whether a layer may have a window; some families make masks of windows that none has."""
    kinds = getattr(config.get_text_config(decoder=True), "layer_types", None)
    return kinds is None or any(kind != "full_attention" for kind in kinds)


@torch.no_grad()
def _logits(workflow: Any, ids: list[int], lengths: list[int] | None) -> Tensor:
    input_ids = torch.tensor([ids], device=workflow.device)
    logits: Tensor = workflow(input_ids=input_ids, segment_lengths=lengths, use_cache=False).logits[0]
    return logits
