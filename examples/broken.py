"""A kernel with one mistake of each common kind, to see what the checker says:

nki-sim check examples/broken.py
"""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def broken(a, b):
    """Meant to compute relu(a.T @ b); does not compile."""
    K, M = a.shape
    N = b.shape[1]
    result = nl.ndarray((M, N), dtype=a.dtype, buffer=nl.shared_hbm)

    stationary = nl.ndarray((K, M), dtype=a.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=stationary, scr=a)

    moving = nl.load_tile(b)

    product = nl.ndarray((M, N), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(stationary=stationary, moving=moving)

    try:
        nisa.tensor_scalar(dst=product, data=product, op0=nl.maximum, operand0=0.0)
    finally:
        print("clipped")

    columns = [n for n in range(N)]
    out = nl.ndarray((M, len(columns)), dtype=a.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=out, src=prodct)
    nisa.dma_copy(dst=result, src=out)
    return result


if __name__ == "__main__":
    broken(np.ones((128, 128), np.float32), np.ones((128, 512), np.float32))
