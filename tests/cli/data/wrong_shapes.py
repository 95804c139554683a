"""Several instructions whose operands do not fit each other."""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


def multiply(dst, left, right):
    nisa.nc_matmul(
        dst=dst,
        stationary=left,
        moving=right,
    )


@nki.jit
def wrong_shapes(a, b):
    left = nl.ndarray((64, 128), dtype=a.dtype, buffer=nl.sbuf)
    right = nl.ndarray((128, 512), dtype=b.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=left, src=a)
    nisa.dma_copy(dst=right, src=b)
    product = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
    multiply(product, left, right)
    nisa.tensor_copy(dst=left, src=product)
    return a


if __name__ == "__main__":
    wrong_shapes(np.ones((128, 128), np.float32), np.ones((128, 512), np.float32))
