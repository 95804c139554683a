"""An MLP over ranks: tokens are gathered, each rank has a part of the weights, sums are scattered.

    python examples/tensor_parallel_mlp.py [ranks, 4]

Every rank holds some of the tokens and, of the inner dimension, some columns of up and rows of down. It
gathers the tokens of all ranks, multiplies them with its weights, and receives its own tokens of the sum over
ranks. Both cores of a rank share the tokens. Prints when the ranks meet.

x is [S / ranks, H], up [H, I / ranks], down [I / ranks, H], all bf16; I / ranks is 128, H a multiple of 128
up to 512, and S is at most 256.
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
def mlp(x, up, down, groups, ranks):
    """relu(x up) down for the tokens of this rank."""
    core, cores = nl.program_id(0), nl.num_programs(0)
    held, hidden = x.shape
    tokens = held * ranks
    sent = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm, name="sent")
    gathered = nl.ndarray((tokens, hidden), dtype=x.dtype, buffer=nl.shared_hbm, name="gathered")
    partial = nl.ndarray((tokens, hidden), dtype=nl.float32, buffer=nl.shared_hbm, name="partial")
    summed = nl.ndarray((held, hidden), dtype=nl.float32, buffer=nl.shared_hbm, name="summed")
    y = nl.ndarray((held, hidden), dtype=nl.float32, buffer=nl.shared_hbm)

    own = nl.ds(core * (held // cores), held // cores)
    nisa.dma_copy(dst=sent[own], src=x[own])
    ncc.all_gather([sent], [gathered], groups, collective_dim=0)
    rows = nl.ds(core * (tokens // cores), tokens // cores)
    multiply(gathered[rows], up, down, partial[rows])
    ncc.reduce_scatter([partial], [summed], groups, collective_dim=0, op=nl.add)
    nisa.dma_copy(dst=y[own], src=summed[own])
    return y


def multiply(x, up, down, y):
    """y = relu(x up) down, for at most 128 tokens and 128 columns of up."""
    tokens, hidden = x.shape
    inner = up.shape[1]
    rows = load(x)
    total = nl.ndarray((inner, tokens), dtype=nl.float32, buffer=nl.psum)
    for k in range(hidden // TILE):
        there = nl.ds(k * TILE, TILE)
        turned = nl.ndarray((TILE, tokens), dtype=x.dtype, buffer=nl.psum)
        nisa.nc_transpose(dst=turned, data=rows[:, there])
        columns = nl.ndarray((TILE, tokens), dtype=x.dtype, buffer=nl.sbuf)
        nisa.tensor_copy(dst=columns, src=turned)
        nisa.nc_matmul(dst=total, stationary=load(up[there]), moving=columns)
    inside = nl.ndarray((inner, tokens), dtype=x.dtype, buffer=nl.sbuf)
    nisa.activation(dst=inside, op=nl.relu, data=total)
    result = nl.ndarray((tokens, hidden), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=result, stationary=inside, moving=load(down))
    stored = nl.ndarray((tokens, hidden), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=stored, src=result)
    nisa.dma_copy(dst=y, src=stored)


def load(part):
    """`part` of a tensor in HBM as a tile."""
    tile = nl.ndarray(part.shape, dtype=part.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=part)
    return tile


def reference(x, up, down):
    """The whole MLP in float32, with what lies between its products rounded to bf16."""
    inside = np.maximum(x.astype(np.float32) @ up.astype(np.float32), 0)
    return inside.astype(ml_dtypes.bfloat16).astype(np.float32) @ down.astype(np.float32)


def main(ranks: int = 4) -> None:
    """Run it on `ranks` ranks and compare with numpy."""
    tokens, hidden = 128, 256
    rng = np.random.default_rng(0)
    x, up, down = (
        (rng.standard_normal(shape) / 8).astype(ml_dtypes.bfloat16)
        for shape in ((tokens, hidden), (hidden, ranks * TILE), (ranks * TILE, hidden))
    )
    weights = list(zip(np.split(up, ranks, 1), np.split(down, ranks, 0)))
    parts = np.split(x, ranks)
    groups = ncc.ReplicaGroup([list(range(ranks))])
    with session(timing=True) as record:
        results = nki.simulate(mlp, ranks=ranks)[2](
            lambda rank: (parts[rank], *map(np.ascontiguousarray, weights[rank]), groups, ranks)
        )
    np.testing.assert_allclose(np.concatenate(results), reference(x, up, down), rtol=2e-2, atol=2e-2)

    timeline = record.launches[0].timeline
    print(f"tensor_parallel_mlp: {ranks} ranks equal numpy within bf16 rounding")
    print(f"  all of it      {timeline.duration / 1000:6.1f} us")
    for instruction, start, end in zip(timeline.instructions, timeline.start, timeline.end):
        if instruction.opcode in ("all_gather", "reduce_scatter"):
            print(f"  {instruction.opcode:14} {start / 1000:6.1f} to {end / 1000:6.1f} us")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
