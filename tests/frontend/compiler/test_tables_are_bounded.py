"""A process that makes kernels without end does not grow without end: what is kept of them has a bound."""

import gc
import importlib.util
import pkgutil
import sys
import weakref
from collections.abc import Sized
from importlib import import_module

import numpy as np
import pytest

import nki
from nki.compiler.source.kept import Kept
from nki.compiler.syntax import parse
from nki.launch import prepare

Weak = weakref.WeakValueDictionary  # holds nothing by itself

TEXT = """
import nki
import nki.isa as nisa
import nki.language as nl


def rows(x):
    return x.shape[0]


@nki.jit
def copied(x):
    out = nl.ndarray((rows(x), {columns}), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((rows(x), {columns}), dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.dma_copy(dst=out, src=tile)
    return out
"""


def module_of(folder, number):
    """A new module with a kernel that no other module has."""
    path = folder / f"kernels_{number}.py"
    path.write_text(TEXT.format(columns=1 + number % 8) + f"# {number}\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    return module


def run(module, number):
    x = np.full((4, 1 + number % 8), number, np.float32)
    np.testing.assert_array_equal(module.copied(x), x)


def tables():
    """How many entries each container has that a module of the compiler, or of launches, holds."""
    found = {}
    for package in (nki.compiler, import_module("nki.launch")):
        for part in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = sys.modules.get(part.name)
            for name, value in vars(module).items() if module else ():
                if isinstance(value, Sized) and not isinstance(value, (str, bytes, tuple, type, Weak)):
                    found[f"{part.name}.{name}"] = value
    return found


def sizes():
    gc.collect()
    return {name: len(table) for name, table in tables().items()}


def test_no_table_grows(tmp_path, monkeypatch):
    few = 8  # of 30 kernels
    for table in tables().values():
        if isinstance(table, Kept):
            monkeypatch.setattr(table, "limit", few)
    monkeypatch.setattr(parse, "_REMEMBERED", few)
    monkeypatch.setattr(prepare.cache, "_limit", few)
    first = module_of(tmp_path, 0)
    run(first, 0)
    for number in range(1, 30):
        run(module_of(tmp_path, number), number)
    before = sizes()
    for number in range(30, 60):
        run(module_of(tmp_path, number), number)
    after = sizes()
    assert {name: after[name] for name in after if after[name] > max(few, before.get(name, 0))} == {}
    assert "nki.compiler.specializer.lower._lowered" in after
    run(first, 0)  # of which nothing is kept any more


@pytest.mark.slow
def test_two_thousand_kernels(tmp_path):
    known = 0
    for number in range(2000):
        run(module_of(tmp_path, number), number)
        if number == 1500:
            known = sum(sizes().values())
    assert sum(sizes().values()) <= known
    assert all(len(table) <= table.limit for table in tables().values() if isinstance(table, Kept))
