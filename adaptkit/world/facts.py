"""Text-only knowledge: a small closed world that the decoder knows by heart."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


@dataclass(frozen=True)
class Fact:
    """One fact in one phrasing."""

    topic: str
    question: str
    answer: str


@dataclass(frozen=True)
class _Topic:
    phrasings: tuple[str, str, str, str]
    answers: dict[str, str]


def _both_ways(*pairs: tuple[str, str]) -> dict[str, str]:
    return dict(pairs) | {right: left for left, right in pairs}


_TOPICS = {
    "sound": _Topic(
        (
            "what sound does a {} make ?",
            "what does a {} say ?",
            "which sound does the {} make ?",
            "tell me the sound of a {} .",
        ),
        {
            "cat": "meow",
            "dog": "woof",
            "cow": "moo",
            "duck": "quack",
            "sheep": "baa",
            "lion": "roar",
            "bee": "buzz",
            "bird": "tweet",
        },
    ),
    "legs": _Topic(
        (
            "how many legs does a {} have ?",
            "a {} has how many legs ?",
            "count the legs of a {} .",
            "tell me how many legs the {} has .",
        ),
        {
            "cat": "four",
            "cow": "four",
            "bird": "two",
            "duck": "two",
            "bee": "six",
            "spider": "eight",
            "fish": "zero",
            "dog": "four",
        },
    ),
    "home": _Topic(
        (
            "where does a {} live ?",
            "what is the home of a {} ?",
            "which home does the {} have ?",
            "tell me the home of a {} .",
        ),
        {"fish": "sea", "bee": "hive", "bird": "nest", "spider": "web", "dog": "kennel", "cow": "barn"},
    ),
    "baby": _Topic(
        (
            "what is a baby {} called ?",
            "what do you call a baby {} ?",
            "what is the name of a baby {} ?",
            "tell me the name of a baby {} .",
        ),
        {"cat": "kitten", "dog": "puppy", "cow": "calf", "sheep": "lamb", "duck": "duckling", "lion": "cub"},
    ),
    "opposite": _Topic(
        (
            "what is the opposite of {} ?",
            "the opposite of {} is what ?",
            "which word is the opposite of {} ?",
            "tell me the opposite of {} .",
        ),
        _both_ways(
            ("hot", "cold"),
            ("day", "night"),
            ("up", "down"),
            ("open", "closed"),
            ("wet", "dry"),
            ("fast", "slow"),
            ("first", "last"),
            ("old", "new"),
            ("true", "false"),
        ),
    ),
    "next_day": _Topic(
        (
            "which day comes after {} ?",
            "what day is after {} ?",
            "the day after {} is what ?",
            "tell me the day after {} .",
        ),
        {day: _DAYS[(i + 1) % 7] for i, day in enumerate(_DAYS)},
    ),
    "previous_day": _Topic(
        (
            "which day comes before {} ?",
            "what day is before {} ?",
            "the day before {} is what ?",
            "tell me the day before {} .",
        ),
        {day: _DAYS[(i - 1) % 7] for i, day in enumerate(_DAYS)},
    ),
    "sum": _Topic(
        ("what is {} ?", "how much is {} ?", "{} is what ?", "tell me how much {} is ."),
        {f"{DIGITS[a]} plus {DIGITS[b]}": DIGITS[a + b] for a in range(1, 5) for b in range(1, 5)},
    ),
    "color": _Topic(
        (
            "what color is a {} ?",
            "which color does a {} have ?",
            "a {} has what color ?",
            "tell me the color of a {} .",
        ),
        {"banana": "yellow", "tomato": "red", "carrot": "orange", "plum": "purple", "leaf": "green", "sky": "blue"},
    ),
}


def list_facts(split: Literal["train", "test"]) -> list[Fact]:
    """Facts with the phrasings of one split: three phrasings of each train, the fourth is held out."""
    return [fact for number, phrasing, fact in _every_phrasing() if ((number + phrasing) % 4 == 0) == (split == "test")]


def candidate_answers(topic: str) -> tuple[str, ...]:
    """Every answer of a topic."""
    return tuple(sorted(set(_TOPICS[topic].answers.values())))


def _every_phrasing() -> Iterator[tuple[int, int, Fact]]:
    number = 0
    for topic, content in _TOPICS.items():
        for subject, answer in content.answers.items():
            for phrasing, question in enumerate(content.phrasings):
                yield number, phrasing, Fact(topic, question.format(subject), answer)
            number += 1


def fact_words() -> list[str]:
    """Every word that facts use, for the tokenizer."""
    return sorted({word for _, _, fact in _every_phrasing() for word in f"{fact.question} {fact.answer}".split()})
