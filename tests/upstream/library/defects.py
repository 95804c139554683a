"""Defects of the published tree that keep its tests from running, and their repair in memory.

Each looks whether the checkout has it, so that a tree without it runs as it is.
"""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.upstream.library import standins

_ALIAS = ".must_alias_input"
_PACKAGE = "src/nkilib_src/nkilib"


@dataclass(frozen=True)
class Defect:
    """What is wrong with a tree, whether a checkout has it, and what makes up for it."""

    text: str
    found: Callable[[Path], bool]
    repair: Callable[[Path], None]


def present(checkout: Path) -> list[str]:
    """What is wrong with `checkout`."""
    return [defect.text for defect in DEFECTS if defect.found(checkout)]


def repair(checkout: Path) -> None:
    """Repair every defect that `checkout` has."""
    for defect in DEFECTS:
        if defect.found(checkout):
            defect.repair(checkout)


# --- a docstring that goes on after its end

_MLP = f"{_PACKAGE}/core/mlp/mlp.py"


def _without_repetition(source: str) -> str | None:
    """`source` with what stands between the docstring's end and the end of its repetition taken out."""
    lines = source.splitlines(keepends=True)
    ends = [k for k, line in enumerate(lines) if line.strip() == '"""']
    for k, end in enumerate(ends[:-1]):
        shorter = "".join(["\n" if end < i <= ends[k + 1] else line for i, line in enumerate(lines)])
        if _compiles(shorter):
            return shorter
    return None


def _compiles(source: str) -> bool:
    try:
        compile(source, "?", "exec")
    except SyntaxError:
        return False
    return True


class _Repaired(importlib.abc.MetaPathFinder):
    """Loads one module from a repaired source, which linecache shows in place of the file's."""

    def __init__(self, module: str, path: Path, source: str):
        self._module, self._path, self._source = module, str(path), source

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._module:
            return None
        lines = self._source.splitlines(keepends=True)
        linecache.cache[self._path] = (len(self._source), None, lines, self._path)
        return importlib.util.spec_from_file_location(
            name, self._path, loader=_Loader(name, self._path, self._source)
        )


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, source: str):
        super().__init__(name, path)
        self._source = source

    def get_data(self, path: str) -> bytes:
        return self._source.encode()

    def get_source(self, fullname: str) -> str:
        return self._source

    def path_stats(self, path: str) -> dict[str, float]:
        raise OSError("a repaired source is not cached")


def _repair_mlp(checkout: Path) -> None:
    path = checkout / _MLP
    source = _without_repetition(path.read_text())
    if source is not None:
        sys.meta_path.insert(0, _Repaired("nkilib_src.nkilib.core.mlp.mlp", path, source))


# --- a module that is used and not imported

_MLP_PARAMETERS = f"{_PACKAGE}/core/mlp/mlp_parameters.py"


def _with_math(source: str) -> str:
    """`source` with the import in place of the empty line before the others: all lines keep their numbers."""
    return source.replace("\n\nfrom dataclasses import", "\nimport math\nfrom dataclasses import", 1)


def _import_math(checkout: Path) -> None:
    path = checkout / _MLP_PARAMETERS
    module = "nkilib_src.nkilib.core.mlp.mlp_parameters"
    sys.meta_path.insert(0, _Repaired(module, path, _with_math(path.read_text())))


# --- modules and attributes that are missing


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of a package in another one, where the package is not."""

    def __init__(self, old: str, new: str):
        self._old, self._new = old, new

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        inside = name == self._old or name.startswith(f"{self._old}.")
        return importlib.util.spec_from_loader(name, self) if inside else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return importlib.import_module(self._new + spec.name.removeprefix(self._old))

    def exec_module(self, module: ModuleType) -> None:
        pass


def _move_topk_reduce(checkout: Path) -> None:
    package = "nkilib_src.nkilib.experimental"
    sys.meta_path.append(_Moved(f"{package}.subkernels", f"{package}.collectives"))


def _name_platforms(checkout: Path) -> None:
    class Platforms:
        """Looked up when it is used: the test utilities are not importable yet."""

        def __getattr__(self, name: str) -> object:
            from test.utils.common_dataclasses import Platforms as real

            return getattr(real, name)

    builtins.Platforms = Platforms()  # type: ignore[attr-defined]


def repair_utilities() -> None:
    """Repair the test utilities, once they are imported."""
    if importlib.util.find_spec("test.utils.unit_test_framework") is None:
        return  # older than what is repaired
    from test.utils.test_orchestrator import Orchestrator
    from test.utils.unit_test_framework import UnitTestFramework

    if hasattr(Orchestrator, "_compiled_kernel"):
        return
    Orchestrator._compiled_kernel = None
    original = UnitTestFramework.__init__

    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        describe = self.output_tensor_descriptor
        self.output_tensor_descriptor = lambda inputs: describe(_Inputs(inputs))

    UnitTestFramework.__init__ = made


class _Inputs(dict[str, Any]):
    """A kernel's inputs: one that the kernel writes is found under its plain name, too."""

    def __missing__(self, name: str) -> Any:
        return self[f"{name}{_ALIAS}"] if not name.endswith(_ALIAS) else super().__getitem__(name)


def _lacks_import(path: Path, name: str) -> bool:
    if not path.exists():
        return False
    text = path.read_text()
    head = text.partition("\nclass ")[0]
    return f"{name}." in text and f"    {name},\n" not in head and f"import {name}" not in head


_QKV_TEST = "test/integration/nkilib/core/qkv/test_qkv_tkg.py"
_TOPK_TEST = "test/integration/nkilib/experimental/subkernels/test_topk_reduce.py"

_MASK_TEST = "test/integration/nkilib/core/attention/test_gen_mask_tkg.py"


def _later(checkout: Path) -> None:
    """Repaired by :func:`repair_utilities`, when the module is there."""


DEFECTS = (
    Defect(
        "core/mlp/mlp.py is a syntax error: part of a docstring stands after its end; left out",
        lambda root: not _compiles((root / _MLP).read_text()),
        _repair_mlp,
    ),
    Defect(
        "core/mlp/mlp_parameters.py uses math without importing it; the import is added",
        lambda root: _lacks_import(root / _MLP_PARAMETERS, "math"),
        _import_math,
    ),
    Defect(
        "test/utils/perf_analysis_private.py is imported and not published; an empty one is given",
        lambda root: not (root / "test/utils/perf_analysis_private.py").exists(),
        lambda root: standins.provide("test.utils.perf_analysis_private"),
    ),
    Defect(
        "test/utils/scripts is imported and not published; an empty one is given",
        lambda root: not (root / "test/utils/scripts").exists(),
        lambda root: standins.provide("test.utils.scripts"),
    ),
    Defect(
        "test_topk_reduce.py imports from experimental/subkernels, its kernel is in collectives; found there",
        lambda root: (
            (root / _TOPK_TEST).exists()
            and not (root / _PACKAGE / "experimental/subkernels/topk_reduce.py").exists()
        ),
        _move_topk_reduce,
    ),
    Defect(
        "test_qkv_tkg.py uses Platforms without importing it; given as a built-in name",
        lambda root: _lacks_import(root / _QKV_TEST, "Platforms"),
        _name_platforms,
    ),
    Defect(
        "test_orchestrator.py reads Orchestrator._compiled_kernel, which no simulation sets; set to None",
        lambda root: "self._compiled_kernel" in (root / "test/utils/test_orchestrator.py").read_text(),
        _later,
    ),
    Defect(
        "test_gen_mask_tkg.py looks up mask_out_hbm, its input is mask_out_hbm.must_alias_input; found there",
        lambda root: (
            'kernel_input["mask_out_hbm"]' in (root / _MASK_TEST).read_text()
            and (root / "test/utils/unit_test_framework.py").exists()
        ),
        _later,
    ),
)
