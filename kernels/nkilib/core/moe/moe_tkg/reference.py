"""What :func:`nkilib.core.moe.moe_tkg.moe_tkg.moe_tkg` computes, in numpy, in fp32."""

from typing import Any

import ml_dtypes
import numpy as np

from nki_isa.machine.dtypes import DTYPES, to_float32
from nkilib.core.mlp.reference import activate
from nkilib.core.utils.common_types import ActFnType, ExpertAffinityScaleMode

Array = np.ndarray[Any, Any]


def affinities_to_experts(
    tokens: int,
    experts: int,
    affinities: Array,
    index: Array,
    is_all_expert: bool,
    rank: int,
    mask_unselected: bool,
    eager: Array | None,
    scaling: ExpertAffinityScaleMode,
) -> Array:
    """What an expert's result is multiplied by for a token, [T, E_L]; one chosen twice counts twice."""
    choices: Array = np.zeros((tokens, affinities.shape[1]), np.float32)
    for k in range(index.shape[1]):
        given = 1.0 if eager is None else eager[:, k]
        choices[np.arange(tokens), index[:, k]] += given
    if scaling is ExpertAffinityScaleMode.NO_SCALE:
        return np.ones((tokens, experts), np.float32) if is_all_expert else choices
    if not is_all_expert:
        return choices if eager is not None else choices * affinities
    local = slice(rank * experts, (rank + 1) * experts)
    return affinities[:, local] * ((choices[:, local] > 0) if mask_unselected else 1.0)


def mx_weights(gate_up: Array, down: Array, up_scale: Array, down_scale: Array) -> tuple[Array, Array]:
    """MX weights, in words, and their scales as fp32 [E, H, 2, I] and [E, I, H]."""
    experts, _, _, tiles, size = gate_up.shape
    up = _unpacked(gate_up) * _factors(up_scale)[..., None]  # [E, p, 2, n, I, q]
    dense_up = up.transpose(0, 5, 3, 1, 2, 4).reshape(experts, tiles * 512, 2, size)
    values = _unpacked(down) * _factors(down_scale)[..., None]  # [E, p, n, H, c]
    dense_down = mx_columns(values.transpose(0, 3, 1, 2, 4), size).transpose(0, 2, 1)
    return dense_up, dense_down


def mx_columns(values: Array, size: int) -> Array:
    """[..., p, n, c] in the order of the columns of I, [..., size]."""
    pieces = []
    for n in range(values.shape[-2]):
        used = min(512, size - n * 512) // 4
        piece = values[..., :used, n, :].swapaxes(-1, -2)  # [..., c, p]
        pieces.append(piece.reshape(*piece.shape[:-2], used * 4))
    return np.concatenate(pieces, axis=-1)


def mx_intermediate(inter: Array) -> Array:
    """The input of the down projection, [T, I], as MXFP8 holds it."""
    pieces = []
    for start in range(0, inter.shape[1], 512):
        piece = inter[:, start : start + 512]
        pieces.append(in_mx(piece.reshape(piece.shape[0], 4, 1, -1)).reshape(piece.shape))
    return np.concatenate(pieces, axis=1)


def in_mx(values: Array) -> Array:
    """[T, 4, n, p] as MXFP8 holds it: the four values of 8 partitions share a power of two."""
    tokens, lanes, tiles, partitions = values.shape
    padded = np.zeros((tokens, lanes, tiles, -(-partitions // 8) * 8), np.float32)
    padded[..., :partitions] = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    groups = padded.reshape(tokens, lanes, tiles, -1, 8)
    largest = np.abs(groups).max(axis=(1, 4), keepdims=True)
    scale = np.exp2(np.floor(np.log2(np.maximum(largest, np.float32(2.0**-120)))) - 7)
    rounded = np.clip(groups / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return (rounded * scale).reshape(padded.shape)[..., :partitions]


def _unpacked(words: Array) -> Array:
    """The four values of each word, in a last dimension."""
    name = "float8_e4m3fn_x4" if words.dtype == np.uint32 else "float4_e2m1fn_x4"
    return to_float32(words, DTYPES[name]).reshape(*words.shape, 4)


def _factors(scales: Array) -> Array:
    """Scales [E, rows / 8, ...] as factors of the rows."""
    return np.repeat(np.exp2(scales.astype(np.float32) - 127), 8, axis=1)


def moe_tkg_reference(
    hidden_input: Array,
    expert_gate_up_weights: Array,
    expert_down_weights: Array,
    expert_affinities: Array,
    expert_index: Array,
    is_all_expert: bool,
    rank_id: Array | None = None,
    expert_gate_up_bias: Array | None = None,
    expert_down_bias: Array | None = None,
    expert_gate_up_weights_scale: Array | None = None,
    expert_down_weights_scale: Array | None = None,
    mask_unselected_experts: bool = False,
    expert_affinities_eager: Array | None = None,
    expert_affinities_scaling_mode: ExpertAffinityScaleMode = ExpertAffinityScaleMode.NO_SCALE,
    activation_fn: ActFnType = ActFnType.SiLU,
    gate_clamp_upper_limit: float | None = None,
    gate_clamp_lower_limit: float | None = None,
    up_clamp_upper_limit: float | None = None,
    up_clamp_lower_limit: float | None = None,
) -> Array:
    """[T, H], of the parameters of the kernel; hidden in HBM."""
    x = hidden_input.reshape(-1, hidden_input.shape[-1]).astype(np.float32)
    experts = expert_gate_up_weights.shape[0]
    is_mx = expert_gate_up_weights.ndim == 5
    if is_mx:
        assert expert_gate_up_weights_scale is not None and expert_down_weights_scale is not None
        expert_gate_up_weights, expert_down_weights = mx_weights(
            expert_gate_up_weights,
            expert_down_weights,
            expert_gate_up_weights_scale,
            expert_down_weights_scale,
        )
        if expert_gate_up_bias is not None:
            size = expert_down_weights.shape[1]
            expert_gate_up_bias = mx_columns(expert_gate_up_bias.transpose(0, 2, 1, 3, 4), size)
        expert_gate_up_weights_scale = expert_down_weights_scale = None
        x = in_mx(x.reshape(x.shape[0], 4, -1, 128)).reshape(x.shape)
    affinity = affinities_to_experts(
        x.shape[0],
        experts,
        expert_affinities,
        expert_index,
        is_all_expert,
        0 if rank_id is None else int(rank_id.item()),
        mask_unselected_experts,
        expert_affinities_eager,
        expert_affinities_scaling_mode,
    )
    limits = [
        (gate_clamp_lower_limit, gate_clamp_upper_limit),
        (up_clamp_lower_limit, up_clamp_upper_limit),
    ]
    result: Array = np.zeros_like(x)
    for expert in range(experts):
        gate_up = []
        for q in range(2):
            values = x @ expert_gate_up_weights[expert, :, q].astype(np.float32)
            if expert_gate_up_weights_scale is not None:
                values = values * expert_gate_up_weights_scale[expert, q]
            if expert_gate_up_bias is not None:
                values = values + expert_gate_up_bias[expert, q].astype(np.float32)
            gate_up.append(np.clip(values, *limits[q]))
        inter = activate(gate_up[0], activation_fn) * gate_up[1]
        if is_mx:
            inter = mx_intermediate(inter)
        values = inter @ expert_down_weights[expert].astype(np.float32)
        if expert_down_weights_scale is not None:
            values = values * expert_down_weights_scale[expert]
        if expert_down_bias is not None:
            values = values + expert_down_bias[expert].astype(np.float32)
        result += affinity[:, expert : expert + 1] * values
    return result.astype(hidden_input.dtype).reshape(hidden_input.shape)
