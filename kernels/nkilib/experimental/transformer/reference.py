"""The attention block for decoding, by mathematics alone."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]


def _norm(values: Array, axis: int, eps: float) -> Array:
    return values / np.sqrt(np.mean(values**2, axis=axis, keepdims=True) + eps)


def _rotated(values: Array, cos: Array, sin: Array, contiguous: bool) -> Array:
    """[d, B, heads, S] rotated by [d / 2, B, S]."""
    half = len(values) // 2
    even, odd = (values[:half], values[half:]) if contiguous else (values[0::2], values[1::2])
    c, s = cos[:, :, None, :], sin[:, :, None, :]
    parts = even * c - odd * s, odd * c + even * s
    if contiguous:
        return np.concatenate(parts)
    return np.stack(parts, 1).reshape(values.shape)


def attention_block_tkg_reference(
    X: Array,
    X_hidden_dim_actual: int | None,
    rmsnorm_X_enabled: bool,
    rmsnorm_X_eps: float,
    rmsnorm_X_gamma: Array | None,
    W_qkv: Array,
    bias_qkv: Array | None,
    rmsnorm_QK_pre_rope_enabled: bool,
    rmsnorm_QK_pre_rope_eps: float,
    cos: Array | None,
    sin: Array | None,
    rope_contiguous_layout: bool,
    rmsnorm_QK_post_rope_enabled: bool,
    rmsnorm_QK_post_rope_eps: float,
    rmsnorm_QK_post_rope_W_Q: Array | None,
    rmsnorm_QK_post_rope_W_K: Array | None,
    K_cache_transposed: bool,
    K_cache: Array,
    V_cache: Array,
    attention_mask: Array,
    update_cache: bool,
    kv_cache_update_idx: Array,
    W_out: Array | None,
    bias_out: Array | None,
    transposed_out: bool,
    active_blocks_table: Array | None = None,
    sink: Array | None = None,
    softmax_scale: float | None = None,
    k_scale: Array | None = None,
    v_scale: Array | None = None,
    skip_attention: bool = False,
    lnc: int = 1,
) -> tuple[Array, Array, Array]:
    """What attention_block_tkg returns in HBM, without quantized weights; fp64 inside."""
    hidden = np.asarray(X, np.float64)
    batch, tokens, size = hidden.shape
    d, dtype = V_cache.shape[-1], X.dtype
    heads = W_qkv.shape[1] // d - 2
    if rmsnorm_X_enabled:
        total = (hidden**2).sum(-1, keepdims=True) / (X_hidden_dim_actual or size)
        hidden = hidden / np.sqrt(total + rmsnorm_X_eps)
        if rmsnorm_X_gamma is not None:
            hidden = hidden * np.asarray(rmsnorm_X_gamma, np.float64)
    projected = hidden @ np.asarray(W_qkv, np.float64)
    if bias_qkv is not None:
        projected = projected + np.asarray(bias_qkv, np.float64)
    by_head = projected.reshape(batch, tokens, heads + 2, d)
    qk, values = by_head[:, :, : heads + 1], by_head[:, :, -1]
    if rmsnorm_QK_pre_rope_enabled:
        qk = _norm(qk, -1, rmsnorm_QK_pre_rope_eps)
    qk = qk.transpose(3, 0, 2, 1)  # d, B, heads + 1, S
    if cos is not None and sin is not None:
        qk = _rotated(qk, np.asarray(cos, np.float64), np.asarray(sin, np.float64), rope_contiguous_layout)
    if rmsnorm_QK_post_rope_enabled:
        qk = _norm(qk, 0, rmsnorm_QK_post_rope_eps)
    queries, keys = qk[:, :, :heads], qk[:, :, heads]
    if rmsnorm_QK_post_rope_enabled:
        if rmsnorm_QK_post_rope_W_Q is not None:
            queries = queries * np.asarray(rmsnorm_QK_post_rope_W_Q, np.float64).reshape(d, 1, 1, 1)
        if rmsnorm_QK_post_rope_W_K is not None:
            keys = keys * np.asarray(rmsnorm_QK_post_rope_W_K, np.float64).reshape(d, 1, 1)
    if k_scale is not None and v_scale is not None:
        fp8 = ml_dtypes.float8_e4m3
        keys = np.clip(keys * k_scale[0, 0], -240, 240).astype(fp8).astype(np.float64)
        values = np.clip(values * v_scale[0, 0], -240, 240).astype(fp8).astype(np.float64)

    attended = queries
    if not skip_attention:
        scale = d**-0.5 if softmax_scale is None else softmax_scale
        old_keys, old_values = _cached(K_cache, V_cache, K_cache_transposed, active_blocks_table)
        context = len(attention_mask)
        all_keys, all_values = old_keys[:batch, :context].copy(), old_values[:batch, :context].copy()
        all_keys[:, -tokens:], all_values[:, -tokens:] = keys.transpose(1, 2, 0), values
        scores = scale * np.einsum("dbhs,bkd->bhsk", queries, all_keys)
        scores = np.where(attention_mask.transpose(1, 2, 3, 0) != 0, scores, -np.inf)
        if sink is not None:
            extra = np.broadcast_to(
                np.asarray(sink, np.float64).reshape(1, heads, 1, 1), (*scores.shape[:3], 1)
            )
            scores = np.concatenate([scores, extra], -1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = (weights / weights.sum(-1, keepdims=True))[..., :context]
        attended = np.einsum("bhsk,bkd->dbhs", weights, all_values)

    if update_cache:
        k_result, v_result = _updated(
            K_cache, V_cache, keys, values, kv_cache_update_idx, K_cache_transposed, active_blocks_table
        )
    else:
        kept = K_cache.dtype if k_scale is not None else dtype
        k_result, v_result = keys.astype(kept), values[:, None].astype(kept)
    if W_out is None:
        return attended.transpose(1, 2, 0, 3).astype(dtype), k_result, v_result
    rows = attended.transpose(1, 3, 2, 0).reshape(batch * tokens, heads * d)
    result = rows @ np.asarray(W_out, np.float64)
    if bias_out is not None:
        result = result + np.asarray(bias_out, np.float64)
    if transposed_out:
        result = result.reshape(batch * tokens, lnc, 128, -1).transpose(2, 1, 3, 0)
    return result.astype(dtype), k_result, v_result


def _cached(K_cache: Array, V_cache: Array, transposed: bool, table: Array | None) -> tuple[Array, Array]:
    """Keys and values of each sequence, [B, positions, d]."""
    d = V_cache.shape[-1]
    keys, values = np.asarray(K_cache, np.float64), np.asarray(V_cache, np.float64)
    if table is not None:
        blocks = table.astype(np.int64)
        return tuple(  # type: ignore[return-value]
            part.reshape(len(V_cache), -1, d)[blocks].reshape(len(table), -1, d) for part in (keys, values)
        )
    if transposed:
        keys = keys.reshape(len(keys), d, -1).transpose(0, 2, 1)
    return keys.reshape(len(keys), -1, d), values.reshape(len(values), -1, d)


def _updated(
    K_cache: Array,
    V_cache: Array,
    keys: Array,
    values: Array,
    index: Array,
    transposed: bool,
    table: Array | None,
) -> tuple[Array, Array]:
    """Copies of the caches with new keys [d, B, S] and values [B, S, d] in place."""
    d, tokens = values.shape[-1], values.shape[1]
    new_keys, new_values = K_cache.copy(), V_cache.copy()
    for sequence, place in enumerate(index.reshape(-1).astype(np.int64)):
        if place == 2**32 - 1:
            continue
        span = slice(place, place + tokens)
        key, value = keys[:, sequence].astype(K_cache.dtype), values[sequence].astype(V_cache.dtype)
        if table is not None:
            new_keys.reshape(-1, d)[span], new_values.reshape(-1, d)[span] = key.T, value
            continue
        new_values[sequence].reshape(-1, d)[span] = value
        if transposed:
            new_keys[sequence].reshape(d, -1)[:, span] = key
        else:
            new_keys[sequence].reshape(-1, d)[span] = key.T
    return new_keys, new_values
