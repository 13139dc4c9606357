"""The support matrix of decoders: measured by `checks`, written to `docs/reference/decoders.md`.

`python -m tests.decoders.matrix --write` measures everything and writes the page; a test fails where the page no longer
says what is measured.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from adaptkit.errors import ModelError
from adaptkit.surgery import Decoder, check_forward, structural_copy
from adaptkit.testing import FAMILIES, subjects, tiny_decoder
from tests.decoders import checks, mixed
from tests.measured_pages import print_or_write, version

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "decoders.md"

COLUMNS: dict[str, Callable[[subjects.Subject], None]] = {
    "text": subjects.text_is_unchanged,
    "stock": checks.equals_a_stock_model,
    "cache": subjects.cached_generation_equals_uncached,
    "static": checks.static_cache_equals_none,
    "padding": subjects.left_padding_equals_right,
    "checkpointing": subjects.checkpointing_changes_no_gradient,
    "packing": subjects.packed_equals_padded,
    "save": subjects.save_equals_load,
    "one pass": mixed.mixed_rows_equal_rows_alone,
}
"""Checks in the order in which they run, on one workflow."""

ON_STOCK = ("cache", "static", "padding", "checkpointing")
"""Checks that can be made of an untouched base too, to tell whose limit a failure is."""

REFUSABLE = ("packing", "one pass")
"""Checks of what the library refuses where it does not hold."""

REFUSED = (
    *("gemma3n_text", "gemma4_text", "jamba", "longcat_flash", "minimax", "rwkv", "xlstm", "zamba", "zamba2"),
    *("diffllama", "minicpm3", "recurrent_gemma", "xlm"),
)
"""Families that cannot be adapted; the page shows the reason that the library gives."""

NOT_BUILT = {
    "dbrx": "transformers itself cannot build it: its attention settings lack `rope_theta`",
    "dots3_note": "a picture tower with expert counts by layer; its decoder is `dots3_note_text`",
    "gemma3n": "needs timm for its picture tower; its decoder is `gemma3n_text`",
    "gemma4_assistant": "a draft model that reads the keys and values of another model",
    "gemma4_unified_assistant": "a draft model that reads the keys and values of another model",
    "musicgen": "transformers itself cannot build it: `AutoModelForCausalLM` gives its decoder the outer config",
    "musicgen_melody": "transformers itself cannot build it: `AutoModelForCausalLM` gives its decoder the outer config",
}
"""Families of which no random model can be built here, with the reason."""


LIMITED = {
    "axk2": "generation from media differs with and without a cache; its indexer chooses tokens by rank",
    "big_bird": "it exchanges its attention modules while it runs, and generation with a cache fails after that",
    "hy_v4": "generation from media differs with and without a cache; its indexer chooses tokens by rank",
    "phimoe": "packed rows cannot be compared: its router draws random numbers in training",
    "prophetnet": "training fails on padded rows given as embeddings",
    "reformer": "generation with a cache fails: its hashes and keys are kept by prompts of ids alone",
}
"""Families that are adapted exactly, but of which another column of the matrix does not hold."""

KNOWN = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


@dataclass(frozen=True)
class Cell:
    """What was measured.

    Attributes:
        status: `yes`, `stock` (the untouched base cannot either), `refused` (the library says why) or `no`.
        detail: Why not.
    """

    status: str
    detail: str = ""


@functools.cache
def cells_of(family: str) -> dict[str, Cell]:
    """Every cell of a family's row."""
    subject = checks.workflow_on(family)
    cells = {name: _cell(family, name, check, subject) for name, check in COLUMNS.items()}
    problems = checks.export_problems(subject)
    return {"adapt": Cell("yes"), **cells, "export": Cell("no", problems[0]) if problems else Cell("yes")}


def _cell(family: str, name: str, check: Callable[[subjects.Subject], None], subject: subjects.Subject) -> Cell:
    problem = _problem(check, subject)
    if problem is None:
        return Cell("yes")
    if name in REFUSABLE and problem.startswith(ModelError.__name__):
        return Cell("refused", problem)
    stock_problem = _problem(check, checks.stock_on(family, subject)) if name in ON_STOCK else None
    return Cell("no", problem) if stock_problem is None else Cell("stock", stock_problem)


def _problem(check: Callable[[subjects.Subject], None], subject: subjects.Subject) -> str | None:
    # What stock code warns of is for its own tests; a failed check reports itself
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check(subject)
        except Exception as error:
            return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
    return None


@functools.cache
def verdict_on(family: str) -> Cell:
    """Whether insertions into any family give the deeper stock decoder, or why the library refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = tiny_decoder(family)
        try:
            _require_deeper_stock_decoder(base)
        except ModelError as error:
            return Cell("no", str(error))
    return Cell("yes")


def _require_deeper_stock_decoder(base: transformers.PreTrainedModel) -> None:
    decoder = Decoder(structural_copy(base))
    check_forward(base)
    inserted = decoder.insert_copies_after(subjects.LAYERS)
    ends = decoder.replace_ends()
    before = subjects.logits_of(base, **subjects.TEXT)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in {p for module in inserted for p in module.parameters()}:
            parameter.add_(0.05 * torch.randn_like(parameter))
    config = decoder.model.config
    stock = type(base)(type(config).from_dict(config.to_dict())).eval()
    loaded = stock.load_state_dict(decoder.model.state_dict(), strict=False)
    assert not loaded.missing_keys, loaded.missing_keys
    assert ends
    logits = subjects.logits_of(decoder.model, **subjects.TEXT)
    assert torch.equal(logits, subjects.logits_of(stock, **subjects.TEXT)), "not the stock decoder of its config"
    assert not torch.equal(logits, before), "insertions change nothing"
    assert torch.equal(subjects.logits_of(base, **subjects.TEXT), before), "the base changed"


def other_families() -> list[str]:
    """Every family of transformers that is in no table of ours, as far as one can be built."""
    return sorted(KNOWN - {*FAMILIES, *REFUSED, *NOT_BUILT})


def render() -> str:
    """The page."""
    return "\n".join([*_introduction(), *_matrix(), *_refusals(), *_others()]) + "\n"


def _introduction() -> Iterator[str]:
    yield f"""# Decoders

<!-- Measured with transformers {version()}. Made by `python -m tests.decoders.matrix --write`; a test compares. -->

Any causal LM of transformers whose layers form one list can be adapted. adaptkit finds its parts in the model itself,
without a subclass per family. The tables below were measured on small random models of each family, with transformers
{version()}: an `inner_adapter` workflow with two insertions, `replace_ends` and an encoder, trained by one step.

| column | what holds |
|---|---|
| text | the base computes the same before and after, bit for bit |
| stock | a stock model built from the workflow's config and tensors computes the same, bit for bit |
| cache | generation with a cache equals generation without |
| static | so does generation with a cache of fixed size |
| padding | rows padded on the left and on the right give the same |
| checkpointing | gradients with gradient checkpointing equal those without |
| packing | conversations that share a row have the loss and the gradients of rows of their own |
| save | a saved and loaded workflow computes the same |
| one pass | rows of the base and of two workflows that join and leave one batch answer as each alone |
| export | `adaptkit export --to llava` has a stock model that computes the same |

“stock cannot” means that the untouched base fails the same test. “refused” means that adaptkit tries and then refuses,
with the reason; in the column *one pass*, that a session answers each workflow's rows in batches of their own, and its
status says why.

## Families
"""


def _matrix() -> Iterator[str]:
    columns = [*COLUMNS, "export"]
    yield "| family | adapt | " + " | ".join(columns) + " |"
    yield "|---" * (len(columns) + 2) + "|"
    words = {"yes": "yes", "stock": "stock cannot", "refused": "refused", "no": "no"}
    reasons: dict[str, list[str]] = {}
    for family in sorted(FAMILIES):
        cells = cells_of(family)
        yield f"| `{family}` | " + " | ".join(words[cells[name].status] for name in ["adapt", *columns]) + " |"
        if cells["export"].status == "no":
            reason = re.sub(r"which \w+ has not", "which it has not", cells["export"].detail.partition(" ")[2])
            reasons.setdefault(_plain(reason), []).append(family)
    yield "\nWhat has no stock LLaVA checkpoint:\n"
    for reason, families in sorted(reasons.items(), key=lambda item: item[1]):
        yield f"- {_names(families)}: {reason}"


def _refusals() -> Iterator[str]:
    yield """
## Refused

Insertions would change what frozen layers compute, or the result would not be a deeper decoder of the family. The
reason is the one that `adaptkit.adapt` gives, here for three or four layers with insertions after the second and the
third. adaptkit finds it by comparing what the family builds from its config before and after, not in a list of names.

| family | reason |
|---|---|"""
    for family in sorted(REFUSED):
        yield f"| `{family}` | {_plain(verdict_on(family).detail)} |"


def _others() -> Iterator[str]:
    verdicts = {family: verdict_on(family) for family in other_families()}
    yield """
## Every other family of transformers

For these, the columns *text* and *stock* were measured, without an encoder. They work:
"""
    yield _names([family for family, verdict in verdicts.items() if verdict.status == "yes"]) + "."
    yield "\nOf these, other columns of the matrix are known not to hold:\n"
    for family, limit in LIMITED.items():
        yield f"- `{family}`: {limit}."
    yield "\nThese are refused:\n\n| family | reason |\n|---|---|"
    for family, verdict in verdicts.items():
        if verdict.status == "no":
            yield f"| `{family}` | {_plain(verdict.detail)} |"
    yield "\nOf these families no model could be built to measure:\n"
    for family, reason in NOT_BUILT.items():
        yield f"- `{family}`: {reason}."


def _names(families: list[str]) -> str:
    return ", ".join(f"`{family}`" for family in families)


def _plain(reason: str) -> str:
    return reason.replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")


if __name__ == "__main__":
    print_or_write(render(), PAGE)
