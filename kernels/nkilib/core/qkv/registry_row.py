"""The QKV projection in the table of kernels."""

import functools
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from nki_isa.machine.dtypes import DTYPES
from nkilib.core.qkv.qkv import qkv
from nkilib.core.qkv.reference import qkv_reference
from nkilib.core.utils.common_types import NormType, QKVOutputLayout, QuantizationType
from nkilib.registry import Example, Row, Tolerance

Arrays = dict[str, np.ndarray[Any, Any]]

BF16, FP8 = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3
_WITH_GAMMA = (NormType.RMS_NORM, NormType.LAYER_NORM)


def _inputs(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    heads: tuple[int, int, int],
    dtype: Any,
    norm: NormType,
    quantization: QuantizationType,
    with_: str,
) -> Arrays:
    """Arrays of a call; `heads` is (q, kv, d), `with_` names optional ones."""
    batch, sequence, hidden = shape
    q_heads, kv_heads, d_head = heads
    columns = (q_heads + 2 * kv_heads) * d_head
    spread = np.sqrt(hidden)
    arrays: Arrays = {"input": rng.standard_normal(shape).astype(dtype)}
    if quantization is QuantizationType.MX:
        values = rng.standard_normal((hidden // 4, columns * 4)).astype(ml_dtypes.float8_e4m3fn)
        arrays["fused_qkv_weights"] = values.view(DTYPES["float8_e4m3fn_x4"].numpy)
        arrays["qkv_w_scale"] = rng.integers(118, 121, (hidden // 32, columns)).astype(np.uint8)
    elif quantization is QuantizationType.STATIC:
        arrays["fused_qkv_weights"] = rng.uniform(-240, 240, (hidden, columns)).astype(FP8)
        scales = np.array([[1.0, 1.5, 2.0]]) / (560 * spread)
        arrays["qkv_w_scale"] = np.repeat(scales, 128, axis=0).astype(np.float32)
        arrays["qkv_in_scale"] = np.full((128, 1), 5 / 240, np.float32)
    else:
        arrays["fused_qkv_weights"] = (rng.standard_normal((hidden, columns)) / spread).astype(dtype)
    if norm in _WITH_GAMMA:
        arrays["gamma_norm_weights"] = rng.uniform(0.5, 1.5, (1, hidden)).astype(dtype)
    if "beta" in with_:
        arrays["layer_norm_bias"] = rng.standard_normal((1, hidden)).astype(dtype)
    if "bias" in with_:
        arrays["bias"] = rng.standard_normal((1, columns)).astype(dtype)
    if "residuals" in with_:
        arrays["mlp_prev"] = rng.standard_normal(shape).astype(dtype)
        arrays["attention_prev"] = rng.standard_normal(shape).astype(dtype)
    if "rope" in with_:
        angles = rng.uniform(0, 6.28, (batch, sequence, d_head // 2))
        arrays["cos_cache"] = np.tile(np.cos(angles), 2).astype(dtype)
        arrays["sin_cache"] = np.tile(np.sin(angles), 2).astype(dtype)
    if "cache" in with_:
        rows = sequence + 24
        cache = np.zeros((batch, rows, kv_heads * d_head), FP8)
        if "blocks" in with_:
            cache = np.zeros((batch * rows // 8, 8, kv_heads * d_head), FP8)
            places = rng.permutation(batch * rows // 8 * 8)[: batch * sequence]
            arrays["slot_mapping"] = places.reshape(batch, sequence).astype(np.int32)
        arrays["k_cache"], arrays["v_cache"] = cache, cache.copy()
        arrays["k_scale"] = np.full((128, 1), 0.02, np.float32)
        arrays["v_scale"] = np.full((128, 1), 0.005, np.float32)
    return arrays


def _example(
    name: str,
    shape: tuple[int, int, int],
    heads: tuple[int, int, int],
    dtype: Any = BF16,
    norm: NormType = NormType.NO_NORM,
    quantization: QuantizationType = QuantizationType.NONE,
    with_: str = "",
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Example:
    """An example of `shape` [B, S, H] and `heads` (q, kv, d); `with_` names what is optional."""
    chosen: dict[str, Any] = {
        "fused_norm_type": norm,
        "quantization_type": quantization,
        "num_q_heads": heads[0],
        "num_kv_heads": heads[1],
        "d_head": heads[2],
        **(options or {}),
    }
    if "residuals" in with_:
        chosen["fused_residual_add"] = True
    if "rope" in with_:
        chosen["fused_rope"] = True
    if "blocks" in with_:
        chosen |= {"use_block_kv": True, "block_size": 8}
    inputs = functools.partial(
        _inputs, shape=shape, heads=heads, dtype=dtype, norm=norm, quantization=quantization, with_=with_
    )
    return Example(name=name, inputs=inputs, options=chosen, **more)


RMS, LAYER, SKIP = NormType.RMS_NORM, NormType.LAYER_NORM, NormType.RMS_NORM_SKIP_GAMMA
STATIC, MX = QuantizationType.STATIC, QuantizationType.MX
APART = {"output_layout": QKVOutputLayout.NBSd}
BOTH = (1, 2)

ROWS = (
    Row(
        name="qkv",
        entry=qkv,
        reference=qkv_reference,
        summary="Projection to queries, keys and values",
        maths=(
            "`out = norm(input + mlp_prev + attention_prev) @ W + bias`, then RoPE on the heads of q and k. "
            "With STATIC, `fp8(clip(x / in_scale, -240, 240)) @ W` times `in_scale` and the scale of q, k or "
            "v; with MX, blocks of 32 values share a power of two. With caches, keys and values become "
            "`fp8(clip(x / scale, fp8_min, fp8_max))`."
        ),
        options={
            "input": "`[B, S, H]` in HBM; bf16, fp16 or fp32, which is computed as bf16",
            "fused_qkv_weights": "`[H, I]`; STATIC float8_e4m3, MX float8_e4m3fn_x4 `[H / 4, I]`",
            "output_layout": "BSD `[B, S, I]` or NBSd `[heads, B, S, d]`",
            "bias": "`[1, I]`",
            "quantization_type": "NONE, STATIC or, for prefill, MX",
            "qkv_w_scale": "STATIC `[128, 3]` fp32 for q, k, v; MX `[H / 32, I]` uint8",
            "qkv_in_scale": "STATIC `[128, 1]` fp32",
            "fused_residual_add": "add `mlp_prev` and `attention_prev` first",
            "mlp_prev": "`[B, S, H]`",
            "attention_prev": "`[B, S, H]`",
            "fused_norm_type": "NO_NORM, RMS_NORM, RMS_NORM_SKIP_GAMMA or LAYER_NORM",
            "gamma_norm_weights": "`[1, H]`",
            "layer_norm_bias": "`[1, H]`",
            "norm_eps": "added to the mean square or variance",
            "hidden_actual": "values of H that the mean is over",
            "fused_rope": "rotate the heads of q and k",
            "cos_cache": "`[B, S, d]`, halves alike",
            "sin_cache": "`[B, S, d]`",
            "d_head": "columns of a head",
            "num_q_heads": "heads of q",
            "num_kv_heads": "heads of k, and of v",
            "k_cache": "`[B, max_seq, kv]` or in blocks; written",
            "v_cache": "the same",
            "k_scale": "`[128, 1]` fp32: keys and values go to the caches",
            "v_scale": "`[128, 1]` fp32",
            "fp8_max": "greatest value stored in a cache",
            "fp8_min": "least value stored in a cache",
            "kv_dtype": "of the caches",
            "use_block_kv": "the caches are blocks",
            "block_size": "rows of a block",
            "slot_mapping": "`[B, S]` int32, where each row goes",
            "store_output_in_sbuf": "leave the result in SBUF, for input in SBUF",
            "sbm": "an SbufManager",
            "use_auto_allocation": "as `sbm` has it",
            "load_input_with_DMA_transpose": "DMA engines may transpose",
            "is_input_swizzled": "MX: rows lie as (4, H / 512, 128)",
        },
        limits=(
            "H is a multiple of 128; for decoding, of 128 times the number of programs.",
            "For B * S over 96, or with RoPE: H is at most 24,576, I at most 4096, d_head 128 for NBSd.",
            "MX needs trn3, H a multiple of 512 and an even number of rows for each program.",
            "FP8 caches go with BSD and prefill; the result in SBUF with decoding.",
        ),
        examples=(
            _example(
                "llama-70b", (1, 256, 8192), (2, 1, 128), norm=RMS, lnc=(2,), about="Llama-3 70B on 32 ranks"
            ),
            _example("plain", (1, 520, 2176), (2, 1, 64), with_="bias", lnc=BOTH, about="turned by DMA"),
            _example(
                "rms",
                (2, 150, 1408),
                (1, 1, 88),
                norm=RMS,
                with_="residuals",
                lnc=BOTH,
                about="vision encoder",
            ),
            _example("rms-dma", (1, 300, 512), (1, 1, 64), norm=RMS, options={"hidden_actual": 500}),
            _example("layer", (3, 50, 640), (2, 2, 64), norm=LAYER, with_="beta bias residuals", lnc=BOTH),
            _example("rope", (2, 70, 512), (3, 2, 64), norm=SKIP, with_="rope", lnc=BOTH),
            _example("apart", (1, 130, 384), (2, 1, 128), with_="rope bias", options=APART),
            _example("fp8", (1, 200, 640), (2, 1, 64), norm=RMS, quantization=STATIC, with_="bias", lnc=(2,)),
            _example("fp8-dma", (1, 300, 256), (1, 1, 64), quantization=STATIC, targets=("trn2", "trn3")),
            _example("cache", (2, 60, 256), (2, 1, 64), with_="cache", lnc=(2,)),
            _example("blocks", (2, 60, 256), (1, 2, 32), with_="cache blocks rope", lnc=(2,)),
            _example("fp32", (1, 100, 256), (1, 1, 64), np.float32, norm=RMS, targets=("trn1", "trn2")),
            _example(
                "mx",
                (1, 124, 512),
                (1, 1, 64),
                norm=RMS,
                quantization=MX,
                with_="residuals",
                targets=("trn3",),
            ),
            _example(
                "mx-swizzled",
                (1, 520, 1024),
                (1, 1, 64),
                quantization=MX,
                options={"is_input_swizzled": True},
                targets=("trn3",),
            ),
            _example(
                "decode", (4, 1, 8192), (2, 1, 128), norm=RMS, lnc=(2,), about="Llama-3 70B, 4 sequences"
            ),
            _example("decode-add", (3, 5, 512), (1, 1, 64), norm=RMS, with_="residuals bias", lnc=BOTH),
            _example("decode-layer", (2, 5, 512), (2, 1, 26), norm=LAYER, with_="beta", lnc=BOTH),
            _example("decode-apart", (5, 1, 256), (2, 1, 64), norm=SKIP, lnc=BOTH, options=APART),
            _example("decode-fp8", (3, 2, 512), (3, 1, 32), norm=RMS, quantization=STATIC, lnc=BOTH),
            _example("llama-405b", (1, 512, 16384), (1, 1, 128), lnc=(2,), about="on 64 ranks", slow=True),
            _example("passes", (1, 128, 24576), (5, 2, 64), norm=RMS, with_="residuals", lnc=(2,), slow=True),
            _example("decode-wide", (4, 5, 4096), (20, 2, 128), norm=RMS, lnc=(2,), slow=True),
        ),
        tolerance=Tolerance(
            rtol=2**-5,
            atol=2**-4,
            reason="values of unit size are rounded to bf16 before the product (sum with residuals, norm, "
            "weights times gamma), each by up to 2^-9, and once after it; values next to a half of FP8 may "
            "round to its other neighbour, 2^-4 away",
        ),
        page="nki/library/api/qkv",
    ),
)
