"""Cross entropy of large vocabularies, forward.

For a position with logits x of V values and target t:

    lse  = log(sum(exp(x)))
    loss = lse - x[t]

The vocabulary is cut into tiles. Each has its own maximum m_i and s_i = sum(exp(x - m_i)), which need nothing
of the tiles before; at the end M = max(m_i) and lse = M + log(sum(s_i * exp(m_i - M))).

Up to 128 positions lie on the partitions, one group of them after the other; log-sum-exp and loss of all
groups are worked out and stored together:

    DMA      tiles of logits; the logits of the targets, gathered one per position
    vector   maximum of a tile, negated (two values a cycle in 16 bits)
    scalar   exp of a tile in place, summed on the way
    gpsimd   where the targets are, in int32

The scalar engine decides the time of bf16 logits, the DMA that of fp32. SBUF per partition: tiles of 16384
logits, 32 KiB in bf16 and 64 KiB in fp32, of which two or three are in flight.
"""

import nki
import nki.isa as nisa
import nki.language as nl

from .positions import check_arguments, my_blocks, of_targets, target_places, tiles_of


@nki.jit
def cross_entropy_forward(
    logits_hbm, targets_hbm, positions_per_batch=32, chunk_size=32768, dtype=nl.bfloat16
):
    """Cross entropy of each position, and the log-sum-exp that the backward pass needs.

    Args:
        logits_hbm: [N, V] in HBM, bf16 or fp32.
        targets_hbm: [N] int32, 0 to V - 1.
        positions_per_batch: 1 to 128. A batch fills the partitions whatever it is; its limits are kept.
        chunk_size: at most V and 65535, and positions_per_batch * chunk_size * bytes of `dtype` at most
            24 MiB; a tile has at most so many logits of a position.
        dtype: bf16 or fp32, of the results.

    Returns:
        loss [N] and lse [N] in HBM, of `dtype`. Both are computed in fp32 and rounded once.
    """
    check_arguments(logits_hbm, targets_hbm, positions_per_batch, chunk_size, dtype)
    positions = logits_hbm.shape[0]
    loss = nl.ndarray((positions,), dtype=dtype, buffer=nl.shared_hbm)
    lse = nl.ndarray((positions,), dtype=dtype, buffer=nl.shared_hbm)
    for block in my_blocks(positions):
        _block_forward(logits_hbm, targets_hbm, loss, lse, block, chunk_size)
    return loss, lse


def _block_forward(logits_hbm, targets_hbm, loss, lse, block, chunk_size):
    lanes, groups = block.lanes, block.groups
    tiles = tiles_of(logits_hbm.shape[1], chunk_size)
    # -maximum and sum of each tile
    lowered = nl.ndarray((lanes, groups, len(tiles)), dtype=nl.float32, buffer=nl.sbuf)
    sums = nl.ndarray((lanes, groups, len(tiles)), dtype=nl.float32, buffer=nl.sbuf)
    picked = nl.ndarray((lanes, groups), dtype=logits_hbm.dtype, buffer=nl.sbuf)
    places = target_places(block, targets_hbm, logits_hbm.shape[1])
    for group in range(groups):
        for tile in tiles:
            index = slice(tile.index, tile.index + 1)
            x = nl.ndarray((lanes, tile.size), dtype=logits_hbm.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=x, src=block.tile(logits_hbm, group, tile))
            nisa.tensor_reduce(dst=lowered[:, group, index], op=nl.maximum, data=x, axis=1, negate=True)
            nisa.activation(
                dst=x,
                op=nl.exp,
                data=x,
                bias=lowered[:, group, index],
                reduce_op=nl.add,
                reduce_res=sums[:, group, index],
                reduce_cmd=nisa.reduce_cmd.reset_reduce,
            )
        nisa.dma_copy(dst=picked[:, group : group + 1], src=of_targets(block, logits_hbm, places, group))
    result = _combine(lowered, sums)
    _store(lse, block, result)
    nisa.tensor_tensor(dst=result, data1=result, data2=picked, op=nl.subtract)
    _store(loss, block, result)


def _combine(lowered, sums):
    """lse [lanes, groups] of -maxima and sums of tiles [lanes, groups, tiles]."""
    lanes, groups, tiles = sums.shape
    least = nl.ndarray((lanes, groups), dtype=nl.float32, buffer=nl.sbuf)
    total = nl.ndarray((lanes, groups), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=least, op=nl.minimum, data=lowered, axis=2)
    # exp(m_i - M) = exp(least - lowered)
    repeated = least.ap([[groups, lanes], [1, groups], [0, tiles]])
    nisa.tensor_tensor(dst=lowered, data1=repeated, data2=lowered, op=nl.subtract)
    nisa.activation(dst=lowered, op=nl.exp, data=lowered)
    nisa.tensor_tensor(dst=sums, data1=sums, data2=lowered, op=nl.multiply)
    nisa.tensor_reduce(dst=total, op=nl.add, data=sums, axis=2)
    nisa.activation(dst=total, op=nl.log, data=total)
    nisa.tensor_tensor(dst=total, data1=total, data2=least, op=nl.subtract)
    return total


def _store(tensor, block, values):
    rounded = nl.ndarray(values.shape, dtype=tensor.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=rounded, src=values)
    nisa.dma_copy(dst=block.column(tensor), src=rounded)
