"""Queries, keys and values from HBM into the layout in which attention_cte keeps them in SBUF.

Queries and keys have the head dimension on the partitions, values the keys of a block. What does not count is
made harmless here, where it costs once per key instead of once per score: a key that is not there (behind the
last one, or unused in a cache) is a copy of one that is, so no maximum changes, and its value and the one
beside it are 0, so it adds nothing to the sums.
"""

from dataclasses import dataclass
from typing import Any

import nki.isa as nisa
import nki.language as nl

from .attention_cte_plan import CHUNK_TILES, TILE


def load_transposed(dst, src, row, first, rows, stride, start=None):
    """dst[d, tile, column] = src[row, first + tile * stride * 128 + column, :].

    Args:
        dst: [d, tiles, 128], of a 16-bit dtype; columns without a row of `src` keep what they hold.
        src: [heads, length, d] in HBM.
        row: head of `src`.
        first: row of the head that is column 0.
        rows: rows that are there, counted from `first`.
        stride: from one tile of dst to the next, in tiles of src.
        start: [1, 1] int32 in SBUF, added to `first`; or None.
    """
    d, tiles, _ = dst.shape
    whole = min(tiles, (rows + (stride - 1) * TILE) // (TILE * stride))
    if whole > 0:
        view = _rows(src, row, first, [[d, TILE], [stride * TILE * d, whole], [1, d]], start)
        _transpose(dst[:, 0:whole, :], view)
    left = rows - whole * stride * TILE
    if whole < tiles and left > 0:
        view = _rows(src, row, first + whole * stride * TILE, [[d, left], [1, d]], start)
        _transpose(dst[:, whole, 0:left], view)


def _rows(src, row, first, pattern, start):
    length, d = src.shape[1], src.shape[2]
    offset = (row * length + first) * d
    if start is None:
        return src.ap(pattern=pattern, offset=offset)
    return src.ap(pattern=pattern, offset=offset, scalar_offset=start, indirect_dim=1)


def _transpose(dst, src):
    """A DMA transpose; of fp32 after a copy that rounds to the dtype of `dst`."""
    if src.dtype != dst.dtype:
        rounded = nl.ndarray(src.shape, dtype=dst.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=rounded, src=src)
        nisa.dma_transpose(dst=dst, src=rounded)
    else:
        nisa.dma_transpose(dst=dst, src=src)


def load_keys(dst, src, row, first, last, length, transposed, start=None, unused=None):
    """Blocks `first` to `last` of the keys of one head; those that do not count are copies of one that does.

    Args:
        dst: [d, blocks * 128] in SBUF, of a 16-bit dtype.
        src: [heads, d, keys] in HBM, or [heads, keys, d] if `transposed`.
        row: head of `src`.
        length: keys of the head that are there.
        start: [1, 1] int32 in SBUF, which of them is key 0 of `dst`; or None.
        unused: which keys do not count besides those behind the last; or None.
    """
    d, columns = dst.shape
    count = min(length, last * TILE) - first * TILE
    part = dst.reshape((d, columns // TILE, TILE))[:, first:last, :]
    if unused is not None:
        part = nl.ndarray((d, last - first, TILE), dtype=dst.dtype, buffer=nl.sbuf)
    there = dst[:, first * TILE : first * TILE + count]
    if unused is not None:
        there = part.reshape((d, (last - first) * TILE))[:, 0:count]
    if transposed:
        load_transposed(part, src, row, first * TILE, count, 1, start)
    else:
        total = src.shape[2]
        pattern, offset = [[total, d], [1, count]], row * d * total + first * TILE
        if start is None:
            view = src.ap(pattern=pattern, offset=offset)
        else:
            view = src.ap(pattern=pattern, offset=offset, scalar_offset=start, indirect_dim=2)
        nisa.dma_copy(dst=there, src=view)
    if unused is not None:
        kept = dst[:, first * TILE : first * TILE + count]
        nisa.tensor_copy(dst=kept, src=_repeated(unused.key, 0, d, count))
        valid = _before(unused.used, [[1, count]], 0, first * TILE)
        nisa.tensor_copy_predicated(dst=kept, src=there, predicate=valid[0:d])
    missing = (last - first) * TILE - count
    if missing > 0:
        copied, column = (dst, length - 1) if unused is None else (unused.key, 0)
        nisa.tensor_copy(dst=dst[:, length : last * TILE], src=_repeated(copied, column, d, missing))


def _repeated(keys, column, d, count):
    """One column of [d, columns], `count` times."""
    return keys.ap(pattern=[[keys.shape[1], d], [0, count]], offset=column)


def load_values(dst, src, row, first, last, length, start=None, unused=None):
    """Blocks `first` to `last` of the values of one head, beside a 1 each; rows that do not count are 0.

    Args:
        dst: [128, blocks, d + 1] in SBUF, of a 16-bit dtype.
        src: [heads, keys, d] in HBM.
        row: head of `src`.
        length: keys of the head that are there.
        start: [1, 1] int32 in SBUF, which of them is key 0 of `dst`; or None.
        unused: which keys do not count besides those behind the last; or None.
    """
    d = src.shape[2]
    part = dst[:, first:last, :]
    if unused is not None:
        part = nl.ndarray((TILE, last - first, d + 1), dtype=dst.dtype, buffer=nl.sbuf)
    _load_value_blocks(part, src, row, first * TILE, min(length, last * TILE) - first * TILE, start)
    if unused is not None:
        count = last - first
        nisa.memset(dst=dst[:, first:last, :], value=0.0)
        valid = _before(unused.used, [[TILE, count]], 1, first * TILE)
        wide = valid.ap(pattern=[[count, TILE], [1, count], [0, d + 1]])
        nisa.tensor_copy_predicated(dst=dst[:, first:last, :], src=part, predicate=wide)


def _load_value_blocks(dst, src, row, first, rows, start):
    """`rows` rows of a head from `first` on into [128, blocks, d + 1]."""
    d = src.shape[2]
    whole = rows // TILE
    if whole > 0:
        nisa.memset(dst=dst[:, 0:whole, d : d + 1], value=1.0)
        view = _rows(src, row, first, [[d, TILE], [TILE * d, whole], [1, d]], start)
        nisa.dma_copy(dst=dst[:, 0:whole, 0:d], src=view)
    left = rows - whole * TILE
    if left > 0:
        nisa.memset(dst=dst[:, whole, :], value=0.0)
        nisa.memset(dst=dst[0:left, whole, d : d + 1], value=1.0)
        view = _rows(src, row, first + whole * TILE, [[d, left], [1, d]], start)
        nisa.dma_copy(dst=dst[0:left, whole, 0:d], src=view)


@dataclass
class Unused(nl.NKIObject):
    """Keys of a segment that do not count.

    Attributes:
        used: [128, 1] fp32 in SBUF; keys from this position on do not count.
        key: [d, columns] in SBUF, whose first column is a key that every query sees.
    """

    used: Any
    key: Any


def _before(used, pattern, multiplier, offset):
    """1 where the index that iota counts is below `used`, else 0: [128, elements of the pattern] uint16."""
    index = nl.ndarray((TILE, pattern[0][1]), dtype=nl.float32, buffer=nl.sbuf)
    nisa.iota(dst=index, pattern=pattern, offset=offset, channel_multiplier=multiplier)
    valid = nl.ndarray((TILE, pattern[0][1]), dtype=nl.uint16, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=valid, data=index, op0=nl.less, operand0=used)
    return valid


def load_queries(call, head, index):
    """The chunk of queries that begins with tile `index` of the head, [d, tiles, 128]; 0 behind the last."""
    problem, d = call.problem, call.problem.d
    tiles = min(CHUNK_TILES, head.tiles - index)
    first = (head.first + index * head.stride) * TILE
    there = problem.queries - first
    queries = nl.ndarray((d, tiles, TILE), dtype=call.dtype, buffer=nl.sbuf)
    whole = min(tiles, (there + (head.stride - 1) * TILE) // (head.stride * TILE))
    if whole < tiles:
        nisa.memset(dst=queries[:, whole, :], value=0.0)
    if call.tp_q:
        load_transposed(queries, call.q, head.row, first, there, head.stride)
        return queries
    offset = head.row * d * problem.queries + first
    if whole > 0:
        pattern = [[problem.queries, d], [head.stride * TILE, whole], [1, TILE]]
        nisa.dma_copy(dst=queries[:, 0:whole, :], src=call.q.ap(pattern=pattern, offset=offset))
    if whole < tiles:
        skipped = whole * head.stride * TILE
        pattern = [[problem.queries, d], [1, there - skipped]]
        nisa.dma_copy(
            dst=queries[:, whole, 0 : there - skipped],
            src=call.q.ap(pattern=pattern, offset=offset + skipped),
        )
    return queries


def store_results(call, head, index):
    """The results of the chunk that begins with tile `index` of the head."""
    queries, d = call.problem.queries, call.problem.d
    tiles = head.results.shape[1]
    first = (head.first + index * head.stride) * TILE
    there = queries - first
    whole = min(tiles, (there + (head.stride - 1) * TILE) // (head.stride * TILE))
    skipped = whole * head.stride * TILE
    source = head.results
    offset = (head.row * queries + first) * d
    if call.tp_out:
        source = nl.ndarray((d, tiles, TILE), dtype=call.out.dtype, buffer=nl.sbuf)
        nisa.dma_transpose(dst=source, src=head.results)
        offset = head.row * queries * d + first
        if whole > 0:
            pattern = [[queries, d], [head.stride * TILE, whole], [1, TILE]]
            nisa.dma_copy(dst=call.out.ap(pattern=pattern, offset=offset), src=source[:, 0:whole, :])
        if whole < tiles:
            pattern = [[queries, d], [1, there - skipped]]
            nisa.dma_copy(
                dst=call.out.ap(pattern=pattern, offset=offset + skipped),
                src=source[:, whole, 0 : there - skipped],
            )
        return
    if whole > 0:
        pattern = [[d, TILE], [head.stride * TILE * d, whole], [1, d]]
        nisa.dma_copy(dst=call.out.ap(pattern=pattern, offset=offset), src=source[:, 0:whole, :])
    if whole < tiles:
        pattern = [[d, there - skipped], [1, d]]
        nisa.dma_copy(
            dst=call.out.ap(pattern=pattern, offset=offset + skipped * d),
            src=source[0 : there - skipped, whole, :],
        )
