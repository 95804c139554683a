"""One name has one meaning: no two public classes share one; no two members of an enumeration are one.

Files that pages name are there.

Left out: nodes of the syntax tree, whose names are Python's, and kernels, which have those of the API.
"""

from __future__ import annotations

import ast
import collections
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ("isa/nki_isa", "nki_sim", "frontend/nki", "frontend/nki_tools", "frontend/nki_cli")
PYTHONS = ("syntax/tree.py", "syntax/symbols.py")


def classes() -> list[tuple[str, ast.ClassDef]]:
    """The classes at the top of files, with their file."""
    found = []
    for path in sorted(p for floor in FLOORS for p in (ROOT / floor).rglob("*.py")):
        if not path.as_posix().endswith(PYTHONS):
            nodes = ast.parse(path.read_text(encoding="utf-8")).body
            found += [(str(path.relative_to(ROOT)), node) for node in nodes if isinstance(node, ast.ClassDef)]
    return found


def test_no_two_public_classes_share_a_name() -> None:
    files = collections.defaultdict(list)
    for file, node in classes():
        if not node.name.startswith("_"):
            files[node.name].append(file)
    assert len(files) > 250
    assert {name: where for name, where in files.items() if len(where) > 1} == {}


def test_no_enum_has_aliases() -> None:
    """Two members with one value are one, and one of their names is never shown."""
    enums = 0
    for file, node in classes():
        if any(ast.unparse(base).rpartition(".")[2] in ("Enum", "IntEnum", "Flag") for base in node.bases):
            members = [n for n in node.body if isinstance(n, ast.Assign)]
            values = [ast.dump(n.value) for n in members]
            assert len(set(values)) == len(values), f"{file}: {node.name}"
            enums += bool(members)
    assert enums > 25


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = (
    "isa/nki_isa",
    r"frontend/\w+",
    r"kernels/\w+",
    "nki_isa",
    "nki_sim",
    "nki",
    "nki_cli",
    "nki_tools",
)


def test_files_that_pages_name_are_there() -> None:
    named = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)}|tests)(?:/\w+)*/\w+\.(?:py|md|toml)\b")
    found = {name for page in PAGES for name in named.findall(page.read_text(encoding="utf-8"))}
    assert len(found) > 10
    homes = [ROOT, *(ROOT / folder for folder in ("isa", "frontend", "kernels"))]
    assert [name for name in sorted(found) if not any((home / name).is_file() for home in homes)] == []
