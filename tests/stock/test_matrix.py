"""Stock Llava against a workflow, and the page that shows it."""

import pytest

from tests.measured_pages import version
from tests.stock import matrix


@pytest.mark.parametrize("index", range(len(matrix.GROUPS)), ids=[group.title for group in matrix.GROUPS])
def test_every_call_gives_the_same_or_is_refused_by_name(index):
    assert matrix.measured(index)


def test_the_page_shows_what_is_measured():
    page = matrix.PAGE.read_text(encoding="utf-8")
    if f"Measured with transformers {version()}." not in page:
        pytest.skip(f"the page was measured with another transformers than the {version()} that is installed")
    assert page == matrix.render(), f"{matrix.PAGE} is stale: run `python -m tests.stock.matrix --write`"
