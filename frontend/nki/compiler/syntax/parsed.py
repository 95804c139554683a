"""What parsing a text gives, and room to go through it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from nki.compiler.syntax import tree
from nki_isa.diagnostics import Diagnostic
from nki_sim.process import Shared

RECURSION = 8000  # calls; Python 3.10 has no more room for them on a stack of 8 MiB


@dataclass(frozen=True, slots=True)
class ParseResult:
    """What became of a text.

    Attributes:
        tree: the statements without mistakes; None only if the text is nested too deeply for the parser.
        diagnostics: every mistake found, in the order of the text.
        tokens: how many tokens the text has.
    """

    tree: tree.Module | None
    diagnostics: tuple[Diagnostic, ...]
    tokens: int


def _room() -> Callable[[], None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, RECURSION))
    return lambda: sys.setrecursionlimit(before)


deep_recursion = Shared(_room)
"""Room for going through a tree: some twenty calls for each pair of brackets, a few for each step."""

__all__ = ["ParseResult", "deep_recursion"]
