"""Blocks dealt in turn to the cores, each of which does the whole of its own."""

from enum import Enum
from typing import Any

import nki
import nki.isa as nisa
import nki.language as nl

from ...utils.common_types import ActFnType, ExpertAffinityScaleMode
from ...utils.kernel_assert import kernel_assert
from ...utils.kernel_helpers import get_verified_program_sharding_info
from ...utils.tiled_range import TiledRange
from .block_phases import Outputs, P, Share, clear_rows
from .block_schedule import run_blocks
from .moe_cte_utils import NO_SKIP, Clamps, SkipMode, checked_problem
from .plain_weights import PlainWeights


class BlockShardStrategy(Enum):
    """Which blocks a core takes: the first or second half, or every other one."""

    HI_LO = 0
    PING_PONG = 1


@nki.jit
def bwmm_shard_on_block(
    hidden_states: nl.ndarray,
    expert_affinities_masked: nl.ndarray,
    gate_up_proj_weight: nl.ndarray,
    down_proj_weight: nl.ndarray,
    block_size: int,
    token_position_to_id: nl.ndarray,
    block_to_expert: nl.ndarray,
    gate_and_up_proj_bias: nl.ndarray = None,
    down_proj_bias: nl.ndarray = None,
    gate_up_proj_scale: nl.ndarray = None,
    down_proj_scale: nl.ndarray = None,
    down_activations: nl.ndarray = None,
    activation_function: ActFnType = ActFnType.SiLU,
    skip_dma: SkipMode = NO_SKIP,
    compute_dtype: Any = nl.bfloat16,
    is_tensor_update_accumulating: bool = True,
    expert_affinities_scaling_mode: ExpertAffinityScaleMode = ExpertAffinityScaleMode.POST_SCALE,
    n_block_per_iter: int = 1,
    gate_clamp_upper_limit: float | None = None,
    gate_clamp_lower_limit: float | None = None,
    up_clamp_upper_limit: float | None = None,
    up_clamp_lower_limit: float | None = None,
    block_sharding_strategy: BlockShardStrategy = BlockShardStrategy.PING_PONG,
):
    """moe_cte's `shard_on_block`. Parameters and results as there; `n_block_per_iter` changes nothing."""
    problem = checked_problem(
        "shard_on_block",
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
        down_activations is None, "shard_on_block: down_activations must be None, activations are not kept"
    )
    return shard_on_block(problem, block_sharding_strategy)


def shard_on_block(problem, strategy):
    """Every core adds its blocks to a result of its own; the cores' results are added at the end."""
    kernel_assert(
        strategy == BlockShardStrategy.PING_PONG,
        f"shard_on_block: block_sharding_strategy must be PING_PONG, got {strategy}",
    )
    cores, core = two_cores("shard_on_block")
    rows, hidden, dtype = problem.rows, problem.hidden, problem.compute_dtype
    weights_of = PlainWeights(problem, whole_share(problem))
    blocks = list(range(core, problem.blocks, cores))
    if problem.accumulating:
        result = nl.ndarray((rows, cores, hidden), dtype=dtype, buffer=nl.shared_hbm)
        outputs = Outputs(result, cores * hidden, core * hidden)
        clear_rows(outputs, rows, hidden, dtype)
        run_blocks(weights_of, outputs, blocks)
        add_results(result, core, rows, hidden, cores * hidden, hidden)
        return result
    result = nl.ndarray((rows, hidden), dtype=dtype, buffer=nl.shared_hbm)
    half = hidden // cores
    clear_rows(Outputs(result, hidden, core * half), rows, half, dtype)
    nisa.core_barrier(result, (0, 1))
    run_blocks(weights_of, Outputs(result, hidden, 0), blocks)
    return result


def two_cores(kernel):
    """(2, this core); refuses other launches of `kernel`."""
    _, cores, core = get_verified_program_sharding_info(f"moe_cte {kernel}", (0, 1), 2)
    kernel_assert(cores == 2, f"{kernel}: 2 programs are needed, got {cores}")
    return cores, core


def whole_share(problem):
    """All columns of a block for one core."""
    return Share(0, 1, 0, problem.intermediate, 0, problem.hidden)


def add_results(result, core, rows, hidden, row_stride, core_stride):
    """Add both cores' results into the first and set the second to zero, half the rows a core.

    Element [r, h] of core c's result is at r * row_stride + c * core_stride + h.
    """
    nisa.core_barrier(result, (0, 1))
    half = (rows + 1) // 2
    for tile in TiledRange(half if core == 0 else rows - half, P):
        both = result.ap(
            pattern=[[row_stride, tile.size], [core_stride, 2], [1, hidden]],
            offset=(core * half + tile.start_offset) * row_stride,
        )
        loaded = nl.ndarray((tile.size, 2, hidden), dtype=result.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=loaded, src=both)
        added = nl.ndarray((tile.size, 2, hidden), dtype=result.dtype, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=added[:, 0, :], data1=loaded[:, 0, :], data2=loaded[:, 1, :], op=nl.add)
        nisa.memset(dst=added[:, 1, :], value=0.0)
        nisa.dma_copy(dst=both, src=added)
