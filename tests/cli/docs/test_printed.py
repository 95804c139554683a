"""The printed pages in the folder of documentation are those the program prints now."""

from pathlib import Path

import pytest

from nki_cli.docs.printed import files, write

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", files())
def test_a_printed_page_is_up_to_date(name: str) -> None:
    """If not: python -m nki_cli.docs docs"""
    assert (DOCS / name).read_text(encoding="utf-8") == files()[name]


def test_writing_makes_the_folders_it_needs(tmp_path: Path) -> None:
    write(tmp_path / "new")
    written = {str(p.relative_to(tmp_path / "new")) for p in (tmp_path / "new").rglob("*.md")}
    assert written == set(files())
