"""Experts on ranks: tokens go to the rank of their expert and come back, as many as the router says.

    python examples/expert_parallel.py [ranks, 8]

Every rank has some tokens, sorted by their expert, and the weights of one expert. How many tokens go where
is known at run time only: an all_to_all_v sends them by a table of counts, and its row of received counts
is the table for the way back. What arrives lies in a slot for each sender; the expert computes on whole
slots, and what nobody sent is not sent back. On the way back each rank says where its tokens stood, which
needs the switches of trn3. The two exchanges have buffers of their own: a faster rank's answers must not
land where a slower one still reads.

x is [T, H] with T and H at most 128, up and down [H, H]; bf16; table is [4, ranks] uint32, in elements.
"""

import sys

import ml_dtypes
import numpy as np

import nki
import nki.collectives as ncc
import nki.isa as nisa
import nki.language as nl
from nki.runtime import session
from nki_isa.machine.targets import as_target


@nki.jit
def experts(x, up, down, table, groups, ranks):
    """relu(x up) down of each token with the weights of its expert, in the order of x."""
    tokens, hidden = x.shape
    sent = hbm((tokens, hidden), x.dtype, "sent")
    received = hbm((ranks, tokens, hidden), x.dtype, "received")
    answers = hbm((ranks, tokens, hidden), x.dtype, "answers")
    returned = hbm((tokens, hidden), x.dtype, "returned")
    there, back = hbm((3, ranks), nl.uint32, "there"), hbm((4, ranks), nl.uint32, "back")
    y = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    core, slots = nl.program_id(0), ranks // nl.num_programs(0)
    if core == 0:
        nisa.dma_copy(dst=sent, src=x)
        nisa.dma_copy(dst=there[0:2], src=table[0:2])
        nisa.dma_copy(dst=back[1:2], src=table[2:3])  # where the slots begin
        nisa.dma_copy(dst=back[3:4], src=table[1:2])  # where the tokens stood
    ncc.all_to_all_v([sent], [received], groups, there)
    if core == 0:
        nisa.dma_copy(dst=back[0:1], src=there[2:3])
    weights = load(up), load(down)
    for slot in range(slots):
        mine = core * slots + slot
        nisa.dma_copy(dst=answers[mine], src=expert(load(received[mine]), weights[0], weights[1]))
    ncc.all_to_all_v([answers], [returned], groups, back, recv_counts_known=True, has_rdispls=True)
    if core == 0:
        nisa.dma_copy(dst=y, src=returned)
    return y


def expert(tile, up, down):
    """relu(tile up) down."""
    inside = multiplied(up, turned(tile), nl.relu)  # with the inner dimension on partitions
    return multiplied(inside, down, nl.copy)


def multiplied(stationary, moving, function):
    """`function` of the product, rounded to bf16."""
    total = nl.ndarray((stationary.shape[1], moving.shape[1]), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=stationary, moving=moving)
    result = nl.ndarray(total.shape, dtype=moving.dtype, buffer=nl.sbuf)
    nisa.activation(dst=result, op=function, data=total)
    return result


def turned(tile):
    """`tile` with its rows as columns."""
    total = nl.ndarray((tile.shape[1], tile.shape[0]), dtype=tile.dtype, buffer=nl.psum)
    nisa.nc_transpose(dst=total, data=tile)
    result = nl.ndarray(total.shape, dtype=tile.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=result, src=total)
    return result


def hbm(shape, dtype, name):
    """A tensor that ranks exchange."""
    return nl.ndarray(shape, dtype=dtype, buffer=nl.shared_hbm, name=name)


def load(part):
    """`part` of a tensor in HBM as a tile."""
    tile = nl.ndarray(part.shape, dtype=part.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=part)
    return tile


def table_of(counts, width, capacity):
    """The table of a rank that sends counts[e] tokens of `width` elements to each expert e in turn."""
    first = np.cumsum([0, *counts[:-1]]) * width
    slots = np.arange(len(counts)) * capacity * width
    return np.stack([counts * width, first, slots, np.zeros(len(counts))]).astype(np.uint32)


def reference(x, up, down, counts):
    """Each token with the weights of its expert, in float32, what lies between products rounded to bf16."""
    rows, done = [], 0
    for expert_, count in enumerate(counts):
        part = x[done : done + count].astype(np.float32)
        inside = np.maximum(part @ up[expert_].astype(np.float32), 0).astype(ml_dtypes.bfloat16)
        rows.append(inside.astype(np.float32) @ down[expert_].astype(np.float32))
        done += count
    return np.concatenate(rows)


def main(ranks: int = 8) -> None:
    """Run it on `ranks` ranks of trn3 and compare with numpy."""
    tokens, hidden = 64, 128
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ranks, tokens, hidden)).astype(ml_dtypes.bfloat16)
    up, down = (rng.standard_normal((2, ranks, hidden, hidden)) / 8).astype(ml_dtypes.bfloat16)
    counts = rng.multinomial(tokens, np.full(ranks, 1 / ranks), ranks)
    tables = [table_of(counts[rank], hidden, tokens) for rank in range(ranks)]
    groups = ncc.ReplicaGroup([range(ranks)])
    with session(timing=True, target=as_target("trn3")) as record:
        results = nki.simulate(experts, ranks=ranks)[2](
            lambda rank: (x[rank], up[rank], down[rank], tables[rank], groups, ranks)
        )
    for rank, y in enumerate(results):
        expected = reference(x[rank], up, down, counts[rank])
        np.testing.assert_allclose(np.asarray(y, np.float32), expected, rtol=3e-2, atol=3e-2)

    print(f"expert_parallel: {ranks} ranks equal numpy within bf16 rounding")
    timeline = record.launches[0].timeline
    for instruction, start, end in zip(timeline.instructions, timeline.start, timeline.end):
        if instruction.opcode == "all_to_all_v":
            print(f"  all_to_all_v {start / 1000:.1f} to {end / 1000:.1f} us")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
