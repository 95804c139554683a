"""The QKV projection in numpy."""

from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.utils.common_types import NormType, QKVOutputLayout, QuantizationType

Array = np.ndarray[Any, Any]
MX_BLOCK = 32


def _wide(array: Array | None) -> Array | None:
    return None if array is None else array.astype(np.float32)


def _normalized(
    x: Array, norm: NormType, gamma: Array | None, beta: Array | None, eps: float, hidden_actual: int | None
) -> Array:
    """RMSNorm or LayerNorm over the last dimension; the mean is over `hidden_actual` values."""
    if norm is NormType.NO_NORM:
        return x
    count = hidden_actual or x.shape[-1]
    variance = (x * x).sum(-1, keepdims=True) / count
    if norm is NormType.LAYER_NORM:
        mean = x.sum(-1, keepdims=True) / count
        x, variance = x - mean, variance - mean * mean
    x = x / np.sqrt(variance + np.float32(eps))
    if gamma is not None:
        x = x * gamma
    return x if beta is None else x + beta


def _in_mx(rows: Array) -> Array:
    """[rows, H] as MXFP8 holds it: 32 neighbouring values share a power of two, e4m3fn."""
    blocks = rows.astype(ml_dtypes.bfloat16).astype(np.float32).reshape(rows.shape[0], -1, MX_BLOCK)
    largest = np.abs(blocks).max(-1, keepdims=True)
    exponent = np.floor(np.log2(np.maximum(largest, np.float32(2.0**-120)))) - 7
    scale = np.exp2(np.maximum(exponent, -127)).astype(np.float32)
    values = np.clip(blocks / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return (values * scale).reshape(rows.shape)


def _mx_values(packed: Array, scales: Array) -> Array:
    """The values of MX weights: packed [H / 4, I] of 4 values each, scales [H / 32, I] as exponents."""
    rows, columns = packed.shape
    values = packed.view(ml_dtypes.float8_e4m3fn).reshape(rows, columns, 4).astype(np.float32)
    values = values.transpose(0, 2, 1).reshape(rows * 4, columns)
    factors = np.exp2(scales.astype(np.float32) - 127)
    return values * np.repeat(factors, MX_BLOCK, axis=0)


def _rotated(values: Array, cosines: Array, sines: Array, heads: int) -> Array:
    """RoPE of the first `heads` heads of [B, S, I]; the halves of a head are the two parts."""
    batch, sequence, d_head = cosines.shape
    part = values[..., : heads * d_head].reshape(batch, sequence, heads, d_head)
    left, right = np.split(part, 2, axis=-1)
    crossed = np.concatenate([-right, left], axis=-1)
    turned = part * cosines[:, :, None] + crossed * sines[:, :, None]
    return np.concatenate([turned.reshape(batch, sequence, -1), values[..., heads * d_head :]], axis=-1)


def qkv_reference(
    input: Array,
    fused_qkv_weights: Array,
    output_layout: QKVOutputLayout = QKVOutputLayout.BSD,
    bias: Array | None = None,
    quantization_type: QuantizationType = QuantizationType.NONE,
    qkv_w_scale: Array | None = None,
    qkv_in_scale: Array | None = None,
    mlp_prev: Array | None = None,
    attention_prev: Array | None = None,
    fused_norm_type: NormType = NormType.NO_NORM,
    gamma_norm_weights: Array | None = None,
    layer_norm_bias: Array | None = None,
    norm_eps: float = 1e-6,
    hidden_actual: int | None = None,
    fused_rope: bool = False,
    cos_cache: Array | None = None,
    sin_cache: Array | None = None,
    d_head: int | None = None,
    num_q_heads: int | None = None,
    num_kv_heads: int | None = None,
    k_cache: Array | None = None,
    v_cache: Array | None = None,
    k_scale: Array | None = None,
    v_scale: Array | None = None,
    fp8_max: float | None = None,
    fp8_min: float | None = None,
    slot_mapping: Array | None = None,
    is_input_swizzled: bool = False,
) -> Any:
    """What :func:`nkilib.core.qkv.qkv.qkv` returns for input in HBM; caches are returned new."""
    batch, sequence, hidden = input.shape
    dtype = input.dtype
    x = input.astype(np.float32)
    if is_input_swizzled:
        x = x.reshape(batch, sequence, 4, hidden // 512, 128).transpose(0, 1, 3, 4, 2).reshape(x.shape)
    if mlp_prev is not None and attention_prev is not None:
        x = x + mlp_prev.astype(np.float32) + attention_prev.astype(np.float32)
    summed = x.astype(dtype)
    x = _normalized(
        x, fused_norm_type, _wide(gamma_norm_weights), _wide(layer_norm_bias), norm_eps, hidden_actual
    )
    rows = x.reshape(batch * sequence, hidden)
    if quantization_type is QuantizationType.MX:
        assert qkv_w_scale is not None
        values = _in_mx(rows) @ _mx_values(fused_qkv_weights, qkv_w_scale)
    else:
        factors: Any = np.float32(1.0)
        if quantization_type is QuantizationType.STATIC:
            assert qkv_w_scale is not None
            assert qkv_in_scale is not None
            assert d_head is not None
            assert num_q_heads is not None
            assert num_kv_heads is not None
            scale = qkv_in_scale.flat[0]
            rows = np.clip(rows / scale, -240, 240).astype(ml_dtypes.float8_e4m3).astype(np.float32)
            columns = np.array([num_q_heads, num_kv_heads, num_kv_heads]) * d_head
            factors = np.repeat(qkv_w_scale[0], columns) * scale
        values = rows @ fused_qkv_weights.astype(np.float32) * factors
    if bias is not None:
        values = values + bias.astype(np.float32)
    values = values.reshape(batch, sequence, -1)
    if fused_rope:
        assert cos_cache is not None
        assert sin_cache is not None
        heads = (num_q_heads or 0) + (num_kv_heads or 0)
        values = _rotated(values, cos_cache.astype(np.float32), sin_cache.astype(np.float32), heads)

    if k_scale is not None and v_scale is not None:
        assert k_cache is not None
        assert v_cache is not None
        kv = k_cache.shape[2]
        queries = values.shape[-1] - 2 * kv
        high = float(ml_dtypes.finfo(k_cache.dtype).max) if fp8_max is None else fp8_max
        low = -high if fp8_min is None else fp8_min
        places = np.arange(batch)[:, None] * k_cache.shape[1] + np.arange(sequence)
        if slot_mapping is not None:
            places = slot_mapping
        caches = []
        for index, (cache, scale) in enumerate(((k_cache, k_scale), (v_cache, v_scale))):
            part = values[..., queries + index * kv :][..., :kv] / scale.flat[0]
            updated = cache.copy()
            updated.reshape(-1, kv)[places] = np.clip(part, low, high).astype(cache.dtype)
            caches.append(updated)
        return values[..., :queries].astype(dtype), caches[0], caches[1]

    result = values.astype(dtype)
    if output_layout is QKVOutputLayout.NBSd:
        assert d_head is not None
        result = result.reshape(batch, sequence, -1, d_head).transpose(2, 0, 1, 3)
    if mlp_prev is not None and not fused_rope and batch * sequence <= 96:
        return result, summed
    return result
