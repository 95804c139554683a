"""moe_cte by mathematics alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_ERF = np.vectorize(math.erf)
ACTIVATIONS = {
    "SiLU": lambda x: x / (1 + np.exp(-x)),
    "GELU": lambda x: 0.5 * x * (1 + _ERF(x / math.sqrt(2))),
    "GELU_Tanh_Approx": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "Swish": lambda x: x / (1 + np.exp(-1.702 * x)),
}


def _clipped(values: Array, lower: float | None, upper: float | None) -> Array:
    return values if lower is None and upper is None else np.clip(values, lower, upper)


def blocks_reference(
    hidden_states: Array,
    expert_affinities_masked: Array,
    gate_up_proj_weight: Array,
    down_proj_weight: Array,
    token_position_to_id: Array,
    block_to_expert: Array,
    block_size: int,
    gate_and_up_proj_bias: Array | None = None,
    down_proj_bias: Array | None = None,
    gate_up_proj_scale: Array | None = None,
    down_proj_scale: Array | None = None,
    activation: str = "SiLU",
    scaling: str = "POST_SCALE",
    accumulating: bool = True,
    on_intermediate: bool = False,
    gate_limits: tuple[float | None, float | None] = (None, None),
    up_limits: tuple[float | None, float | None] = (None, None),
) -> tuple[Array, Array, Array]:
    """The result [rows, H], and the activations [N, 2, I, B] of gate and up and [N, B, H] of down, in fp64.

    Ids of -1 name no row. `gate_limits` and `up_limits` are (lower, upper).
    """
    x = np.asarray(hidden_states, np.float64)
    rows, hidden = x.shape
    experts, _, _, intermediate = gate_up_proj_weight.shape
    affinities = np.asarray(expert_affinities_masked, np.float64).reshape(rows, experts)
    ids = np.asarray(token_position_to_id).reshape(-1, block_size)
    result = np.zeros((rows, hidden))
    gate_up_kept = np.zeros((len(ids), 2, intermediate, block_size))
    down_kept = np.zeros((len(ids), block_size, hidden))
    for block, expert in enumerate(np.asarray(block_to_expert).reshape(-1)):
        tokens, there = ids[block], ids[block] >= 0
        block_rows = np.where(there[:, None], x[tokens], 0.0)
        affinity = np.where(there, affinities[tokens, expert], 0.0)[:, None]
        if scaling.startswith("PRE"):
            block_rows = block_rows * affinity
        both = []
        for half, limits in enumerate((gate_limits, up_limits)):
            values = block_rows @ np.asarray(gate_up_proj_weight[expert, :, half], np.float64)
            if gate_up_proj_scale is not None:
                scale = np.asarray(gate_up_proj_scale, np.float64)[expert % len(gate_up_proj_scale), 0]
                values = values * scale.reshape(2, -1)[half]
            if gate_and_up_proj_bias is not None:
                values = values + np.asarray(gate_and_up_proj_bias[expert, half], np.float64)
            both.append(_clipped(values, *limits))
        gate_up_kept[block] = np.stack([values.T for values in both])
        down = (ACTIVATIONS[activation](both[0]) * both[1]) @ np.asarray(
            down_proj_weight[expert, :intermediate], np.float64
        )
        if down_proj_scale is not None:
            down = down * np.asarray(down_proj_scale, np.float64)[expert % len(down_proj_scale), 0]
        bias = 0.0 if down_proj_bias is None else np.asarray(down_proj_bias[expert], np.float64)
        down_kept[block] = down + bias
        factor = affinity if scaling == "POST_SCALE" else 1.0
        block_result = down * factor + bias if on_intermediate else (down + bias) * factor
        chosen = tokens[there]
        if accumulating:
            result[chosen] = result[chosen] + block_result[there]
        else:
            result[chosen] = block_result[there]
    return result, gate_up_kept, down_kept
