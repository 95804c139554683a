"""RMSNorm: each row divided by the root of its mean square, times a weight.

The scalar engine squares and sums in one pass. The weight is one value per column,
so every partition needs the whole of it: a DMA with a partition stride of 0 in HBM
copies the same row to all partitions.
"""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def rmsnorm(x, weight, epsilon=1e-6):
    """x / sqrt(mean(x^2) + epsilon) * weight for each row of [rows, columns]."""
    rows, columns = x.shape
    assert weight.shape == (columns,), f"weight has shape {weight.shape}, expected ({columns},)"
    result = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)

    weights = nl.ndarray((nl.tile_size.pmax, columns), dtype=weight.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=weights, src=weight.expand_dim(0).broadcast(0, nl.tile_size.pmax))

    for r in range((rows + nl.tile_size.pmax - 1) // nl.tile_size.pmax):
        height = min(nl.tile_size.pmax, rows - r * nl.tile_size.pmax)
        here = nl.ds(r * nl.tile_size.pmax, height)
        tile = nl.ndarray((height, columns), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[here])

        squares = nl.ndarray((height, columns), dtype=nl.float32, buffer=nl.sbuf)
        total = nl.ndarray((height, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation_reduce(dst=squares, op=nl.square, data=tile, reduce_op=nl.add, reduce_res=total)

        # 1 / sqrt(total / columns + epsilon): the scalar engine scales and adds for free.
        offset = nl.ndarray((height, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=offset, value=epsilon)
        scale = nl.ndarray((height, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=scale, op=nl.rsqrt, data=total, scale=1.0 / columns, bias=offset)

        out = nl.ndarray((height, columns), dtype=x.dtype, buffer=nl.sbuf)
        nisa.scalar_tensor_tensor(
            dst=out, data=tile, op0=nl.multiply, operand0=scale, op1=nl.multiply, operand1=weights[0:height]
        )
        nisa.dma_copy(dst=result[here], src=out)
    return result


def reference(x, weight, epsilon=1e-6):
    """The formula, in float32."""
    return x / np.sqrt(np.mean(np.square(x), axis=1, keepdims=True) + np.float32(epsilon)) * weight


def main():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 768), np.float32)
    weight = rng.standard_normal(768, np.float32)
    np.testing.assert_allclose(rmsnorm(x, weight), reference(x, weight), rtol=1e-4, atol=1e-5)
    print("rmsnorm: equal to numpy within fp32 rounding")


if __name__ == "__main__":
    main()
