"""What the implementations of moe_cte share: the problem, its sizes, and what is refused of all of them."""

from dataclasses import dataclass
from typing import Any

import nki.language as nl

from ...utils.common_types import ActFnType, ExpertAffinityScaleMode
from ...utils.kernel_assert import assert_shape, kernel_assert

MIN_HIDDEN = 512
MAX_HIDDEN = 8192


@dataclass
class SkipMode(nl.NKIObject):
    """Which DMAs may be left out.

    Attributes:
        skip_token: padding positions have id -1; their rows are neither read nor written.
        skip_weight: weights of an expert are read once for all of its consecutive blocks.
    """

    skip_token: bool = False
    skip_weight: bool = False


NO_SKIP = SkipMode()


@dataclass
class Clamps(nl.NKIObject):
    """Limits of the gate and up projections, after bias and scale; None where there is none."""

    gate_upper: Any = None
    gate_lower: Any = None
    up_upper: Any = None
    up_lower: Any = None


@dataclass
class Problem(nl.NKIObject):
    """The arguments that every implementation takes, by the names of the entry, and sizes read from them.

    Attributes:
        rows: rows of `hidden_states`: the tokens, and one for padding unless it is skipped.
        hidden: H.
        intermediate: I, the columns of one projection.
        experts: E.
        blocks: N.
        block_size: B.
    """

    hidden_states: Any
    expert_affinities_masked: Any
    gate_up_proj_weight: Any
    down_proj_weight: Any
    token_position_to_id: Any
    block_to_expert: Any
    gate_and_up_proj_bias: Any
    down_proj_bias: Any
    gate_up_proj_scale: Any
    down_proj_scale: Any
    rows: int
    hidden: int
    intermediate: int
    experts: int
    blocks: int
    block_size: int
    activation_function: ActFnType
    skip: SkipMode
    compute_dtype: Any
    accumulating: bool
    scaling: ExpertAffinityScaleMode
    clamps: Clamps

    def prescaled(self):
        """True if affinities multiply the hidden states; PRE_SCALE_DELAYED is the same by linearity."""
        return (
            self.scaling == ExpertAffinityScaleMode.PRE_SCALE
            or self.scaling == ExpertAffinityScaleMode.PRE_SCALE_DELAYED
        )

    def blocks_with_tokens(self):
        """How many blocks at the front hold tokens whatever the routing: an expert leaves one unfilled."""
        return max(0, self.blocks - (self.experts - 1))

    def postscaled(self):
        """True if affinities multiply the result of a block."""
        return self.scaling == ExpertAffinityScaleMode.POST_SCALE


def checked_problem(
    kernel,
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
    clamps,
    packed=False,
    least_block=256,
):
    """The :class:`Problem` of a call of `kernel`, a name for messages; refuses what none takes.

    `packed` weights are MX; `block_size` is a multiple of `least_block`.
    """
    rows, hidden = hidden_states.shape
    experts, intermediate = gate_up_proj_weight.shape[0], gate_up_proj_weight.shape[-1]
    kernel_assert(
        block_size > 0 and block_size % least_block == 0,
        f"{kernel}: block_size must be a multiple of {least_block}, got {block_size}",
    )
    kernel_assert(
        hidden >= MIN_HIDDEN and hidden <= MAX_HIDDEN and hidden % 512 == 0,
        f"{kernel}: H of hidden_states must be a multiple of 512 from {MIN_HIDDEN} to {MAX_HIDDEN}, "
        f"got {hidden}",
    )
    kernel_assert(
        intermediate % 16 == 0,
        f"{kernel}: I of gate_up_proj_weight must be a multiple of 16, got {intermediate}",
    )
    if packed:
        _check_packed(
            kernel,
            gate_up_proj_weight,
            down_proj_weight,
            gate_up_proj_scale,
            down_proj_scale,
            gate_and_up_proj_bias,
            hidden,
        )
    else:
        assert_shape(gate_up_proj_weight, (experts, hidden, 2, intermediate), "gate_up_proj_weight")
        assert_shape(down_proj_weight, (experts, intermediate, hidden), "down_proj_weight")
        if gate_and_up_proj_bias is not None:
            assert_shape(gate_and_up_proj_bias, (experts, 2, intermediate), "gate_and_up_proj_bias")
    assert_shape(expert_affinities_masked, (rows * experts, 1), "expert_affinities_masked")
    positions = token_position_to_id.shape[0]
    kernel_assert(
        positions % block_size == 0,
        f"{kernel}: token_position_to_id must hold whole blocks of {block_size}, got {positions} positions",
    )
    blocks = positions // block_size
    kernel_assert(
        block_to_expert.shape[0] == blocks,
        f"{kernel}: block_to_expert must name an expert for each of {blocks} blocks, "
        f"got {block_to_expert.shape}",
    )
    kernel_assert(
        (gate_up_proj_scale is None) == (down_proj_scale is None),
        f"{kernel}: gate_up_proj_scale and down_proj_scale must be given together",
    )
    if down_proj_bias is not None:
        assert_shape(down_proj_bias, (experts, hidden), "down_proj_bias")
    return Problem(
        hidden_states=hidden_states,
        expert_affinities_masked=expert_affinities_masked,
        gate_up_proj_weight=gate_up_proj_weight,
        down_proj_weight=down_proj_weight,
        token_position_to_id=token_position_to_id,
        block_to_expert=block_to_expert,
        gate_and_up_proj_bias=gate_and_up_proj_bias,
        down_proj_bias=down_proj_bias,
        gate_up_proj_scale=gate_up_proj_scale,
        down_proj_scale=down_proj_scale,
        rows=rows,
        hidden=hidden,
        intermediate=intermediate,
        experts=experts,
        blocks=blocks,
        block_size=block_size,
        activation_function=activation_function,
        skip=skip_dma,
        compute_dtype=compute_dtype,
        accumulating=is_tensor_update_accumulating,
        scaling=expert_affinities_scaling_mode,
        clamps=clamps,
    )


def _check_packed(kernel, gate_up, down, gate_up_scale, down_scale, bias, hidden):
    """Refuse MX weights whose shapes do not belong together."""
    experts, intermediate, tiles = gate_up.shape[0], gate_up.shape[-1], hidden // 512
    kernel_assert(
        intermediate % 512 == 0 or (intermediate < 512 and intermediate % 32 == 0),
        f"{kernel}: I of gate_up_proj_weight must be a multiple of 512, or 32 if less, got {intermediate}",
    )
    kernel_assert(
        gate_up_scale is not None and down_scale is not None,
        f"{kernel}: gate_up_proj_scale and down_proj_scale must be given with MX weights",
    )
    partitions, packed = min(128, intermediate // 4), max(1, intermediate // 512)
    assert_shape(gate_up, (experts, 128, 2, tiles, intermediate), "gate_up_proj_weight")
    assert_shape(gate_up_scale, (experts, 16, 2, tiles, intermediate), "gate_up_proj_scale")
    assert_shape(down, (experts, partitions, packed, hidden), "down_proj_weight")
    assert_shape(down_scale, (experts, partitions // 8, packed, hidden), "down_proj_scale")
    if bias is not None:
        assert_shape(bias, (experts, partitions, 2, packed, 4), "gate_and_up_proj_bias")
