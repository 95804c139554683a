"""Gradients of moe_cte with respect to everything it multiplies."""

import nki
import nki.isa as nisa
import nki.language as nl

from ....core.moe.moe_cte.block_phases import TOKENS, Outputs, clear_rows
from ....core.utils.kernel_assert import assert_shape, kernel_assert
from ....core.utils.kernel_helpers import get_verified_program_sharding_info
from ....core.utils.tiled_range import TiledRange
from .dropless import ACTIVATIONS, Backward, group_gradients
from .moe_bwd_parameters import (
    ActFnType,
    AffinityOption,
    ClampLimits,
    KernelTypeOption,
    ShardOption,
    SkipMode,
)

BLOCK_SIZES = (128, 256, 512, 1024)


@nki.jit
def blockwise_mm_bwd(
    hidden_states,
    expert_affinities_masked,
    gate_up_proj_weight,
    down_proj_weight,
    gate_up_proj_act_checkpoint_T,
    down_proj_act_checkpoint,
    token_position_to_id,
    block_to_expert,
    output_hidden_states_grad,
    block_size: int,
    skip_dma: SkipMode = None,
    compute_dtype=nl.bfloat16,
    is_tensor_update_accumulating: bool = True,
    shard_option: ShardOption = ShardOption.SHARD_ON_HIDDEN,
    affinity_option: AffinityOption = AffinityOption.AFFINITY_ON_H,
    kernel_type_option: KernelTypeOption = KernelTypeOption.DROPLESS,
    clamp_limits: ClampLimits = None,
    bias: bool = False,
    activation_type: ActFnType = ActFnType.SiLU,
    block_tile_size: int | None = None,
):
    """Gradients of moe_cte, POST_SCALE, from the activations that it kept.

    Args:
        hidden_states: [T + 1, H] in HBM, the last row for padding; [T, H] with `skip_dma.skip_token`.
        expert_affinities_masked: [rows * E, 1].
        gate_up_proj_weight: [E, H, 2, I].
        down_proj_weight: [E, I, H].
        gate_up_proj_act_checkpoint_T: [N, 2, I, B], gate and up after bias and clamp.
        down_proj_act_checkpoint: [N, B, H], before affinities.
        token_position_to_id: int32 [N * B]; T for padding, -1 with `skip_dma.skip_token`.
        block_to_expert: int32 [N] or [N, 1].
        output_hidden_states_grad: as hidden_states.
        block_size: B, 128, 256, 512 or 1024.
        skip_dma: rows of padding are left out.
        compute_dtype: bf16 or fp16, of the gradients too.
        is_tensor_update_accumulating: True; a token may be in several blocks.
        clamp_limits: those of the forward pass; gradients are 0 at and beyond them.
        bias: return gradients of the biases too.
        activation_type: SiLU, GELU or Swish.
        shard_option, affinity_option, kernel_type_option, block_tile_size: taken; the result is the same.

    Returns:
        Gradients of hidden_states, expert_affinities_masked, gate_up_proj_weight and down_proj_weight, and
        with `bias` of the biases [E, 2, I] and [E, H]; each of the shape of what it is the gradient of.
    """
    if skip_dma is None:
        skip_dma = SkipMode()
    if clamp_limits is None:
        clamp_limits = ClampLimits()
    rows, hidden = hidden_states.shape
    experts, intermediate = gate_up_proj_weight.shape[0], gate_up_proj_weight.shape[3]
    _, cores, core = get_verified_program_sharding_info("blockwise_mm_bwd", (0, 1), 2)
    kernel_assert(
        block_size in BLOCK_SIZES,
        f"blockwise_mm_bwd: block_size must be 128, 256, 512 or 1024, got {block_size}",
    )
    kernel_assert(
        hidden % (cores * 32) == 0,
        f"blockwise_mm_bwd: H of hidden_states must be a multiple of {cores * 32}, got {hidden}",
    )
    kernel_assert(
        intermediate % (cores * 32) == 0,
        f"blockwise_mm_bwd: I of gate_up_proj_weight must be a multiple of {cores * 32}, got {intermediate}",
    )
    kernel_assert(
        activation_type in ACTIVATIONS,
        f"blockwise_mm_bwd: activation_type must be SiLU, GELU or Swish, got {activation_type}",
    )
    blocks = token_position_to_id.shape[0] // block_size
    assert_shape(gate_up_proj_weight, (experts, hidden, 2, intermediate), "gate_up_proj_weight")
    assert_shape(down_proj_weight, (experts, intermediate, hidden), "down_proj_weight")
    assert_shape(expert_affinities_masked, (rows * experts, 1), "expert_affinities_masked")
    assert_shape(output_hidden_states_grad, (rows, hidden), "output_hidden_states_grad")
    assert_shape(
        gate_up_proj_act_checkpoint_T, (blocks, 2, intermediate, block_size), "gate_up_proj_act_checkpoint_T"
    )
    assert_shape(down_proj_act_checkpoint, (blocks, block_size, hidden), "down_proj_act_checkpoint")

    results = []
    for shape in (
        (rows, hidden),
        (rows * experts, 1),
        (experts, hidden, 2, intermediate),
        (experts, intermediate, hidden),
        (experts, 2, intermediate),
        (experts, hidden),
    ):
        if bias or len(results) < 4:
            results.append(nl.ndarray(shape, dtype=compute_dtype, buffer=nl.shared_hbm))
    problem = Backward(
        hidden_states=hidden_states,
        expert_affinities_masked=expert_affinities_masked,
        gate_up_proj_weight=gate_up_proj_weight,
        down_proj_weight=down_proj_weight,
        gate_up=gate_up_proj_act_checkpoint_T,
        down=down_proj_act_checkpoint,
        token_position_to_id=token_position_to_id,
        block_to_expert=block_to_expert,
        gradient=output_hidden_states_grad,
        d_hidden=results[0],
        d_affinities=results[1],
        d_gate_up=results[2],
        d_down=results[3],
        d_gate_up_bias=results[4] if bias else None,
        d_down_bias=results[5] if bias else None,
        rows=rows,
        hidden=hidden,
        intermediate=intermediate,
        experts=experts,
        blocks=blocks,
        block_size=block_size,
        skip=skip_dma,
        compute_dtype=compute_dtype,
        clamps=clamp_limits,
        activation=activation_type,
        core=core,
        cores=cores,
    )
    _clear(problem)
    for block in range(blocks):
        for group in TiledRange(block_size, TOKENS):
            group_gradients(problem, block, group.start_offset, group.size)
    return tuple(results)


def _clear(problem):
    """Set this core's part of every gradient to zero; one core those of affinities, before both write."""
    rows, hidden, dtype = problem.rows, problem.hidden, problem.compute_dtype
    experts, intermediate = problem.experts, problem.intermediate
    clear_rows(Outputs(problem.d_hidden, hidden, problem.own), rows, problem.width, dtype)
    clear_rows(
        Outputs(problem.d_gate_up, intermediate, problem.first), experts * hidden * 2, problem.size, dtype
    )
    for expert in range(experts):
        first = (expert * intermediate + problem.first) * hidden
        clear_rows(Outputs(problem.d_down, hidden, first), problem.size, hidden, dtype)
    if problem.d_gate_up_bias is not None:
        clear_rows(
            Outputs(problem.d_gate_up_bias, intermediate, problem.first), experts * 2, problem.size, dtype
        )
        clear_rows(Outputs(problem.d_down_bias, hidden, problem.own), experts, problem.width, dtype)
    if problem.core == 0:
        clear_rows(Outputs(problem.d_affinities, experts, 0), rows, experts, dtype)
    if problem.cores > 1:
        nisa.core_barrier(problem.d_affinities, (0, 1))
