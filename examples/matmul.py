"""Matrix multiplication in five steps of optimisation.

The tensor engine multiplies a stationary [128 x 128] tile by a moving [128 x 512]
tile into PSUM. Everything else about a fast matmul is data movement: each step
below does the same arithmetic and moves less. Run it and compare the times:

    nki-sim profile examples/matmul.py

Step 1 is a single tile; the others run on 1024 x 1024 matrices, the last also on 2048 x 2048.
All kernels take the left operand transposed, as the engine wants it: ``lhsT`` is
[K, M], ``rhs`` is [K, N], the result [M, N].
"""

import ml_dtypes
import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl

TILE_M = 128  # free size of the stationary operand
TILE_K = 128  # partitions: the contraction
TILE_N = 512  # free size of the moving operand: one PSUM bank of fp32


@nki.jit
def matmul_one_tile(lhsT, rhs):
    """Step 1: one tile of each. [128, 128] by [128, 512]."""
    K, M = lhsT.shape
    K2, N = rhs.shape
    assert K == K2 == TILE_K and M <= TILE_M and N <= TILE_N
    result = nl.ndarray((M, N), dtype=lhsT.dtype, buffer=nl.shared_hbm)
    stationary = nl.ndarray((K, M), dtype=lhsT.dtype, buffer=nl.sbuf)
    moving = nl.ndarray((K, N), dtype=rhs.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=stationary, src=lhsT)
    nisa.dma_copy(dst=moving, src=rhs)
    product = nl.ndarray((M, N), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=product, stationary=stationary, moving=moving)
    store_tile(result, product)
    return result


def store_tile(dst, product):
    """PSUM cannot go to HBM directly: cast it into SBUF, then copy out."""
    tile = nl.ndarray(product.shape, dtype=dst.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=tile, src=product)
    nisa.dma_copy(dst=dst, src=tile)


def load_tile(src):
    """A tile of HBM in SBUF."""
    tile = nl.ndarray(src.shape, dtype=src.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=src)
    return tile


def check_shapes(lhsT, rhs, block_m, block_n, block_k):
    """Every kernel below wants whole blocks; says which size does not fit."""
    K, M = lhsT.shape
    K2, N = rhs.shape
    assert K == K2, f"the contraction sizes differ: lhsT has {K}, rhs has {K2}"
    assert M % block_m == 0, f"M is {M}, not a multiple of {block_m}"
    assert N % block_n == 0, f"N is {N}, not a multiple of {block_n}"
    assert K % block_k == 0, f"K is {K}, not a multiple of {block_k}"
    return M, N, K


@nki.jit
def matmul_tiled(lhsT, rhs):
    """Step 2: loop over tiles; every product loads both of its operands again."""
    M, N, K = check_shapes(lhsT, rhs, TILE_M, TILE_N, TILE_K)
    result = nl.ndarray((M, N), dtype=lhsT.dtype, buffer=nl.shared_hbm)
    for m in range(M // TILE_M):
        rows = nl.ds(m * TILE_M, TILE_M)
        for n in range(N // TILE_N):
            columns = nl.ds(n * TILE_N, TILE_N)
            product = nl.ndarray((TILE_M, TILE_N), dtype=nl.float32, buffer=nl.psum)
            for k in range(K // TILE_K):
                contraction = nl.ds(k * TILE_K, TILE_K)
                stationary = load_tile(lhsT[contraction, rows])
                moving = load_tile(rhs[contraction, columns])
                nisa.nc_matmul(dst=product, stationary=stationary, moving=moving)
            store_tile(result[rows, columns], product)
    return result


@nki.jit
def matmul_hoisted(lhsT, rhs):
    """Step 3: keep a column of stationary tiles in SBUF for a whole row of results."""
    M, N, K = check_shapes(lhsT, rhs, TILE_M, TILE_N, TILE_K)
    result = nl.ndarray((M, N), dtype=lhsT.dtype, buffer=nl.shared_hbm)
    for m in range(M // TILE_M):
        rows = nl.ds(m * TILE_M, TILE_M)
        stationary = []
        for k in range(K // TILE_K):
            stationary.append(load_tile(lhsT[nl.ds(k * TILE_K, TILE_K), rows]))
        for n in range(N // TILE_N):
            columns = nl.ds(n * TILE_N, TILE_N)
            product = nl.ndarray((TILE_M, TILE_N), dtype=nl.float32, buffer=nl.psum)
            for k in range(K // TILE_K):
                moving = load_tile(rhs[nl.ds(k * TILE_K, TILE_K), columns])
                nisa.nc_matmul(dst=product, stationary=stationary[k], moving=moving)
            store_tile(result[rows, columns], product)
    return result


@nki.jit
def matmul_blocked_free(lhsT, rhs, tiles_m=2, tiles_n=2):
    """Step 4: block both free dimensions, so that every loaded tile is used several times."""
    block_m, block_n = TILE_M * tiles_m, TILE_N * tiles_n
    M, N, K = check_shapes(lhsT, rhs, block_m, block_n, TILE_K)
    result = nl.ndarray((M, N), dtype=lhsT.dtype, buffer=nl.shared_hbm)
    for m in range(M // block_m):
        stationary = []
        for k in range(K // TILE_K):
            stationary.append(load_tile(lhsT[nl.ds(k * TILE_K, TILE_K), nl.ds(m * block_m, block_m)]))
        for n in range(N // block_n):
            moving = []
            for k in range(K // TILE_K):
                moving.append(load_tile(rhs[nl.ds(k * TILE_K, TILE_K), nl.ds(n * block_n, block_n)]))
            for i in range(tiles_m):
                for j in range(tiles_n):
                    product = nl.ndarray((TILE_M, TILE_N), dtype=nl.float32, buffer=nl.psum)
                    for k in range(K // TILE_K):
                        nisa.nc_matmul(
                            dst=product,
                            stationary=stationary[k][:, nl.ds(i * TILE_M, TILE_M)],
                            moving=moving[k][:, nl.ds(j * TILE_N, TILE_N)],
                        )
                    rows = nl.ds(m * block_m + i * TILE_M, TILE_M)
                    columns = nl.ds(n * block_n + j * TILE_N, TILE_N)
                    store_tile(result[rows, columns], product)
    return result


@nki.jit
def matmul_blocked(lhsT, rhs, tiles_m=16, tiles_n=2, tiles_k=8):
    """Step 5: block the contraction too; partial sums stay in SBUF, loads are long."""
    block_m, block_n, block_k = TILE_M * tiles_m, TILE_N * tiles_n, TILE_K * tiles_k
    M, N, K = check_shapes(lhsT, rhs, block_m, block_n, block_k)
    result = nl.ndarray((M, N), dtype=lhsT.dtype, buffer=nl.shared_hbm)
    for n in range(N // block_n):
        columns = nl.ds(n * block_n, block_n)
        sums = []
        for _ in range(M // TILE_M):
            sums.append(nl.ndarray((TILE_M, block_n), dtype=nl.float32, buffer=nl.sbuf))
        for k in range(K // block_k):
            moving = []
            for i in range(tiles_k):
                moving.append(load_tile(rhs[nl.ds(k * block_k + i * TILE_K, TILE_K), columns]))
            for m in range(M // block_m):
                stationary = []
                for i in range(tiles_k):
                    rows = nl.ds(k * block_k + i * TILE_K, TILE_K)
                    stationary.append(load_tile(lhsT[rows, nl.ds(m * block_m, block_m)]))
                for i in range(tiles_m):
                    for j in range(tiles_n):
                        product = nl.ndarray((TILE_M, TILE_N), dtype=nl.float32, buffer=nl.psum)
                        for l in range(tiles_k):
                            nisa.nc_matmul(
                                dst=product,
                                stationary=stationary[l][:, nl.ds(i * TILE_M, TILE_M)],
                                moving=moving[l][:, nl.ds(j * TILE_N, TILE_N)],
                            )
                        part = sums[m * tiles_m + i][:, nl.ds(j * TILE_N, TILE_N)]
                        if k == 0:
                            nisa.tensor_copy(dst=part, src=product)
                        else:
                            nisa.tensor_tensor(dst=part, data1=part, data2=product, op=nl.add)
        for m in range(M // TILE_M):
            store_tile(result[nl.ds(m * TILE_M, TILE_M), columns], sums[m])
    return result


def reference(lhsT, rhs):
    """What every step computes, in float32."""
    return lhsT.astype(np.float32).T @ rhs.astype(np.float32)


def operands(size):
    """Two random bf16 matrices of `size` rows and columns."""
    rng = np.random.default_rng(0)
    return (rng.standard_normal((size, size), np.float32).astype(ml_dtypes.bfloat16) for _ in range(2))


def check(kernel, size, **blocks):
    """Run one step and compare it with numpy."""
    lhsT, rhs = operands(size)
    result = kernel(lhsT, rhs, **blocks)
    expected = reference(lhsT, rhs)
    error = np.abs(result.astype(np.float32) - expected).max() / np.abs(expected).max()
    print(f"{kernel.__name__} {size}x{size}x{size}: largest error {error:.5f} of the largest value")
    assert error < 2**-8, "the result is not within bfloat16 rounding"


def main():
    check(matmul_tiled, 1024)
    check(matmul_hoisted, 1024)
    check(matmul_blocked_free, 1024)
    check(matmul_blocked, 1024, tiles_m=8, tiles_n=2, tiles_k=8)
    check(matmul_blocked, 2048)


if __name__ == "__main__":
    main()
