"""Each of two cores doubles its half of the columns."""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def halves(a):
    result = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    columns = a.shape[1] // nl.num_programs()
    mine = nl.ds(nl.program_id(0) * columns, columns)
    tile = nl.ndarray((a.shape[0], columns), dtype=a.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=a[:, mine])
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=result[:, mine], src=tile)
    return result


doubled = halves[2](np.ones((128, 64), np.float32))
assert (doubled == 2.0).all()
