"""Attention forward for one head, fused: scores never leave the chip.

For each 128 queries the tensor engine computes their scores against all keys, the
vector and scalar engines turn them into weights, and the tensor engine multiplies
those by the values. Keys and queries come with the head dimension first, as the
tensor engine contracts over partitions; the weights have to be transposed, 128
columns at a time, before they can be contracted over the keys.
"""

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl

TILE = 128
KEYS = 512  # keys per product: one PSUM bank of fp32


@nki.jit
def attention(q, k, v, scale):
    """softmax(q.T @ k * scale) @ v.

    q and k are [head, sequence], v is [sequence, head]; the sequence is a multiple of
    512 and the head at most 128.
    """
    head, queries = q.shape
    keys = k.shape[1]
    assert head <= TILE, f"the head dimension is {head}, at most {TILE}"
    assert queries % TILE == 0 and keys % KEYS == 0, f"{queries} queries and {keys} keys are not whole tiles"
    result = nl.ndarray((queries, head), dtype=q.dtype, buffer=nl.shared_hbm)

    q_sb = nl.ndarray((head, queries), dtype=q.dtype, buffer=nl.sbuf)
    k_sb = nl.ndarray((head, keys), dtype=k.dtype, buffer=nl.sbuf)
    v_sb = nl.ndarray((TILE, keys // TILE, head), dtype=v.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=q_sb, src=q)
    nisa.dma_copy(dst=k_sb, src=k)
    for j in range(keys // TILE):
        nisa.dma_copy(dst=v_sb[:, j, :], src=v[nl.ds(j * TILE, TILE)])

    for i in range(queries // TILE):
        here = nl.ds(i * TILE, TILE)
        scores = nl.ndarray((TILE, keys), dtype=nl.float32, buffer=nl.sbuf)
        for j in range(keys // KEYS):
            span = nl.ds(j * KEYS, KEYS)
            product = nl.ndarray((TILE, KEYS), dtype=nl.float32, buffer=nl.psum)
            nisa.nc_matmul(dst=product, stationary=q_sb[:, here], moving=k_sb[:, span])
            nisa.tensor_scalar(dst=scores[:, span], data=product, op0=nl.multiply, operand0=scale)

        negative_max = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(dst=negative_max, op=nl.maximum, data=scores, axis=1, negate=True)
        weights = nl.ndarray((TILE, keys), dtype=q.dtype, buffer=nl.sbuf)
        total = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation_reduce(
            dst=weights, op=nl.exp, data=scores, bias=negative_max, reduce_op=nl.add, reduce_res=total
        )

        summed = nl.ndarray((TILE, head), dtype=nl.float32, buffer=nl.psum)
        for j in range(keys // TILE):
            turned = nl.ndarray((TILE, TILE), dtype=q.dtype, buffer=nl.psum)
            nisa.nc_transpose(dst=turned, data=weights[:, nl.ds(j * TILE, TILE)])
            columns = nl.ndarray((TILE, TILE), dtype=q.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=columns, src=turned)
            nisa.nc_matmul(dst=summed, stationary=columns, moving=v_sb[:, j, :])

        share = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.reciprocal(dst=share, data=total)
        out = nl.ndarray((TILE, head), dtype=q.dtype, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=out, data=summed, op0=nl.multiply, operand0=share)
        nisa.dma_copy(dst=result[here], src=out)
    return result


def reference(q, k, v, scale):
    """The formula, in float32."""
    scores = q.T @ k * np.float32(scale)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True) @ v


def main():
    rng = np.random.default_rng(0)
    head, sequence = 128, 1024
    q, k = (rng.standard_normal((head, sequence), np.float32) for _ in range(2))
    v = rng.standard_normal((sequence, head), np.float32)
    scale = head**-0.5
    np.testing.assert_allclose(attention(q, k, v, scale), reference(q, k, v, scale), rtol=1e-4, atol=1e-5)
    print("attention: equal to numpy within fp32 rounding")


if __name__ == "__main__":
    main()
