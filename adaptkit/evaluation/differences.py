"""The outcome of comparing the text workflow with its base, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptkit.errors import first_few


def differences_of(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Names of what differs between two descriptions, sorted; what only one has is said to be missing or added."""
    found = []
    for name in sorted(here.keys() | there.keys()):
        if name not in there:
            found.append(f"{name} (added: {here[name][:80]})")
        elif name not in here:
            found.append(f"{name} (missing)")
        elif here[name] != there[name]:
            values = (here[name], there[name])
            short = all(len(value) <= 40 for value in values)
            found.append(f"{name} ({values[0]} instead of {values[1]})" if short else name)
    return found


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
    if text.get("differences"):
        found.append(first_few(text["differences"], separator="; "))
    if text.get("failed"):
        found.append(str(text["failed"]))
    return found


def what_was_compared(text: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows on a proof: what was compared, how much of it, and whether it was the same; empty where nothing was.

    Args:
        text: The section `text` of results.
    """
    if text.get("logits_identical") is None:
        return []
    rows = [("logits", _amount(text, prompts="num_prompts", positions="num_positions"), text["logits_identical"])]
    if "answers_identical" in text:
        rows.append(("ids of answers", _amount(text, answers="num_answers"), text["answers_identical"]))
    settings = not text.get("differences")
    rows.append(("tensors, settings, hooks, code", "all of the base", settings))
    for name in ("tokenizer", "chat_template"):
        if f"{name}_identical" in text:
            rows.append((name.replace("_", " "), "the workflow's with the base's", text[f"{name}_identical"]))
    return [(what, amount, "identical" if same else "different") for what, amount, same in rows]


def how_it_was_compared(text: Mapping[str, Any]) -> str:
    """What a comparison was made with: versions, dtype and device; empty where that is not recorded."""
    return ", ".join(f"{name} {value}" for name, value in (text.get("environment") or {}).items())


def _amount(text: Mapping[str, Any], **keys: str) -> str:
    return ", ".join(f"{text[key]:,} {what}" for what, key in keys.items() if key in text)
