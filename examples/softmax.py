"""Softmax over rows.

Rows lie on partitions, so the reductions run along the free dimension: the vector
engine finds each row's maximum, the scalar engine computes exp(x - max) and its sum
in the same pass (the activation's reduction), and one multiplication by the
reciprocal finishes.
"""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def softmax(x):
    """Softmax of each row of [rows, columns]; a row fits in one SBUF partition."""
    rows, columns = x.shape
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for r in range((rows + nl.tile_size.pmax - 1) // nl.tile_size.pmax):
        height = min(nl.tile_size.pmax, rows - r * nl.tile_size.pmax)
        here = nl.ds(r * nl.tile_size.pmax, height)
        tile = nl.ndarray((height, columns), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[here])

        negative_max = nl.ndarray((height, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(dst=negative_max, op=nl.maximum, data=tile, axis=1, negate=True)

        exponentials = nl.ndarray((height, columns), dtype=nl.float32, buffer=nl.sbuf)
        total = nl.ndarray((height, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation_reduce(
            dst=exponentials, op=nl.exp, data=tile, bias=negative_max, reduce_op=nl.add, reduce_res=total
        )

        share = nl.ndarray((height, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.reciprocal(dst=share, data=total)
        out = nl.ndarray((height, columns), dtype=x.dtype, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=out, data=exponentials, op0=nl.multiply, operand0=share)
        nisa.dma_copy(dst=result[here], src=out)
    return result


def reference(x):
    """The same, with the maximum taken off first."""
    exponentials = np.exp(x - x.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def main():
    x = np.random.default_rng(0).standard_normal((200, 1000), np.float32)
    np.testing.assert_allclose(softmax(x), reference(x), rtol=1e-5, atol=1e-7)
    print("softmax: equal to numpy within fp32 rounding")


if __name__ == "__main__":
    main()
