"""The mutants that cosmic-ray makes of a package, and which of them stand in the sample.

A mutant's place in the sample hangs on a hash of what it is (file, definition, line, operator), not on its
number among all: a change elsewhere leaves it in.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.ast.ast_query import ASTQuery
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

PREFIX = "core/"  # of the names of cosmic-ray's own operators

# Left out: identity for equality and back. What the code compares by identity (types, enumerations, None) has
# equality that is the same; small numbers and short strings have identity that is. Linters find the mistakes.
LEFT_OUT = re.compile("ReplaceComparisonOperator_(Is_Eq|IsNot_NotEq|Eq_Is|NotEq_IsNot)")


@dataclass(frozen=True)
class Mutant:
    """One change that one of cosmic-ray's operators can make to one file."""

    file: Path
    operator: str
    occurrence: int  # among those of this operator in the file
    definition: str  # the function or class it stands in, if any
    first: int  # lines
    last: int
    line: str  # the first line, stripped
    twin: int  # among those of the same file, definition, line and operator

    @property
    def name(self) -> str:
        return f"{self.file} {self.definition or '-'} {self.operator} {self.twin} {self.line}"

    def rank(self, seed: int) -> str:
        return hashlib.sha256(f"{seed} {self.name}".encode()).hexdigest()

    def text(self) -> str | None:
        """The mutated file, or None where it is not Python or says the same."""
        source = self.file.read_text(encoding="utf-8")
        mutated = mutate_code(source, get_operator(PREFIX + self.operator)(), self.occurrence)
        return None if mutated is None or _behaviour(mutated) in (None, _behaviour(source)) else mutated


def changed_lines(before: str, after: str) -> tuple[str, str]:
    """The lines that differ, before and after, without spaces."""
    pairs = [(old, new) for old, new in zip(before.splitlines(), after.splitlines()) if old != new]
    old, new = zip(*pairs)
    return unspaced("".join(old)), unspaced("".join(new))


def unspaced(text: str) -> str:
    """`text` without spaces, of which mutants have others."""
    return "".join(text.split())


def sample(folders: list[Path], count: int, seed: int) -> Iterator[tuple[Mutant, str]]:
    """`count` mutants of the files of `folders`, drawn by `seed`, each with the mutated file's text."""
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    for mutant in sorted(_all(files), key=lambda mutant: mutant.rank(seed)):
        if count and (text := mutant.text()) is not None:
            count -= 1
            yield mutant, text


def _all(files: list[Path]) -> Iterator[Mutant]:
    names = [name for name in operator_names() if not get_operator(name).arguments()]
    operators = {name.removeprefix(PREFIX): get_operator(name)() for name in names}
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines()
        nodes = list(ast_nodes(get_ast_from_path(file)))
        twins: Counter[tuple[str, ...]] = Counter()
        for name, operator in operators.items():
            if LEFT_OUT.fullmatch(name):
                continue
            places = ((node, *place) for node in nodes for place in operator.mutation_positions(node))
            for occurrence, (node, start, end) in enumerate(places):
                definition = ASTQuery(node).get_definition_name() or ""
                kind = (definition, name, lines[start[0] - 1].strip())
                yield Mutant(file, name, occurrence, definition, start[0], end[0], kind[-1], twins[kind])
                twins[kind] += 1


class _Unsaid(ast.NodeTransformer):
    """Takes out what is never evaluated: annotations, under ``from __future__ import annotations``."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)  # type: ignore[return-value]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        return self.generic_visit(node)  # type: ignore[return-value]


@lru_cache(maxsize=64)
def _behaviour(source: str) -> str | None:
    try:
        return ast.dump(_Unsaid().visit(ast.parse(source)))
    except SyntaxError:
        return None
