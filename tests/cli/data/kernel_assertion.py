"""A kernel whose own assertion fails, on a value of the function around it."""

import numpy as np

import nki
import nki.language as nl


def make(columns):
    @nki.jit
    def kernel(a):
        assert a.shape[1] == columns, f"a has {a.shape[1]} columns, not {columns}"
        return nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)

    return kernel


make(32)(np.ones((128, 64), np.float32))
