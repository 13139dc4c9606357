"""The support matrix, cell by cell, and the page that shows it."""

from __future__ import annotations

import random

import pytest

import adaptkit
from adaptkit.errors import ModelError
from adaptkit.testing import FAMILIES, subjects, tiny_decoder
from tests.decoders import matrix
from tests.measured_pages import version


@pytest.mark.parametrize("column", ["adapt", *matrix.COLUMNS])
@pytest.mark.parametrize("family", FAMILIES)
def test_cell(family, column):
    cell = matrix.cells_of(family)[column]
    assert cell.status != "no", cell.detail
    assert cell.status != "stock" or column in matrix.ON_STOCK


@pytest.mark.parametrize("family", matrix.REFUSED)
def test_what_cannot_work_is_refused_with_the_reason(family):
    base = tiny_decoder(family)
    with pytest.raises(ModelError) as refusal:
        adaptkit.adapt(base, {}, {"policy": "inner_adapter", "placement": {"layers": subjects.LAYERS}})
    assert type(base).__name__ in str(refusal.value)
    assert str(refusal.value) == matrix.verdict_on(family).detail


@pytest.mark.parametrize("family", matrix.other_families())
def test_a_family_in_no_table_works_or_is_refused_with_the_reason(family):
    verdict = matrix.verdict_on(family)
    assert verdict.status == "yes" or verdict.detail


SAMPLE = random.Random(3).sample(sorted(set(matrix.other_families()) - set(matrix.LIMITED)), 10)


def check_every_cell(family):
    if matrix.verdict_on(family).status == "yes":
        cells = matrix.cells_of(family)
        wrong = {name: cell for name, cell in cells.items() if name != "export" and cell.status == "no"}
        assert not wrong


@pytest.mark.parametrize("family", SAMPLE)
def test_a_family_taken_at_random_passes_every_check(family):
    check_every_cell(family)


@pytest.mark.integration
@pytest.mark.parametrize("family", sorted(set(matrix.other_families()) - set(matrix.LIMITED)))
def test_any_family_passes_every_check(family):
    check_every_cell(family)


@pytest.mark.parametrize("family", matrix.NOT_BUILT)
def test_what_is_said_not_to_be_built_is_not(family):
    with pytest.raises(Exception):  # noqa: B017, PT011 -- each fails in a way of its own
        tiny_decoder(family)


def test_every_family_has_one_place_in_the_tables():
    places = [*FAMILIES, *matrix.REFUSED, *matrix.NOT_BUILT]
    assert len(places) == len(set(places))
    assert set(places) <= matrix.KNOWN
    assert set(matrix.LIMITED) <= set(matrix.other_families())


def test_the_page_shows_what_is_measured():
    page = matrix.PAGE.read_text(encoding="utf-8")
    if f"Measured with transformers {version()}." not in page:
        pytest.skip(f"the page was measured with another transformers than the {version()} that is installed")
    assert page == matrix.render(), f"{matrix.PAGE} is stale: run `python -m tests.decoders.matrix --write`"
