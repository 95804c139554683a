"""An all-gather fused with a matmul: each turn multiplies what came while the next part travels.

    python examples/ring_matmul.py [ranks, 8]

Every rank holds some rows of x and some columns of w, and wants all rows of x times its columns. Instead of
gathering x first, parts go round a ring: in each turn a rank multiplies the part it has and passes it on.
Whose part that is, only the ring knows; the rank asks it, and stores the product at that place.

x is [S / ranks, K] with at most 128 rows, w [K, N / ranks] with K a multiple of 128 and at most 512
columns; bf16.
"""

import sys

import ml_dtypes
import numpy as np

import nki
import nki.collectives as ncc
import nki.isa as nisa
import nki.language as nl
from nki.runtime import session

TILE = 128  # partitions


@nki.jit
def ring_matmul(x, w, groups, ranks):
    """All rows of x times the columns of this rank: [ranks, S / ranks, N / ranks] in fp32."""
    rows, inner = x.shape
    columns = w.shape[1]
    y = nl.ndarray((ranks, rows, columns), dtype=nl.float32, buffer=nl.shared_hbm)
    weights = []
    for k in range(inner // TILE):
        weights.append(load(w[k * TILE : (k + 1) * TILE]))
    part = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="part0")
    nisa.dma_copy(dst=part, src=x)
    for turn in range(ranks):
        owner = ncc.collective_permute_implicit_current_processing_rank_id(turn, groups)
        if turn < ranks - 1:
            after = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name=f"part{turn + 1}")
            ncc.collective_permute_implicit([[part]], [[after]], groups)
        place = y.ap([[columns, rows], [1, columns]], scalar_offset=owner, indirect_dim=0)
        nisa.dma_copy(dst=place, src=multiplied(part, weights, columns))
        if turn < ranks - 1:
            part = after
    return y


def multiplied(part, weights, columns):
    """`part` times the weights, whose tiles are loaded."""
    rows = load(part)
    total = nl.ndarray((part.shape[0], columns), dtype=nl.float32, buffer=nl.psum)
    for k in range(len(weights)):
        turned = nl.ndarray((TILE, part.shape[0]), dtype=part.dtype, buffer=nl.psum)
        nisa.nc_transpose(dst=turned, data=rows[:, k * TILE : (k + 1) * TILE])
        stationary = nl.ndarray(turned.shape, dtype=part.dtype, buffer=nl.sbuf)
        nisa.tensor_copy(dst=stationary, src=turned)
        nisa.nc_matmul(dst=total, stationary=stationary, moving=weights[k])
    result = nl.ndarray(total.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=result, src=total)
    return result


def load(part):
    """`part` of a tensor in HBM as a tile."""
    tile = nl.ndarray(part.shape, dtype=part.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=part)
    return tile


def reference(x, w):
    """The product in float32."""
    return x.astype(np.float32) @ w.astype(np.float32)


def main(ranks: int = 8) -> None:
    """Run it on `ranks` ranks and compare with numpy."""
    rows, inner, columns = 64, 512, 256
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ranks * rows, inner)).astype(ml_dtypes.bfloat16)
    w = (rng.standard_normal((inner, ranks * columns)) / 16).astype(ml_dtypes.bfloat16)
    parts, shares = np.split(x, ranks), np.split(w, ranks, 1)
    groups = ncc.ReplicaGroup([range(ranks)])
    with session(timing=True) as record:
        results = nki.simulate(ring_matmul, ranks=ranks)(
            lambda rank: (parts[rank], np.ascontiguousarray(shares[rank]), groups, ranks)
        )
    found = np.concatenate([y.reshape(ranks * rows, columns) for y in results], 1)
    np.testing.assert_allclose(found, reference(x, w), rtol=1e-3, atol=1e-3)

    timeline = record.launches[0].timeline
    passed = [k for k, i in enumerate(timeline.instructions) if i.opcode == "collective_permute_implicit"]
    travels = float((timeline.end[passed] - timeline.start[passed]).sum())
    print(f"ring_matmul: {ranks} ranks equal numpy")
    print(
        f"  all of it {timeline.duration / 1000:.1f} us, parts on their way {travels / 1000:.1f} us of them"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
