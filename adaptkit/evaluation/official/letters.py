"""Which option an answer to a multiple-choice question of MMBench chooses, as two tools read it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

REFUSED = "Z"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_FAILED = "Failed to obtain answer via API"
_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_VERBOSE = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)
_NUM_LAST = 4

_HARNESS_LETTERS = "ABCDE"
_HARNESS_FORMS = ("{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).")
_CHOSEN = ("answer", "correct answer", "best answer", "correct option", "best option", "choice", "correct choice")
_PHRASES = (
    *(f"{article}{chosen} is" for chosen in _CHOSEN for article in ("the ", "")),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)


def vlmevalkit_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """VLMEvalKit's `can_infer`, without a judge: a letter of the options, `Z` for a refusal, or None."""
    found = _option(answer, options)
    if found is None and len(answer) <= 2 * sum(map(len, options.values())):
        return _only_text(answer, options)
    return found


def _option(answer: str, options: Mapping[str, str]) -> str | None:
    if _FAILED in answer:
        return None
    if any(refusal in answer for refusal in _REFUSALS):
        return REFUSED
    words = answer.translate(_BLANKS).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) >= len(words) - _NUM_LAST:
        return named[0]
    if not named and REFUSED in words:
        return REFUSED
    found = _VERBOSE.search(answer)
    return found[1].upper() if found and found[1].upper() in options else None


def _only_text(answer: str, options: Mapping[str, str]) -> str | None:
    found = [letter for letter, text in options.items() if text.lower() in answer.lower()]
    return found[0] if len(found) == 1 else None


def harness_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """lmms-eval's evaluator with `eval_method=static`: its `can_infer`, and its `extract_mcq_answer` after that."""
    return harness_can_infer(answer, options) or harness_extract(answer, options)


def harness_can_infer(answer: str, options: Mapping[str, str]) -> str | None:
    """A letter that stands alone, then one with punctuation, then the only option whose text occurs."""
    return _harness_option(answer) or _only_text(answer, options)


def _harness_option(answer: str) -> str | None:
    words = answer.split()
    if _FAILED in answer:
        return None
    bare = [letter for letter in _HARNESS_LETTERS if letter in words]
    if len(bare) == 1 and not ("A" in words and len(words) > 3):  # which may be an article
        return bare[0]
    for form in _HARNESS_FORMS:
        found = [letter for letter in _HARNESS_LETTERS if form.format(letter) in words]
        if len(found) == 1:
            return found[0]
    return None


def harness_extract(answer: str, letters: Iterable[str]) -> str | None:
    """The letter in the most telling form; of several in one form the last."""
    text = answer.strip()
    for character in ",.!?;:'\"":
        text = text.strip(character)
    candidates = list(_candidates(f" {text} ", tuple(letters)))
    if not candidates:
        candidates = [(0, text.rfind(letter), letter) for letter in letters if letter in text]
    return max(candidates, key=lambda candidate: candidate[:2])[2] if candidates else None


def _candidates(text: str, letters: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    """How telling a letter's form is, where it stands, and the letter."""
    bare, small = text.strip(), text.lower()
    ends = [small.find(phrase) + len(phrase) for phrase in _PHRASES if phrase in small]
    for letter in letters:
        if bare.startswith(letter) and not bare[1:2].isalpha():
            yield 10, 0, letter
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            yield 9, len(text) - 1, letter
        yield from ((7, text.find(letter, end), letter) for end in ends if letter in text[end:])
        forms = {6: f"({letter})", 5: f"{letter}.", 4: f"{letter}:", 3: f"{letter})", 2: f"{letter} "}
        yield from ((priority, text.rfind(form), letter) for priority, form in forms.items() if form in text)
