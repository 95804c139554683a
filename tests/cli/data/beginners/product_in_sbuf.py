import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def mm(a, b):
    out = nl.ndarray((128, 512), dtype=a.dtype, buffer=nl.shared_hbm)
    at = nl.ndarray((128, 128), dtype=a.dtype, buffer=nl.sbuf)
    bt = nl.ndarray((128, 512), dtype=a.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=at, src=a)
    nisa.dma_copy(dst=bt, src=b)
    acc = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.nc_matmul(acc, at, bt)
    nisa.dma_copy(dst=out, src=acc)
    return out


mm(np.ones((128, 128), np.float32), np.ones((128, 512), np.float32))
