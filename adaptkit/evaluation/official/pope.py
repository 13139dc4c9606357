"""POPE: yes or no by the first sentence, in which only words of negation count."""

from __future__ import annotations

from collections.abc import Sequence

_NEGATIONS = ("No", "not", "no")


def label(answer: str) -> str:
    """`no` where a word of the first sentence denies; `yes` of all else, also of what answers nothing."""
    words = answer.split(".", 1)[0].replace(",", "").split(" ")
    return "no" if any(word in _NEGATIONS for word in words) else "yes"


def score_answers(answers: Sequence[str], gold: Sequence[str]) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 of yes, as in POPE's `evaluate.py`; 0 where nothing is divided by."""
    labels = [label(answer) for answer in answers]
    pairs = list(zip(labels, gold, strict=True))
    positive = pairs.count(("yes", "yes"))
    precision = positive / max(1, labels.count("yes"))
    recall = positive / max(1, list(gold).count("yes"))
    return {
        "accuracy": sum(one == right for one, right in pairs) / max(1, len(pairs)),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "yes_ratio": labels.count("yes") / max(1, len(labels)),
    }
