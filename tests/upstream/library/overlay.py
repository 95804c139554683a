"""Lays this project's kernel library over the vendor's, so that the vendor's tests run our kernels.

Whoever imports ``nkilib_src.nkilib.X`` gets the vendor's module with every public name of our ``nkilib.X`` in
the place of its own: an enumeration, a configuration or a :class:`TensorView` is the same for test, reference
and kernel. References (``*_torch``), private names, and what we do not have stay the vendor's.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Any

from nki.kernel import Kernel

_THEIRS, _OURS = "nkilib_src.nkilib", "nkilib"


def install() -> None:
    """Let imports from here on find the laid-over modules."""
    sys.meta_path.insert(0, _Finder())


def ours(kernel: Any, depth: int = 6) -> bool:
    """True if a kernel, or what a wrapper of a test reaches, is a kernel of this project."""
    function = kernel.function if isinstance(kernel, Kernel) else kernel
    if not isinstance(function, FunctionType) or depth == 0:
        return False
    module = function.__module__
    if module.startswith((f"{_OURS}.", f"{_THEIRS}.")):
        return module.startswith(f"{_OURS}.")
    reached = (function.__globals__.get(name) for name in function.__code__.co_names)
    return any(ours(value, depth - 1) for value in reached if isinstance(value, (Kernel, FunctionType)))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the vendor's modules where they are, with a loader that lays ours over them."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not f"{name}.".startswith(f"{_THEIRS}.") or name.endswith("_torch"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        mine = _OURS + name.removeprefix(_THEIRS)
        if spec is None or spec.loader is None or not _exists(mine):
            return spec
        spec.loader = _Loader(spec.loader, mine)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, theirs: Any, mine: str):
        self._theirs = theirs
        self._mine = mine

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._theirs.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        self._theirs.exec_module(module)
        vars(module).update(_public(importlib.import_module(self._mine)))


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a package on the way
        return False


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        if not name.startswith("_") and not isinstance(value, ModuleType):
            yield name, value
