"""What :func:`nkilib.core.moe.moe_tkg.moe_tkg.moe_tkg` computes, in numpy, in fp32."""

from typing import Any

import numpy as np

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
    """[T, H], of the parameters of the kernel; hidden in HBM, weights of 16 bits or FP8."""
    x = hidden_input.reshape(-1, hidden_input.shape[-1]).astype(np.float32)
    experts = expert_gate_up_weights.shape[0]
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
        values = inter @ expert_down_weights[expert].astype(np.float32)
        if expert_down_weights_scale is not None:
            values = values * expert_down_weights_scale[expert]
        if expert_down_bias is not None:
            values = values + expert_down_bias[expert].astype(np.float32)
        result += affinity[:, expert : expert + 1] * values
    return result.astype(hidden_input.dtype).reshape(hidden_input.shape)
