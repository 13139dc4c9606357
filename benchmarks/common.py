"""One training step, many ways: what the scripts here time, on the same samples and the same tensors."""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from adaptkit.chat.encoding import IGNORE_INDEX
from adaptkit.data.collator import Collator, PackedCollator
from adaptkit.data.packing import PackedDataset
from adaptkit.interfaces import EncodedFeatures, Media
from adaptkit.model.composite import AdaptkitForConditionalGeneration
from adaptkit.stage import OptimizerConfig, StageConfig
from adaptkit.training.flops import flop_rates
from adaptkit.training.preparation import prepared
from adaptkit.training.throughput import Throughput, peak_flops
from adaptkit.training.trainer import WorkflowTrainer, build_arguments
from benchmarks.stock import stock_llava

MODALITY = "image"


@dataclass(frozen=True)
class Data:
    """Conversations about pictures of a pool.

    Attributes:
        items: As a dataset gives them; each medium is the number of a picture.
        pixels: The pool, `(num_pictures, 3, side, side)`.
        features: What the encoder makes of it.
        encoder_positions: Positions that it computes for a picture.
    """

    items: list[dict[str, Any]]
    pixels: Tensor
    features: Tensor
    encoder_positions: int


@dataclass(frozen=True)
class Variant:
    """One way to take a step.

    Attributes:
        name: In tables.
        stock: transformers' LLaVA and its Trainer; else adaptkit's.
        rows: Packed rows that a step's samples fill, one a forward pass; 0 pads them to the longest instead, as stock.
        cached: Take features in place of pictures.
        all_logits: Compute logits at every position, as stock does.
        group_by_length: Batches of samples of like length.
        settings: Of the stage.
    """

    name: str
    stock: bool = False
    rows: int = 0
    cached: bool = False
    all_logits: bool = False
    group_by_length: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a variant took.

    Attributes:
        name: The variant's.
        seconds_per_step: Mean over steps that see every sample once; on a CPU processor seconds, for which other work
            on the machine counts for nothing, else those of the clock.
        samples_per_second: From it.
        loss: Of the last step, to see that the same is computed.
        mfu: Model FLOP utilisation, where the device's peak is known.
        peak_gib: Most memory that was allocated, on a GPU.
        error: Why there is nothing else.
    """

    name: str
    seconds_per_step: float = 0.0
    samples_per_second: float = 0.0
    loss: float = 0.0
    mfu: float | None = None
    peak_gib: float | None = None
    error: str | None = None


def conversations(
    num_samples: int, *, num_positions: int, vocab_size: int, placeholder_id: int, median_text: float, spread: float,
    longest_text: int, num_pictures: int, seed: int = 0,
) -> list[dict[str, Any]]:  # fmt: skip
    """One picture and a text of log-normal length each; the second half of the text is an answer."""
    rng = np.random.default_rng(seed)
    items = []
    for number in range(num_samples):
        length = int(np.clip(rng.lognormal(np.log(median_text), spread), 16, longest_text))
        text = rng.integers(3, min(vocab_size, placeholder_id), length)
        ids = np.concatenate([text[:4], np.full(num_positions, placeholder_id), text[4:]])
        labels = np.where(np.arange(len(ids)) < len(ids) - length // 2, IGNORE_INDEX, ids)
        media = [(MODALITY, number % num_pictures)]
        items.append({"input_ids": ids, "labels": labels, "media": media, "length": len(ids)})
    return items


def measure(
    model: AdaptkitForConditionalGeneration, data: Data, variant: Variant, *, batch_size: int, warmup: int, bf16: bool
) -> Result:
    """Train on the data with one variant, and time an epoch; some steps of it come before as warm-up.

    Args:
        model: Trains projector, insertion and ends. Its weights move.
        data: `batch_size` samples a step, whichever way.
        variant: How.
        batch_size: Samples of a step.
        warmup: Steps that are not timed.
        bf16: Whether to compute in bfloat16.
    """
    gc.collect()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    clock = _Clock(warmup)
    try:
        with tempfile.TemporaryDirectory() as folder:
            (_train_stock if variant.stock else _train)(model, data, variant, batch_size, bf16, folder, clock)
    except (RuntimeError, torch.OutOfMemoryError) as error:
        return Result(variant.name, error=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
    finally:
        model.zero_grad(set_to_none=True)
    seconds = float(np.mean(clock.seconds))
    peak = torch.cuda.max_memory_allocated() / 2**30 if model.device.type == "cuda" else None
    most = peak_flops(model.device)
    step_flops = _flops(model, data, variant.cached) / (len(data.items) / batch_size)
    mfu = None if most is None else step_flops / seconds / most
    return Result(variant.name, seconds, batch_size / seconds, clock.loss, mfu, peak)


def _flops(model: AdaptkitForConditionalGeneration, data: Data, cached: bool) -> float:
    """Operations of all samples, padding and recomputation left out."""
    lengths = np.array([item["length"] for item in data.items], dtype=float)
    supervised = sum(int((item["labels"] != IGNORE_INDEX).sum()) for item in data.items)
    positions = {MODALITY: len(data.items) * data.features.shape[1]}
    encoded = None if cached else {MODALITY: len(data.items) * data.encoder_positions}
    return flop_rates(model).total(lengths.sum(), (lengths**2).sum(), supervised, positions, encoded)


class _Clock(TrainerCallback):
    """Times steps, and keeps the last loss."""

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.seconds: list[float] = []
        self.loss = 0.0
        self._since = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter() if args.device.type == "cuda" else time.process_time()
        if state.global_step > self.warmup:
            self.seconds.append(now - self._since)
        self._since = now

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.loss = logs.get("loss", self.loss)


class _Fixed(Sampler[Any]):
    def __init__(self, order: Sequence[Any]) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.order)


def _load(data: Data, cached: bool, device: torch.device) -> Any:
    pool = (data.features if cached else data.pixels).cpu()

    def load(modality: str, numbers: list[int]) -> Media:
        return EncodedFeatures(pool[numbers]) if cached else pool[numbers]

    return load


def benchmark_stage(**settings: Any) -> StageConfig:
    """A stage of all parts; its data is what a benchmark makes."""
    optimizer = OptimizerConfig(learning_rate=2e-5)
    parts = ["projector", "insertion", "ends"]
    defaults = {"name": "benchmark", "workflow": "main", "train": parts, "data": {"made": 1.0}, "optimizer": optimizer}
    return StageConfig(**defaults | settings)


def _train(
    model: AdaptkitForConditionalGeneration, data: Data, variant: Variant, batch_size: int, bf16: bool, folder: str,
    clock: _Clock,
) -> None:  # fmt: skip
    packing = variant.rows > 0
    passes = min(max(1, variant.rows), batch_size)
    settings = benchmark_stage(
        bf16=bf16,
        per_device_train_batch_size=batch_size, gradient_accumulation_steps=passes, packing=packing,
        max_steps=clock.warmup + len(data.items) // batch_size, logging_steps=1, loss_spike=1e9,
        **variant.settings,
    )  # fmt: skip
    model.set_trainable(settings.train)
    load = _load(data, variant.cached, model.device)
    dataset: Any = data.items
    order: list[Any] = _order(data, variant, batch_size, clock.warmup)
    collator: Collator = Collator(0, load)
    if packing:
        order = [
            pack for i in range(0, len(order), batch_size) for pack in _packs(data, order[i : i + batch_size], passes)
        ]
        dataset, collator = PackedDataset(dataset), PackedCollator(0, load)
    sampler = _Fixed(order)
    arguments = build_arguments(settings, Path(folder), len(sampler), 1)
    arguments.save_strategy = "no"
    with prepared(model, settings):
        if variant.all_logits:
            model._decode_at = lambda inputs, positions: _at_all(model, inputs, positions)  # type: ignore[method-assign]
        try:
            trainer = WorkflowTrainer(
                model,
                arguments,
                settings,
                dataset=dataset,
                collator=collator,
                sampler=sampler,
                identity={},
                callbacks=[clock],
                throughput=Throughput(model),
            )
            trainer.train()
        finally:
            vars(model).pop("_decode_at", None)


def _at_all(model: AdaptkitForConditionalGeneration, inputs: dict[str, Any], positions: Tensor) -> Any:
    output = model._decode(inputs, 0)
    output.logits = output.logits[positions]
    return output


def _order(data: Data, variant: Variant, batch_size: int, warmup: int) -> list[int]:
    """Every sample once, after the warm-up's."""
    order = list(range(len(data.items)))
    if variant.group_by_length:
        order.sort(key=lambda i: data.items[i]["length"])
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        np.random.default_rng(0).shuffle(batches)
        order = [index for batch in batches for index in batch]
    return order[: warmup * batch_size] + order


def _packs(data: Data, indices: Sequence[int], num_packs: int) -> list[tuple[int, ...]]:
    """The samples of a step over rows of about equal length."""
    packs: list[list[int]] = [[] for _ in range(num_packs)]
    totals = [0] * num_packs
    for index in sorted(indices, key=lambda i: -data.items[i]["length"]):
        shortest = totals.index(min(totals))
        packs[shortest].append(index)
        totals[shortest] += data.items[index]["length"]
    return [tuple(sorted(pack)) for pack in packs]


class _StockTrainer(Trainer):
    """The stock trainer on samples in a given order."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        return SequentialSampler(self.train_dataset)


def _train_stock(
    model: AdaptkitForConditionalGeneration, data: Data, variant: Variant, batch_size: int, bf16: bool, folder: str,
    clock: _Clock,
) -> None:  # fmt: skip
    model.set_trainable(("projector", "insertion", "ends"))
    stock = stock_llava(model)
    collate = Collator(0, _load(data, False, model.device))

    def collate_stock(items: Sequence[Any]) -> dict[str, Any]:
        batch: dict[str, Any] = dict(collate(items))
        batch["pixel_values"] = batch.pop("features")[MODALITY]
        return batch

    checkpointing = bool(variant.settings.get("gradient_checkpointing"))
    arguments = TrainingArguments(
        output_dir=folder, per_device_train_batch_size=batch_size,
        max_steps=clock.warmup + len(data.items) // batch_size,
        learning_rate=2e-5, lr_scheduler_type="cosine", bf16=bf16, gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None, logging_steps=1,
        save_strategy="no", report_to="none", disable_tqdm=True, remove_unused_columns=False, label_names=["labels"],
        use_cpu=model.device.type == "cpu", dataloader_pin_memory=model.device.type == "cuda",
    )  # fmt: skip
    items = [data.items[i] for i in _order(data, variant, batch_size, clock.warmup)]
    trainer = _StockTrainer(
        model=stock, args=arguments, data_collator=collate_stock, train_dataset=items, callbacks=[clock]
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.train()


def show(title: str, results: Sequence[Result], console: Console | None = None) -> None:
    """Print a table, each variant against the first."""
    table = Table("", "s/step", "samples/s", "speed", "MFU", "peak GiB", "memory", "loss", title=title)
    first = results[0]
    for result in results:
        if result.error:
            table.add_row(result.name, result.error)
            continue
        speed = f"{result.samples_per_second / first.samples_per_second:.2f}x" if first.samples_per_second else "–"
        memory = f"{result.peak_gib / first.peak_gib:.2f}x" if result.peak_gib and first.peak_gib else "–"
        table.add_row(
            *(result.name, f"{result.seconds_per_step:.3f}", f"{result.samples_per_second:.2f}", speed),
            "–" if result.mfu is None else f"{result.mfu:.1%}",
            "–" if result.peak_gib is None else f"{result.peak_gib:.1f}",
            *(memory, f"{result.loss:.4f}"),
        )
    (console or Console(width=120)).print(table)


def model_options(
    parser: argparse.ArgumentParser, *, layers: int, hidden: int, vocabulary: int, seconds: float
) -> None:
    """Options of scripts that build a decoder of any size, with what they are by default."""
    parser.add_argument("--layers", type=int, default=layers)
    parser.add_argument("--hidden", type=int, default=hidden, help="a multiple of 128")
    parser.add_argument("--vocabulary", type=int, default=vocabulary)
    parser.add_argument("--length", type=int, default=1024, help="positions of a conversation")
    parser.add_argument("--picture", type=int, default=336, help="pixels of a side, a multiple of 14")
    parser.add_argument("--seconds", type=float, default=seconds, help="nothing is begun after")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")


def save(path: Path, about: dict[str, Any], results: Sequence[dict[str, Any]]) -> None:
    """Write results with what they were measured on."""
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
    }
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    values = {**about, "device": device, "versions": versions, "results": results}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
