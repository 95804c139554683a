"""All printed pages: which there are, and how they are written."""

from __future__ import annotations

from pathlib import Path

from nki_cli.docs import errors_pages, isa_page, language_page, migration_page, rules_page


def files() -> dict[str, str]:
    """The text of each page by its path in the folder of documentation."""
    return {
        "language.md": language_page.page(),
        "migration.md": migration_page.page(),
        "isa.md": isa_page.page(),
        "compiler-rules.md": rules_page.page(),
        **errors_pages.files(),
    }


def write(folder: Path) -> None:
    """Write every page into `folder`."""
    for name, text in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
