"""Proof that a workflow left its base alone: what it computes, and what a process does that never imports adaptkit.

The text workflow is `model.base`, whose tensors the trained workflow shares. A fresh process loads the base
from where it came from with plain transformers, in the same dtype, on the same device, with as many threads.
Both compute the logits of the same prompts, generate answers by the base's own settings, and describe all that
decides either: tensors, configs, modules, hooks, code, the tokenizer. They are compared bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file
from torch import Tensor

from adaptkit.errors import RunError, join_lines
from adaptkit.evaluation.differences import differences_of
from adaptkit.evaluation.fresh_base import compute_logits, describe_model, describe_tokenizer, generate_as_configured
from adaptkit.evaluation.questions import Prompts, evaluation_mode, pad_left
from adaptkit.files.hashing import hash_tensors
from adaptkit.files.paths import resolve_model_path
from adaptkit.files.versions import versions
from adaptkit.model.reference import origin_of
from adaptkit.surgery import quantization_of

NUM_RANDOM_PROMPTS = 16
"""Prompts of random ids, besides the written ones: they reach every part of a vocabulary."""

RANDOM_PROMPT_LENGTH = 24

LONG_PROMPT_LENGTH = 256
"""Of one further random prompt: what begins at a distance shows there."""

NUM_ANSWERS = 8
ANSWER_LENGTH = 12
"""Prompts that are answered by the base's own generation settings, and new tokens of each."""

_SCRIPT = Path(__file__).with_name("fresh_base.py")
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@cache
def saved_prompts() -> tuple[str, ...]:
    """The fixed set of prompts shipped with adaptkit."""
    text = Path(__file__).with_name("prompts.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line.strip())


def identity_prompts(base: Any, tokenizer: Any | None) -> list[list[int]]:
    """Token ids to compare on: the saved prompts, where there is a tokenizer, and fixed random ids.

    Args:
        base: Its vocabulary and its number of positions bound the prompts.
        tokenizer: Of the base; None where there is none.
    """
    vocab_size = int(base.get_input_embeddings().weight.shape[0])
    max_length = getattr(base.config.get_text_config(decoder=True), "max_position_embeddings", None)
    texts = [] if tokenizer is None else tokenizer(list(saved_prompts()))["input_ids"]
    written = [ids for ids in texts if ids and max(ids) < vocab_size]
    generator = torch.Generator().manual_seed(0)
    shape = (NUM_RANDOM_PROMPTS, RANDOM_PROMPT_LENGTH)
    prompts = [*written, *torch.randint(vocab_size, shape, generator=generator).tolist()]
    prompts.append(torch.randint(vocab_size, (LONG_PROMPT_LENGTH,), generator=generator).tolist())
    return [ids[:max_length] for ids in prompts]


def text_logits(base: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Logits of a decoder at every position of every prompt, one prompt at a time, outside autocast.

    Returns:
        Shape `(positions of all prompts, vocab)`, in the base's own dtype, on the CPU.
    """
    outside = torch.autocast(base.device.type, enabled=False)
    with evaluation_mode(base), torch.no_grad(), outside, _deterministic():
        return compute_logits(base, prompts)


def compare_logits(here: Tensor, there: Tensor, lengths: Sequence[int]) -> dict[str, Any]:
    """Compare bit for bit; returns what `results.json` has on it.

    Args:
        here: As `text_logits`.
        there: The same prompts in another process.
        lengths: Positions of each prompt.
    """
    result: dict[str, Any] = {
        "logits_identical": False,
        "max_logit_difference": None,
        "num_prompts": len(lengths),
        "num_prompts_differing": len(lengths),
        "num_positions": len(here),
    }
    if here.shape != there.shape or here.dtype != there.dtype:
        note = (
            f"text logits are {tuple(here.shape)} {here.dtype} here and {tuple(there.shape)} {there.dtype} "
            "in a fresh process: the base on disk is not the one that was adapted."
        )
        return {**result, "note": note}
    bits = _BITS[here.element_size()]
    agree = (here.contiguous().view(bits) == there.contiguous().view(bits)).all(dim=1)
    num_differing = sum(not bool(rows.all()) for rows in torch.split(agree, list(lengths)))
    difference = 0.0 if bool(agree.all()) else float((here.double() - there.double()).abs().max())
    return result | {
        "logits_identical": num_differing == 0,
        "max_logit_difference": difference,
        "num_prompts_differing": num_differing,
    }


class _FreshProcess:
    """`fresh_base.py`, which answers a request in a process that starts with the object."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="adaptkit-fresh-base-")
        folder = Path(self._directory.name)
        self._logits_file, self._result_file = folder / "logits.safetensors", folder / "result.json"
        files = {"logits_file": str(self._logits_file), "result_file": str(self._result_file)}
        request_file = folder / "request.json"
        request_file.write_text(json.dumps({**request, **files}), encoding="utf-8")
        self._log = (folder / "log.txt").open("w+", encoding="utf-8")
        # -P: the script's folder stays off the path, where modules of adaptkit would have bare names
        command = [sys.executable, "-P", str(_SCRIPT), str(request_file)]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._log.close()
        self._directory.cleanup()

    def result(self) -> tuple[dict[str, Any], Tensor]:
        """Wait for the process; gives its results and logits.

        Raises:
            RunError: It failed; the message ends with the last lines it wrote.
        """
        if self._process.wait() != 0:
            self._log.seek(0)
            tail = self._log.read().strip().splitlines()[-5:]
            raise RunError(join_lines(["the fresh process that loads the base without adaptkit failed:", *tail]))
        result = json.loads(self._result_file.read_text(encoding="utf-8"))
        if result["adaptkit_imported"]:
            raise RunError("the fresh process imported adaptkit, so that it proves nothing: is it in sitecustomize?")
        return result, load_file(self._logits_file)["logits"]


class TextProof:
    """Compares a base with itself in a fresh process, which starts with the object; use it as a context manager.

    Where the base was made in memory, nothing can be compared.

    Args:
        tokenizer: Of the workflow, which is to be the base's; without one, tokenizers are not compared.
        batches: Further left-padded prompts to answer.
        generation: Keywords of `transformers.GenerationConfig` for them.
        prompts: Token ids to compare on, instead of `identity_prompts`.
    """

    def __init__(
        self,
        base: Any,
        tokenizer: Any | None,
        *,
        batches: Sequence[Prompts] = (),
        generation: dict[str, Any] | None = None,
        prompts: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._base, self._tokenizer = base, tokenizer
        self._prompts = identity_prompts(base, tokenizer) if prompts is None else prompts
        self._own_batch, self._own_length = _own_batch(base, self._prompts)
        loading = loading_of(base)
        request = {
            **loading,
            "own_batch": self._own_batch,
            "own_length": self._own_length,
            "prompts": self._prompts,
            "batches": [_as_lists(batch) for batch in batches],
            "generation": generation or {"max_new_tokens": 1, "do_sample": False},
        }
        self._fresh = _FreshProcess(request) if loading["base"] else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._fresh is not None:
            self._fresh.close()

    def result(self, answers: Sequence[Sequence[int]] = ()) -> tuple[dict[str, Any], list[list[int]] | None]:
        """Compute here, wait for the fresh process, and compare.

        Args:
            answers: New ids of each row of the batches, as the base here gave them.

        Returns:
            What `results.json` has on it, and the answers of the fresh process. Where that had nothing to load,
            `logits_identical` is None, and `note` says why.

        Raises:
            RunError: The fresh process failed.
        """
        if self._fresh is None:
            note = "the base was made in memory: no fresh process could load it to compare with"
            return {"logits_identical": None, "note": note}, None
        logits = text_logits(self._base, self._prompts)
        described = describe_model(self._base)
        with evaluation_mode(self._base), torch.no_grad():
            own = generate_as_configured(self._base, self._own_batch, self._own_length)
        there, fresh_logits = self._fresh.result()
        answered = [*zip(_rows(own), _rows(there["own_answers"]), strict=False)]
        answered += zip(map(list, answers), there["answers"], strict=False)
        scores: dict[str, Any] = {
            **compare_logits(logits, fresh_logits, [len(ids) for ids in self._prompts]),
            "answers_identical": all(here == fresh for here, fresh in answered),
            "num_answers": len(answered),
            "num_answers_differing": sum(here != fresh for here, fresh in answered),
            "num_own_answers": len(_rows(own)),
            "logits_sha256": hash_tensors([("logits", fresh_logits)]),
            "answers_sha256": _sha256(there["own_answers"]),
            "prompts_sha256": _sha256(self._prompts),
            "environment": environment_of(self._base),
        }
        differences = differences_of(described, there["model"])
        if self._tokenizer is not None and there["tokenizer"] is not None:
            tokenizer = differences_of(describe_tokenizer(self._tokenizer), there["tokenizer"])
            scores["chat_template_identical"] = not any(name.startswith("chat_template") for name in tokenizer)
            scores["tokenizer_identical"] = not any(name.startswith("tokenizer") for name in tokenizer)
            scores["tokenizer_differences"] = [name for name in tokenizer if name.startswith("tokenizer")]
        return {**scores, "differences": differences}, there["answers"]


def _sha256(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _rows(answers: list[list[int]] | str) -> list[Any]:
    return [answers] if isinstance(answers, str) else answers


def base_source(base: Any) -> str | None:
    """Path or id a base was loaded from, or None."""
    return resolve_model_path(origin_of(base).name) or None


def loading_of(base: Any) -> dict[str, Any]:
    """How a fresh process is to load a base: from where, as what, on which device; `base` is None where it cannot."""
    return {
        "base": base_source(base),
        "architecture": type(base).__name__,
        "revision": origin_of(base).revision,
        "dtype": str(base.dtype).removeprefix("torch."),
        "attn_implementation": getattr(base.config, "_attn_implementation", None),
        "trust_remote_code": type(base).__module__.startswith("transformers_modules."),
        "quantization": _quantization(base),
        "device": str(base.device),
        "num_threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }


def environment_of(base: Any) -> dict[str, str]:
    """What the bits of a base's logits depend on, besides the base and the prompts."""
    loading = loading_of(base)
    found = {name: version for name, version in versions().items() if name in ("torch", "transformers")}
    found |= {"dtype": loading["dtype"], "device": _device_name(base.device)}
    if base.device.type == "cpu":
        found["threads"] = str(loading["num_threads"])
    return found | {
        "attention": str(loading["attn_implementation"]),
        "matmul precision": loading["matmul_precision"],
    }


def _device_name(device: torch.device) -> str:
    if device.type != "cpu":
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(models or [platform.processor() or platform.machine()])[0]} ({torch.backends.cpu.get_cpu_capability()})"


def _quantization(base: Any) -> dict[str, Any] | None:
    """The settings by which a base was packed while it was loaded."""
    config = getattr(base.config, "quantization_config", None)
    return None if quantization_of(base) is None or config is None else dict(config.to_dict())


def _own_batch(base: Any, prompts: Sequence[Sequence[int]]) -> tuple[dict[str, Any], int]:
    """Some prompts, left-padded, and how many tokens to write behind them."""
    positions = getattr(base.config.get_text_config(decoder=True), "max_position_embeddings", None)
    room = ANSWER_LENGTH + RANDOM_PROMPT_LENGTH if positions is None else int(positions)
    length = max(1, min(RANDOM_PROMPT_LENGTH, room - ANSWER_LENGTH, room - 1))
    rows = [list(map(int, ids[:length])) for ids in prompts[:NUM_ANSWERS]]
    return _as_lists(Prompts(*pad_left(rows, 0))), max(1, min(ANSWER_LENGTH, room - length))


def _as_lists(prompts: Prompts) -> dict[str, Any]:
    return {"input_ids": prompts.input_ids.tolist(), "attention_mask": prompts.attention_mask.tolist()}


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
