"""Rows of a base and of several workflows on it, which join and leave one batch, against each alone."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

import adaptkit
from adaptkit.inference.merged import refusal_of_workflow, refuse_decoder
from adaptkit.inference.pending import Prompt
from adaptkit.inference.request import Request
from adaptkit.inference.sampling import Sampler
from adaptkit.inference.shared_group import SharedGroup
from adaptkit.testing import tiny_clip_vision

PIXELS = (3, 32, 32)
NUM_POSITIONS = 16
PLACEHOLDER_ID = 999


@dataclass
class Row:
    """One prompt, and how long its answer is."""

    workflow: str
    words: int
    num_items: int
    num_new: int
    seed: int = 0


def another_workflow(base: Any, insertion: Any = None, *, replace_ends: bool = False, seed: int = 5) -> Any:
    """A second workflow on a base, moved off its starting point."""
    torch.manual_seed(seed)
    model = adaptkit.adapt(
        base,
        {
            "image": {
                "encoder": tiny_clip_vision(),
                "projector": "mlp2x_gelu",
                "placeholder_id": PLACEHOLDER_ID,
                "type": None,
            }
        },
        insertion or {"policy": "gated_inner_adapter", "placement": {"layers": [1, 2]}},
        replace_ends,
    )
    with torch.no_grad():
        for tensor in model.trainable_state_dict().values():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return model


def prompt_of(row: Row, placeholder_id: int = PLACEHOLDER_ID) -> Prompt:
    """Words with the row's media among them."""
    generator = torch.Generator().manual_seed(100 + row.seed)
    words = torch.randint(3, 40, (row.words,), generator=generator).tolist()
    ids, media, spans = words[:2], [], []
    for item in range(row.num_items):
        spans.append((len(ids), len(ids) + NUM_POSITIONS))
        ids = [*ids, *[placeholder_id] * NUM_POSITIONS, *words[2:4]]
        media.append(("image", torch.randn(PIXELS, generator=generator), f"{row.seed} {row.words} {item}"))
    return Prompt([*ids, *words[4:]], media, spans)


def request_of(row: Row, model: Any, prompt: Prompt) -> Request:
    """A greedy request, which ends with its length alone."""
    return Request(
        row.workflow,
        prompt,
        Sampler(model, prompt.input_ids, {"max_new_tokens": row.num_new, "do_sample": False}),
        decode=lambda ids: "",
        decode_token=lambda token_id: "",
        stop_ids=[],
        stop_strings=[],
        max_new_tokens=row.num_new,
    )


def alone(row: Row, model: Any, prompt: Prompt) -> list[int]:
    """What stock `generate` answers to one prompt."""
    features = {"features": {"image": torch.stack([item for _, item, _ in prompt.media])}} if prompt.media else {}
    ids = torch.tensor([prompt.input_ids])
    new = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=row.num_new,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        **features,
    )
    return new[0, ids.shape[1] :].tolist()


def group_of(base: Any, workflows: dict[str, Any], *, prefix_cache_bytes: int = 0) -> SharedGroup:
    processor = SimpleNamespace(
        pad_token_id=0, modalities={"image": SimpleNamespace(preprocessor=SimpleNamespace(collate=torch.stack))}
    )
    processors = dict.fromkeys(("text", *workflows), processor)
    return SharedGroup(base, workflows, processors, prefix_cache_bytes=prefix_cache_bytes)  # type: ignore[arg-type]


@torch.no_grad()
def answers(group: SharedGroup, models: dict[str, Any], waves: list[list[Row]]) -> list[list[int]]:
    """What a group answers to rows that join in waves, two steps apart."""
    requests: list[Request] = []
    for wave in waves:
        new = [request_of(row, models[row.workflow], prompt_of(row)) for row in wave]
        requests += new
        group.admit(new)
        for request in new:
            if request.is_finished:
                request.result()  # raises what went wrong
        for _ in range(2):
            if group.running:
                group.step()
    while group.running:
        group.step()
    return [request.result(0).token_ids for request in requests]


WAVES = [
    [Row("text", 9, 0, 6, 1), Row("vision", 8, 2, 5, 2), Row("other", 6, 1, 3, 3)],
    [Row("vision", 12, 0, 3, 4), Row("text", 30, 0, 2, 5)],
    [Row("other", 7, 1, 4, 6)],
]
"""Lengths differ, media lie in some rows, and rows join and leave at different times."""


def mixed_rows_equal_rows_alone(subject: Any) -> None:
    """Ids of rows that share passes equal those of separate greedy generation."""
    vision, base = subject.model, subject.base
    refuse_decoder(base)
    assert not refusal_of_workflow(vision)
    models = {"text": base, "vision": vision, "other": another_workflow(base)}
    group = group_of(base, {name: model for name, model in models.items() if name != "text"})
    found = answers(group, models, WAVES)
    expected = [alone(row, models[row.workflow], prompt_of(row)) for wave in WAVES for row in wave]
    assert found == expected, f"{found} instead of {expected}"
