"""A tile that is larger than SBUF."""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def overflow(a):
    result = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=a)
    nisa.dma_copy(dst=result, src=tile)
    return result


overflow(np.zeros((128, 64 * 1024), np.float32))
