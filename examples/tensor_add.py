"""Adding two tensors: the smallest complete kernel.

A kernel moves data from HBM into SBUF (at most 128 partitions at a time), computes
there, and moves the result back. Tensors larger than a tile are walked in tiles;
tiles are independent, so loads, additions and stores of different tiles overlap.
"""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl

TILE_F = 512  # elements of the free dimension per tile: 2 KiB rows keep the DMA engines busy


@nki.jit
def tensor_add(a, b):
    """Element-wise sum of two [rows, columns] tensors of one dtype."""
    assert a.shape == b.shape, f"shapes differ: {a.shape} and {b.shape}"
    assert a.dtype == b.dtype, f"dtypes differ: {a.dtype} and {b.dtype}"
    rows, columns = a.shape
    result = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    for r in range((rows + nl.tile_size.pmax - 1) // nl.tile_size.pmax):
        first = r * nl.tile_size.pmax
        height = min(nl.tile_size.pmax, rows - first)
        for c in range((columns + TILE_F - 1) // TILE_F):
            left = c * TILE_F
            width = min(TILE_F, columns - left)
            here = (nl.ds(first, height), nl.ds(left, width))
            a_tile = nl.ndarray((height, width), dtype=a.dtype, buffer=nl.sbuf)
            b_tile = nl.ndarray((height, width), dtype=b.dtype, buffer=nl.sbuf)
            sum_tile = nl.ndarray((height, width), dtype=a.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=a_tile, src=a[here])
            nisa.dma_copy(dst=b_tile, src=b[here])
            nisa.tensor_tensor(dst=sum_tile, data1=a_tile, data2=b_tile, op=nl.add)
            nisa.dma_copy(dst=result[here], src=sum_tile)
    return result


def reference(a, b):
    """numpy's sum."""
    return a + b


def main():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((300, 1200), np.float32)
    b = rng.standard_normal((300, 1200), np.float32)
    np.testing.assert_array_equal(tensor_add(a, b), reference(a, b))
    print("tensor_add: equal to numpy")


if __name__ == "__main__":
    main()
