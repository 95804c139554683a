"""MLP with fused residual add and normalization, for context encoding and token generation.

    x = norm(hidden + fused_add)
    y = (act(clamp(x Wgate + bgate)) * clamp(x Wup + bup)) Wdown + bdown

Up to 96 tokens the time is that of reading the weights (:mod:`.mlp_tkg.mlp_tkg`), beyond it is that
of the tensor engine (:mod:`.mlp_cte.mlp_cte`): each module says which engine does which step.
"""

import nki

from ..utils.common_types import ActFnType, NormType, QuantizationType
from .mlp_cte.mlp_cte import mlp_cte
from .mlp_parameters import MlpArguments, Projection, derive
from .mlp_tkg.mlp_tkg import mlp_tkg


@nki.jit
def mlp(
    hidden_tensor,
    gate_proj_weights_tensor,
    up_proj_weights_tensor,
    down_proj_weights_tensor,
    normalization_weights_tensor=None,
    gate_proj_bias_tensor=None,
    up_proj_bias_tensor=None,
    down_proj_bias_tensor=None,
    normalization_bias_tensor=None,
    fused_add_tensor=None,
    store_fused_add_result=False,
    activation_fn=ActFnType.SiLU,
    normalization_type=NormType.NO_NORM,
    quantization_type=QuantizationType.NONE,
    gate_w_scale=None,
    up_w_scale=None,
    down_w_scale=None,
    gate_up_in_scale=None,
    down_in_scale=None,
    quant_clipping_bound=0.0,
    output_dtype=None,
    store_output_in_sbuf=False,
    eps=1e-6,
    skip_gate_proj=False,
    use_tkg_gate_up_proj_column_tiling=True,
    use_tkg_down_proj_column_tiling=True,
    use_tkg_down_proj_optimized_layout=False,
    gate_clamp_upper_limit=None,
    gate_clamp_lower_limit=None,
    up_clamp_upper_limit=None,
    up_clamp_lower_limit=None,
    force_cte_mode=False,
):
    """The MLP of a transformer layer.

    Args:
        hidden_tensor: [B, S, H] in HBM, bf16 or fp16; H a multiple of 128. Token generation also takes
            [128, B*S, H/128] in SBUF: H cut into a chunk for each core, each chunk seen as (128,
            H/128/cores), the chunks side by side on the last dimension. Context encoding also takes
            float8_e4m3, with ROW [B, S, H + 4], where the last 4 bytes of a row are its fp32 scale.
        gate_proj_weights_tensor: [H, I]; bf16, fp16 or float8_e4m3, as all weights.
        up_proj_weights_tensor: [H, I].
        down_proj_weights_tensor: [I, H].
        normalization_weights_tensor: [1, H], for RMS_NORM and LAYER_NORM.
        gate_proj_bias_tensor: [1, I].
        up_proj_bias_tensor: [1, I].
        down_proj_bias_tensor: [1, H].
        normalization_bias_tensor: [1, H], for LAYER_NORM only.
        fused_add_tensor: a residual of the shape of `hidden_tensor`, added to it first.
        store_fused_add_result: also return that sum, as a second tensor in HBM.
        activation_fn: SiLU, GELU, GELU_Tanh_Approx or Swish (x sigmoid(1.702 x)).
        normalization_type: NO_NORM, RMS_NORM, RMS_NORM_SKIP_GAMMA or LAYER_NORM.
        quantization_type: NONE, STATIC or ROW. In token generation the weights' scales multiply the
            products and activations stay as they are; in context encoding activations are quantized too.
        gate_w_scale: fp32, [128, 1] the scale of all gate weights (STATIC), in every row alike, or
            [128, I] the scale of each column (ROW).
        up_w_scale: as gate_w_scale.
        down_w_scale: as gate_w_scale, ROW [128, H].
        gate_up_in_scale: fp32 [128, 1], STATIC: the scale the input of gate and up is quantized with.
        down_in_scale: fp32 [128, 1], STATIC: the scale the input of down is quantized with.
        quant_clipping_bound: ROW in context encoding: activations are clipped to plus or minus this
            before they are quantized; 0 clips nothing.
        output_dtype: of the result; that of `hidden_tensor` by default.
        store_output_in_sbuf: leave the result in SBUF; token generation only.
        eps: added to the variance, or mean square, in a normalization.
        skip_gate_proj: y = act(clamp(x Wup + bup)) Wdown + bdown.
        use_tkg_gate_up_proj_column_tiling: token generation: tokens are the columns of the tensor engine
            and weights stream through it; False: weights are the columns and tokens stream.
        use_tkg_down_proj_column_tiling: the same for the down projection.
        use_tkg_down_proj_optimized_layout: without down column tiling: the down weights, [I, cores, 128,
            H/128/cores], come with the last two dimensions swapped, so that columns used together are
            contiguous.
        gate_clamp_upper_limit: largest value of the gate projection, None for no limit.
        gate_clamp_lower_limit: smallest value of the gate projection.
        up_clamp_upper_limit: largest value of the up projection.
        up_clamp_lower_limit: smallest value of the up projection.
        force_cte_mode: use the path of context encoding for few tokens too.

    Returns:
        [y] or [y, hidden + fused_add]. y is [B, S, H] in HBM; with store_output_in_sbuf [B*S, H] in SBUF,
        or, without down column tiling, [128, H/128, B*S] with the order of H that `hidden_tensor` has in
        SBUF.
    """
    arguments = derive(
        MlpArguments(
            hidden=hidden_tensor,
            gate=Projection(
                gate_proj_weights_tensor,
                gate_proj_bias_tensor,
                gate_w_scale,
                gate_clamp_upper_limit,
                gate_clamp_lower_limit,
            ),
            up=Projection(
                up_proj_weights_tensor,
                up_proj_bias_tensor,
                up_w_scale,
                up_clamp_upper_limit,
                up_clamp_lower_limit,
            ),
            down=Projection(down_proj_weights_tensor, down_proj_bias_tensor, down_w_scale),
            norm_weights=normalization_weights_tensor,
            norm_bias=normalization_bias_tensor,
            fused_add=fused_add_tensor,
            store_fused_add=store_fused_add_result and fused_add_tensor is not None,
            activation_fn=activation_fn,
            norm_type=normalization_type,
            quantization_type=quantization_type,
            gate_up_in_scale=gate_up_in_scale,
            down_in_scale=down_in_scale,
            clipping_bound=quant_clipping_bound,
            output_dtype=output_dtype,
            output_in_sbuf=store_output_in_sbuf,
            eps=eps,
            skip_gate=skip_gate_proj,
            gate_up_column_tiling=use_tkg_gate_up_proj_column_tiling,
            down_column_tiling=use_tkg_down_proj_column_tiling,
            down_optimized_layout=use_tkg_down_proj_optimized_layout,
        )
    )
    if arguments.is_token_generation(force_cte_mode):
        return mlp_tkg(arguments)
    return mlp_cte(arguments)
