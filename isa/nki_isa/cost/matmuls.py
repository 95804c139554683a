"""Costs of the tensor engine."""

from __future__ import annotations

from nki_isa.cost import Cost, kept
from nki_isa.machine.target import Target

# MATMUL instructions one nc_matmul becomes, and how long each loads a stationary column, by its passes:
# 16-bit loads are fast, an fp32 transpose takes four times as long, each half of fp32 twice that again.
_PASSES: dict[int, tuple[int, float]] = {1: (1, 1.0), 2: (1, 4.0), 4: (2, 8.0)}


@kept
def matmul(
    target: Target, moving_columns: int, passes: int, stationary_columns: int, rows: int, flops: int
) -> Cost:
    """A matmul or transpose on the tensor engine, its LoadStationary included.

    The next matmul waits for the engine to turn around, however short the moving tile; what counts as use
    for the clock is only what was streamed.

    Args:
        moving_columns: free size of the moving tile.
        passes: 1 for 16-bit and narrower data (MX and double row too), 2 for an fp32
            transpose, 4 for fp32.
        stationary_columns: free size of the stationary tile.
        rows: rows of the tensor engine in use (the contraction size, at most 128).
        flops: useful floating-point operations; 0 for a transpose.
    """
    parts, loads = _PASSES[passes]
    columns = max(moving_columns, min(target.moving_min, stationary_columns)) * passes
    stream = columns / target.tensor_rate / target.tensor_ghz
    return Cost(
        stream + parts * target.tensor_interval,
        stream + target.tensor_latency,
        "tensor_interval",
        "tensor_rate",
        columns=columns,
        weights=stationary_columns * loads / target.fast_weight_factor / target.tensor_ghz,
        parts=parts,
        rows=rows,
        use=rows / target.stationary_max * moving_columns * passes / columns,
        flops=flops,
        hardware_flops=flops or 2 * rows * stationary_columns * moving_columns,
    )
