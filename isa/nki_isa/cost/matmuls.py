"""Costs of the tensor engine."""

from __future__ import annotations

from nki_isa.cost import Cost, kept
from nki_isa.machine.target import Target

# MATMUL instructions one nc_matmul becomes, and how long each loads a stationary column, by its passes:
# 16-bit loads are fast, an fp32 transpose takes four times as long, each half of fp32 twice that again.
_PASSES: dict[int, tuple[int, float]] = {1: (1, 1.0), 2: (1, 4.0), 4: (2, 8.0)}


def tile_blocks(position: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, ...]:
    """Indices of the 32 x 32 blocks of the array that a tile occupies, row by row; empty for all of them.

    Args:
        position, size: first row and column of the tile, its rows and columns; empty where not given.
    """
    if len(position) != 2 or len(size) != 2:
        return ()
    rows, columns = (
        range(first // 32, min(4, -(-(first + extent) // 32)))
        for first, extent in zip(position, size, strict=True)
    )
    found = tuple(4 * row + column for row in rows for column in columns)
    return found if len(found) < 16 else ()


@kept
def matmul(
    target: Target,
    moving_columns: int,
    passes: int,
    stationary_columns: int,
    rows: int,
    flops: int,
    *,
    stationary_bits: int = 16,
    blocks: tuple[int, ...] = (),
) -> Cost:
    """A matmul or transpose on the tensor engine, its LoadStationary included.

    The next matmul waits for its weights, however short the moving tile: a row of the array takes 16 bits of
    them a cycle. What counts as use for the clock is only what was streamed. Matmuls on different tiles of
    the array run beside each other, as far as a row of the array takes moving data.

    Args:
        moving_columns: free size of the moving tile.
        passes: 1 for 16-bit and narrower data (MX and double row too), 2 for an fp32
            transpose, 4 for fp32.
        stationary_columns: free size of the stationary tile.
        rows: rows of the tensor engine in use (the contraction size, at most 128).
        flops: useful floating-point operations; 0 for a transpose.
        stationary_bits: of an element.
        blocks: of its tile, :func:`tile_blocks`.
    """
    parts, loads = _PASSES[passes]
    least = min(target.moving_min, stationary_columns)
    if stationary_bits == 8:
        least = -(-least // 2)
    columns = max(moving_columns, least) * passes
    stream = columns / target.tensor_rate / target.tensor_ghz
    share = 1.0
    if blocks:
        tile_rows = 32 * len({block // 4 for block in blocks}) / target.stationary_max
        share = min(1.0, tile_rows / target.tensor_ports)
    return Cost(
        stream * share + parts * target.tensor_interval,
        stream + target.tensor_latency,
        "tensor_interval",
        "tensor_rate",
        columns=columns,
        weights=stationary_columns * loads / target.fast_weight_factor / target.tensor_ghz,
        parts=parts,
        rows=rows,
        use=moving_columns * passes / columns,
        blocks=blocks,
        share=share,
        flops=flops,
        hardware_flops=flops or 2 * rows * stationary_columns * moving_columns,
    )
