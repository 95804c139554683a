"""The tables of constructs and built-ins: every row is met by its example, and does what its verdict says."""

from __future__ import annotations

import builtins
import linecache
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from nki.compiler.checker.check import check_file
from nki.compiler.language.constructs import CONSTRUCTS, Construct
from nki.compiler.language.frontends import REMEDY
from nki.compiler.language.profile import BUILTINS, HOST_BUILTINS, PROFILES, Acceptance, Builtin
from nki.compiler.syntax import tree
from nki.compiler.syntax.node import Node, children
from nki.compiler.syntax.parse import parse
from nki.rendering import plain
from nki_isa.diagnostics import Severity

pytestmark = pytest.mark.api("0.6")  # the newest level whose language is the parser's

KERNEL = """\
import functools
import nki
import nki.isa as nisa
import nki.language as nl
from dataclasses import dataclass
from nki.language import NKIObject

class Base(NKIObject):
    pass

@nki.jit
def kernel(x, y, z, t, self, d, pairs, f):
    i = 0
    {body}
"""


@dataclass
class Golden:
    """Checks a text as ``kernel.py``; what a person sees of it, and what that was before."""

    snapshot: SnapshotAssertion

    def __call__(self, text: str) -> str:
        Path("kernel.py").write_text(text)
        return plain(check_file("kernel.py", "strict"))


@pytest.fixture
def golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion) -> Golden:
    monkeypatch.chdir(tmp_path)
    linecache.clearcache()
    return Golden(snapshot)


def _pairs(node: Node) -> Iterator[tuple[Node, Node]]:
    for child in children(node):
        yield child, node
        yield from _pairs(child)


def _keys(text: str) -> set[str]:
    """The rows that some node of `text` meets."""
    result = parse(text, "example.py")
    assert result.tree is not None and not result.diagnostics, result.diagnostics
    return {
        row.key
        for node, parent in _pairs(result.tree)
        for row in CONSTRUCTS
        if isinstance(node, row.nodes) and any(True for _ in row.found(node, parent))
    }


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def _with(row: Construct) -> str:
    """A file with the example of a construct that is not accepted where a kernel reaches it."""
    text = KERNEL.format(body=_indented(row.example))
    if row.key.startswith(("class-", "decorator", "type-parameters")) or row.key in (
        "keyword-only",
        "varargs",
        "kwargs",
    ):
        name = "C" if "class C" in row.example else "f"
        text = f"{text}    {name}()\n" + row.example + "\n"
        text = text.replace(f"    {_indented(row.example)}\n", "", 1)
        text = text.replace(", pairs, f)", ", pairs)")
    return text


@pytest.mark.parametrize("row", CONSTRUCTS, ids=lambda row: row.key)
def test_example_meets_its_row(row: Construct) -> None:
    outside, inside = _keys(row.example + "\n"), _keys(f"def f():\n    {_indented(row.example)}\n")
    assert row.key in outside | inside


def test_rows_are_distinct() -> None:
    assert len({row.key for row in CONSTRUCTS}) == len(CONSTRUCTS)
    assert len({row.title for row in CONSTRUCTS}) == len(CONSTRUCTS)


def test_every_syntax_node_is_in_the_table() -> None:
    """No statement and no expression passes because nobody thought of it."""
    known = {kind for row in CONSTRUCTS for kind in row.nodes}
    kinds = [k for k in vars(tree).values() if isinstance(k, type) and issubclass(k, (tree.stmt, tree.expr))]
    parts = {tree.stmt, tree.expr, tree.Slice}
    assert [k.__name__ for k in kinds if k not in known | parts] == []


@pytest.mark.parametrize(
    "row", [r for r in CONSTRUCTS if r.verdict is Acceptance.refused], ids=lambda row: row.key
)
def test_refused_constructs_say_why_and_what_instead(row: Construct, tmp_path: Path) -> None:
    assert row.why and row.instead and row.source
    file = tmp_path / "kernel.py"
    file.write_text(_with(row))
    for profile in PROFILES:
        found = [d for d in check_file(str(file), profile) if d.code == "NKI-L005"]
        help = f"{row.instead}; {REMEDY}"
        assert any(d.message.startswith(row.title) and d.help == help for d in found), (profile, found)
        assert all(d.severity is Severity.error for d in found)


@pytest.mark.parametrize(
    "row", [r for r in CONSTRUCTS if r.verdict is Acceptance.documented], ids=lambda row: row.key
)
def test_documented_constructs_pass_in_every_profile(row: Construct, tmp_path: Path) -> None:
    file = tmp_path / "kernel.py"
    if row.example.startswith(("class", "@")):
        file.write_text(KERNEL.format(body="C()") + row.example + "\n")
    else:
        file.write_text(KERNEL.format(body=_indented(row.example)))
    for profile in PROFILES:
        assert [str(d) for d in check_file(str(file), profile) if d.code == "NKI-L005"] == []


@pytest.mark.parametrize("row", BUILTINS.values(), ids=lambda row: row.name)
@pytest.mark.parametrize("profile", PROFILES)
def test_builtins(row: Builtin, profile: str, tmp_path: Path) -> None:
    assert hasattr(builtins, row.name)
    file = tmp_path / "kernel.py"
    file.write_text(KERNEL.format(body=row.name))
    found = [(d.code, d.severity) for d in check_file(str(file), profile)]
    severity = PROFILES[profile][row.verdict]
    assert found == ([("NKI-L005", severity)] if severity else [])
    assert row.instead or severity is not Severity.error or row.verdict is Acceptance.used
    assert (row.name in HOST_BUILTINS) == (row.verdict is not Acceptance.refused)


def test_builtins_outside_the_table_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "kernel.py"
    file.write_text(KERNEL.format(body="ZeroDivisionError"))
    (found,) = check_file(str(file))
    assert found.code == "NKI-L005" and "ZeroDivisionError" in found.message


# --- the whole text a person sees


@pytest.mark.parametrize(
    "row", [r for r in CONSTRUCTS if r.verdict is not Acceptance.documented], ids=lambda row: row.key
)
def test_text_of_a_construct(row: Construct, golden: Golden) -> None:
    text = golden(_with(row))
    assert row.title in text
    assert text == golden.snapshot


@pytest.mark.parametrize(
    "row", [r for r in BUILTINS.values() if r.verdict is not Acceptance.documented], ids=lambda row: row.name
)
def test_text_of_a_builtin(row: Builtin, golden: Golden) -> None:
    text = golden(KERNEL.format(body=f"return {row.name}"))
    assert row.name in text
    assert text == golden.snapshot
