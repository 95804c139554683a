"""Debug tensors of attention_tkg."""

import nki.isa as nisa
import nki.language as nl

from .attention_tkg_plan import TILE

PART_BYTES = 2048  # of a partition, for weights on their way out


def _debug_tile(call, unit):
    share = call.share
    return unit.tile + (share.core * share.keys // TILE if share.cores_by_key > 1 else 0)


def store_debug_scores(call, unit, scores, there, first=0):
    """DBG_QK: the masked scores of a unit's tiles from `first` on, -inf where masked."""
    cfg = call.cfg
    if not call.share.writes and call.share.cores_by_key == 1:
        return
    partitions, tiles, rows = scores.shape
    width = cfg.bs * call.row
    pattern = [[cfg.curr_sprior // TILE * width, partitions], [width, tiles], [1, rows]]
    offset = (_debug_tile(call, unit) + first) * width + unit.batch * call.row
    nisa.dma_copy(dst=there.ap(pattern=pattern, offset=offset), src=scores)


def store_debug_weights(call, unit, slot):
    """DBG_QK_EXP: the weights, relative to the maximum that both cores find.

    They are made in a tile of their own: the slot may hold the masked scores of a later unit already.
    """
    share, sbm = call.share, call.sbm
    rows = unit.batches * call.row
    partitions, section, capacity = slot.weights.shape
    weights = slot.weights.ap(pattern=[[section * capacity, partitions], [rows, unit.tiles], [1, rows]])
    if share.cores_by_key == 1:
        store_debug_scores(call, unit, weights, call.debug[2])
        return
    other, mine = slot.work.total[:, 0:rows], slot.maximum[:, 0:rows]
    nisa.sendrecv(src=mine, dst=other, send_to_rank=1 - share.core, recv_from_rank=1 - share.core, pipe_id=1)
    nisa.tensor_tensor(dst=other, data1=other, data2=mine, op=nl.maximum)
    nisa.tensor_tensor(dst=other, data1=mine, data2=other, op=nl.subtract)
    nisa.activation(dst=other, op=nl.exp, data=other)
    tiles = min(unit.tiles, PART_BYTES // (4 * rows))
    sbm.open_scope(name="debug weights")
    part = sbm.alloc_stack((partitions, tiles, rows), dtype=nl.float32, buffer=nl.sbuf)
    for first in range(0, unit.tiles, tiles):
        count = min(tiles, unit.tiles - first)
        factor = slot.work.total.ap(pattern=[[slot.work.total.shape[1], partitions], [0, count], [1, rows]])
        nisa.tensor_tensor(
            dst=part[:, 0:count, :], data1=weights[:, nl.ds(first, count), :], data2=factor, op=nl.multiply
        )
        store_debug_scores(call, unit, part[:, 0:count, :], call.debug[2], first)
    sbm.close_scope()


def store_debug_rows(call, work, batch, maximum, inverse):
    """DBG_QK_MAX, which is minus the maximum, and DBG_EXP_SUM, the sink's included, from `batch` on."""
    share = call.share
    if share.cores_by_batch == 1 and share.core > 0:
        return
    width = 1
    for size in call.debug[1].shape[1:]:
        width = width * size
    offset = (share.core * width if share.cores_by_batch > 1 else 0) + (batch - share.first_batch) * call.row
    rows = maximum.shape[1]
    negative, sums = work.scratch[0:1, 0:rows], work.total[0:1, 0:rows]
    nisa.tensor_scalar(dst=negative, data=maximum[0:1, :], op0=nl.multiply, operand0=-1.0)
    nisa.tensor_scalar(dst=sums, data=inverse[0:1, :], op0=nl.power, operand0=-1.0, engine=nisa.gpsimd_engine)
    pattern = [[width, 1], [1, rows]]
    nisa.dma_copy(dst=call.debug[1].ap(pattern=pattern, offset=offset), src=negative)
    nisa.dma_copy(dst=call.debug[3].ap(pattern=pattern, offset=offset), src=sums)
