"""moe_cte by mathematics alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

_ERF = np.vectorize(math.erf)
ACTIVATIONS = {
    "SiLU": lambda x: x / (1 + np.exp(-x)),
    "GELU": lambda x: 0.5 * x * (1 + _ERF(x / math.sqrt(2))),
    "GELU_Tanh_Approx": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "Swish": lambda x: x / (1 + np.exp(-1.702 * x)),
}


def _same(values: Array) -> Array:
    return values


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
    rows_rounded: Callable[[Array], Array] = _same,
    product_rounded: Callable[[Array], Array] = _same,
    padding: int | None = None,
) -> tuple[Array, Array, Array]:
    """The result [rows, H], and the activations [N, 2, I, B] of gate and up and [N, B, H] of down, in fp64.

    Ids of -1 name no row, those of `padding` one that is read but not written. `gate_limits` and
    `up_limits` are (lower, upper). `rows_rounded` and
    `product_rounded` are what quantization does to what the projections multiply.
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
        block_rows = rows_rounded(block_rows)
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
        product = product_rounded(ACTIVATIONS[activation](both[0]) * both[1])
        down = product @ np.asarray(down_proj_weight[expert, :intermediate], np.float64)
        if down_proj_scale is not None:
            down = down * np.asarray(down_proj_scale, np.float64)[expert % len(down_proj_scale), 0]
        bias = 0.0 if down_proj_bias is None else np.asarray(down_proj_bias[expert], np.float64)
        down_kept[block] = down + bias
        factor = affinity if scaling == "POST_SCALE" else 1.0
        block_result = down * factor + bias if on_intermediate else (down + bias) * factor
        written = there & (tokens != padding)
        chosen = tokens[written]
        if accumulating:
            result[chosen] = result[chosen] + block_result[written]
        else:
            result[chosen] = block_result[written]
    return result, gate_up_kept, down_kept


# --- MX: packed values and their scales as numbers

_LANES = {
    "float8_e4m3fn_x4": (8, ml_dtypes.float8_e4m3fn),
    "float8_e5m2_x4": (8, ml_dtypes.float8_e5m2),
    "float4_e2m1fn_x4": (4, ml_dtypes.float4_e2m1fn),
}


def unpacked(packed: Array, scales: Array, kind: str) -> Array:
    """Numbers [..., P, M, 4] of packed values [..., P, M] and scales [..., P / 8, M], 2^(scale - 127)."""
    bits, lane = _LANES[kind]
    table = np.arange(2**bits, dtype=np.uint8).view(lane).astype(np.float64)
    codes = packed.astype(np.uint64)[..., None] >> (np.arange(4, dtype=np.uint64) * np.uint64(bits))
    factors = np.exp2(scales.astype(np.float64) - 127)
    return (
        table[(codes & np.uint64(2**bits - 1)).astype(np.int64)] * np.repeat(factors, 8, axis=-2)[..., None]
    )


def rounded_mx(values: Array) -> Array:
    """Values [tokens, n] as they are after MXFP8 e4m3fn: groups of 8 by 4 share a power of two.

    Column `w * n/4 + p` is value w of partition p, for n / 4 a multiple of 8.
    """
    tokens, columns = values.shape
    groups = values.reshape(tokens, 4, columns // 32, 8)
    largest = np.abs(groups).max(axis=(1, 3), keepdims=True)
    exponents = np.floor(np.log2(np.where(largest > 0, largest, 1.0))) - 7
    factors = np.exp2(np.maximum(exponents, -127))
    codes = (groups / factors).astype(np.float32).astype(ml_dtypes.float8_e4m3fn)
    return (codes.astype(np.float64) * factors).reshape(tokens, columns)


def mx_blocks_reference(
    gate_up_proj_weight: Array,
    down_proj_weight: Array,
    gate_up_proj_scale: Array,
    down_proj_scale: Array,
    kind: str,
    gate_and_up_proj_bias: Array | None = None,
    **others: Any,
) -> tuple[Array, Array, Array]:
    """As :func:`blocks_reference`, of MX weights in the layouts of moe_cte, `kind` their packed data type."""
    experts, _, _, tiles, intermediate = gate_up_proj_weight.shape
    partitions, packed, hidden = down_proj_weight.shape[1:]
    gate_up = unpacked(
        gate_up_proj_weight.reshape(experts, 128, -1), gate_up_proj_scale.reshape(experts, 16, -1), kind
    )  # p, (2, t, i), w -> h = (w, t, p), 2, i
    gate_up = gate_up.reshape(experts, 128, 2, tiles, intermediate, 4).transpose(0, 5, 3, 1, 2, 4)
    down = unpacked(
        down_proj_weight.reshape(experts, partitions, -1),
        down_proj_scale.reshape(experts, partitions // 8, -1),
        kind,
    )  # p, (t, h), w -> i = (t, w, p), h
    down = down.reshape(experts, partitions, packed, hidden, 4).transpose(0, 2, 4, 1, 3)
    if gate_and_up_proj_bias is not None:  # p, 2, t, w -> 2, i = (t, w, p)
        gate_and_up_proj_bias = np.asarray(gate_and_up_proj_bias).transpose(0, 2, 3, 4, 1)
        gate_and_up_proj_bias = gate_and_up_proj_bias.reshape(experts, 2, intermediate)

    def product_rounded(values: Array) -> Array:
        pieces = values.reshape(len(values) * packed, 4 * partitions)
        return rounded_mx(pieces).reshape(values.shape)

    return blocks_reference(
        gate_up_proj_weight=gate_up.reshape(experts, hidden, 2, intermediate),
        down_proj_weight=down.reshape(experts, intermediate, hidden),
        gate_and_up_proj_bias=gate_and_up_proj_bias,
        rows_rounded=rounded_mx,
        product_rounded=product_rounded,
        **others,
    )


# --- the entry

_PACKED = {"uint16": "float4_e2m1fn_x4", "uint32": "float8_e4m3fn_x4"}


def moe_cte_reference(
    hidden_states: Array,
    expert_affinities_masked: Array,
    gate_up_proj_weight: Array,
    down_proj_weight: Array,
    token_position_to_id: Array,
    block_to_expert: Array,
    block_size: int,
    spec: Any,
    skip_dma: Any = None,
    gate_and_up_proj_bias: Array | None = None,
    down_proj_bias: Array | None = None,
    gate_up_proj_scale: Array | None = None,
    down_proj_scale: Array | None = None,
    activation_function: Any = None,
    is_tensor_update_accumulating: bool = True,
    expert_affinities_scaling_mode: Any = None,
    gate_clamp_upper_limit: float | None = None,
    gate_clamp_lower_limit: float | None = None,
    up_clamp_upper_limit: float | None = None,
    up_clamp_lower_limit: float | None = None,
) -> Any:
    """What moe_cte returns for `spec`. Weights of an unsigned dtype hold the bits of packed values."""
    packed = {}
    if gate_up_proj_weight.dtype.name in _PACKED:
        packed = {"kind": _PACKED[gate_up_proj_weight.dtype.name]}
    blocks = mx_blocks_reference if packed else blocks_reference
    result, gate_up, down = blocks(
        hidden_states=hidden_states,
        expert_affinities_masked=expert_affinities_masked,
        gate_up_proj_weight=gate_up_proj_weight,
        down_proj_weight=down_proj_weight,
        token_position_to_id=token_position_to_id,
        block_to_expert=block_to_expert,
        block_size=block_size,
        gate_and_up_proj_bias=gate_and_up_proj_bias,
        down_proj_bias=down_proj_bias,
        gate_up_proj_scale=gate_up_proj_scale,
        down_proj_scale=down_proj_scale,
        activation="SiLU" if activation_function is None else activation_function.name,
        scaling=getattr(expert_affinities_scaling_mode, "name", "POST_SCALE"),
        accumulating=is_tensor_update_accumulating,
        on_intermediate=spec.shard_on_I.expert_affinity_multiply_on_I,
        gate_limits=(gate_clamp_lower_limit, gate_clamp_upper_limit),
        up_limits=(up_clamp_lower_limit, up_clamp_upper_limit),
        padding=None if skip_dma is not None and skip_dma.skip_token else len(hidden_states) - 1,
        **packed,
    )
    result, gate_up, down = (values.astype(hidden_states.dtype) for values in (result, gate_up, down))
    name = spec.implementation.name
    if name == "shard_on_block" and is_tensor_update_accumulating:
        return np.stack([result, np.zeros_like(result)], 1)
    if name == "shard_on_block_mx":
        return np.stack([result, np.zeros_like(result)])
    if name == "shard_on_i_dropping" or spec.shard_on_I.checkpoint_activation:
        kept = (result, gate_up)
        return kept if spec.shard_on_I.expert_affinity_multiply_on_I else (*kept, down)
    return result
