"""The house: no file imports one that imports it, not even later, and no room one that stands above it.

The graph is read from the texts: imports at the top of a file and inside functions count alike, those for the
type checker do not. The order of floors and rooms is that of import-linter's contracts, in pyproject.toml.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

tomllib = pytest.importorskip("tomllib", reason="from Python 3.11 on")

ROOT = Path(__file__).parent.parent
FOLDERS = ("isa", ".", "frontend", "kernels")

Graph = Mapping[str, Collection[str]]


def texts(*folders: Path, packages: Collection[str]) -> dict[str, str]:
    """The files of `packages` in `folders` by module; a package is its ``__init__.py``."""
    found = {}
    for folder in folders:
        for package in packages:
            for path in sorted((folder / package).rglob("*.py")):
                parts = path.relative_to(folder).with_suffix("").parts
                name = ".".join(parts[:-1]) + ".__init__" if parts[-1] == "__init__" else ".".join(parts)
                found[name] = path.read_text(encoding="utf-8")
    return found


def graph_of(files: Mapping[str, str]) -> dict[str, set[str]]:
    """Which of `files` each imports."""
    return {name: {to for to in _imported(name, text, files) if to != name} for name, text in files.items()}


def _imported(name: str, text: str, files: Collection[str]) -> Iterator[str]:
    package = name.rpartition(".")[0]
    for node in _run(ast.parse(text)):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            dotted = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in dotted:
            while target:  # what is imported is a module, or a name in one
                found = next((f for f in (target, f"{target}.__init__") if f in files), None)
                if found:
                    yield found
                    break
                target = target.rpartition(".")[0]


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """Every node under `node` that may run: not what only the type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from (inner for other in child.orelse for inner in (other, *_run(other)))
        else:
            yield child
            yield from _run(child)


def circles(graph: Graph) -> list[set[str]]:
    """The groups of nodes that reach each other."""
    reach = {node: _reached(graph, node) for node in graph}
    found = [{b for b in reach[a] if a in reach[b]} for a in graph if a in reach[a]]
    return [group for k, group in enumerate(found) if group not in found[:k]]


def _reached(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    todo = [*graph[start]]
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo += graph.get(node, ())
    return seen


def rooms_of(graph: Graph, depth: int) -> dict[str, set[str]]:
    """The same between packages, by the first `depth` parts of each name."""

    def room(module: str) -> str:
        return ".".join(module.split(".")[:depth])

    found: dict[str, set[str]] = {}
    for module, imported in graph.items():
        found.setdefault(room(module), set()).update(room(to) for to in imported if room(to) != room(module))
    return found


def upward(graph: Graph, contract: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The imports that break a contract of layers, from the highest to the lowest."""
    found = []
    for container in contract.get("containers", [""]):
        ranks = {
            f"{container}.{room.strip()}".strip("."): rank
            for rank, layer in enumerate(contract["layers"])
            for room in layer.split("|")
        }
        for module, imported in graph.items():
            above = _rank(module, ranks)
            for to in imported:
                below = _rank(to, ranks)
                if above is not None and below is not None and below < above:
                    found.append((module, to))
    return found


def _rank(module: str, ranks: Mapping[str, int]) -> int | None:
    return next((rank for room, rank in ranks.items() if f"{module}.".startswith(f"{room}.")), None)


SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
LAYERS = {c["name"]: c for c in SETTINGS["contracts"] if c["type"] == "layers"}


@pytest.fixture(scope="module")
def house() -> dict[str, set[str]]:
    files = texts(*(ROOT / folder for folder in FOLDERS), packages=SETTINGS["root_packages"])
    assert {name.partition(".")[0] for name in files} == set(SETTINGS["root_packages"])
    graph = graph_of(files)
    assert sum(map(len, graph.values())) > 1500
    return graph


def test_no_circle_of_files(house: Graph) -> None:
    assert circles(house) == []


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_circle_of_rooms(house: Graph, depth: int) -> None:
    assert circles(rooms_of(house, depth)) == []


@pytest.mark.parametrize("name", LAYERS)
def test_no_arrow_upward(house: Graph, name: str) -> None:
    assert upward(house, LAYERS[name]) == []


def test_contracts_ignore_nothing() -> None:
    assert not any("ignore_imports" in contract for contract in SETTINGS["contracts"])


# --- the graph itself


def test_imports_inside_functions_count() -> None:
    files = {
        "p.__init__": "",
        "p.a": "from p.b import x\n",
        "p.b": "def f():\n    from p import a\n    return a\n",
    }
    assert circles(graph_of(files)) == [{"p.a", "p.b"}]


def test_imports_for_the_type_checker_do_not_count() -> None:
    guarded = "import typing\nif typing.TYPE_CHECKING:\n    from p import a\nelse:\n    from p import c\n"
    files = {"p.__init__": "", "p.a": "import p.b\n", "p.b": guarded, "p.c": ""}
    assert graph_of(files)["p.b"] == {"p.c"}
    assert circles(graph_of(files)) == []


def test_relative_imports() -> None:
    files = {
        "p.__init__": "from .q import r\n",
        "p.q.__init__": "",
        "p.q.r": "from .. import q\nfrom . import s\n",
    }
    files["p.q.s"] = "from ...p.q.r import x\n"
    graph = graph_of(files)
    assert graph == {
        "p.__init__": {"p.q.r"},
        "p.q.__init__": set(),
        "p.q.r": {"p.q.__init__", "p.q.s"},
        "p.q.s": {"p.q.r"},
    }


def test_a_circle_of_rooms_without_one_of_files() -> None:
    graph = {"p.a.x": {"p.b.x"}, "p.b.x": set(), "p.b.y": {"p.a.y"}, "p.a.y": set()}
    assert circles(graph) == []
    assert circles(rooms_of(graph, 2)) == [{"p.a", "p.b"}]


def test_an_arrow_upward_is_seen() -> None:
    graph = {"p.low.x": {"p.high"}, "p.high": {"p.low.x"}, "q": {"p.high"}}
    contract = {"containers": ["p"], "layers": ["high | other", "low"]}
    assert upward(graph, contract) == [("p.low.x", "p.high")]
    assert upward(graph, {"layers": ["q", "p"]}) == []
    assert upward(graph, {"layers": ["p", "q"]}) == [("q", "p.high")]
