"""What :func:`nkilib.core.mlp.mlp.mlp` computes, in numpy, in fp32."""

import math
from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.mlp.mlp_parameters import TKG_BS_SEQLEN_THRESHOLD
from nkilib.core.utils.common_types import ActFnType, NormType, QuantizationType

Array = np.ndarray[Any, Any]

FP8 = ml_dtypes.float8_e4m3
FP8_MAX = 240.0
_ERF = np.vectorize(math.erf, otypes=[np.float32])


def activate(x: Array, function: ActFnType) -> Array:
    """The activation function of an MLP."""
    if function is ActFnType.GELU:
        return 0.5 * x * (1 + _ERF(x / math.sqrt(2)))
    if function is ActFnType.GELU_Tanh_Approx:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    slope = 1.702 if function is ActFnType.Swish else 1.0
    return x / (1 + np.exp(-slope * x))


def normalize(x: Array, norm: NormType, weights: Array | None, bias: Array | None, eps: float) -> Array:
    """A normalization along the last dimension."""
    if norm is NormType.NO_NORM:
        return x
    if norm is NormType.LAYER_NORM:
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + np.float32(eps))
    if weights is not None and norm is not NormType.RMS_NORM_SKIP_GAMMA:
        x = x * weights.astype(np.float32)
    return x if bias is None else x + bias.astype(np.float32)


def quantize_rows(x: Array, bound: float) -> tuple[Array, Array]:
    """(fp8 values as fp32, scale of each row) of rows clipped to plus or minus `bound`, 0 for no bound."""
    if bound > 0:
        x = np.clip(x, -bound, bound)
    scale = np.maximum(np.abs(x).max(-1, keepdims=True) / FP8_MAX, 1e-5)
    return quantize(x, scale), scale


def quantize(x: Array, scale: Array) -> Array:
    """x / scale in fp8, as fp32."""
    return np.clip(x / scale, -FP8_MAX, FP8_MAX).astype(FP8).astype(np.float32)


def _project(x: Array, weights: Array, scale: Array | None, bias: Array | None) -> Array:
    result = x @ weights.astype(np.float32)
    if scale is not None:
        result = result * scale[0]
    return result if bias is None else result + bias.astype(np.float32)


def mlp_reference(
    hidden_tensor: Array,
    gate_proj_weights_tensor: Array,
    up_proj_weights_tensor: Array,
    down_proj_weights_tensor: Array,
    normalization_weights_tensor: Array | None = None,
    gate_proj_bias_tensor: Array | None = None,
    up_proj_bias_tensor: Array | None = None,
    down_proj_bias_tensor: Array | None = None,
    normalization_bias_tensor: Array | None = None,
    fused_add_tensor: Array | None = None,
    store_fused_add_result: bool = False,
    activation_fn: ActFnType = ActFnType.SiLU,
    normalization_type: NormType = NormType.NO_NORM,
    quantization_type: QuantizationType = QuantizationType.NONE,
    gate_w_scale: Array | None = None,
    up_w_scale: Array | None = None,
    down_w_scale: Array | None = None,
    gate_up_in_scale: Array | None = None,
    down_in_scale: Array | None = None,
    quant_clipping_bound: float = 0.0,
    eps: float = 1e-6,
    skip_gate_proj: bool = False,
    use_tkg_down_proj_optimized_layout: bool = False,
    gate_clamp_upper_limit: float | None = None,
    gate_clamp_lower_limit: float | None = None,
    up_clamp_upper_limit: float | None = None,
    up_clamp_lower_limit: float | None = None,
    force_cte_mode: bool = False,
    lnc: int = 1,
) -> list[Array]:
    """[y] or [y, hidden + residual], of the parameters of the kernel; hidden in HBM."""
    batch, sequence = hidden_tensor.shape[:2]
    hidden_size, intermediate_size = up_proj_weights_tensor.shape
    is_context = force_cte_mode or batch * sequence > TKG_BS_SEQLEN_THRESHOLD
    dtype: Any = hidden_tensor.dtype
    x = hidden_tensor[..., :hidden_size].astype(np.float32)
    if dtype == FP8:
        dtype = ml_dtypes.bfloat16
        if quantization_type is QuantizationType.ROW:
            x = x * np.ascontiguousarray(hidden_tensor[..., hidden_size:]).view(np.float32)
        else:
            assert gate_up_in_scale is not None
            x = x * gate_up_in_scale[0]
    if fused_add_tensor is not None:
        x = x + fused_add_tensor.astype(np.float32)
    total = x.astype(dtype)
    x = normalize(x, normalization_type, normalization_weights_tensor, normalization_bias_tensor, eps)

    scales: list[Array | None] = [None, None, None]
    if quantization_type is not QuantizationType.NONE:
        scales = [gate_w_scale, up_w_scale, down_w_scale]
    inter = np.clip(
        _project(x, up_proj_weights_tensor, scales[1], up_proj_bias_tensor),
        up_clamp_lower_limit,
        up_clamp_upper_limit,
    )
    if skip_gate_proj:
        inter = activate(inter, activation_fn)
    else:
        gate = np.clip(
            _project(x, gate_proj_weights_tensor, scales[0], gate_proj_bias_tensor),
            gate_clamp_lower_limit,
            gate_clamp_upper_limit,
        )
        inter = activate(gate, activation_fn) * inter
    if is_context and quantization_type is QuantizationType.ROW:
        inter, inter_scale = quantize_rows(inter, quant_clipping_bound)
        inter = inter * inter_scale
    elif is_context and quantization_type is QuantizationType.STATIC:
        assert down_in_scale is not None
        inter = quantize(inter, down_in_scale[0]) * down_in_scale[0]

    down = down_proj_weights_tensor
    if use_tkg_down_proj_optimized_layout:
        swapped = down.reshape(intermediate_size, lnc, hidden_size // 128 // lnc, 128)
        down = swapped.transpose(0, 1, 3, 2).reshape(intermediate_size, hidden_size)
    y = _project(inter, down, scales[2], down_proj_bias_tensor).astype(dtype)
    return [y, total] if store_fused_add_result and fused_add_tensor is not None else [y]
