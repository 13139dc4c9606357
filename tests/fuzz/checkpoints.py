"""Models, runs and checkpoints of others, each way of reading them, and damage to one of their files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
import yaml
from hypothesis import note
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import adaptkit
from adaptkit.errors import AdaptkitError
from adaptkit.importers import import_iaa_official, import_lavin
from adaptkit.importers.lavin import tensor_names
from adaptkit.recipe import load_recipe
from adaptkit.reporting import Reporter
from adaptkit.run.runner import train_recipe
from adaptkit.testing.tiny import tiny_clip_vision, tiny_decoder, tiny_tokenizer
from tests.fuzz.mutations import mutate_bytes

TIMEOUT_S = 240

_JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 1.5, float("nan"), float("inf"), 1e308, 2**63, 10**400, "", "x", "é" * 40),
    *("\ud800", "a\0b", "../../x", "/etc/passwd", "http://x/y", [], {}, [None], [[]], [{}], {"a": 1}, {"": {"": ""}}),
)
_OTHER_TEXTS = ("null", "[]", "{}", "3", '"x"', "[" * 100_000, '{"a":' * 3000)
_TEXT_SUFFIXES = (".json", ".yaml", ".jsonl")


@dataclass(frozen=True)
class Use:
    """A way of reading files.

    Attributes:
        run: Reads what lies in a folder that `build_world` wrote.
        reads: Patterns of the files that it reads there.
    """

    run: Callable[[Path], object]
    reads: tuple[str, ...]


# -- what is damaged -------------------------------------------------------------------------------------------------


def damage(file: Path, rng: random.Random) -> str:
    """Damage a file in one way, and say how."""
    raw = file.read_bytes()
    is_text = file.suffix in _TEXT_SUFFIXES
    kind = rng.choice(("bytes", "whole", *(["value"] * 6 if is_text else [])))
    if kind == "bytes":
        file.write_bytes(mutate_bytes(raw, rng))
    elif kind == "value":
        kind = _damage_value(file, raw, rng)
    else:
        kind = rng.choice(("missing", "a folder", "replaced"))
        contents = [b"", raw[: len(raw) // 2], bytes(range(256)) * 4]
        contents += [text.encode() for text in (*_OTHER_TEXTS, "\ufeff" + raw.decode())] if is_text else []
        if kind == "replaced":
            file.write_bytes(rng.choice(contents))
        else:
            file.unlink()
        if kind == "a folder":
            file.mkdir()
    return kind


def _damage_value(file: Path, raw: bytes, rng: random.Random) -> str:
    values = yaml.safe_load(raw) if file.suffix == ".yaml" else [json.loads(line) for line in raw.splitlines()] if (
        file.suffix == ".jsonl") else json.loads(raw)  # fmt: skip
    places = list(_places(values))
    place = rng.choice([p for p in places if len(p) <= rng.randint(1, 6)] or places)
    parent = values
    for key in place[:-1]:
        parent = parent[key]
    if rng.random() > 0.85:
        what = "without"
        del parent[place[-1]]
    else:
        junk = rng.choice(_JUNK)
        what = f"{junk!r:.30} at"
        parent[place[-1]] = junk
    text = yaml.safe_dump(values) if file.suffix == ".yaml" else "".join(f"{json.dumps(v)}\n" for v in values) if (
        file.suffix == ".jsonl") else json.dumps(values)  # fmt: skip
    file.write_bytes(text.encode(errors="surrogatepass"))
    return f"{what} {'.'.join(map(str, place))}"


def _places(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    if isinstance(values, dict | list):
        for key in list(values if isinstance(values, dict) else range(len(values))):
            yield from _places(values[key], (*place, key))


# -- what there is to read -------------------------------------------------------------------------------------------


def build_world(root: Path) -> None:
    """Write tiny models, data, a trained run, other workflows, and checkpoints in the form of others."""
    tiny_decoder("llama", num_hidden_layers=3).save_pretrained(root / "base")
    tiny_tokenizer().save_pretrained(root / "base")
    tiny_clip_vision(num_hidden_layers=4).save_pretrained(root / "encoder")
    rows = []
    for number in range(4):
        Image.new("RGB", (30, 20 + number), (20 * number, 90, 60)).save(root / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nwhich?"}, {"from": "gpt", "value": f"number {number}"}]
        rows.append({"id": number, "image": f"{number}.png", "conversations": turns})
    (root / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    (root / "recipe.yaml").write_text(yaml.safe_dump(_recipe(root), sort_keys=False), encoding="utf-8")
    _train(root, "run")
    (root / "run/results.json").unlink(missing_ok=True)
    _write_other_workflows(root)
    _write_lavin(root)
    _write_iaa(root / "iaa")


def _recipe(root: Path) -> dict[str, Any]:
    encoder = {"name": "clip", "path": str(root / "encoder")}
    return {
        "name": "small",
        "base": {"path": str(root / "base"), "dtype": "float32"},
        "modalities": {"image": {"encoder": encoder, "projector": {"name": "mlp2x_gelu"}, "cache_features": True}},
        "workflows": {"vision": {"insertion": {"policy": "inner_adapter", "placement": {"layers": [1]}}}},
        "data": {"pictures": {"format": "llava", "path": str(root / "data.json")}},
        "stages": [
            {
                "name": "align", "workflow": "vision", "train": ["projector", "insertion"], "data": {"pictures": 1.0},
                "max_steps": 2, "per_device_train_batch_size": 2, "save_steps": 1, "logging_steps": 1,
                "optimizer": {"learning_rate": 1e-3},
            }
        ],
        "evaluation": {"tasks": [{"name": "answers", "datasets": ["pictures"]}], "limit": 1},
    }  # fmt: skip


def _write_other_workflows(root: Path) -> None:
    """One whose encoder lies in it, in shards, and an exported adapter."""
    base = AutoModelForCausalLM.from_pretrained(root / "base")
    image = {"encoder": tiny_clip_vision(), "projector": "linear", "placeholder_id": 999}
    model = adaptkit.adapt(base, {"image": image}, {"policy": "inner_adapter", "placement": {"layers": [0]}})
    model.save_pretrained(root / "adopted")
    names = sorted(model.trainable_state_dict())
    tensors = model.trainable_state_dict()
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number}.safetensors"
        save_file({name: tensors[name].contiguous() for name in part}, root / "adopted" / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (root / "adopted/model.safetensors").unlink()
    (root / "adopted/model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _write_lavin(root: Path) -> None:
    image = {
        "encoder": {
            "name": "clip", "path": str(root / "encoder"), "feature_layers": [4], "tokens": "cls", "pad": "stretch",
            "normalization": "imagenet",
        },
        "projector": {"name": "mlp_silu", "hidden_size": 12},
        "placeholder_id": 999,
    }  # fmt: skip
    base = AutoModelForCausalLM.from_pretrained(root / "base")
    model = adaptkit.adapt(base, {"image": image}, {"policy": "mma"})
    own = model.trainable_state_dict()
    (root / "lavin").mkdir()
    tensors = {theirs: own[ours].clone() for theirs, ours in tensor_names(model).items()}
    torch.save({"model": tensors, "epoch": 19}, root / "lavin/checkpoint-19.pth")
    (root / "lavin_safe").mkdir()
    save_file(tensors, root / "lavin_safe/adapters.safetensors")


_IAA = {
    "architectures": ["IAALlamaForCausalLM"], "model_type": "IAA", "torch_dtype": "float32", "vocab_size": 259,
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-4, "rope_theta": 20000.0, "max_position_embeddings": 64,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch", "mm_projector_type": "mlp2x_gelu", "mm_hidden_size": 32,
    "image_aspect_ratio": "pad", "ehce_layers": [0, 2], "mm_vision_tower": "tower_config",
}  # fmt: skip


def _write_iaa(folder: Path) -> None:
    """The authors' form of IAA, in two shards, with the vision tower inside."""
    known = {*LlamaConfig().to_dict(), "rope_theta"} - {"architectures", "model_type"}
    llama = LlamaForCausalLM(LlamaConfig(**{key: value for key, value in _IAA.items() if key in known}))
    shapes = {name: tuple(p.shape) for name, p in llama.named_parameters()}
    layer = {n.removeprefix("model.layers.0."): s for n, s in shapes.items() if ".layers.0." in n}
    for suffix, projector in (("", "mm_projector"), ("_grounding", "mm_projector_G")):
        shapes |= {f"model.condition_layers{suffix}.{j}.{n}": shape for j in range(2) for n, shape in layer.items()}
        shapes |= {
            f"model.embed_tokens_condition{suffix}.weight": (259, 32),
            f"lm_head_condtion{suffix}.weight": (259, 32),
        }
        shapes |= {f"model.norm_condition{suffix}.weight": (32,)}
        shapes |= {f"model.{projector}.{i}.{n}": s for i in (0, 2) for n, s in (("weight", (32, 32)), ("bias", (32,)))}
    tensors = {name: torch.full(shape, 0.01) for name, shape in shapes.items()}
    tower = tiny_clip_vision()
    for name, tensor in tower.state_dict().items():
        if "position_ids" not in name:
            tensors[f"model.vision_tower.vision_tower.vision_model.{name.removeprefix('vision_model.')}"] = tensor
    tower.config.save_pretrained(folder / "tower_config")
    (folder / "config.json").write_text(json.dumps(_IAA))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    tiny_tokenizer().save_pretrained(folder)
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(2):
        file = f"model-{shard + 1:05}-of-00002.safetensors"
        save_file({name: tensors[name].contiguous() for name in names[shard::2]}, folder / file)
        weight_map |= dict.fromkeys(names[shard::2], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


# -- how it is read --------------------------------------------------------------------------------------------------


def _command(name: str, *arguments: object) -> None:
    """A command of `adaptkit`, without what turns errors into messages."""
    from adaptkit.cli import cli

    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        command.main([str(argument) for argument in arguments], prog_name=name, standalone_mode=False)


def _load(root: Path, name: str) -> None:
    folder = root / name
    model = adaptkit.load(folder)
    processor = adaptkit.load_processor(folder)
    messages = [{"role": "user", "content": [{"type": "image", "image": root / "0.png"},
                                              {"type": "text", "text": "which?"}]}]  # fmt: skip
    batch = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    model.generate(**batch, max_new_tokens=2)


_MODELS = ("base/*", "encoder/*")
_FINAL = "run/final/vision/*"
_CHECKPOINT = ("run/align/checkpoint-1/*", "run/align/checkpoint-2/*")

USES = {
    "load": Use(lambda root: _load(root, "run/final/vision"), (_FINAL, *_MODELS)),
    "load adopted": Use(lambda root: _load(root, "adopted"), ("adopted/*", "adopted/encoders/image/*")),
    "generate": Use(
        lambda root: _command("generate", root / "run", "--prompt", "which?", "--image", root / "0.png",
                              "--max-new-tokens", "2"),
        (_FINAL, "run/recipe.yaml", *_MODELS, "0.png"),
    ),
    "inspect": Use(lambda root: _command("inspect", root / "run"), (_FINAL, "run/recipe.yaml", *_MODELS)),
    "eval": Use(
        lambda root: _command("eval", root / "run", "--json"),
        (_FINAL, "run/recipe.yaml", *_MODELS, "data.json", "run/results.json", "run/metrics.jsonl"),
    ),
    "export": Use(
        lambda root: _command("export", root / "run", "--to", "llava", "--output", root / "exported"),
        (_FINAL, *_MODELS),
    ),
    "train": Use(
        lambda root: _train(root, "new"),
        ("recipe.yaml", *_MODELS, "data.json", "cache/*/*", "cache/*/*/*"),
    ),
    "resume": Use(
        lambda root: _resume(root),
        (*_CHECKPOINT, "run/*.jsonl", "run/recipe.yaml", "recipe.yaml", "cache/*/*", "cache/*/*/*"),
    ),
    "import lavin": Use(
        lambda root: import_lavin(root / "lavin", root / "out", root / "base", root / "encoder"),
        ("lavin/*", *_MODELS),
    ),
    "import lavin safetensors": Use(
        lambda root: import_lavin(root / "lavin_safe", root / "out", root / "base", root / "encoder"),
        ("lavin_safe/*",),
    ),
    "import iaa": Use(lambda root: import_iaa_official(root / "iaa", root / "out"), ("iaa/*", "iaa/tower_config/*")),
}  # fmt: skip


def _train(root: Path, output: str, resume: str | None = None) -> None:
    """All stages, without the evaluation behind them, which starts processes of its own."""
    recipe = load_recipe(root / "recipe.yaml")
    train_recipe(recipe, root / output, Reporter(), resume=resume)


def _resume(root: Path) -> None:
    """Resume from the middle of the stage, unless its end was damaged."""
    newest = root / "run/align/checkpoint-2"
    if newest.is_dir() and _same(newest, root.with_name("pristine") / "run/align/checkpoint-2"):
        shutil.rmtree(newest)
    shutil.rmtree(root / "run/final", ignore_errors=True)
    _train(root, "run", "auto")


def _same(one: Path, other: Path) -> bool:
    names = {path.name for path in one.iterdir()} | {path.name for path in other.iterdir()}
    return all(
        (one / n).is_file() and (other / n).is_file() and (one / n).read_bytes() == (other / n).read_bytes()
        for n in names
    )


# -- trying it -------------------------------------------------------------------------------------------------------


class World:
    """The files, and a copy from which they are restored after each trial."""

    def __init__(self, folder: Path) -> None:
        self.root, self.pristine = folder / "world", folder / "pristine"
        self.root.mkdir()
        os.environ["ADAPTKIT_CACHE"] = str(self.root / "cache")
        with _quiet():
            build_world(self.root)
        shutil.copytree(self.root, self.pristine)

    def restore(self) -> None:
        """Undo what a trial did."""
        shutil.rmtree(self.root)
        shutil.copytree(self.pristine, self.root)

    def files(self, use: Use) -> list[Path]:
        """What a use reads."""
        found = {path for pattern in use.reads for path in self.root.glob(pattern) if path.is_file()}
        return sorted(path for path in found if path.name not in ("lock", "README.md"))

    def try_use(self, use: Use, rng: random.Random) -> None:
        """Damage a file, and use it: that succeeds, or is refused with an error that names the file."""
        path = rng.choice(self.files(use))
        note(f"{path.relative_to(self.root)}: {damage(path, rng)}")
        try:
            with _quiet(), _time_limit():
                use.run(self.root)
        except AdaptkitError as error:
            words = (path.name, str(path.parent), path.stem.replace("_", " "))
            # A failed proof says what differs, as it should where files change meanwhile
            if not any(word in str(error) for word in (*words, "not proven")):
                raise AssertionError(f"the file is not named: {error}") from error
        except click.UsageError:
            pass
        finally:
            self.restore()


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"more than {TIMEOUT_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(TIMEOUT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.set_verbosity(before)
