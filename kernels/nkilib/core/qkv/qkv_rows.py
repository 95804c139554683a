"""From sums in PSUM to rows of the result: scales, bias, rotary embedding, FP8 caches, and where rows go."""

from dataclasses import dataclass

import nki.isa as nisa
import nki.language as nl

from ..utils.common_types import QKVOutputLayout
from ..utils.kernel_helpers import div_ceil
from ..utils.projection import AT_ONCE, BANK, evacuate

P_MAX = nl.tile_size.pmax


@dataclass
class KVCache(nl.NKIObject):
    """FP8 caches that keys and values go to.

    Attributes:
        keys: [slots, kv columns] in HBM: all rows of the cache below each other.
        values: the same for values.
        key_factor: 1 / scale of the keys, [128, 1] fp32 in SBUF.
        value_factor: 1 / scale of the values.
        low: least value that is stored.
        high: greatest value that is stored.
        slots: [rows, 1] int32 in HBM, the row of the cache that each row goes to; or None.
        sequence: S, where `slots` is None: rows of one sequence follow each other.
        max_sequence: rows of the cache for each sequence, where `slots` is None.
    """

    keys: object
    values: object
    key_factor: object
    value_factor: object
    low: float
    high: float
    slots: object
    sequence: int
    max_sequence: int


@dataclass
class RowTarget(nl.NKIObject):
    """What becomes of sums, and where the result goes.

    Attributes:
        out: [rows, columns] or, NBSd, [heads, rows, d] in HBM.
        layout: BSD or NBSd.
        d_head: columns of a head, or None.
        q_columns: columns of all queries.
        kv_columns: columns of all keys, and of all values.
        column_scales: [128, 3] fp32 in SBUF: what sums of q, k and v are multiplied by, or None.
        bias: [128, columns] in SBUF, or None.
        cosines: [rows, d] in HBM, of queries and keys; or None.
        sines: [rows, d] in HBM.
        cache: where keys and values go, if not to `out`.
    """

    out: object
    layout: QKVOutputLayout
    d_head: int
    q_columns: int
    kv_columns: int
    column_scales: object
    bias: object
    cosines: object
    sines: object
    cache: KVCache


def load_static_scales(w_scale, in_scale):
    """Scales of the columns of q, k and v, [128, 3], and what multiplies what is quantized, [128, 1]."""
    columns = nl.ndarray((P_MAX, 3), dtype=nl.float32, buffer=nl.sbuf)
    inputs = nl.ndarray((P_MAX, 1), dtype=nl.float32, buffer=nl.sbuf)
    factor = nl.ndarray((P_MAX, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=inputs, src=in_scale)
    nisa.dma_copy(dst=columns, src=w_scale)
    nisa.reciprocal(dst=factor, data=inputs)
    nisa.tensor_scalar(dst=columns, data=columns, op0=nl.multiply, operand0=inputs)
    return columns, factor


def overlap(first, width, start, length):
    """Columns of [start, start + length) in [first, first + width), counted from `first`: (start, length)."""
    begin = max(first, start)
    end = min(first + width, start + length)
    return begin - first, max(0, end - begin)


def finish_rows(target, sums, row, first, row_scale):
    """Make rows of the result of their sums, and store them.

    Args:
        target: what to do.
        sums: [rows, columns] fp32 in PSUM.
        row: the first of the rows.
        first: the first of the columns.
        row_scale: [rows, 1] fp32 that each row is multiplied by, or None.
    """
    count, width = sums.shape
    rotates = target.cosines is not None
    direct = not rotates and target.cache is None
    values = nl.ndarray((count, width), dtype=target.out.dtype if direct else nl.float32, buffer=nl.sbuf)
    scale_columns(target, values, sums, first, row_scale)
    if rotates:
        result = nl.ndarray((count, width), dtype=target.out.dtype, buffer=nl.sbuf)
        if target.cache is not None:
            result = nl.ndarray((count, width), dtype=nl.float32, buffer=nl.sbuf)
        _rotate(target, result, values, row, first)
        values = result
    if target.cache is None:
        store_rows(target, values, row, first)
    else:
        _store_to_caches(target, values, row, first)


def scale_columns(target, dst, sums, first, row_scale, added=None):
    """dst = sums * scale + bias, where q, k and v may have a scale each.

    Args:
        target: has the scales of columns and the bias.
        dst: [rows, columns] in SBUF, written.
        sums: [rows, columns] fp32 in PSUM or SBUF.
        first: the first of the columns.
        row_scale: [rows, 1] fp32, or None.
        added: of the shape of `sums`, added in the place of the bias; or None.
    """
    width = sums.shape[1]
    parts = [(0, width, row_scale)]
    if target.column_scales is not None:
        q, kv = target.q_columns, target.kv_columns
        parts = []
        for index in range(3):
            start = 0 if index == 0 else q + (index - 1) * kv
            begin, length = overlap(first, width, start, q if index == 0 else kv)
            parts.append((begin, length, target.column_scales[:, index : index + 1]))
    turn = 0 if target.bias is None and added is None else 1  # the vector engine adds at once
    for part in parts:
        begin, length, scale = part
        turns = div_ceil(length, BANK)
        for index in range(turns):
            start = begin + length * index // turns
            columns = nl.ds(start, begin + length * (index + 1) // turns - start)
            bias = None
            if added is not None:
                bias = added[:, columns]
            elif target.bias is not None:
                bias = target.bias[0 : sums.shape[0], nl.ds(first + start, columns.size)]
            evacuate(dst[:, columns], sums[:, columns], scale, bias, turn)
            turn += 1


def _rotate(target, dst, values, row, first):
    """Rotary embedding of the heads of q and k: halves (a, b) become (a cos - b sin, b cos + a sin)."""
    count, width = values.shape
    d_head = target.d_head
    half = d_head // 2
    _, rotated = overlap(first, width, 0, target.q_columns + target.kv_columns)
    heads = rotated // d_head
    if heads > 0:
        cosines = nl.ndarray((count, d_head), dtype=target.cosines.dtype, buffer=nl.sbuf)
        sines = nl.ndarray((count, d_head), dtype=target.sines.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=cosines, src=target.cosines[nl.ds(row, count), :])
        nisa.dma_copy(dst=sines, src=target.sines[nl.ds(row, count), :])
        x = values[:, 0:rotated].reshape((count, heads, d_head))
        y = dst[:, 0:rotated].reshape((count, heads, d_head))
        straight = nl.ndarray((count, heads, d_head), dtype=nl.float32, buffer=nl.sbuf)
        crossed = nl.ndarray((count, heads, d_head), dtype=nl.float32, buffer=nl.sbuf)
        every_head = [[d_head, count], [0, heads], [1, d_head]]
        nisa.tensor_tensor(
            dst=straight,
            data1=x,
            data2=cosines.ap(pattern=every_head, offset=0),
            op=nl.multiply,
            engine=nisa.vector_engine,
        )
        for side in range(2):
            here, there = nl.ds(side * half, half), nl.ds((1 - side) * half, half)
            angles = sines.ap(pattern=[[d_head, count], [0, heads], [1, half]], offset=side * half)
            nisa.tensor_tensor(
                dst=crossed[:, :, here],
                data1=x[:, :, there],
                data2=angles,
                op=nl.multiply,
                engine=nisa.gpsimd_engine,
            )
            nisa.tensor_tensor(
                dst=y[:, :, here],
                data1=straight[:, :, here],
                data2=crossed[:, :, here],
                op=nl.subtract if side == 0 else nl.add,
                engine=nisa.vector_engine,
            )
    if rotated < width:
        nisa.tensor_copy(dst=dst[:, rotated:width], src=values[:, rotated:width], engine=nisa.gpsimd_engine)


def store_rows(target, values, row, first):
    """Store rows to HBM: side by side, or each head apart.

    Args:
        target: where, and in which layout.
        values: [rows, columns] in SBUF, of the dtype of the result.
        row: the first of the rows.
        first: the first of the columns; where heads are stored apart, of whole heads or a part of one.
    """
    count, width = values.shape
    if target.layout == QKVOutputLayout.BSD:
        dst = target.out[nl.ds(row, count), nl.ds(first, width)]
        nisa.dma_copy(dst=dst, src=values, dge_mode=AT_ONCE)
        return
    _, rows, d_head = target.out.shape
    if width < d_head:
        dst = target.out[first // d_head, nl.ds(row, count), nl.ds(first % d_head, width)]
        nisa.dma_copy(dst=dst, src=values, dge_mode=AT_ONCE)
        return
    pattern = [[d_head, count], [rows * d_head, width // d_head], [1, d_head]]
    offset = first // d_head * rows * d_head + row * d_head
    src = values.reshape((count, width // d_head, d_head))
    nisa.dma_copy(dst=target.out.ap(pattern=pattern, offset=offset), src=src, dge_mode=AT_ONCE)


def _store_to_caches(target, values, row, first):
    """Store queries to `target.out`, keys and values clipped and rounded to the dtype of their caches."""
    count, width = values.shape
    cache = target.cache
    begin, length = overlap(first, width, 0, target.q_columns)
    if length > 0:
        queries = nl.ndarray((count, length), dtype=target.out.dtype, buffer=nl.sbuf)
        nisa.tensor_copy(dst=queries, src=values[:, nl.ds(begin, length)], engine=nisa.gpsimd_engine)
        store_rows(target, queries, row, first + begin)
    slots = None
    if cache.slots is not None:
        slots = nl.ndarray((count, 1), dtype=cache.slots.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=slots, src=cache.slots[nl.ds(row, count), :])
    for index in range(2):
        tensor = cache.keys if index == 0 else cache.values
        factor = cache.key_factor if index == 0 else cache.value_factor
        start = target.q_columns + index * target.kv_columns
        begin, length = overlap(first, width, start, target.kv_columns)
        if length > 0:
            stored = _clipped(values[:, nl.ds(begin, length)], factor, cache, tensor.dtype)
            _store_to_cache(tensor, cache, stored, slots, row, first + begin - start)


def _clipped(values, factor, cache, dtype):
    """values * factor, clipped to the range of the cache and rounded to its dtype."""
    count = values.shape[0]
    scaled = nl.ndarray(values.shape, dtype=nl.float32, buffer=nl.sbuf)
    stored = nl.ndarray(values.shape, dtype=dtype, buffer=nl.sbuf)
    nisa.activation(dst=scaled, op=nl.copy, data=values, scale=factor[0:count, :])
    nisa.tensor_scalar(
        dst=stored, data=scaled, op0=nl.maximum, operand0=cache.low, op1=nl.minimum, operand1=cache.high
    )
    return stored


def _store_to_cache(tensor, cache, stored, slots, row, column):
    """Store rows to one cache: to their slots, or behind each other in the cache of each sequence."""
    count, length = stored.shape
    width = tensor.shape[1]
    if slots is not None:
        pattern = [[width, count], [1, length]]
        dst = tensor.ap(pattern=pattern, offset=column, vector_offset=slots, indirect_dim=0)
        nisa.dma_copy(dst=dst, src=stored)
        return
    done = 0
    while done < count:
        sequence, position = divmod(row + done, cache.sequence)
        number = min(count - done, cache.sequence - position)
        dst = tensor[nl.ds(sequence * cache.max_sequence + position, number), nl.ds(column, length)]
        nisa.dma_copy(dst=dst, src=stored[nl.ds(done, number), :])
        done += number
