"""An output projection whose sums over ranks are scattered while the next columns are multiplied.

    python examples/scattered_projection.py [ranks, 8]

Every rank has the results of some heads of attention, for all tokens, and the rows of the output projection
for these heads. Its product is a part of a sum over all ranks, of which it keeps some tokens. The sum is
made block by block of columns: while the links add up one block, the tensor engine multiplies the next.

heads are [S, D] with at most 128 tokens, D at most 128; weights [D, H], H a multiple of BLOCK; bf16.
"""

import sys

import ml_dtypes
import numpy as np

import nki
import nki.collectives as ncc
import nki.isa as nisa
import nki.language as nl
from nki.runtime import session

BLOCK = 512  # columns of H that are summed together: one bank of PSUM in fp32


@nki.jit
def project(heads, weights, groups, ranks):
    """The tokens of this rank, [S / ranks, H] in fp32, of the sum over ranks of heads times weights."""
    tokens = heads.shape[0]
    hidden = weights.shape[1]
    y = nl.ndarray((tokens // ranks, hidden), dtype=nl.float32, buffer=nl.shared_hbm)
    stationary = turned(load(heads))
    for block in range(hidden // BLOCK):
        columns = nl.ds(block * BLOCK, BLOCK)
        part = nl.ndarray((tokens, BLOCK), dtype=nl.float32, buffer=nl.shared_hbm, name=f"part{block}")
        total = nl.ndarray(
            (tokens // ranks, BLOCK), dtype=nl.float32, buffer=nl.shared_hbm, name=f"total{block}"
        )
        product = nl.ndarray((tokens, BLOCK), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=product, stationary=stationary, moving=load(weights[:, columns]))
        stored = nl.ndarray(product.shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(dst=stored, src=product)
        nisa.dma_copy(dst=part, src=stored)
        ncc.reduce_scatter([part], [total], groups, collective_dim=0, op=nl.add)
        nisa.dma_copy(dst=y[:, columns], src=total)
    return y


def turned(tile):
    """`tile` with its rows as columns."""
    total = nl.ndarray((tile.shape[1], tile.shape[0]), dtype=tile.dtype, buffer=nl.psum)
    nisa.nc_transpose(dst=total, data=tile)
    result = nl.ndarray(total.shape, dtype=tile.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=result, src=total)
    return result


def load(part):
    """`part` of a tensor in HBM as a tile."""
    tile = nl.ndarray(part.shape, dtype=part.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=part)
    return tile


def reference(heads, weights):
    """The sum over ranks in float32."""
    return sum(h.astype(np.float32) @ w.astype(np.float32) for h, w in zip(heads, weights, strict=True))


def main(ranks: int = 8) -> None:
    """Run it on `ranks` ranks and compare with numpy."""
    tokens, inner, hidden = 128, 128, 2048
    rng = np.random.default_rng(0)
    heads = rng.standard_normal((ranks, tokens, inner)).astype(ml_dtypes.bfloat16)
    weights = (rng.standard_normal((ranks, inner, hidden)) / 16).astype(ml_dtypes.bfloat16)
    groups = ncc.ReplicaGroup([range(ranks)])
    with session(timing=True) as record:
        results = nki.simulate(project, ranks=ranks)(lambda rank: (heads[rank], weights[rank], groups, ranks))
    np.testing.assert_allclose(np.concatenate(results), reference(heads, weights), rtol=1e-3, atol=1e-3)

    timeline = record.launches[0].timeline
    sums = [k for k, i in enumerate(timeline.instructions) if i.opcode == "reduce_scatter"]
    print(f"scattered_projection: {ranks} ranks equal numpy")
    print(
        f"  all of it {timeline.duration / 1000:.1f} us, {len(sums)} sums; the first ends at "
        f"{timeline.end[sums[0]] / 1000:.1f} us"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
