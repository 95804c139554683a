"""Kernels of modules that are gone can be collected, but for a bounded number: notebooks define them anew."""

import gc
import importlib.util
import sys
import weakref

import numpy as np

TEXT = """
import nki
import nki.isa as nisa
import nki.language as nl


class Sizes(nl.NKIObject):
    rows: int = 4

    def half(self):
        return self.rows // 2


def helper(x):
    return Sizes().half()


@nki.jit
def k(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out[0:helper(x)], src=x[0:helper(x)])
    nisa.dma_copy(dst=out[2:4], src=x[2:4])
    return out
"""
COUNT, KEPT = 280, 260


def test_most_kernels_go(tmp_path):
    alive = []
    for number in range(COUNT):
        path = tmp_path / f"kernel_{number}.py"
        path.write_text(f"{TEXT}# {number}\n")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        module.k(np.ones((4, 8), np.float32))
        alive.append(weakref.ref(module.k))
        del sys.modules[path.stem], module
    gc.collect()
    assert sum(kernel() is not None for kernel in alive) <= KEPT
