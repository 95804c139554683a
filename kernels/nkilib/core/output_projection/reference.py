"""Both output projections in numpy."""

from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.utils.common_types import QuantizationType

Array = np.ndarray[Any, Any]


def _project(
    scores: Array,
    weight: Array,
    bias: Array | None,
    quantization_type: QuantizationType,
    weight_scale: Array | None,
    input_scale: Array | None,
) -> Array:
    """scores [rows, N * D] @ weight [N * D, H] + bias in fp32, of the dtype of `scores`."""
    values = scores.astype(np.float32)
    factor = np.float32(1.0)
    if quantization_type is QuantizationType.STATIC:
        assert weight_scale is not None
        assert input_scale is not None
        divisor = input_scale.flat[0]
        values = np.clip(values / divisor, -240.0, 240.0).astype(ml_dtypes.float8_e4m3).astype(np.float32)
        factor = divisor * weight_scale.flat[0]
    result = values @ weight.astype(np.float32) * factor
    if bias is not None:
        result = result + bias.astype(np.float32)
    return result.astype(scores.dtype)


def output_projection_cte_reference(
    attention: Array,
    weight: Array,
    bias: Array | None = None,
    quantization_type: QuantizationType = QuantizationType.NONE,
    input_scales: Array | None = None,
    weight_scales: Array | None = None,
) -> Array:
    """[B, S, H] = attention [B, N, D, S], heads folded, times weight [N * D, H], plus bias [1, H]."""
    batch, heads, d_head, sequence = attention.shape
    scores = attention.reshape(batch, heads * d_head, sequence).transpose(0, 2, 1)
    flat = scores.reshape(batch * sequence, heads * d_head)
    result = _project(flat, weight, bias, quantization_type, weight_scales, input_scales)
    return result.reshape(batch, sequence, -1)


def output_projection_tkg_reference(
    attention: Array,
    weight: Array,
    bias: Array | None = None,
    quantization_type: QuantizationType = QuantizationType.NONE,
    weight_scale: Array | None = None,
    input_scale: Array | None = None,
    TRANSPOSE_OUT: bool = False,
    lnc: int = 1,
) -> Array:
    """[B * S, H] = attention [D, B, N, S], heads folded, times weight [N * D, H], plus bias [1, H].

    With TRANSPOSE_OUT [128, lnc, R, B * S], R = H / (128 lnc), with h = (l * 128 + p) * R + r at [p, l, r].
    """
    d_head, batch, heads, sequence = attention.shape
    flat = attention.transpose(1, 3, 2, 0).reshape(batch * sequence, heads * d_head)
    result = _project(flat, weight, bias, quantization_type, weight_scale, input_scale)
    if not TRANSPOSE_OUT:
        return result
    return result.T.reshape(lnc, 128, -1, batch * sequence).transpose(1, 0, 2, 3)
