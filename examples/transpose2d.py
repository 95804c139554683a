"""Transposing the two free dimensions of a tensor.

Within a partition a transpose is an access pattern, not a computation: the copy
reads with swapped strides. Each partition holds a [rows, columns] matrix and leaves
with a [columns, rows] one.
"""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def transpose2d(matrices):
    """Transpose every matrix of [partitions, rows, columns]; partitions at most 128."""
    partitions, rows, columns = matrices.shape
    result = nl.ndarray((partitions, columns, rows), dtype=matrices.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray((partitions, rows, columns), dtype=matrices.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=matrices)
    turned = nl.ndarray((partitions, columns, rows), dtype=matrices.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=turned, src=tile.permute((0, 2, 1)))
    nisa.dma_copy(dst=result, src=turned)
    return result


def reference(matrices):
    """numpy's transpose of the last two axes."""
    return matrices.transpose(0, 2, 1)


def main():
    matrices = np.arange(128 * 30 * 40, dtype=np.int32).reshape(128, 30, 40)
    np.testing.assert_array_equal(transpose2d(matrices), reference(matrices))
    print("transpose2d: equal to numpy")


if __name__ == "__main__":
    main()
