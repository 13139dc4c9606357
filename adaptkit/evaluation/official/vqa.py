"""VQA and TextVQA: how many of ten people gave the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from adaptkit.errors import DataError, first_few
from adaptkit.files.folder import FileFolder, check, mean

_DIGITS = enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], start=1)
_NUMBERS = {"none": "0", "zero": "0", **{word: str(number) for number, word in _DIGITS}}
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_MAX_PERIODS = 32
"""Both tools hand a flag over as the number of replacements, so that later full stops stay."""
_THOUSANDS = re.compile(r"\d,\d")

_SHORT_FORMS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"""


def _misspellings() -> Iterator[tuple[str, str]]:
    """A short form without one of its apostrophes, and the short form."""
    for form in _SHORT_FORMS.split():
        for i, character in enumerate(form):
            if character == "'":
                yield form[:i] + form[i + 1 :], form


_CONTRACTIONS = {**dict(_misspellings()), "somebody'd": "somebodyd"}  # the last as the tools have it


def score(folder: FileFolder) -> dict[str, Any]:
    """By VQA's tool, which needs an answer to every question, and by LLaVA's evaluator for TextVQA."""
    gold = _gold(folder)
    place = folder.path / "predictions.json"
    rows = folder.json("predictions.json", list)
    for number, row in enumerate(rows, start=1):
        check(row, f"{place}, entry {number}", question_id=(int, str), answer=str)
    located = ((f"{place}, entry {number}", row["question_id"], row["answer"]) for number, row in enumerate(rows, 1))
    answers = folder.by_key(located, gold, "question_id")
    missing = [str(key) for key in gold if key not in answers]
    if missing:
        raise DataError(f"{place}: no answer to {len(missing)} questions ({first_few(missing)}); VQA's tool needs all")
    official = {key: vqa_accuracy(answers[key], gold[key]) for key in answers}
    text_vqa = {key: text_vqa_accuracy(answers[key], [answer["answer"] for answer in gold[key]]) for key in answers}
    return {
        "vqa_official": {
            "overall": round(100 * mean(official.values()), 2),
            "per_question": {str(key): round(100 * accuracy, 2) for key, accuracy in official.items()},
        },
        "textvqa_m4c": {
            "overall": 100 * mean(text_vqa.values()),
            "per_question": {str(key): 100 * accuracy for key, accuracy in text_vqa.items()},
        },
    }


def vqa_accuracy(answer: str, people: list[dict[str, Any]]) -> float:
    """Normalises only where people disagree."""
    answer = _plain(answer)
    others = [{**person, "answer": _plain(person["answer"])} for person in people]
    if len({person["answer"] for person in others}) > 1:
        answer = normalise(answer)
        others = [{**person, "answer": normalise(person["answer"])} for person in others]
    # One who is equal in all that is recorded counts as the same person
    matches = [[other for other in others if other != person and other["answer"] == answer] for person in others]
    return mean(min(1, len(matching) / 3) for matching in matches)


def text_vqa_accuracy(answer: str, people: list[str]) -> float:
    """Always normalises."""
    answer = normalise(_tokenised(answer))
    is_same = [normalise(_tokenised(person)) == answer for person in people]
    if not any(is_same):
        return 0.0
    return mean(min(1, (sum(is_same) - own) / 3) for own in is_same)


@lru_cache(maxsize=1 << 16)
def normalise(text: str) -> str:
    """Without punctuation and articles, numbers as digits, short forms with their apostrophes."""
    words = (_NUMBERS.get(word, word) for word in _without_punctuation(text).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    found = text
    for mark in _PUNCTUATION:
        at_edge = f"{mark} " in text or f" {mark}" in text or _THOUSANDS.search(text)
        found = found.replace(mark, "" if at_edge else " ")
    return _PERIOD.sub("", found, count=_MAX_PERIODS)


def _plain(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _tokenised(text: str) -> str:
    return _plain(text.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


def _gold(folder: FileFolder) -> dict[int | str, list[dict[str, Any]]]:
    questions, annotations = (_listed(folder, f"{name}.json", name) for name in ("questions", "annotations"))
    place = folder.path / "annotations.json"
    gold = {}
    for number, row in enumerate(annotations, start=1):
        where = f"{place}, annotation {number}"
        check(row, where, question_id=(int, str), answers=list)
        for answer in row["answers"]:
            check(answer, f"{where}, answers", answer=str)
        if not row["answers"]:
            raise DataError(f"{where} has no answers")
        gold[row["question_id"]] = row["answers"]
    missing = [str(row["question_id"]) for row in questions if row["question_id"] not in gold]
    if missing:
        raise DataError(f"{place} has no answers to questions {first_few(missing)} of questions.json")
    return {row["question_id"]: gold[row["question_id"]] for row in questions}


def _listed(folder: FileFolder, name: str, key: str) -> list[dict[str, Any]]:
    place = folder.path / name
    content = folder.json(name, dict)
    check(content, str(place), **{key: list})
    if not content[key]:
        raise DataError(f"{place}: {key!r} is empty")
    for number, row in enumerate(content[key], start=1):
        check(row, f"{place}, entry {number}", question_id=(int, str))
    return content[key]  # type: ignore[no-any-return]
