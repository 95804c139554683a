"""The corpus as cases: each kernel with what is expected of it, read from its own comments.

In a kernel whose name begins with ``defect``, ``# finds CODE [severity]`` marks the line a
finding points at, ``# with`` every further line it names, and ``# also CODE`` a second,
milder finding that comes with the defect. In one whose name begins with ``good``,
``# notes CODE`` marks a line that may be noted; nothing else may be said.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

HERE = Path(__file__).parent
MODULES = ("uninitialized", "overlap", "order", "aliasing", "psum", "results", "indices", "numeric", "nan")
"""The files of kernels, in the order of the documentation page."""


@dataclass(frozen=True)
class Case:
    """One kernel of the corpus.

    Attributes:
        module: its file's name.
        name: the kernel's name.
        kernel: the kernel.
        finds: (line, code, severity) of the planted defect, or None.
        lines: further lines its finding names.
        also: codes of further findings.
        notes: (line, code) that may be noted.
    """

    module: str
    name: str
    kernel: Any
    finds: tuple[int, str, str] | None
    lines: frozenset[int]
    also: frozenset[str]
    notes: frozenset[tuple[int, str]]

    @property
    def source(self) -> tuple[list[str], int]:
        """Its lines without the decorator, and the number of the first."""
        lines, first = inspect.getsourcelines(self.kernel.function)
        return lines[1:], first + 1

    @property
    def text(self) -> str:
        """What is wrong with it, or why nothing is."""
        return inspect.getdoc(self.kernel.function) or ""

    def arguments(self) -> list[Any]:
        """Fresh arrays for its parameters."""
        return [argument(name) for name in inspect.signature(self.kernel.function).parameters]


def argument(name: str) -> np.ndarray:
    """The array a parameter of this name gets."""
    rng = np.random.default_rng(0)
    rows = np.arange(128, dtype=np.int32)[:, None]
    return {
        "x": lambda: rng.standard_normal((128, 512), np.float32),
        "w": lambda: rng.standard_normal((128, 128), np.float32),
        "permutation": lambda: rows[::-1].copy(),
        "outside": lambda: np.where(rows == 7, 200, rows).astype(np.int32),
        "twice": lambda: np.where(rows == 7, 8, rows).astype(np.int32),
    }[name]()


def load(module: str) -> ModuleType:
    """The file of this name."""
    spec = importlib.util.spec_from_file_location(f"corpus_{module}", HERE / f"{module}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def cases() -> list[Case]:
    """Every kernel of the corpus, in order."""
    found = []
    for module in MODULES:
        for name, kernel in vars(load(module)).items():
            if name.startswith(("defect_", "good_")):
                found.append(_read(module, name, kernel))
    return found


def _read(module: str, name: str, kernel: Any) -> Case:
    source, first = inspect.getsourcelines(kernel.function)
    finds, lines, also, notes = None, set(), set(), set()
    for number, line in enumerate(source, first):
        mark = re.search(r"# (finds|with|also|notes)(?: (NKI-\w+))?(?: (\w+))?$", line.rstrip())
        if mark is None:
            continue
        kind, code, severity = mark.groups()
        if kind == "finds":
            finds = number, code, severity or "error"
        elif kind == "with":
            lines.add(number)
        elif kind == "also":
            also.add(code)
        else:
            notes.add((number, code))
    return Case(module, name, kernel, finds, frozenset(lines), frozenset(also), frozenset(notes))
