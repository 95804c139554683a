"""A parsed text: its definitions, its imports, the names that its statements bind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nki.compiler.source import source
from nki.compiler.source.kept import Kept
from nki.compiler.syntax import symbols, tree
from nki.compiler.syntax.node import Node, children, walk
from nki.compiler.syntax.parse import parse
from nki_isa.diagnostics import Diagnostic
from nki_sim.process import lazy


@dataclass(eq=False)
class SourceFile:
    """A parsed text: its tree, its definitions by (name, first line), its mistakes."""

    name: str
    text: str

    @lazy
    def _parsed(self) -> Any:
        return parse(self.text, self.name)

    @lazy
    def lines(self) -> list[str]:
        """The text by line."""
        return self.text.splitlines()

    @property
    def module(self) -> tree.Module:
        """Its statements."""
        return self._parsed.tree or tree.Module([], [])

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Its mistakes of syntax."""
        return self._parsed.diagnostics

    @lazy
    def imports(self) -> list[tuple[tree.Import | tree.ImportFrom, str, str]]:
        """Its import statements, as :func:`imports_in` gives them."""
        return list(imports_in(self.module))

    @lazy
    def definitions(self) -> dict[tuple[str, int], tree.FunctionDef | tree.ClassDef]:
        """Every function and class, by name and first line."""
        kinds = (tree.FunctionDef, tree.ClassDef)
        return {(n.name, source.first_line(n)): n for n in walk(self.module) if isinstance(n, kinds)}

    @lazy
    def classes(self) -> dict[str, tree.ClassDef]:
        """The classes at the top of the text, and those inside them, by qualified name."""
        return dict(_classes(self.module.body, ""))


def _classes(body: Iterable[Node], prefix: str) -> Iterator[tuple[str, tree.ClassDef]]:
    for node in body:
        if isinstance(node, tree.ClassDef):
            yield prefix + node.name, node
            yield from _classes(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, (tree.If, tree.Try, tree.With)):
            yield from _classes(children(node), prefix)


def imports_in(part: Node) -> Iterator[tuple[tree.Import | tree.ImportFrom, str, str]]:
    """The import statements in a tree: the statement, the top package it names, the name it binds."""
    for node in walk(part):
        if isinstance(node, tree.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield node, top, alias.asname or top
        elif isinstance(node, tree.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield node, node.module.partition(".")[0], alias.asname or alias.name


_files: Kept[str, SourceFile] = Kept(1024)


def source_file(name: str, text: str) -> SourceFile:
    """The parsed `text`; the same object as long as the text stays the same."""
    found = _files.get(name)
    if found is None or found.text != text:
        found = _files[name] = SourceFile(name, text)
    return found


@dataclass(slots=True, eq=False)
class Imported(Node):
    """What one name of an import statement stands for: a module, or `name` in it."""

    module: str
    name: str | None
    level: int


def bindings_in(body: Iterable[Node]) -> Iterator[tuple[str, Node]]:
    for node in body:
        if isinstance(node, (tree.FunctionDef, tree.ClassDef)):
            yield node.name, node
        elif isinstance(node, tree.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield alias.asname or top, Imported(alias.name if alias.asname else top, None, 0)
        elif isinstance(node, tree.ImportFrom):
            for alias in node.names:
                if alias.name != "*":
                    yield alias.asname or alias.name, Imported(node.module or "", alias.name, node.level)
        elif (
            isinstance(node, tree.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], tree.Name)
        ):
            yield node.targets[0].id, node
        elif isinstance(node, tree.expr):
            continue
        else:
            for child in walk(node):
                if isinstance(child, tree.Name) and isinstance(child.ctx, symbols.Store):
                    yield child.id, child
            if not isinstance(node, (tree.Assign, tree.AugAssign, tree.AnnAssign)):
                yield from bindings_in(children(node))
