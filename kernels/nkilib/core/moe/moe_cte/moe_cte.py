"""moe_cte: the one entry, which chooses an implementation by its `spec`.

Tokens are dealt into N blocks of B, each of one expert: `token_position_to_id` names the token of every
position, `block_to_expert` the expert of every block. For every block

    result[tokens] += affinity * MLP_expert(hidden_states[tokens])

The implementations differ in what the cores of a launch share out (blocks, or columns of I), in whether
blocks of padding are left out at run time, and in how weights are stored.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import nki
import nki.language as nl

from ...utils.common_types import ActFnType, ExpertAffinityScaleMode
from ...utils.kernel_assert import kernel_assert
from .bwmm_shard_on_block import BlockShardStrategy, shard_on_block
from .bwmm_shard_on_block_mx import shard_on_block_mx
from .bwmm_shard_on_I import dropping_on_intermediate, hybrid_on_intermediate, shard_on_intermediate
from .bwmm_shard_on_I_mx import hybrid_on_intermediate_mx, shard_on_intermediate_mx
from .moe_cte_utils import NO_SKIP, Clamps, SkipMode, checked_problem


class MoECTEImplementation(Enum):
    """What the cores share out, and how weights are stored."""

    shard_on_block = 0
    shard_on_i = 1
    shard_on_i_hybrid = 2
    shard_on_i_dropping = 3
    shard_on_block_mx = 4
    shard_on_i_mx = 5
    shard_on_i_mx_hybrid = 6


@dataclass
class ShardOnBlockConfig(nl.NKIObject):
    """Options of the implementations that share out blocks.

    Attributes:
        n_block_per_iter: taken for compatibility; blocks overlap by themselves.
        block_sharding_strategy: PING_PONG.
        n_static_blocks: blocks before the device loop of `shard_on_block_mx` with conditions; -1 for N / 2.
        n_dynamic_blocks: taken for compatibility; the loop ends with the last block that is not padding.
    """

    n_block_per_iter: int = 1
    block_sharding_strategy: BlockShardStrategy = BlockShardStrategy.PING_PONG
    n_static_blocks: int = -1
    n_dynamic_blocks: int = 55


@dataclass
class ShardOnIConfig(nl.NKIObject):
    """Options of the implementations that share out columns of I.

    Attributes:
        checkpoint_activation: return the gate and up, and down, activations too.
        expert_affinity_multiply_on_I: affinities multiply the product of gate and up; the down activations
            are not kept then.
        num_static_block: blocks before the device loop of the hybrid implementations; None for as many
            as hold tokens whatever the routing.
    """

    checkpoint_activation: bool = False
    expert_affinity_multiply_on_I: bool = False
    num_static_block: int | None = None


@dataclass
class MoECTESpec(nl.NKIObject):
    """Implementation and its options; options that are None take their defaults."""

    implementation: MoECTEImplementation
    shard_on_block: ShardOnBlockConfig | None = None
    shard_on_I: ShardOnIConfig | None = None

    def __post_init__(self):
        if self.shard_on_block is None:
            self.shard_on_block = ShardOnBlockConfig()
        if self.shard_on_I is None:
            self.shard_on_I = ShardOnIConfig()


@dataclass
class QuantizationConfig(nl.NKIObject):
    """Scales of quantized weights; None where weights are not quantized.

    Attributes:
        gate_up_proj_scale: fp32 [E, 1, 2 I] or [1, 1, 2 I], [E, 1, 2] or [1, 1, 2]; MX: uint8.
        down_proj_scale: fp32 [E, 1, H] or [1, 1, H], [E, 1, 1] or [1, 1, 1]; MX: uint8.
    """

    gate_up_proj_scale: Any = None
    down_proj_scale: Any = None


@nki.jit
def moe_cte(
    hidden_states: nl.ndarray,
    expert_affinities_masked: nl.ndarray,
    gate_up_proj_weight: nl.ndarray,
    down_proj_weight: nl.ndarray,
    token_position_to_id: nl.ndarray,
    block_to_expert: nl.ndarray,
    block_size: int,
    spec: MoECTESpec,
    conditions: nl.ndarray = None,
    gate_and_up_proj_bias: nl.ndarray = None,
    down_proj_bias: nl.ndarray = None,
    quantization_config: QuantizationConfig | None = None,
    gate_up_activations_T: nl.ndarray = None,
    down_activations: nl.ndarray = None,
    activation_function: ActFnType = ActFnType.SiLU,
    skip_dma: SkipMode = NO_SKIP,
    compute_dtype: Any = nl.bfloat16,
    is_tensor_update_accumulating: bool = True,
    expert_affinities_scaling_mode: ExpertAffinityScaleMode = ExpertAffinityScaleMode.POST_SCALE,
    gate_clamp_upper_limit: float | None = None,
    gate_clamp_lower_limit: float | None = None,
    up_clamp_upper_limit: float | None = None,
    up_clamp_lower_limit: float | None = None,
):
    """Mixture of experts over blocks of tokens, for prefill.

    Args:
        hidden_states: [T + 1, H] in HBM, the last row for padding; [T, H] with `skip_dma.skip_token`.
        expert_affinities_masked: [rows * E, 1], the affinity of row r to expert e at r * E + e.
        gate_up_proj_weight: [E, H, 2, I].
        down_proj_weight: [E, I, H].
        token_position_to_id: int32 [N * B], a row of `hidden_states` for every position; T for padding,
            -1 with `skip_dma.skip_token`.
        block_to_expert: int32 [N, 1] or [N].
        block_size: B, a multiple of 256.
        spec: the implementation and its options.
        conditions: int32 [N + 1], ones for blocks with tokens, then zeros; of the hybrid implementations.
        gate_and_up_proj_bias: [E, 2, I]; down_proj_bias: [E, H].
        quantization_config: scales of fp8 weights.
        gate_up_activations_T, down_activations: tensors for the activations that are kept.
        activation_function: of the gate.
        skip_dma: which DMAs may be left out.
        compute_dtype: bf16 or fp16.
        is_tensor_update_accumulating: results are added to a token's row; else the last block's stays.
        expert_affinities_scaling_mode: where affinities multiply.
        gate_clamp_upper_limit, gate_clamp_lower_limit, up_clamp_upper_limit, up_clamp_lower_limit: limits
            of the projections, after scale and bias.

    Returns:
        [rows, H] in HBM; of `shard_on_block` with accumulation [rows, 2, H], the sum and zeros. With
        activations kept a tuple: the result, [N, 2, I, B], and [N, B, H] unless affinities multiply on I.
    """
    if quantization_config is None:
        quantization_config = QuantizationConfig()
    chosen = spec.implementation
    on_block, on_i = spec.shard_on_block, spec.shard_on_I
    block_mx = chosen == MoECTEImplementation.shard_on_block_mx
    i_mx = chosen == MoECTEImplementation.shard_on_i_mx
    i_mx_hybrid = chosen == MoECTEImplementation.shard_on_i_mx_hybrid
    problem = checked_problem(
        "moe_cte",
        hidden_states,
        expert_affinities_masked,
        gate_up_proj_weight,
        down_proj_weight,
        token_position_to_id,
        block_to_expert,
        block_size,
        gate_and_up_proj_bias,
        down_proj_bias,
        quantization_config.gate_up_proj_scale,
        quantization_config.down_proj_scale,
        activation_function,
        skip_dma,
        compute_dtype,
        is_tensor_update_accumulating,
        expert_affinities_scaling_mode,
        Clamps(gate_clamp_upper_limit, gate_clamp_lower_limit, up_clamp_upper_limit, up_clamp_lower_limit),
        packed=block_mx or i_mx or i_mx_hybrid,
        least_block=128 if block_mx else 256,
    )
    if block_mx:
        return shard_on_block_mx(problem, conditions, on_block.n_static_blocks)
    if i_mx:
        return shard_on_intermediate_mx(problem)
    if i_mx_hybrid:
        return hybrid_on_intermediate_mx(problem, conditions, on_i.num_static_block)
    if chosen == MoECTEImplementation.shard_on_block:
        return shard_on_block(problem, on_block.block_sharding_strategy)
    if chosen == MoECTEImplementation.shard_on_i_hybrid:
        return hybrid_on_intermediate(problem, conditions, on_i.num_static_block)
    multiplied_on_i = on_i.expert_affinity_multiply_on_I
    if chosen == MoECTEImplementation.shard_on_i_dropping:
        return dropping_on_intermediate(problem, multiplied_on_i, gate_up_activations_T, down_activations)
    kernel_assert(
        chosen == MoECTEImplementation.shard_on_i,
        f"moe_cte: spec.implementation must be a MoECTEImplementation, got {chosen}",
    )
    return shard_on_intermediate(
        problem, on_i.checkpoint_activation, multiplied_on_i, gate_up_activations_T, down_activations
    )
