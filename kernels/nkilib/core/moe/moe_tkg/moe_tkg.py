"""Mixture-of-experts MLP for token generation.

    out[t] = sum over experts e of affinity[t, e] * MLP_e(hidden[t])

over all experts whose weights are here, or over those each token has selected. :mod:`.experts` has the
kernel for 16-bit and FP8 weights, :mod:`.experts_mx` that for MX weights.
"""

from ...utils.common_types import ActFnType, ExpertAffinityScaleMode, QuantizationType
from ...utils.kernel_assert import kernel_assert
from .experts import moe_experts
from .experts_mx import moe_experts_mx
from .moe_parameters import MoeArguments, derive


def moe_tkg(
    hidden_input,
    expert_gate_up_weights,
    expert_down_weights,
    expert_affinities,
    expert_index,
    is_all_expert,
    rank_id=None,
    expert_gate_up_bias=None,
    expert_down_bias=None,
    expert_gate_up_weights_scale=None,
    expert_down_weights_scale=None,
    hidden_input_scale=None,
    gate_up_input_scale=None,
    down_input_scale=None,
    mask_unselected_experts=False,
    expert_affinities_eager=None,
    expert_affinities_scaling_mode=ExpertAffinityScaleMode.NO_SCALE,
    activation_fn=ActFnType.SiLU,
    output_dtype=None,
    gate_clamp_upper_limit=None,
    gate_clamp_lower_limit=None,
    up_clamp_upper_limit=None,
    up_clamp_lower_limit=None,
    output_in_sbuf=False,
    is_all_expert_dynamic=False,
):
    """The experts' MLPs of a transformer layer, for up to 128 tokens (MX, all experts: more).

    Args:
        hidden_input: [T, H] or [B, S, H] in HBM, bf16 or fp16; or in SBUF [128, T, H/128], where element
            h = p * (H/128) + j is at [p, t, j]. All experts on two cores: each core has half of H so.
        expert_gate_up_weights: [E_L, H, 2, I]; bf16, fp16 or float8_e4m3. MX: [E_L, 128, 2, H / 512, I] of
            float4_e2m1fn_x4 or float8_e4m3fn_x4, or uint16 or uint32 that hold them.
        expert_down_weights: [E_L, I, H]. MX: [E_L, I_p, ceil(I / 512), H] with I_p = min(I / 4, 128).
        expert_affinities: fp32 [T, E]; selected experts also take it in SBUF.
        expert_index: int32 [T, K], the experts a token has selected.
        is_all_expert: True: all E_L experts for all tokens; False: for each token those it has selected.
        rank_id: [1, 1], all experts with POST_SCALE: expert e here is column rank * E_L + e of the
        affinities.
        expert_gate_up_bias: [E_L, 2, I]. MX: [E_L, I_p, 2, ceil(I / 512), 4].
        expert_down_bias: [E_L, H].
        expert_gate_up_weights_scale: fp32 [E_L, 2, I], scales of the columns of FP8 weights. MX: uint8
            [E_L, 16, 2, H / 512, I].
        expert_down_weights_scale: fp32 [E_L, H]. MX: uint8 [E_L, I_p / 8, ceil(I / 512), H].
        hidden_input_scale: uint8 [128, H / 512, T] in SBUF: `hidden_input` is float8_e4m3fn_x4 of that shape
            there. MX weights, all experts.
        gate_up_input_scale: refused: static quantization is not supported.
        down_input_scale: refused: static quantization is not supported.
        mask_unselected_experts: all experts with POST_SCALE: affinities to experts that are not in
            `expert_index` count as 0.
        expert_affinities_eager: fp32 [T, K], selected experts: the affinities, instead of
        `expert_affinities`.
        expert_affinities_scaling_mode: NO_SCALE, where every affinity is 1, or POST_SCALE.
        activation_fn: SiLU, GELU, GELU_Tanh_Approx or Swish (x sigmoid(1.702 x)).
        output_dtype: of the result; that of `hidden_input` by default.
        gate_clamp_upper_limit: largest value of the gate projection, None for no limit.
        gate_clamp_lower_limit: smallest value of the gate projection.
        up_clamp_upper_limit: largest value of the up projection.
        up_clamp_lower_limit: smallest value of the up projection.
        output_in_sbuf: leave the result in SBUF, in the layout of `hidden_input` there. Selected experts on
            two cores: core 0 has the first T // 2 tokens, core 1 the others.
        is_all_expert_dynamic: all experts with POST_SCALE: those to which no token has an affinity are left
            out at run time, and their weights not read. The result is the same. MX weights are all read.

    Returns:
        The result, in HBM of the shape of `hidden_input`, or in SBUF.
    """
    kernel_assert(
        is_all_expert or not is_all_expert_dynamic,
        "is_all_expert_dynamic is for is_all_expert=True, got False",
    )
    arguments = derive(
        MoeArguments(
            hidden=hidden_input,
            gate_up_weights=expert_gate_up_weights,
            down_weights=expert_down_weights,
            affinities=expert_affinities,
            index=expert_index,
            is_all_expert=is_all_expert,
            rank_id=rank_id,
            gate_up_bias=expert_gate_up_bias,
            down_bias=expert_down_bias,
            gate_up_scale=expert_gate_up_weights_scale,
            down_scale=expert_down_weights_scale,
            hidden_scale=hidden_input_scale,
            mask_unselected=mask_unselected_experts,
            affinities_eager=expert_affinities_eager,
            scaling=expert_affinities_scaling_mode,
            activation_fn=activation_fn,
            output_dtype=output_dtype,
            gate_upper=gate_clamp_upper_limit,
            gate_lower=gate_clamp_lower_limit,
            up_upper=up_clamp_upper_limit,
            up_lower=up_clamp_lower_limit,
            output_in_sbuf=output_in_sbuf,
            dynamic=is_all_expert_dynamic,
        ),
        (gate_up_input_scale, down_input_scale),
    )
    if arguments.quantization_type == QuantizationType.MX:
        return moe_experts_mx(arguments)
    return moe_experts(arguments)
