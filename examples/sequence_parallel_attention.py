"""Attention over a sequence that ranks share: keys and values are gathered, queries stay.

    python examples/sequence_parallel_attention.py [ranks, 4]

Every rank has q, k and v of some tokens. It gathers the keys and values of all ranks, both in one
collective, and attends its own queries to them. Its queries are loaded and turned while keys and values
travel.

q, k and v are [S / ranks, 128] in bf16, one head; S is at most 512 and S / ranks a multiple of 128 or 64.
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
def attention(q, k, v, groups, ranks):
    """softmax(q k^T / sqrt(d)) v for the queries of this rank, in fp32."""
    held, width = q.shape
    tokens = held * ranks
    sent = [hbm((held, width), q.dtype, "sent_k"), hbm((held, width), q.dtype, "sent_v")]
    gathered = [hbm((tokens, width), q.dtype, "gathered_k"), hbm((tokens, width), q.dtype, "gathered_v")]
    y = nl.ndarray(q.shape, dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=sent[0], src=k)
    nisa.dma_copy(dst=sent[1], src=v)
    ncc.all_gather(sent, gathered, groups, collective_dim=0)
    queries = turned(load(q))
    keys, values = gathered[0], gathered[1]
    scores = nl.ndarray((held, tokens), dtype=nl.float32, buffer=nl.psum)
    for block in range(tokens // TILE):
        rows = nl.ds(block * TILE, TILE)
        nisa.nc_matmul(dst=scores[:, rows], stationary=queries, moving=turned(load(keys[rows])))
    weights, total = softmax(scores, width**-0.5, q.dtype)
    mixed = nl.ndarray((held, width), dtype=nl.float32, buffer=nl.psum)
    for block in range(tokens // TILE):
        rows = nl.ds(block * TILE, TILE)
        nisa.nc_matmul(dst=mixed, stationary=turned(weights[:, rows]), moving=load(values[rows]))
    result = nl.ndarray(q.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=result, data=mixed, op0=nl.multiply, operand0=total)
    nisa.dma_copy(dst=y, src=result)
    return y


def softmax(scores, scale, dtype):
    """exp of the scaled scores less their largest, and one over its sum, of each row."""
    held = scores.shape[0]
    largest = nl.ndarray((held, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=largest, op=nl.maximum, data=scores, axis=1)
    below = nl.ndarray((held, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=below, data=largest, op0=nl.multiply, operand0=-scale)
    weights = nl.ndarray(scores.shape, dtype=dtype, buffer=nl.sbuf)
    nisa.activation(dst=weights, op=nl.exp, data=scores, bias=below, scale=scale)
    total = nl.ndarray((held, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=total, op=nl.add, data=weights, axis=1)
    nisa.reciprocal(dst=total, data=total)
    return weights, total


def hbm(shape, dtype, name):
    """A tensor that ranks exchange."""
    return nl.ndarray(shape, dtype=dtype, buffer=nl.shared_hbm, name=name)


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


def reference(q, k, v):
    """Attention in float32."""
    q, k, v = (one.astype(np.float32) for one in (q, k, v))
    scores = q @ k.T / np.sqrt(q.shape[1])
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True) @ v


def main(ranks: int = 4) -> None:
    """Run it on `ranks` ranks and compare with numpy."""
    tokens, width = 512, 128
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((3, tokens, width)).astype(ml_dtypes.bfloat16)
    parts = [np.split(one, ranks) for one in whole]
    groups = ncc.ReplicaGroup([range(ranks)])
    with session(timing=True) as record:
        results = nki.simulate(attention, ranks=ranks)(
            lambda rank: (*(one[rank] for one in parts), groups, ranks)
        )
    np.testing.assert_allclose(np.concatenate(results), reference(*whole), rtol=3e-2, atol=3e-2)

    timeline = record.launches[0].timeline
    print(f"sequence_parallel_attention: {ranks} ranks equal numpy within bf16 rounding")
    for instruction, start, end in zip(timeline.instructions, timeline.start, timeline.end):
        if instruction.opcode == "all_gather":
            print(f"  keys and values gathered {start / 1000:.1f} to {end / 1000:.1f} us")
    print(f"  all of it {timeline.duration / 1000:.1f} us")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
