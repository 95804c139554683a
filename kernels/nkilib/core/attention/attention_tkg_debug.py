"""Debug tensors of attention_tkg."""

import nki.isa as nisa
import nki.language as nl

from .attention_tkg_plan import TILE


def _debug_tile(call, unit):
    share = call.share
    return unit.tile + (share.core * share.keys // TILE if share.cores_by_key > 1 else 0)


def store_debug_scores(call, unit, scores, there):
    """DBG_QK: the masked scores, -inf where masked."""
    cfg = call.cfg
    if not call.share.writes and call.share.cores_by_key == 1:
        return
    width = cfg.bs * call.row
    rows = unit.batches * call.row
    pattern = [[cfg.curr_sprior // TILE * width, scores.shape[0]], [width, unit.tiles], [1, rows]]
    offset = _debug_tile(call, unit) * width + unit.batch * call.row
    nisa.dma_copy(dst=there.ap(pattern=pattern, offset=offset), src=scores)


def store_debug_weights(call, unit, slot):
    """DBG_QK_EXP: the weights, relative to the maximum that both cores find."""
    share = call.share
    rows = unit.batches * call.row
    partitions, section, capacity = slot.weights.shape
    shape = [[section * capacity, partitions], [rows, unit.tiles], [1, rows]]
    weights = slot.weights.ap(pattern=shape)
    if share.cores_by_key > 1:
        other, mine = slot.work.total[:, 0:rows], slot.maximum[:, 0:rows]
        nisa.sendrecv(
            src=mine, dst=other, send_to_rank=1 - share.core, recv_from_rank=1 - share.core, pipe_id=1
        )
        nisa.tensor_tensor(dst=other, data1=other, data2=mine, op=nl.maximum)
        nisa.tensor_tensor(dst=other, data1=mine, data2=other, op=nl.subtract)
        nisa.activation(dst=other, op=nl.exp, data=other)
        pattern = [[slot.work.total.shape[1], partitions], [0, unit.tiles], [1, rows]]
        factor = slot.work.total.ap(pattern=pattern)
        scores = slot.scores.ap(pattern=shape)
        nisa.tensor_tensor(dst=scores, data1=weights, data2=factor, op=nl.multiply)
        store_debug_scores(call, unit, scores, call.debug[2])
        return
    store_debug_scores(call, unit, weights, call.debug[2])


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
    nisa.tensor_scalar(
        dst=sums, data=inverse[0:1, :], op0=nl.power, operand0=-1.0, engine=nisa.gpsimd_engine
    )
    pattern = [[width, 1], [1, rows]]
    nisa.dma_copy(dst=call.debug[1].ap(pattern=pattern, offset=offset), src=negative)
    nisa.dma_copy(dst=call.debug[3].ap(pattern=pattern, offset=offset), src=sums)
