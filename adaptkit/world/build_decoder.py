"""Training of the built-in decoder: a small Llama that reads scenes in words and knows some facts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from pydantic import field_validator
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from adaptkit.errors import unknown_name
from adaptkit.hookspecs import Options, Seed
from adaptkit.world import scenes
from adaptkit.world.dataset import FACT_KIND, evaluation_items
from adaptkit.world.documents import SCENE_TASKS, Piece, document
from adaptkit.world.facts import list_facts
from adaptkit.world.scores import score_items
from adaptkit.world.storage import Progress, build_optimizer, save_model
from adaptkit.world.tokenizer import build_tokenizer

MAX_LENGTH = 512


class PhaseOptions(Options):
    """One phase: for how long, on which mixture of tasks. Each starts with a new optimiser."""

    name: str
    num_steps: int
    shares: dict[str, float]
    seed: Seed = 0
    warmup_steps: int = 50
    decay_steps: int = 0
    sequence_length: int = 128

    @field_validator("shares")
    @classmethod
    def _check_tasks(cls, shares: dict[str, float]) -> dict[str, float]:
        for name in shares:
            if name not in (*SCENE_TASKS, FACT_KIND):
                raise ValueError(unknown_name("task", name, (*SCENE_TASKS, FACT_KIND)))
        return shares


class DecoderOptions(Options):
    """What `recipes/world/decoder.yaml` may set."""

    seed: Seed = 0
    hidden_size: int = 128
    intermediate_size: int = 256
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    rope_theta: float = 10_000.0
    attention_std: float = 0.06
    batch_size: int = 16
    muon_learning_rate: float = 0.012
    adamw_learning_rate: float = 3.0e-3
    weight_decay: float = 0.0
    context_weight: float = 0.1
    max_grad_norm: float = 1.0
    evaluate_every: int = 200
    num_evaluation_items: int = 50
    phases: list[PhaseOptions]


def build_decoder(options: DecoderOptions, output: Path, progress: Progress = print) -> Path:
    """Trains the decoder and writes it with its tokenizer.

    The same options give the same decoder on the same machine; elsewhere the last bits may differ. The
    recipe says how the shipped one came about.

    Args:
        output: Folder to write; it is replaced as a whole at every checkpoint.
    """
    tokenizer = build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = _build_model(options, tokenizer)
    progress(f"decoder: {sum(p.numel() for p in model.parameters())} parameters, {len(tokenizer)} tokens")
    for phase in options.phases:
        _train(model, tokenizer, phase, options, output, progress)
    return output


def _train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    phase: PhaseOptions,
    options: DecoderOptions,
    output: Path,
    progress: Progress,
) -> None:
    optimizer = build_optimizer(model.named_parameters(), options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, phase))
    for step, (input_ids, weights) in enumerate(_iter_batches(phase, options, tokenizer), start=1):
        loss = _weighted_loss(model(input_ids=input_ids[:, :-1]).logits, input_ids[:, 1:], weights[:, 1:])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.max_grad_norm)
        optimizer.step()
        scheduler.step()
        if step % 50 == 0:
            progress(f"decoder {phase.name} step {step}: loss {float(loss.detach()):.3f}")
        if step % options.evaluate_every == 0 or step == phase.num_steps:
            save_model(model, output, tokenizer.save_pretrained)
            scores = score_items(model, tokenizer, evaluation_items(1, options.num_evaluation_items, "dev"))
            text = " ".join(f"{kind} {score:.2f}" for kind, score in scores.items())
            progress(f"decoder {phase.name} step {step}, held out: {text}")
            model.train()


def _build_model(options: DecoderOptions, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden_size,
        intermediate_size=options.intermediate_size,
        num_hidden_layers=options.num_hidden_layers,
        num_attention_heads=options.num_attention_heads,
        num_key_value_heads=options.num_attention_heads,
        max_position_embeddings=MAX_LENGTH,
        rope_theta=options.rope_theta,
        tie_word_embeddings=False,
        use_cache=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    # Wide embeddings keep words apart from the start; the copying tasks are learned far sooner.
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=1.0)
    # Equal queries and keys: every head starts by looking for the word it stands on.
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.q_proj.weight, std=options.attention_std)
        layer.self_attn.k_proj.weight.data.copy_(layer.self_attn.q_proj.weight.data)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def _schedule(step: int, phase: PhaseOptions) -> float:
    """Warm-up, a plateau, and a linear way down to nothing, or none where `decay_steps` is 0."""
    return min(1.0, (step + 1) / phase.warmup_steps, (phase.num_steps - step) / max(phase.decay_steps, 1))


def _iter_batches(
    phase: PhaseOptions, options: DecoderOptions, tokenizer: PreTrainedTokenizerFast
) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids and loss weights, `(batch, sequence)`, for every step of a phase."""
    rng = np.random.default_rng(phase.seed)
    stream = scenes.iter_scenes(phase.seed, "train")
    facts = list_facts("train")
    length = phase.sequence_length

    @functools.lru_cache(maxsize=50_000)
    def encode(text: str) -> list[int]:
        return list(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)

    for _ in range(phase.num_steps):
        rows = [document(next(stream), facts, phase.shares, rng, length) for _ in range(options.batch_size)]
        yield _encode(rows, encode, length, options.context_weight)


def _encode(
    rows: list[list[Piece]], encode: Callable[[str], list[int]], length: int, context_weight: float
) -> tuple[Tensor, Tensor]:
    """Cuts documents, which are at least that long, at `length`."""
    input_ids, weights = [], []
    for row in rows:
        pieces = [(encode(text), 1.0 if known else context_weight) for text, known in row]
        input_ids.append([token for ids, _ in pieces for token in ids][:length])
        weights.append([weight for ids, weight in pieces for _ in ids][:length])
    return torch.tensor(input_ids), torch.tensor(weights)


def _weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()
