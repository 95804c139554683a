"""docs/library says what the table of kernels says; `make library-pages` writes it anew."""

from pathlib import Path

import pytest

from nkilib import pages
from nkilib.registry import rows

FOLDER = Path(__file__).parents[2] / "docs" / "library"


def test_index_is_current():
    assert (FOLDER / "index.md").read_text() == pages.index()


@pytest.mark.parametrize("row", rows().values(), ids=list(rows()))
def test_description_is_current(row):
    assert (FOLDER / f"{row.name}.md").read_text().startswith(pages.described(row))
    for picture in ("timeline", "sbuf"):
        assert (FOLDER / f"{row.name}-{picture}.svg").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("row", rows().values(), ids=list(rows()))
def test_measurements_are_current(row, tmp_path):
    told = pages.measured(row, tmp_path)
    assert (FOLDER / f"{row.name}.md").read_text() == f"{pages.described(row)}\n{told}"
    for made in tmp_path.iterdir():
        assert (FOLDER / made.name).read_text() == made.read_text()
