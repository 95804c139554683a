"""Cumulative sum along the last dimension.

    y[..., i] = x[..., 0] + ... + x[..., i]

Rows of [B, H] or [B * S, H] lie on the partitions, 128 at once, and are scanned 2048 columns at a time, each
tile from the last column of the one before. DMA loads and stores the tiles; the vector engine scans,
``sums[i] = ones[i] * sums[i - 1] + x[i]`` in fp32; the scalar engine rounds to the dtype of x.

Kept in SBUF per partition: 8 KiB of ones, and for each tile in flight 2048 elements of x, 8 KiB of sums
and 2048 elements of the result: 56 KiB for bf16 with two in flight.
"""

import nki
import nki.isa as nisa
import nki.language as nl

from ..utils.kernel_assert import kernel_assert
from ..utils.tiled_range import TiledRange

MAX_BATCH = 2048
MAX_SEQUENCE = 10
MAX_HIDDEN = 8192
TILE_FREE = 2048


@nki.jit
def cumsum(x, axis=-1):
    """Cumulative sum of `x` along its last dimension.

    Args:
        x: [B, H] or [B, S, H] in HBM; B at most 2048, S at most 10, H at most 8192.
        axis: -1, or the index of the last dimension.

    Returns:
        A tensor in HBM of the shape and dtype of `x`. Sums are carried in fp32.
    """
    rank = len(x.shape)
    kernel_assert(rank in (2, 3), f"cumsum takes a 2D or 3D input, got {rank}D of shape {x.shape}")
    kernel_assert(axis in (-1, rank - 1), f"cumsum sums the last dimension only (axis -1), got axis {axis}")
    batch, hidden = x.shape[0], x.shape[rank - 1]
    sequence = x.shape[1] if rank == 3 else 1
    kernel_assert(batch <= MAX_BATCH, f"the batch size is at most {MAX_BATCH}, got {batch}")
    kernel_assert(sequence <= MAX_SEQUENCE, f"the sequence length is at most {MAX_SEQUENCE}, got {sequence}")
    kernel_assert(hidden <= MAX_HIDDEN, f"the hidden size is at most {MAX_HIDDEN}, got {hidden}")

    y = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    source = x.reshape((batch * sequence, hidden))
    result = y.reshape((batch * sequence, hidden))

    widest = min(hidden, TILE_FREE)
    ones = nl.ndarray((nl.tile_size.pmax, widest), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=ones, value=1.0)
    for rows in TiledRange(batch * sequence, nl.tile_size.pmax):
        carry = nl.ndarray((rows.size, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=carry, value=0.0)
        for columns in TiledRange(hidden, TILE_FREE):
            carry = _scan_tile(source, result, ones, carry, rows, columns)
    return y


def _scan_tile(source, result, ones, carry, rows, columns):
    """Scan one [rows, columns] tile from `carry`; its last column is the carry of the next."""
    partitions = nl.ds(rows.start_offset, rows.size)
    span = nl.ds(columns.start_offset, columns.size)
    tile = nl.ndarray((rows.size, columns.size), dtype=source.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=source[partitions, span], dge_mode=nisa.dge_mode.none)
    sums = nl.ndarray((rows.size, columns.size), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor_scan(
        dst=sums,
        data0=ones[0 : rows.size, 0 : columns.size],
        data1=tile,
        initial=carry,
        op0=nl.multiply,
        op1=nl.add,
    )
    if source.dtype == nl.float32:
        nisa.dma_copy(dst=result[partitions, span], src=sums)
    else:
        rounded = nl.ndarray((rows.size, columns.size), dtype=source.dtype, buffer=nl.sbuf)
        nisa.tensor_copy(dst=rounded, src=sums, engine=nisa.scalar_engine)
        nisa.dma_copy(dst=result[partitions, span], src=rounded)
    return sums[:, columns.size - 1 : columns.size]
