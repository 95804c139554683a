"""Blocks one after the other, the columns of I shared out between the cores."""

import nki
import nki.isa as nisa
import nki.language as nl

from ...utils.common_types import ActFnType, ExpertAffinityScaleMode
from ...utils.device_loop import device_loop
from ...utils.kernel_assert import assert_shape, kernel_assert
from ...utils.kernel_helpers import get_verified_program_sharding_info
from .block_phases import Outputs, Share, clear_rows
from .block_schedule import run_blocks
from .moe_cte_utils import NO_SKIP, Clamps, SkipMode, checked_problem
from .plain_weights import PlainWeights


@nki.jit
def blockwise_mm_baseline_shard_intermediate(
    hidden_states,
    expert_affinities_masked,
    gate_up_proj_weight,
    down_proj_weight,
    block_size,
    token_position_to_id,
    block_to_expert,
    gate_and_up_proj_bias=None,
    down_proj_bias=None,
    gate_up_proj_scale=None,
    down_proj_scale=None,
    activation_function: ActFnType = ActFnType.SiLU,
    skip_dma: SkipMode = NO_SKIP,
    compute_dtype=nl.bfloat16,
    is_tensor_update_accumulating=True,
    expert_affinities_scaling_mode=ExpertAffinityScaleMode.PRE_SCALE,
    gate_clamp_upper_limit: float | None = None,
    gate_clamp_lower_limit: float | None = None,
    up_clamp_lower_limit: float | None = None,
    up_clamp_upper_limit: float | None = None,
    checkpoint_activation=False,
    expert_affinity_multiply_on_I=False,
):
    """moe_cte's `shard_on_i`. Parameters and results as there."""
    problem = checked_problem(
        "shard_on_i",
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
    )
    return shard_on_intermediate(problem, checkpoint_activation, expert_affinity_multiply_on_I)


@nki.jit
def blockwise_mm_shard_intermediate_dropping(
    hidden_states,
    expert_affinities_masked,
    gate_up_proj_weight,
    down_proj_weight,
    block_size,
    token_position_to_id,
    block_to_expert,
    gate_and_up_proj_bias=None,
    down_proj_bias=None,
    gate_up_proj_scale=None,
    down_proj_scale=None,
    activation_function: ActFnType = ActFnType.SiLU,
    skip_dma: SkipMode = NO_SKIP,
    compute_dtype=nl.bfloat16,
    is_tensor_update_accumulating=True,
    expert_affinities_scaling_mode=ExpertAffinityScaleMode.PRE_SCALE,
    expert_affinity_multiply_on_I: bool = False,
    gate_clamp_upper_limit: float | None = None,
    gate_clamp_lower_limit: float | None = None,
    up_clamp_lower_limit: float | None = None,
    up_clamp_upper_limit: float | None = None,
):
    """moe_cte's `shard_on_i_dropping`: one block an expert; activations are always returned."""
    problem = checked_problem(
        "shard_on_i_dropping",
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
    )
    return dropping_on_intermediate(problem, expert_affinity_multiply_on_I)


@nki.jit
def blockwise_mm_baseline_shard_intermediate_hybrid(
    conditions,
    hidden_states,
    expert_affinities_masked,
    gate_up_proj_weight,
    down_proj_weight,
    block_size: int,
    token_position_to_id,
    block_to_expert,
    num_static_block: int | None = None,
    gate_and_up_proj_bias=None,
    down_proj_bias=None,
    gate_up_proj_scale=None,
    down_proj_scale=None,
    gate_up_activations_T=None,
    down_activations=None,
    activation_function: ActFnType = ActFnType.SiLU,
    skip_dma: SkipMode = NO_SKIP,
    compute_dtype=nl.bfloat16,
    is_tensor_update_accumulating=True,
    expert_affinities_scaling_mode=ExpertAffinityScaleMode.POST_SCALE,
    gate_clamp_upper_limit: float | None = None,
    gate_clamp_lower_limit: float | None = None,
    up_clamp_lower_limit: float | None = None,
    up_clamp_upper_limit: float | None = None,
):
    """moe_cte's `shard_on_i_hybrid`: blocks that may be padding run in a device loop that ends before it."""
    problem = checked_problem(
        "shard_on_i_hybrid",
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
    )
    kernel_assert(
        gate_up_activations_T is None and down_activations is None,
        "shard_on_i_hybrid: gate_up_activations_T and down_activations must be None, nothing is kept",
    )
    return hybrid_on_intermediate(problem, conditions, num_static_block)


def shard_on_intermediate(problem, checkpoint, on_intermediate, gate_up=None, down=None):
    """All blocks in order; `gate_up` and `down` hold the activations that are kept, or new tensors do."""
    share = share_of_intermediate(problem, on_intermediate)
    dtype = problem.compute_dtype
    outputs = result_of(problem, share)
    results = [outputs.rows]
    if checkpoint:
        shape = (problem.blocks, 2, problem.intermediate, problem.block_size)
        outputs.gate_up = nl.ndarray(shape, dtype=dtype, buffer=nl.shared_hbm) if gate_up is None else gate_up
        results.append(outputs.gate_up)
        if not on_intermediate:
            shape = (problem.blocks, problem.block_size, problem.hidden)
            outputs.down = nl.ndarray(shape, dtype=dtype, buffer=nl.shared_hbm) if down is None else down
            results.append(outputs.down)
    run_blocks(PlainWeights(problem, share), outputs, list(range(problem.blocks)))
    return tuple(results) if checkpoint else outputs.rows


def dropping_on_intermediate(problem, on_intermediate, gate_up=None, down=None):
    """One block an expert; activations are kept."""
    kernel_assert(
        problem.blocks == problem.experts,
        f"shard_on_i_dropping: there must be one block for each of {problem.experts} experts, "
        f"got {problem.blocks}",
    )
    return shard_on_intermediate(problem, True, on_intermediate, gate_up, down)


def hybrid_on_intermediate(problem, conditions, num_static_block):
    """The first `num_static_block` blocks, then those `conditions` has ones for in a device loop."""
    share = share_of_intermediate(problem, False)
    kernel_assert(share.cores == 2, f"shard_on_i_hybrid: 2 programs are needed, got {share.cores}")
    outputs = result_of(problem, share)
    weights_of = PlainWeights(problem, share)
    run_hybrid(weights_of, outputs, "shard_on_i_hybrid", conditions, num_static_block)
    return outputs.rows


def run_hybrid(weights_of, outputs, kernel, conditions, num_static_block):
    """The first `num_static_block` blocks as they are, the rest in a device loop that ends before padding."""
    problem = weights_of.problem
    blocks = problem.blocks
    kernel_assert(conditions is not None, f"{kernel}: conditions [{blocks + 1}] must be given")
    assert_shape(conditions, (blocks + 1,), "conditions")
    if num_static_block is None:
        num_static_block = problem.blocks_with_tokens()
    kernel_assert(
        num_static_block >= 0 and num_static_block <= blocks,
        f"{kernel}: num_static_block must be 0 to {blocks}, got {num_static_block}",
    )
    run_blocks(weights_of, outputs, list(range(num_static_block)))
    if num_static_block < blocks:

        def one_block(block):
            run_blocks(weights_of, outputs, [block])

        device_loop(num_static_block, count_ones(conditions), one_block)


def result_of(problem, share):
    """The result, new and zero: [rows, H], of which this core finishes its columns."""
    rows = nl.ndarray((problem.rows, problem.hidden), dtype=problem.compute_dtype, buffer=nl.shared_hbm)
    outputs = Outputs(rows, problem.hidden, share.own)
    clear_rows(outputs, problem.rows, share.width, problem.compute_dtype)
    return outputs


def count_ones(conditions):
    """A register with the number of ones in `conditions`, 1-D int32 in HBM."""
    size = conditions.shape[0]
    loaded = nl.ndarray((1, size), dtype=nl.int32, buffer=nl.sbuf)
    nisa.dma_copy(dst=loaded, src=conditions.reshape((1, size)))
    count = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=count, op=nl.add, data=loaded, axis=1)
    register = nisa.register_alloc()
    nisa.register_load(register, count)
    return register


def share_of_intermediate(problem, on_intermediate, multiple=1):
    """Half of I for each of two cores, each of which finishes half of H; all of both for one."""
    kernel_assert(not problem.skip.skip_weight, "shard_on_i: skip_dma.skip_weight must be False, got True")
    _, cores, core = get_verified_program_sharding_info("moe_cte shard_on_i", (0, 1), 2)
    kernel_assert(
        problem.intermediate % (cores * multiple) == 0,
        f"shard_on_i: I must be a multiple of {cores * multiple}, got {problem.intermediate}",
    )
    size, width = problem.intermediate // cores, problem.hidden // cores
    return Share(core, cores, core * size, size, core * width, width, on_intermediate)
