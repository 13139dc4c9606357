"""How much a stage has computed: samples, tokens and floating-point operations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.chat.encoding import IGNORE_INDEX
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.training.flops import FlopRates, flop_rates

PEAK_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "4090": 165e12,
}
"""Dense bfloat16 operations per second, as the makers state them, by a part of the device's name."""


@dataclass(frozen=True)
class Totals:
    """What was computed, over all processes.

    Attributes:
        samples: Conversations.
        tokens: Their positions, without padding.
        flops: Floating-point operations; None where the model is none whose operations are known.
    """

    samples: float
    tokens: float
    flops: float | None


class Throughput:
    """Counts batches as they are trained on; numbers stay on the device until they are asked for."""

    def __init__(self, model: nn.Module, num_processes: int = 1) -> None:
        self._rates: FlopRates | None = None
        if isinstance(model, AdaptkitForConditionalGeneration):
            self._rates = flop_rates(model)
        self.num_processes = num_processes
        self._counts: Tensor | None = None

    def add(self, batch: Mapping[str, Any]) -> None:
        """Count a batch, as the model is given it."""
        labels: Tensor | None = batch.get("labels")
        if labels is None:
            return
        mask: Tensor | None = batch.get("attention_mask")
        lengths = torch.full((labels.shape[0],), labels.shape[1], device=labels.device) if mask is None else mask.sum(1)
        if "segment_lengths" in batch:
            lengths = torch.tensor(batch["segment_lengths"], device=labels.device)
        lengths = lengths.double()
        supervised = (labels != IGNORE_INDEX).sum().double()
        counts = torch.stack([lengths.new_tensor(len(lengths)), lengths.sum(), lengths.square().sum(), supervised])
        self._counts = counts if self._counts is None else self._counts + counts

    def totals(self) -> Totals:
        """What was counted so far."""
        counts = [0.0] * 4 if self._counts is None else (self._counts * self.num_processes).tolist()
        samples, tokens, squares, supervised = counts
        flops = None if self._rates is None else self._rates.total(tokens, squares, supervised)
        return Totals(samples, tokens, flops)


@dataclass(frozen=True)
class Speed:
    """What was computed in some time.

    Attributes:
        seconds: The time.
        done: What was computed in it.
        num_processes: By so many processes, each with a device.
    """

    seconds: float
    done: Totals
    num_processes: int

    def as_metrics(self, device: torch.device) -> dict[str, float]:
        """Numbers for a log; `mfu` is the share of what all devices could do at most, where that is known."""
        values = {
            "samples_per_second": round(self.done.samples / self.seconds, 2),
            "tokens_per_second": round(self.done.tokens / self.seconds, 1),
        }
        if self.done.flops:
            values["flops_per_second"] = self.done.flops / self.seconds
            peak = peak_flops(device)
            if peak is not None:
                values["mfu"] = round(self.done.flops / self.seconds / (peak * self.num_processes), 4)
        if device.type == "cuda":
            values["peak_memory_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
        return values

    def as_texts(self, device: torch.device) -> list[str]:
        """The same for a person, what matters most first."""
        values = self.as_metrics(device)
        texts = {
            "samples_per_second": "{:,.1f} samples/s",
            "mfu": "MFU {:.0%}",
            "peak_memory_gib": "{:.1f} GiB",
            "tokens_per_second": "{:,.0f} tokens/s",
        }
        return [text.format(values[name]) for name, text in texts.items() if name in values]


class SpeedMeter:
    """Speed since it was last restarted."""

    def __init__(self, throughput: Throughput) -> None:
        self._throughput = throughput
        self.restart()

    def restart(self) -> None:
        """Measure from now on."""
        self._since = (time.perf_counter(), self._throughput.totals())

    def skip(self, seconds: float) -> None:
        """Leave out a time that was spent on something else."""
        before, first = self._since
        self._since = (before + seconds, first)

    def speed(self) -> Speed:
        """Speed until now."""
        before, first = self._since
        now = self._throughput.totals()
        flops = None if now.flops is None or first.flops is None else now.flops - first.flops
        done = Totals(now.samples - first.samples, now.tokens - first.tokens, flops)
        return Speed(max(time.perf_counter() - before, 1e-9), done, self._throughput.num_processes)


def peak_flops(device: torch.device) -> float | None:
    """Operations per second that a device's maker states; None for what is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)
