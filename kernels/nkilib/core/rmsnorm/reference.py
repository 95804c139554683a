"""What :mod:`nkilib.core.rmsnorm.rmsnorm_quant` computes, in numpy."""

from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

LARGEST = 240.0
SMALLEST_SCALE = 1e-6


def rmsnorm_quant_kernel_reference(
    hidden: Array, ln_w: Array, kargs: Any, input_dequant_scale: Array | None = None
) -> Array:
    """Rows normalized, if `kargs` says so, and as fp8; with row quantization each ends in its fp32 scale."""
    values = hidden.astype(np.float64)
    if kargs.needs_rms_normalization():
        values = values / np.sqrt(np.mean(values**2, axis=-1, keepdims=True) + kargs.eps)
        values = values * ln_w.astype(np.float64).reshape(-1)
    if kargs.is_row_quant():
        if kargs.has_lower_bound():
            values = np.clip(values, -kargs.lower_bound, kargs.lower_bound)
        scale = np.maximum(np.abs(values).max(axis=-1, keepdims=True) / LARGEST, SMALLEST_SCALE)
    else:
        assert input_dequant_scale is not None
        scale = input_dequant_scale[0, 0].astype(np.float64)
    quantized = np.clip(values / scale, -LARGEST, LARGEST).astype(ml_dtypes.float8_e4m3)
    if not kargs.is_row_quant():
        return quantized
    tail = scale.astype(np.float32).view(ml_dtypes.float8_e4m3)
    return np.concatenate([quantized, tail], axis=-1)


def fp8_and_scales(result: Array, kargs: Any) -> tuple[Array, Array | None]:
    """The two parts of a result: fp8 values, and with row quantization the fp32 scales [..., 1]."""
    if not kargs.is_row_quant():
        return result, None
    width = result.shape[-1] - 4
    return result[..., :width], np.ascontiguousarray(result[..., width:]).view(np.float32)
