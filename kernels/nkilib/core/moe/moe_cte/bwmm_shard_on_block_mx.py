"""Blocks dealt in turn to the cores, with weights in MXFP4 or MXFP8."""

from typing import Any

import nki
import nki.language as nl

from ...utils.common_types import ActFnType, ExpertAffinityScaleMode
from ...utils.device_loop import device_loop
from ...utils.kernel_assert import assert_shape, kernel_assert
from .block_phases import Outputs, clear_rows
from .block_schedule import run_blocks
from .bwmm_shard_on_block import add_results, two_cores, whole_share
from .bwmm_shard_on_I import count_ones
from .moe_cte_utils import NO_SKIP, Clamps, SkipMode, checked_problem
from .mx_weights import MxWeights


@nki.jit
def bwmm_shard_on_block_mx(
    hidden_states,
    expert_affinities_masked,
    gate_up_proj_weight,
    down_proj_weight,
    token_position_to_id,
    block_to_expert,
    conditions: nl.ndarray = None,
    gate_and_up_proj_bias: nl.ndarray = None,
    down_proj_bias: nl.ndarray = None,
    gate_up_proj_scale: nl.ndarray = None,
    down_proj_scale: nl.ndarray = None,
    block_size=None,
    n_static_blocks: int = -1,
    n_dynamic_blocks: int = 55,
    gate_up_activations_T=None,
    down_activations=None,
    activation_function: ActFnType = ActFnType.SiLU,
    skip_dma: SkipMode = NO_SKIP,
    compute_dtype=nl.bfloat16,
    weight_dtype: Any = None,
    is_tensor_update_accumulating=True,
    expert_affinities_scaling_mode=ExpertAffinityScaleMode.POST_SCALE,
    gate_clamp_upper_limit: float | None = None,
    gate_clamp_lower_limit: float | None = None,
    up_clamp_lower_limit: float | None = None,
    up_clamp_upper_limit: float | None = None,
):
    """moe_cte's `shard_on_block_mx`. Parameters and results as there."""
    kernel_assert(
        gate_up_activations_T is None and down_activations is None,
        "shard_on_block_mx: gate_up_activations_T and down_activations must be None, nothing is kept",
    )
    problem = checked_problem(
        "shard_on_block_mx",
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
        least_block=128,
    )
    return shard_on_block_mx(problem, conditions, n_static_blocks)


def shard_on_block_mx(problem, conditions, n_static_blocks):
    """As shard_on_block; with `conditions` blocks from `n_static_blocks` on run in a device loop."""
    cores, core = two_cores("shard_on_block_mx")
    kernel_assert(
        problem.accumulating, "shard_on_block_mx: is_tensor_update_accumulating must be True, got False"
    )
    rows, hidden, dtype, blocks = problem.rows, problem.hidden, problem.compute_dtype, problem.blocks
    static = blocks
    if conditions is not None:
        assert_shape(conditions, (blocks + 2,), "conditions")
        static = problem.blocks_with_tokens() if n_static_blocks < 0 else n_static_blocks
        kernel_assert(
            static < blocks, f"shard_on_block_mx: n_static_blocks must be below {blocks}, got {static}"
        )
    weights_of = MxWeights(problem, whole_share(problem))
    result = nl.ndarray((cores, rows, hidden), dtype=dtype, buffer=nl.shared_hbm)
    outputs = Outputs(result.reshape((cores * rows, hidden)), hidden, core * rows * hidden)
    clear_rows(outputs, rows, hidden, dtype)
    run_blocks(weights_of, outputs, list(range(core, static, cores)))
    if static < blocks:

        def one_block(block):
            run_blocks(weights_of, outputs, [block])

        device_loop(static + (static + core) % 2, count_ones(conditions), one_block, cores)
    add_results(result, core, rows, hidden, hidden, rows * hidden)
    return result
