"""Whether text is what a process without adaptkit makes of it, and what the card recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from adaptkit.errors import first_few
from adaptkit.evaluation.differences import failures
from adaptkit.evaluation.text_identity import TextProof
from adaptkit.model.card.facts import Proof
from adaptkit.run.verify.findings import DIFFERS, UNKNOWN, Finding, compared

_CLAIM, _RECORD = "text is unchanged", "text is as recorded"


@contextmanager
def _as_recorded(base: Any, proof: Proof | None) -> Iterator[None]:
    """Compute on as many threads as when the proof was made: sums are rounded by how they are divided."""
    before, threads = torch.get_num_threads(), (proof.environment if proof else {}).get("threads", "")
    if base.device.type == "cpu" and threads.isdecimal() and 0 < int(threads) <= 1024:
        torch.set_num_threads(int(threads))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_text(base: Any, tokenizer: Any, proof: Proof | None) -> Iterator[Finding]:
    """Compare a base, over which a workflow was built, with a process that never imports adaptkit.

    Args:
        tokenizer: Of the workflow; None where it cannot be loaded.
        proof: That of the card; without one, the prompts that adaptkit ships are compared.
    """
    prompts = None if proof is None else proof.prompt_ids
    with _as_recorded(base, proof), TextProof(base, tokenizer, prompts=prompts) as running:
        text = running.result()[0]
    if text["logits_identical"] is None:
        yield Finding(_CLAIM, UNKNOWN, [str(text["note"])])
        return
    where = "prompts of the card" if proof else "prompts of adaptkit"
    what = (
        f"{text['num_prompts']} {where}, {text['num_positions']:,} positions, {text['num_answers']} answers, "
        "tensors, settings and code, against a process without adaptkit"
    )
    yield compared(_CLAIM, failures(text, own_template=True), what)
    differing = text.get("tokenizer_differences") or []
    if not text.get("chat_template_identical", True):
        differing = [*differing, "chat template"]
    if differing:
        yield Finding("tokenizer is the base's", UNKNOWN, [f"another, as a recipe may say: {first_few(differing)}"])
    if proof is not None:
        yield _compare(text, proof)


def _compare(text: Mapping[str, Any], proof: Proof) -> Finding:
    if not proof.identical:
        return Finding(_RECORD, DIFFERS, ["the card says that the comparison failed when it was made"])
    names = {"logits": "logits_sha256", "ids of answers": "answers_sha256"}
    said = {what: getattr(proof, key) for what, key in names.items()}
    differ = [f"{what}: {text[key]} instead of {said[what]}" for what, key in names.items() if text[key] != said[what]]
    other = _other_environment(text["environment"], proof.environment)
    if differ and other:
        return Finding(_RECORD, UNKNOWN, [f"hashes depend on the machine and its libraries: {'; '.join(other)}"])
    return compared(_RECORD, differ, ", ".join(f"{what} {value}" for what, value in said.items()))


def _other_environment(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    differ = [name for name in {**there, **here} if here.get(name) != there.get(name)]
    return [f"{name} is {here.get(name)} here and was {there.get(name)}" for name in differ]
