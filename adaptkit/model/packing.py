"""Several conversations in one row, without padding and without seeing each other.

A packed row says where its conversations begin and end. Each decoder layer then attends within them alone: by flash
attention over sequences of different lengths where there is a GPU, by PyTorch's attention over conversations of like
length elsewhere, and by a mask of blocks where a family's attention takes no more than a mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from adaptkit.errors import ModelError

PACKED = "adaptkit_packed"
"""Name of the attention under which transformers finds `packed_attention`."""

Method = Literal["segments", "flash", "block_mask"]

_in_segments: ContextVar[bool] = ContextVar("in_segments", default=False)


@dataclass(frozen=True)
class _Bucket:
    """Conversations of like length.

    Attributes:
        gather: Positions of each, filled up with its last one, `(num_conversations, longest)`.
        rows: Where its positions, without the filling, stand in the flattened `gather`.
        positions: The positions themselves.
    """

    gather: Tensor
    rows: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Segments:
    """Where the conversations of a packed row begin and end.

    Attributes:
        lengths: Of each, in order.
        cumulative: Where each begins, and the end of the last, int32 `(num_conversations + 1,)`.
        buckets: The conversations by length, from a power of two to the next.
    """

    lengths: tuple[int, ...]
    cumulative: Tensor
    buckets: tuple[_Bucket, ...]

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Segments:
        """Of conversations of these lengths, one after the other."""
        starts = [0, *accumulate(lengths)]
        by_size: dict[int, list[int]] = {}
        for number, length in enumerate(lengths):
            by_size.setdefault(length.bit_length(), []).append(number)
        buckets = tuple(_bucket([(starts[i], lengths[i]) for i in group], device) for group in by_size.values())
        return cls(tuple(lengths), torch.tensor(starts, dtype=torch.int32, device=device), buckets)

    @property
    def longest(self) -> int:
        """Positions of the longest conversation."""
        return max(self.lengths)

    def position_ids(self) -> Tensor:
        """Positions counted from the beginning of each conversation, `(1, seq)`."""
        device = self.cumulative.device
        return torch.cat([torch.arange(n, device=device) for n in self.lengths]).unsqueeze(0)


def _bucket(places: Sequence[tuple[int, int]], device: torch.device) -> _Bucket:
    starts = torch.tensor([start for start, _ in places]).unsqueeze(1)
    lengths = torch.tensor([length for _, length in places]).unsqueeze(1)
    offsets = torch.arange(int(lengths.max())).unsqueeze(0)
    gather = starts + offsets.minimum(lengths - 1)
    real = offsets < lengths
    return _Bucket(gather.to(device), real.flatten().nonzero().squeeze(1).to(device), gather[real].to(device))


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

    Args:
        module: The attention module.
        query: `(batch, heads, seq, head_dim)`; one row where it is packed.
        key: The same, perhaps of fewer heads.
        value: Shaped like `key`.
        attention_mask: Of rows that are not packed.
        scaling: Of the scores.
        dropout: Share of the weights that is dropped.
        sliding_window: How far back a position sees, itself included.
        packed_segments: Where conversations begin and end.
        kwargs: What else families give.

    Returns:
        `(batch, seq, heads, head_dim)`, and no weights.

    Raises:
        ModelError: A family asks for what this attention does not do.
    """
    if packed_segments is None:
        stock = AttentionInterface()["sdpa"]
        options = {"scaling": scaling, "dropout": dropout, "sliding_window": sliding_window, **kwargs}
        output: tuple[Tensor, None] = stock(module, query, key, value, attention_mask, **options)
        return output
    wanted = [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]
    if wanted or not getattr(module, "is_causal", True):
        raise ModelError(f"packed attention does not know {', '.join(wanted) or 'attention that is not causal'}.")
    window = sliding_window if sliding_window is not None and sliding_window < packed_segments.longest else None
    tensors = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and not dropout and _varlen is not None:
        return _varlen(*tensors, packed_segments, scaling, window).unsqueeze(0), None
    return _attend_by_bucket(tensors, packed_segments, scaling, dropout, window).unsqueeze(0), None


def _attend_by_bucket(
    tensors: Sequence[Tensor], segments: Segments, scaling: float | None, dropout: float, window: int | None
) -> Tensor:
    """Attention of each bucket's conversations beside each other; `(seq, heads, head_dim)` in and out."""
    query, key, _ = tensors
    outputs = []
    for bucket in segments.buckets:
        rows = [tensor[bucket.gather].transpose(1, 2) for tensor in tensors]
        # What fills a conversation up stands at its end, where causal attention hides it from all that is real
        mask = None if window is None else _band(bucket.gather.shape[1], window, query.device)
        attended = F.scaled_dot_product_attention(
            rows[0],
            rows[1],
            rows[2],
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        outputs.append(attended.transpose(1, 2).flatten(0, 1)[bucket.rows])
    positions = torch.cat([bucket.positions for bucket in segments.buckets])
    joined = torch.cat(outputs)
    return torch.empty_like(joined).index_copy(0, positions, joined)


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
    mask: Tensor | None = None if _in_segments.get() else sdpa_mask(*args, **kwargs)
    return mask


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, _mask)


# -- passes --------------------------------------------------------------------------------------------------------


@contextmanager
def packed_pass(segments: Segments, method: Method) -> Iterator[dict[str, Any]]:
    """Give the arguments of a decoder's forward on a packed row; its masks are made while this lasts."""
    arguments: dict[str, Any] = {"position_ids": segments.position_ids()}
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


@contextmanager
def attention_for_packing(workflow: Any) -> Iterator[None]:
    """Prepare a workflow for packed rows, for as long as it trains on them.

    Of the methods that its decoder's attention allows, the fastest that keeps two short conversations apart is taken.

    Args:
        workflow: The composite model, whose `_packing` is set.

    Raises:
        ModelError: None does, as where layers carry a state along the row.
    """
    language_model = workflow.language_model
    config: Any = language_model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    reasons: list[str] = []
    try:
        for method in _methods(config):
            config._attn_implementation = PACKED if method == "segments" else before
            workflow._packing = method
            reason = _problem(workflow)
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


def _methods(config: Any) -> list[Method]:
    implementation = str(config._attn_implementation)
    if implementation.startswith("flash_attention"):
        return ["flash"]
    # Chunks of the row are no chunks of its conversations, which shows in long ones only
    chunked = "chunked_attention" in (getattr(config, "layer_types", None) or ())
    return ["segments", "block_mask"] if implementation == "sdpa" and not chunked else ["block_mask"]


def _problem(workflow: Any) -> str | None:
    """What is wrong with a conversation that shares a row, compared with itself alone."""
    placeholders = {entry["placeholder_id"] for entry in workflow.config.modalities.values()}
    words = [i for i in range(64) if i not in placeholders]
    first, other, second = ([words[i % len(words)] for i in ids] for ids in ((1, 2, 3), (7, 5, 11), range(2, 14, 2)))
    was_training = workflow.training
    workflow.eval()
    try:
        alone = _logits(workflow, second, None)
        behind = [_logits(workflow, before + second, [3, 6])[3:] for before in (first, other)]
    except (TypeError, ValueError, RuntimeError, ModelError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    finally:
        workflow.train(was_training)
    scale = float(alone.abs().max())
    tolerance = (1e-4 if alone.dtype == torch.float32 else 5e-2) * scale
    if not float((behind[0] - behind[1]).abs().max()) <= tolerance / 10:
        return "one conversation sees another"
    moved = float((behind[0] - alone).abs().max())
    return None if moved <= tolerance else "a conversation is computed otherwise than alone"


@torch.no_grad()
def _logits(workflow: Any, ids: list[int], lengths: list[int] | None) -> Tensor:
    input_ids = torch.tensor([ids], device=workflow.device)
    logits: Tensor = workflow(input_ids=input_ids, segment_lengths=lengths, use_cache=False).logits[0]
    return logits
