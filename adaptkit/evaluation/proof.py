"""The outcome of comparing the text workflow with its base, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NUM_NAMED = 5
"""Differences that a message names."""


def failures(text: Mapping[str, Any], *, own_template: bool = False) -> list[str]:
    """The failures of a proof, as text; empty if the text is unchanged or could not be compared.

    Args:
        text: The section `text` of results.
        own_template: Whether the base was given a chat template that is not its own.
    """
    found = []
    if text.get("logits_identical") is False:
        size = text.get("max_logit_difference")
        by = text.get("note", "") if size is None else f"by up to {size:g}"
        found.append(f"logits differ on {text['num_prompts_differing']} of {text['num_prompts']} prompts, {by}")
    if text.get("answers_identical") is False:
        found.append(f"{text['num_answers_differing']} of {text['num_answers']} generated answers differ")
    if text.get("chat_template_identical") is False and not own_template:
        found.append("the tokenizer has another chat template than the base's")
    differences = text.get("differences") or []
    if differences:
        more = f" and {len(differences) - NUM_NAMED} more" if len(differences) > NUM_NAMED else ""
        found.append("; ".join(differences[:NUM_NAMED]) + more)
    if text.get("failed"):
        found.append(str(text["failed"]))
    return found
