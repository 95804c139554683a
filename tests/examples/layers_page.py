"""Writes the tables of docs/library/layers.md: ``python tests/examples/layers_page.py``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "library" / "layers.md"
_TABLE = re.compile(r"^### (\S+), (\w+)\n\n((?:\|.*\n)+)", re.MULTILINE)


def tables(text: str) -> dict[tuple[str, str], str]:
    """The tables of the page, by model and phase."""
    return {(found[1], found[2]): found[3].rstrip() for found in _TABLE.finditer(text)}


def measured(example: str, arguments: list[str]) -> dict[tuple[str, str], str]:
    """What an example prints for its models' sizes, by model and phase."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        return __import__(example).main(["--no-data", *arguments])
    finally:
        sys.path.remove(str(ROOT / "examples"))


def main() -> None:
    found = measured("llama_layer", []) | measured("moe_layer", [])
    text = PAGE.read_text()
    PAGE.write_text(_TABLE.sub(lambda part: f"### {part[1]}, {part[2]}\n\n{found[part[1], part[2]]}\n", text))


if __name__ == "__main__":
    main()
