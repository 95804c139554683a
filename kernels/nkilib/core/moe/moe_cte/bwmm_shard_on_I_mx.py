"""Blocks one after the other, packed tiles of I shared out between the cores, weights in MXFP4 or MXFP8."""

from typing import Any

import nki
import nki.language as nl

from ...utils.common_types import ActFnType, ExpertAffinityScaleMode
from ...utils.kernel_assert import kernel_assert
from .block_schedule import run_blocks
from .bwmm_shard_on_I import result_of, run_hybrid, share_of_intermediate
from .moe_cte_utils import NO_SKIP, Clamps, SkipMode, checked_problem
from .mx_weights import MxWeights


@nki.jit
def blockwise_mm_shard_intermediate_mx(
    hidden_states: nl.ndarray,
    expert_affinities_masked: nl.ndarray,
    gate_up_proj_weight: nl.ndarray,
    down_proj_weight: nl.ndarray,
    token_position_to_id: nl.ndarray,
    block_to_expert: nl.ndarray,
    gate_and_up_proj_bias: nl.ndarray = None,
    down_proj_bias: nl.ndarray = None,
    gate_up_proj_scale: nl.ndarray = None,
    down_proj_scale: nl.ndarray = None,
    block_size: int | None = None,
    activation_function: ActFnType = ActFnType.SiLU,
    skip_dma: SkipMode = NO_SKIP,
    compute_dtype=nl.bfloat16,
    weight_dtype: Any = None,
    is_tensor_update_accumulating: bool = True,
    expert_affinities_scaling_mode: ExpertAffinityScaleMode = ExpertAffinityScaleMode.PRE_SCALE,
    gate_clamp_upper_limit: float | None = None,
    gate_clamp_lower_limit: float | None = None,
    up_clamp_lower_limit: float | None = None,
    up_clamp_upper_limit: float | None = None,
):
    """moe_cte's `shard_on_i_mx`. Parameters and results as there."""
    problem = checked_problem(
        "shard_on_i_mx",
        hidden_states,
        expert_affinities_masked,
        gate_up_proj_weight,
        down_proj_weight,
        token_position_to_id,
        block_to_expert,
        block_size,
        gate_and_up_proj_bias,
        down_proj_bias,
        gate_up_proj_scale,
        down_proj_scale,
        activation_function,
        skip_dma,
        compute_dtype,
        is_tensor_update_accumulating,
        expert_affinities_scaling_mode,
        Clamps(gate_clamp_upper_limit, gate_clamp_lower_limit, up_clamp_upper_limit, up_clamp_lower_limit),
        packed=True,
    )
    return shard_on_intermediate_mx(problem)


@nki.jit
def blockwise_mm_shard_intermediate_mx_hybrid(
    conditions: nl.ndarray,
    hidden_states: nl.ndarray,
    expert_affinities_masked: nl.ndarray,
    gate_up_proj_weight: nl.ndarray,
    down_proj_weight: nl.ndarray,
    token_position_to_id: nl.ndarray,
    block_to_expert: nl.ndarray,
    gate_and_up_proj_bias: nl.ndarray = None,
    down_proj_bias: nl.ndarray = None,
    gate_up_proj_scale: nl.ndarray = None,
    down_proj_scale: nl.ndarray = None,
    block_size: int | None = None,
    num_static_block: int | None = None,
    activation_function: ActFnType = ActFnType.SiLU,
    skip_dma: SkipMode = NO_SKIP,
    compute_dtype=nl.bfloat16,
    weight_dtype: Any = None,
    is_tensor_update_accumulating: bool = True,
    expert_affinities_scaling_mode: ExpertAffinityScaleMode = ExpertAffinityScaleMode.POST_SCALE,
    gate_clamp_upper_limit: float | None = None,
    gate_clamp_lower_limit: float | None = None,
    up_clamp_lower_limit: float | None = None,
    up_clamp_upper_limit: float | None = None,
):
    """moe_cte's `shard_on_i_mx_hybrid`. Parameters and results as there."""
    problem = checked_problem(
        "shard_on_i_mx_hybrid",
        hidden_states,
        expert_affinities_masked,
        gate_up_proj_weight,
        down_proj_weight,
        token_position_to_id,
        block_to_expert,
        block_size,
        gate_and_up_proj_bias,
        down_proj_bias,
        gate_up_proj_scale,
        down_proj_scale,
        activation_function,
        skip_dma,
        compute_dtype,
        is_tensor_update_accumulating,
        expert_affinities_scaling_mode,
        Clamps(gate_clamp_upper_limit, gate_clamp_lower_limit, up_clamp_upper_limit, up_clamp_lower_limit),
        packed=True,
    )
    return hybrid_on_intermediate_mx(problem, conditions, num_static_block)


def _weights(problem):
    kernel_assert(
        not problem.prescaled(),
        "shard_on_i_mx: expert_affinities_scaling_mode must be POST_SCALE or NO_SCALE, got a PRE_SCALE",
    )
    return MxWeights(problem, share_of_intermediate(problem, False, multiple=512))


def shard_on_intermediate_mx(problem):
    """All blocks in order."""
    weights_of = _weights(problem)
    outputs = result_of(problem, weights_of.share)
    run_blocks(weights_of, outputs, list(range(problem.blocks)))
    return outputs.rows


def hybrid_on_intermediate_mx(problem, conditions, num_static_block):
    """The first blocks in order, the others in a device loop that ends before padding."""
    weights_of = _weights(problem)
    kernel_assert(
        weights_of.share.cores == 2,
        f"shard_on_i_mx_hybrid: 2 programs are needed, got {weights_of.share.cores}",
    )
    outputs = result_of(problem, weights_of.share)
    run_hybrid(weights_of, outputs, "shard_on_i_mx_hybrid", conditions, num_static_block)
    return outputs.rows
