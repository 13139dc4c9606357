"""Questions and answers of VSR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptkit.evaluation.official.vsr import answer_label
from adaptkit.releases.vsr import TRUE_FALSE


def doc_to_visual(doc: Mapping[str, Any]) -> list[Any]:
    """The picture."""
    return [doc["image"].convert("RGB")]


def doc_to_text(doc: Mapping[str, Any], lmms_eval_specific_kwargs: Mapping[str, str] | None = None) -> str:
    """Whether the caption is true."""
    options = lmms_eval_specific_kwargs or {}
    return f"{options.get('pre_prompt', '')}{TRUE_FALSE.format(doc['caption'])}{options.get('post_prompt', '')}"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """True or False."""
    return str(bool(doc["label"]))


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether the answer says what the label says; an answer that says neither is wrong."""
    return {"vsr_accuracy": float(answer_label(results[0]) == doc["label"])}
