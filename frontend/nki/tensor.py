"""``nki.tensor`` of NKI 0.2: arrays known when a kernel is compiled, the input of ``nl.shared_constant``.

They are numpy arrays, so arithmetic works on them. Source: stub of Neuron 2.28, ``nl.shared_constant``.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nki.levels import dtype_named
from nki_isa.machine.dtypes import DTYPES
from nki_isa.tensor.constants import cast_constant


def identity(n: int, dtype: Any = DTYPES["uint8"]) -> np.ndarray:
    """The `n` by `n` identity."""
    return cast_constant(np.eye(n, dtype=np.float32), dtype_named(dtype))


def zeros(shape: Sequence[int], dtype: Any = DTYPES["float32"]) -> np.ndarray:
    """Zeros of `shape`."""
    return cast_constant(np.zeros(tuple(shape), np.float32), dtype_named(dtype))


def arange(start: int, stop: int | None = None, step: int = 1, dtype: Any = DTYPES["int32"]) -> np.ndarray:
    """`start`, `start + step`, ... before `stop`; from 0 to `start` without `stop`."""
    bounds = (0, start) if stop is None else (start, stop)
    return cast_constant(np.arange(*bounds, step), dtype_named(dtype))


__all__ = ["arange", "identity", "zeros"]
