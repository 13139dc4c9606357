"""Data at the size of the paper's: what opening and reading large JSON files costs, in seconds and in memory.

    OMP_NUM_THREADS=1 python -m benchmarks.large_json --conversations 665000 --boxes 2000000 --output results.json

Two files are generated: conversations about pictures in LLaVA's layout, of 0.9 kB each, and short rows of grounding.
For each: `adaptkit train` is started twice, for one step of the tiny recipe, with an empty cache and with what the
first run left there. Then a process reads samples at random, beside it a second one, and four workers of a loader.
The same samples are read in LLaVA's way (`json.load`, then tokenise the conversation, and each of its rounds again to
find what is learned), and through `datasets`. Pictures are not opened. Each way has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

NUM_PICTURES = 16
NUM_READ = 1500
NUM_WORKERS = 4
VOCABULARY = 4000
MIB = 1024.0


# -- data ------------------------------------------------------------------------------------------------------------


def words(rng: random.Random, count: int) -> str:
    """So many words, few of them often."""
    return " ".join(f"w{int(rng.paretovariate(0.7)) % VOCABULARY:x}" for _ in range(count))


def conversations(count: int) -> Iterator[dict[str, Any]]:
    """Rows like those of LLaVA's instruction data: one picture, some rounds, 0.9 kB."""
    rng = random.Random(0)
    texts = [words(rng, 30) for _ in range(5000)]
    for number in range(count):
        turns = []
        for turn in range(2 * rng.randint(1, 5)):
            tag = "<image>\n" if turn == 0 else ""
            turns.append({"from": ("human", "gpt")[turn % 2], "value": f"{tag}{rng.choice(texts)} {rng.random():.6f}"})
        yield {"id": f"{number:012d}", "image": f"{number % NUM_PICTURES}.png", "conversations": turns}


def boxes(count: int) -> Iterator[dict[str, Any]]:
    """Rows of grounding: one picture, a short question, and a box."""
    rng = random.Random(1)
    names = [words(rng, 4) for _ in range(5000)]
    for number in range(count):
        box = ", ".join(f"{rng.random():.3f}" for _ in range(4))
        turns = [
            {"from": "human", "value": f"<image>\nWhere is {rng.choice(names)}?"},
            {"from": "gpt", "value": f"[{box}]"},
        ]
        yield {"id": number, "image": f"{number % NUM_PICTURES}.png", "conversations": turns}


def write_data(folder: Path, name: str, rows: Iterator[dict[str, Any]]) -> Path:
    """A list of rows as `json.dump` writes it, beside a few pictures."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(NUM_PICTURES):
        Image.new("RGB", (32, 32), (number * 15, 90, 120)).save(folder / f"{number}.png")
    path = folder / f"{name}.json"
    with path.open("w") as file:
        separator = "["
        for row in rows:
            file.write(separator + json.dumps(row))
            separator = ", "
        file.write("]")
    return path


# -- what is measured, each in a process of its own ------------------------------------------------------------------


def memory() -> dict[str, float]:
    """Memory of this process in MiB: resident; its own alone; its own and its share of what others map, too."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    own = kib["Private_Clean"] + kib["Private_Dirty"]
    return {"rss": kib["Rss"] / MIB, "uss": own / MIB, "pss": kib["Pss"] / MIB}


def train_tokenizer(folder: Path) -> None:
    """Let a tokenizer learn the words of the data."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from adaptkit.chat.shipped import load_chat_template

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=8000, initial_alphabet=alphabet, show_progress=False)
    texts = (turn["value"] for row in conversations(2000) for turn in row["conversations"])
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = load_chat_template("chatml")
    fast.save_pretrained(folder)


def tokenizer_of(path: Path) -> Any:
    """The tokenizer beside a data file."""
    import torch  # noqa: F401 - so that it is in the memory of every way
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path.parent / "tokenizer")


def adaptkit_items(path: Path, tokenizer: Any) -> Any:
    """Encoded conversations as adaptkit's training reads them, with 576 positions a picture; pictures stay paths."""
    from adaptkit.build import MediaStore, context_of
    from adaptkit.data.dataset import ConversationDataset
    from adaptkit.data.mixture import Mixture
    from adaptkit.data_tools.check.plan import OnlyRead
    from adaptkit.model.modality_inputs import ModalityInputs
    from adaptkit.model.processor import AdaptkitProcessor
    from adaptkit.plugin_manager import get_plugin_manager

    image = get_plugin_manager().build("modality", "image", {})
    made = AdaptkitProcessor(tokenizer, {"image": ModalityInputs("image", image, OnlyRead(576), len(tokenizer))})
    context = context_of({"image": made.modalities["image"].modality}, path.parent)
    source = get_plugin_manager().build("data source", "llava", {"path": path.name}, context)
    return ConversationDataset(Mixture({"large": source}, {"large": 1.0}), MediaStore(made).encode, 2048)


class StockItems:
    """Encoded conversations as LLaVA's trainer makes them, of rows that another reader gives."""

    def __init__(self, rows: Any, tokenizer: Any) -> None:
        self.rows, self.tokenizer = rows, tokenizer

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        turns = [(t["from"], t["value"]) for t in self.rows[index]["conversations"]]
        written = [f"<|im_start|>{who}\n{text}<|im_end|>\n" for who, text in turns]
        ids = self.tokenizer("".join(written))["input_ids"]
        labels, place = [-100] * len(ids), 0
        for asked, answered in zip(written[::2], written[1::2]):
            length = len(self.tokenizer(asked + answered)["input_ids"])
            start = len(self.tokenizer(asked)["input_ids"])
            labels[place + start : place + length] = ids[place + start : place + length]
            place += length
        return {"input_ids": np.array(ids), "labels": np.array(labels)}


def open_items(way: str, path: Path, tokenizer: Any) -> Any:
    """The dataset of one way to read; `nothing` has all that adaptkit imports, and few rows."""
    if way == "nothing":
        return adaptkit_items(path.parent / "few.json", tokenizer)
    if way == "adaptkit":
        return adaptkit_items(path, tokenizer)
    if way == "LLaVA":
        with path.open() as file:
            return StockItems(json.load(file), tokenizer)
    import datasets

    cache = os.environ["ADAPTKIT_CACHE"] + "/datasets"
    rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
    return StockItems(rows, tokenizer)


def read(way: str, path: Path) -> dict[str, Any]:
    """Open a dataset in one way, and read samples of it in random order: here, in four workers, in a second process."""
    made = tokenizer_of(path)
    if way in ("nothing", "adaptkit"):
        open_items("nothing", path, made)  # imports
    start, cpu = time.perf_counter(), time.process_time()
    items = open_items(way, path, made)
    opened = {"open_s": time.perf_counter() - start, "open_cpu_s": time.process_time() - cpu}
    order = np.random.RandomState(0).permutation(len(items))[: 2 * NUM_READ].tolist()
    for index in order[-NUM_READ // 4 :]:  # a tokenizer remembers words
        items[index]
    start = time.process_time()
    for index in order[:NUM_READ]:
        items[index]
    rate = NUM_READ / (time.process_time() - start)
    return {**opened, "samples_per_cpu_s": rate, **memory(), "workers": in_workers(items, order[NUM_READ:])}


def in_workers(items: Any, order: list[int]) -> dict[str, float]:
    """What four workers that are forked, as a loader's are, need for themselves once they have read, and their rate."""
    context = multiprocessing.get_context("fork")
    results: Any = context.Queue()
    done = context.Event()

    def work(number: int) -> None:
        start = time.process_time()
        part = order[number::NUM_WORKERS]
        for index in part:
            items[index]
        results.put({"samples_per_cpu_s": len(part) / (time.process_time() - start), **memory()})
        done.wait()

    started = [context.Process(target=work, args=(number,)) for number in range(NUM_WORKERS)]
    for process in started:
        process.start()
    found = [results.get() for _ in started]
    done.set()
    for process in started:
        process.join()
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def pair(way: str, path: Path) -> dict[str, Any]:
    """Memory of a second process that reads the same file while a first one has it open."""
    items = open_items(way, path, tokenizer_of(path))
    for index in np.random.RandomState(0).permutation(len(items))[:NUM_READ].tolist():
        items[index]
    return measured("read", way, path)


MEASURES: dict[str, Callable[[str, Path], dict[str, Any]]] = {"read": read, "pair": pair}


def measured(what: str, way: str, path: Path) -> dict[str, Any]:
    """A measurement in a new process, and the most memory that the process had."""
    with tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, "-m", "benchmarks.large_json", "--measure", what, way, str(path)]
        process = subprocess.Popen(command, stdout=said)
        _, status, usage = os.wait4(process.pid, 0)
        said.seek(0)
        if status:
            raise SystemExit(f"{what} {way} failed")
        return {"peak_rss": usage.ru_maxrss / MIB, **json.loads(said.read().splitlines()[-1])}


# -- training --------------------------------------------------------------------------------------------------------


def train(path: Path, folder: Path) -> dict[str, float]:
    """Seconds from the command to the end of the first optimiser step of `adaptkit train`, and the most memory."""
    recipe = {
        "extends": "iaa_vision_tiny",
        "name": "large",
        "data_root": str(path.parent),
        "modalities": {"image": {"cache_features": False}},
        "data": {
            **dict.fromkeys(("world_captions", "world_questions", "world_boxes")),
            "large": {"format": "llava", "path": path.name},
        },
        "stages": {
            "align": {"data": {"large": 1.0}, "max_steps": 1, "per_device_train_batch_size": 1},
            **dict.fromkeys(("pretrain", "instruct", "ground")),
        },
        "evaluation": {"tasks": []},
    }
    folder.mkdir(parents=True)
    (folder / "large.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "adaptkit", "train", str(folder / "large.yaml"), "--output", str(folder / "run")]
    metrics, seconds, start = folder / "run" / "metrics.jsonl", 0.0, time.time()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        ended = 0
        while not ended:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if not seconds and metrics.is_file():
                seconds = metrics.stat().st_mtime - start
            time.sleep(0.05)
    if status:
        raise SystemExit((folder / "log").read_text()[-3000:])
    return {"first_step_s": seconds, "peak_rss": usage.ru_maxrss / MIB}


# -- the report ------------------------------------------------------------------------------------------------------


def measure_file(path: Path, folder: Path, console: Console) -> dict[str, Any]:
    """All figures of one file."""
    found: dict[str, Any] = {"bytes": path.stat().st_size}
    starts = {"few_rows": path.parent / "few.json", "first_start": path, "second_start": path}
    for name, file in starts.items():
        found[name] = train(file, folder / f"{path.stem}-{name}")
        console.print(path.name, name, found[name])
    cache = Path(os.environ["ADAPTKIT_CACHE"]) / "rows"
    found["index_bytes"] = sum(one.stat().st_size for one in cache.glob("*.arrow"))
    for way in ("nothing", "adaptkit", "LLaVA", "datasets"):
        found[way] = measured("read", way, path)
        console.print(path.name, way, found[way])
    found["second process"] = measured("pair", "adaptkit", path)
    console.print(path.name, "second process", found["second process"])
    shutil.rmtree(os.environ["ADAPTKIT_CACHE"])
    return found


def table(name: str, found: dict[str, Any]) -> Table:
    """The figures of one file, a way to read a column."""
    ways = ("adaptkit", "second process", "LLaVA", "datasets")
    shown = Table("", *ways, title=f"{name}: {found['bytes'] / 1e9:.2f} GB")
    base = found["nothing"]
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "open, s": lambda one: f"{one['open_s']:.1f}",
        "open, processor seconds": lambda one: f"{one['open_cpu_s']:.1f}",
        "peak RSS, MiB": lambda one: f"{one['peak_rss']:,.0f}",
        "own memory (USS) beyond that with few rows, MiB": lambda one: f"{one['uss'] - base['uss']:,.0f}",
        "own memory of each of four workers, MiB": lambda one: f"{one['workers']['uss']:,.0f}",
        "samples per processor second": lambda one: f"{one['samples_per_cpu_s']:,.0f}",
        "… of a worker": lambda one: f"{one['workers']['samples_per_cpu_s']:,.0f}",
    }
    for what, say in rows.items():
        shown.add_row(what, *(say(found[way]) for way in ways))
    return shown


def main() -> None:
    """Generate the data, measure, and print a table for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=4000, help="0: none")
    parser.add_argument("--boxes", type=int, default=4000, help="0: none")
    parser.add_argument("--folder", type=Path, help="where generated files go, and are deleted at the end")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        what, way, path = args.measure
        print(json.dumps(MEASURES[what](way, Path(path))))
        return
    console = Console()
    results = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        os.environ["ADAPTKIT_CACHE"] = str(folder / "cache")
        counts = {"conversations": args.conversations, "boxes": args.boxes}
        for name in (name for name, count in counts.items() if count):
            rows = {"conversations": conversations, "boxes": boxes}[name](counts[name])
            train_tokenizer(folder / name / "tokenizer")
            write_data(folder / name, "few", conversations(64))
            path = write_data(folder / name, name, rows)
            results[name] = measure_file(path, folder, console)
            console.print(table(name, results[name]))
            path.unlink()
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
