"""The complete kernels that the vendor's documentation prints, read from a checkout of its SDK repository."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from nki import levels
from nki_isa.diagnostics import NkiError

_BLOCK = re.compile(r"^(\s*)(?:\.\. code(?:-block)?::.*|.*::)\s*$")
_OPTION = re.compile(r"^\s*:[\w-]+:")
_KERNEL = re.compile(r"^@nki\.jit\b.*\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
_BETA1 = re.compile(r"\bneuronxcc\b|\bnki\.compiler\b|\bncc\.|\bmgrid\b")

HEADER = """\
import math
import numpy as np
import nki
import nki.isa as nisa
import nki.language as nl
from nki.language import NKIObject
"""
"""What the pages take for granted."""


@dataclass(frozen=True)
class Documented:
    """A block of code with kernels.

    Attributes:
        page: its file, relative to the folder ``nki`` of the SDK.
        line: where the block begins.
        text: the block, or the whole file.
        names: the kernels in it; the second of a name on a page is ``name#2``.
    """

    page: str
    line: int
    text: str
    names: tuple[str, ...]

    @property
    def is_beta1(self) -> bool:
        """Whether it is written for Beta 1."""
        return _BETA1.search(self.text) is not None

    @property
    def source(self) -> str:
        """The text with the imports that its page takes for granted."""
        return self.text if re.search(r"^import nki$", self.text, re.MULTILINE) else HEADER + self.text


def documented(sdk: Path) -> Iterator[Documented]:
    """Every block and example file with a kernel, in the order of the pages."""
    root = sdk / "nki"
    for path in sorted(root.rglob("*")):
        page = path.relative_to(root).as_posix()
        if page.startswith(("test/", "_ext/")) or path.suffix not in (".rst", ".py"):
            continue
        text = path.read_text("utf-8", errors="replace")
        in_docstrings = page.startswith("api/") and path.suffix == ".py"
        is_printed = in_docstrings or path.suffix == ".rst"
        seen: Counter[str] = Counter()
        for line, block in _blocks(text, in_docstrings) if is_printed else [(1, text)]:
            told = []
            for name in _KERNEL.findall(block):
                seen[name] += 1
                told.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
            if told:
                yield Documented(page, line, block, tuple(told))


def _blocks(text: str, in_docstrings: bool) -> Iterator[tuple[int, str]]:
    """The blocks of code of a page, each with its line; in a docstring the last ends where that does."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        at += 1
        opened = _BLOCK.match(lines[at - 1])
        if opened is None:
            continue
        body = []
        for line in lines[at:]:
            if line.strip() and len(line) - len(line.lstrip()) <= len(opened[1]):
                break
            body.append("" if _OPTION.match(line) else line)
        block, _, _ = "\n".join(body).partition('"""' if in_docstrings else "\0")
        yield at, textwrap.dedent(block).strip("\n") + "\n"


class Leveled:
    """The kernels of a module, each run at the newest level of the API that takes it.

    A version of the documentation shows kernels of several releases. What no level takes raises what the
    newest refuses it with.

    Args:
        load: makes the module anew, with the names of the level in force.
    """

    def __init__(self, load: Callable[[], ModuleType]):
        self._load = load

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            refusals = []
            for level in reversed(levels.LEVELS):
                before = levels.use(level)
                try:
                    return getattr(self._load(), name)(*args)
                except NkiError as refused:
                    refusals.append(refused)
                finally:
                    levels.use(before)
            raise refusals[0]

        return call
