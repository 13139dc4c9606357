"""What a translation must keep: masked, restored, checked; and texts cut into what is translated."""

from __future__ import annotations

import pytest

from adaptkit.data_tools.translate.languages import LANGUAGES, find_language, marian_prefix
from adaptkit.data_tools.translate.pieces import cut, join
from adaptkit.data_tools.translate.spans import LostError, mask, unmask
from adaptkit.errors import DataError

ZH, DE = find_language("zh"), find_language("de")


def units(text: str, *, by_sentence: bool = True, to: str = "zh") -> list[str]:
    return [piece.text for piece in cut(text, find_language(to), by_sentence=by_sentence) if piece.kind == "unit"]


@pytest.mark.parametrize(
    "span",
    [
        "<image>", "<|im_end|>", "<ref-object>", "</b>", "`x = 1`", "``a ` b``", "https://a.b/c?d=1&e=2", "www.a.org/b",
        "ann.lee@a-b.org", "[0.125,0.250,0.500,0.750]", "[12, 34, 56, 78]", "(0.1, 0.2)", r"$x_1 + 2$", r"\(a+b\)",
        "images/train/a.png", "(B)", "{{ name }}",
    ],
)  # fmt: skip
def test_a_span_is_masked_and_comes_back(span: str) -> None:
    source = f"Look at {span} and say why."
    masked = mask(source)
    assert (masked.text, masked.spans) == ("Look at [[1]] and say why.", (span,))
    assert unmask(masked, "看 [[ 1 ]] 说明原因。") == f"看 {span} 说明原因。"
    assert unmask(masked, "看【【1】】说明原因。") == f"看{span}说明原因。"
    for broken in ("看，说明原因。", "看 [[1]] [[1]]", "看 [[2]] 说明", f"看 {span}", f"看 [[1]] {span}"):
        with pytest.raises(LostError, match="lost"):
            unmask(masked, broken)


def test_prose_is_not_masked() -> None:
    for text in ("It costs $5 and not $6.", "if a < b and c > d", "Yes (really) and [sic]", "He/she said so."):
        assert mask(text).text == text


@pytest.mark.parametrize(
    ("source", "translation", "lost"),
    [
        ("There are 3 cats.", "有3只猫。", False),
        ("There are 3 cats.", "有三只猫。", True),
        ("It cost 1,200 at 10:30.", "10:30时花了1200。", False),
        ("It cost 1,200.", "花了１，２００。", False),
        ("About 20% of 7", "7的约20%", False),
        ("Two cats.", "2只猫。", True),
        ("Two cats.", "", True),
        ("Two cats.", "猫" * 200, True),
        ("Two cats.", "两<unk>猫", True),
    ],
)
def test_numbers_and_sense_are_checked(source: str, translation: str, lost: bool) -> None:
    if lost:
        with pytest.raises(LostError):
            unmask(mask(source), translation)
    else:
        assert unmask(mask(source), translation) == translation


def test_numbers_can_be_masked_too() -> None:
    masked = mask("From [1, 2, 3, 4] take 25%.", numbers=True)
    assert (masked.text, masked.spans) == ("From [[1]] take [[2]].", ("[1, 2, 3, 4]", "25%"))


def test_lines_lists_and_code_stay() -> None:
    text = (
        "<image>\nWhat is it? Mr. Smith asked, e.g. today.\n\n1. First thing\n- **Second** thing\nA. trout\n"
        "```python\nprint('hello world')\n```\n# Title\nB\n[0.1,0.2,0.3,0.4]; [0.5,0.6,0.7,0.8]\n3.14\n<image>"
    )
    found = units(text)
    assert found == ["What is it?", "Mr. Smith asked, e.g. today.", "First thing", "**Second** thing", "trout", "Title"]
    assert join(cut(text, DE, by_sentence=True), lambda unit: unit, DE) == text
    upper = join(cut(text, ZH, by_sentence=True), str.upper, ZH)
    assert "print('hello world')\n" in upper
    assert "WHAT IS IT?MR. SMITH" in upper  # no spaces between sentences in Chinese
    assert upper.startswith("<image>\n")
    assert upper.endswith("3.14\n<image>")


def test_what_is_in_the_target_language_stays() -> None:
    assert units("这是一只猫。\nThis is a cat.") == ["This is a cat."]
    assert units("Это кошка.", to="ru") == []
    assert units("Das ist eine Katze.", to="de") == ["Das ist eine Katze."]


def test_lines_are_units_where_a_model_takes_them() -> None:
    assert units("One here. Two there.", by_sentence=False) == ["One here. Two there."]


def test_a_sentence_is_not_cut_inside_a_span() -> None:
    assert units("See `a. B` here. Then go.") == ["See `a. B` here.", "Then go."]


def test_languages() -> None:
    assert marian_prefix(ZH, [">>cmn_Hans<<", ">>yue_Hant<<"]) == ">>cmn_Hans<< "
    assert marian_prefix(DE, []) == ""
    with pytest.raises(DataError, match="German"):
        marian_prefix(DE, [">>cmn_Hans<<"])
    with pytest.raises(DataError, match="zh"):
        find_language("zj")
    assert all(language.code == code for code, language in LANGUAGES.items())
