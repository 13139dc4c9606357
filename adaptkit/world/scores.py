"""How well the decoder answers about scenes in words, and how well it knows its facts."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from adaptkit.world.dataset import EvaluationItem, evaluation_items


def score_decoder(model_dir: Path, seed: int = 1, num_per_kind: int = 100) -> dict[str, float]:
    """Exact-match accuracy of greedy answers on held-out items, the scenes in words; by kind, and `fact`."""
    model = LlamaForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
    return score_items(model, tokenizer, evaluation_items(seed, num_per_kind))


@torch.no_grad()
def score_items(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, items: list[EvaluationItem]
) -> dict[str, float]:
    """Like `score_decoder`, for a model in memory.

    An answer counts if every one of its tokens, and the end after them, is the likeliest one after those
    before it: exactly then greedy generation gives that answer.
    """
    model.eval()
    prompts = tokenizer.apply_chat_template(
        [item.text_messages for item in items], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    answers = tokenizer([item.answer for item in items])["input_ids"]
    hits: dict[str, list[bool]] = defaultdict(list)
    order = sorted(range(len(items)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), 64):
        chunk = order[start : start + 64]
        rows = [torch.tensor([*prompts[i], *answers[i], tokenizer.eos_token_id]) for i in chunk]
        input_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
        best = model(input_ids=input_ids).logits.argmax(dim=-1)
        for row, i in enumerate(chunk):
            span = slice(len(prompts[i]), len(rows[row]))
            hits[items[i].kind].append(bool((best[row, span.start - 1 : span.stop - 1] == input_ids[row, span]).all()))
    return {item.kind: float(np.mean(hits[item.kind])) for item in items}
