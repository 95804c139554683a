"""attention_block_tkg in the table of kernels."""

import functools
from typing import Any

import ml_dtypes
import numpy as np

from nkilib.core.utils.common_types import QuantizationType
from nkilib.experimental.transformer.attention_block_tkg import attention_block_tkg
from nkilib.experimental.transformer.reference import attention_block_tkg_reference
from nkilib.registry import Example, Inputs, Row, Tolerance

BF16 = ml_dtypes.bfloat16


def block_inputs(
    rng: np.random.Generator,
    batch: int,
    tokens: int,
    hidden: int,
    heads: int,
    d: int,
    context: int,
    block_len: int = 0,
    transposed: bool = False,
    rotated: bool = True,
    projected: bool = True,
    fp8: bool = False,
) -> Inputs:
    """Sequences of different lengths below `context`, whose new tokens are the last of the window."""

    def normal(*shape: int, scale: float = 1.0, dtype: Any = BF16) -> np.ndarray[Any, Any]:
        return (scale * rng.standard_normal(shape)).astype(dtype)

    cache = ml_dtypes.float8_e4m3 if fp8 else BF16
    lengths = rng.integers(1, context - tokens, batch)
    positions = np.arange(context)[:, None, None, None]
    mask = np.broadcast_to(positions < lengths[None, :, None, None], (context, batch, heads, tokens)).copy()
    for new in range(tokens):  # each new token sees itself and those before it
        mask[context - tokens + new, :, :, new:] = True
    made: Inputs = {
        "X": normal(batch, tokens, hidden),
        "rmsnorm_X_gamma": normal(1, hidden),
        "W_qkv": normal(hidden, (heads + 2) * d, scale=hidden**-0.5),
        "bias_qkv": normal(1, (heads + 2) * d, scale=0.1),
        "sink": normal(heads, 1, dtype=np.float32),
    }
    if rotated:
        angles = rng.uniform(0, 6.28, (d // 2, batch, tokens))
        made |= {"cos": np.cos(angles).astype(BF16), "sin": np.sin(angles).astype(BF16)}
    if block_len:
        count = context // block_len
        table = rng.permutation(batch * count + 3)[: batch * count].reshape(batch, count)
        made["active_blocks_table"] = table.astype(np.uint32)
        made["K_cache"] = normal(batch * count + 3, block_len, d, dtype=cache)
        made["V_cache"] = normal(batch * count + 3, block_len, d, dtype=cache)
        start = np.minimum(lengths // block_len * block_len, context - block_len)
        places = table[np.arange(batch), start // block_len] * block_len
        places[-1] = 2**32 - 1
    else:
        made["K_cache"] = normal(batch, *((d, context) if transposed else (context, d)), dtype=cache)
        made["V_cache"] = normal(batch, context, d, dtype=cache)
        places = np.minimum(lengths, context - tokens)
    if fp8:
        made |= {name: np.full((128, 1), 1.5, np.float32) for name in ("k_scale", "v_scale")}
    made["attention_mask"] = mask.astype(np.uint8)
    made["kv_cache_update_idx"] = places.astype(np.uint32).reshape(batch, 1)
    if projected:
        made["W_out"] = normal(heads * d, hidden, scale=(heads * d) ** -0.5)
        made["bias_out"] = normal(1, hidden, scale=0.1)
    return made


def _options(**changed: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "X_hidden_dim_actual": None,
        "rmsnorm_X_enabled": True,
        "rmsnorm_X_eps": 1e-5,
        "quantization_type_qkv": QuantizationType.NONE,
        "weight_dequant_scale_qkv": None,
        "input_dequant_scale_qkv": None,
        "rmsnorm_QK_pre_rope_enabled": False,
        "rmsnorm_QK_pre_rope_eps": 1e-5,
        "cos": None,
        "sin": None,
        "rope_contiguous_layout": True,
        "rmsnorm_QK_post_rope_enabled": False,
        "rmsnorm_QK_post_rope_eps": 1e-5,
        "rmsnorm_QK_post_rope_W_Q": None,
        "rmsnorm_QK_post_rope_W_K": None,
        "K_cache_transposed": False,
        "active_blocks_table": None,
        "update_cache": True,
        "W_out": None,
        "bias_out": None,
        "quantization_type_out": QuantizationType.NONE,
        "weight_dequant_scale_out": None,
        "input_dequant_scale_out": None,
        "transposed_out": False,
        "out_in_sb": False,
    }
    return options | changed


def _example(name: str, shape: dict[str, Any], lnc: tuple[int, ...] = (1, 2), **changed: Any) -> Example:
    inputs = functools.partial(block_inputs, **shape)
    given = inputs(np.random.default_rng(0))
    options = {key: value for key, value in _options(**changed).items() if key not in given}
    return Example(name=name, inputs=inputs, options=options, lnc=lnc)


SMALL = {"batch": 2, "tokens": 2, "hidden": 512, "heads": 2, "d": 64, "context": 256}
NORMED = {**SMALL, "d": 128, "tokens": 1}

ROWS = (
    Row(
        name="attention_block_tkg",
        entry=attention_block_tkg,
        reference=attention_block_tkg_reference,
        summary="Norm, QKV projection, rotation, attention, cache update and output projection for decoding",
        maths="`q, k, v = norm(X) W_qkv + b`; q and k normed, rotated, normed; "
        "`out = softmax(q [cache, k].T scale + mask) [cache, v] W_out + b`; k and v into the cache.",
        options={
            "X": "`[B, S, H]`, or `[128, B S, H/128]` in SBUF",
            "X_hidden_dim_actual": "values that the mean of the first norm is over",
            "rmsnorm_X_enabled": "the first norm",
            "rmsnorm_X_eps": "of the first norm",
            "rmsnorm_X_gamma": "`[1, H]`",
            "W_qkv": "`[H, (heads + 2) d]`",
            "bias_qkv": "`[1, (heads + 2) d]` or None",
            "quantization_type_qkv": "NONE or STATIC",
            "weight_dequant_scale_qkv": "STATIC: fp32 `[128, 3]`",
            "input_dequant_scale_qkv": "STATIC: fp32 `[128, 1]`",
            "rmsnorm_QK_pre_rope_enabled": "a norm of each head before rotation; d is 128",
            "rmsnorm_QK_pre_rope_eps": "of it",
            "cos": "`[d/2, B, S]`, or None for no rotation",
            "sin": "as cos",
            "rope_contiguous_layout": "halves are rotated, not neighbours",
            "rmsnorm_QK_post_rope_enabled": "a norm of each head after rotation; d is 128",
            "rmsnorm_QK_post_rope_eps": "of it",
            "rmsnorm_QK_post_rope_W_Q": "`[1, d]` or None",
            "rmsnorm_QK_post_rope_W_K": "`[1, d]` or None",
            "K_cache_transposed": "K_cache is `[B, d, S_max]`",
            "active_blocks_table": "uint32 `[B, S_ctx / block_len]` for block caches, or None",
            "K_cache": "`[B, S_max, d]`, or `[blocks, block_len, d]`",
            "V_cache": "`[B, S_max, d]`, or `[blocks, block_len, d]`",
            "attention_mask": "uint8 `[S_ctx, B, heads, S]`",
            "sink": "fp32 `[heads, 1]` or None",
            "update_cache": "write k and v into the caches",
            "kv_cache_update_idx": "uint32 `[B, 1]`, where; the largest value leaves a sequence out",
            "W_out": "`[heads d, H]` or None",
            "bias_out": "`[1, H]` or None",
            "quantization_type_out": "NONE or STATIC",
            "weight_dequant_scale_out": "STATIC: fp32 `[128, 1]`",
            "input_dequant_scale_out": "STATIC: fp32 `[128, 1]`",
            "transposed_out": "H on the partitions",
            "out_in_sb": "leave the result in SBUF",
            "softmax_scale": "of q; None for `1 / sqrt(d)`",
            "k_scale": "fp32 `[128, 1]`: k is multiplied and kept in float8_e4m3",
            "v_scale": "as k_scale",
            "sbm": "where attention takes SBUF from",
            "skip_attention": "q takes the place of the attention's result",
        },
        limits=("B * S is at most 128, d at most 128 and even; norms of q and k need d = 128.",),
        examples=(
            _example("flat", SMALL),
            _example(
                "transposed-cache",
                {**SMALL, "transposed": True},
                K_cache_transposed=True,
                transposed_out=True,
            ),
            _example(
                "normed",
                NORMED,
                lnc=(2,),
                rmsnorm_QK_pre_rope_enabled=True,
                rmsnorm_QK_post_rope_enabled=True,
            ),
            _example("neighbours", SMALL, lnc=(2,), rope_contiguous_layout=False, update_cache=False),
            _example("fp8-cache", {**SMALL, "fp8": True, "rotated": False}, lnc=(2,)),
            _example("no-projection", {**SMALL, "projected": False}, lnc=(1, 2)),
        ),
        tolerance=Tolerance(
            rtol=0.05, atol=0.06, reason="q, k, v, weights of keys and rows are bf16 between the steps"
        ),
        page="nki/library/api/attention-block-tkg",
    ),
)
