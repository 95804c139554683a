"""The QKV projection: queries, keys and values of hidden states, for prefill and for decoding.

    out = norm(input + mlp_prev + attention_prev) @ fused_qkv_weights + bias, then RoPE on q and k

The weights hold the heads of q, then of k, then of v. Long sequences and RoPE go to :mod:`.qkv_cte`, up to
96 rows (B * S) without RoPE and hidden states in SBUF to :mod:`.qkv_tkg`; each has a header of its own.
"""

import nki
import nki.language as nl

from ..utils.common_types import NormType, QKVOutputLayout, QuantizationType
from ..utils.kernel_assert import assert_shape, kernel_assert
from ..utils.kernel_helpers import (
    get_max_positive_value_for_dtype,
    is_hbm_buffer,
    normalization_uses_weights,
)
from .qkv_cte import CacheArguments, qkv_cte
from .qkv_tkg import qkv_tkg

P_MAX = nl.tile_size.pmax
MAX_H = 24576
MAX_TKG_ROWS = 96
CTE_D_HEAD = 128  # of heads that are stored apart
FLOATS = (nl.float32, nl.float16, nl.bfloat16)


@nki.jit
def qkv(
    input,
    fused_qkv_weights,
    output_layout=QKVOutputLayout.BSD,
    bias=None,
    quantization_type=QuantizationType.NONE,
    qkv_w_scale=None,
    qkv_in_scale=None,
    fused_residual_add=False,
    mlp_prev=None,
    attention_prev=None,
    fused_norm_type=NormType.NO_NORM,
    gamma_norm_weights=None,
    layer_norm_bias=None,
    norm_eps=1e-6,
    hidden_actual=None,
    fused_rope=False,
    cos_cache=None,
    sin_cache=None,
    d_head=None,
    num_q_heads=None,
    num_kv_heads=None,
    k_cache=None,
    v_cache=None,
    k_scale=None,
    v_scale=None,
    fp8_max=None,
    fp8_min=None,
    kv_dtype=None,
    use_block_kv=False,
    block_size=None,
    slot_mapping=None,
    store_output_in_sbuf=False,
    sbm=None,
    use_auto_allocation=False,
    load_input_with_DMA_transpose=True,
    is_input_swizzled=False,
):
    """Project hidden states to queries, keys and values.

    Args:
        input: [B, S, H] in HBM, bfloat16, float16 or float32 (computed as bfloat16), H a multiple of 128;
            for decoding also [128, B * S, H / 128] in SBUF, as :mod:`..subkernels.norm_tkg` makes it.
        fused_qkv_weights: [H, I] in HBM, I = (num_q_heads + 2 * num_kv_heads) * d_head; STATIC float8_e4m3,
            MX float8_e4m3fn_x4 (or uint32 that hold it) [H / 4, I].
        output_layout: BSD [B, S, I] or NBSd [heads, B, S, d_head].
        bias: [1, I], added last.
        quantization_type: NONE, STATIC (one scale for q, k and v each, numbers of heads needed) or, for
            prefill, MX (needs trn3, H a multiple of 512, an even number of rows for each program).
        qkv_w_scale: STATIC [128, 3] fp32, the scales of q, k and v in every row; MX [H / 32, I] uint8.
        qkv_in_scale: STATIC [128, 1] fp32: what is projected is divided by it and rounded to FP8.
        fused_residual_add: add `mlp_prev` and `attention_prev` to `input` first.
        mlp_prev: like `input`.
        attention_prev: like `input`.
        fused_norm_type: the normalization of what is projected.
        gamma_norm_weights: [1, H], for RMS_NORM and LAYER_NORM.
        layer_norm_bias: [1, H], for LAYER_NORM.
        norm_eps: added to the mean square or variance.
        hidden_actual: values of H that the mean is over, if the others are zeros; None for H.
        fused_rope: rotate the heads of q and k; the halves of a head are the two parts.
        cos_cache: [B, S, d_head], both halves alike.
        sin_cache: [B, S, d_head].
        d_head: columns of a head; needed for NBSd, RoPE, STATIC and FP8 caches.
        num_q_heads: needed for RoPE, STATIC and FP8 caches.
        num_kv_heads: the same.
        k_cache: [B, max_seq, num_kv_heads * d_head], or in blocks [blocks, block_size, ...]; written.
        v_cache: the same.
        k_scale: [128, 1] fp32: with it and `v_scale`, keys and values are divided by their scale, clipped
            and stored to the caches instead of the result. For prefill, BSD.
        v_scale: [128, 1] fp32.
        fp8_max: greatest value stored in the caches; None for that of their dtype.
        fp8_min: least value; None for -fp8_max.
        kv_dtype: of the caches; what is stored has theirs.
        use_block_kv: the caches are blocks; `slot_mapping` says where each row goes.
        block_size: rows of a block.
        slot_mapping: [B, S] int32, block * block_size + position in it.
        store_output_in_sbuf: leave [B * S, I] in SBUF; for hidden states in SBUF.
        sbm: an SbufManager; its free space limits what prefill keeps in SBUF.
        use_auto_allocation: as `sbm` has it.
        load_input_with_DMA_transpose: let the DMA engines transpose where that is faster.
        is_input_swizzled: MX: each row of `input` lies as (4, H / 512, 128), value 4 * (128 k + p) + j at
            [j, k, p]. Not with a norm or residuals.

    Returns:
        The result in the dtype of `input`. For prefill with scales of caches: (queries [B, S, q columns],
        k_cache, v_cache). For decoding with residuals: (result, sum of input and residuals [B, S, H]).
    """
    if quantization_type == QuantizationType.MX and fused_qkv_weights.dtype == nl.uint32:
        fused_qkv_weights = fused_qkv_weights.view(nl.float8_e4m3fn_x4)  # numpy has no such type
    in_sbuf = not is_hbm_buffer(input)
    residuals = _residuals(input, fused_residual_add, mlp_prev, attention_prev)
    prefill = not in_sbuf and (fused_rope or input.shape[0] * input.shape[1] > MAX_TKG_ROWS)
    columns = fused_qkv_weights.shape[1]
    hidden = _check_shapes(input, fused_qkv_weights, quantization_type, bias, hidden_actual, in_sbuf)
    _check_norm(fused_norm_type, gamma_norm_weights, layer_norm_bias, hidden)
    _check_heads(columns, output_layout, d_head, num_q_heads, num_kv_heads)
    _check_quantization(
        hidden,
        columns,
        fused_qkv_weights,
        quantization_type,
        qkv_w_scale,
        qkv_in_scale,
        d_head,
        num_q_heads,
        prefill,
    )
    if sbm is not None:
        kernel_assert(
            sbm.is_auto_alloc() == use_auto_allocation,
            f"use_auto_allocation is {use_auto_allocation}, sbm has {sbm.is_auto_alloc()}; they are equal",
        )
    if not prefill:
        kernel_assert(not fused_rope, "RoPE takes input in HBM")
        if in_sbuf:
            rows = input.shape[1]
            kernel_assert(rows <= MAX_TKG_ROWS, f"input in SBUF has at most {MAX_TKG_ROWS} rows, got {rows}")
            kernel_assert(store_output_in_sbuf, "input in SBUF takes store_output_in_sbuf=True")
        kernel_assert(k_scale is None and v_scale is None, "FP8 caches take input in HBM with B * S over 96")
        kernel_assert(sbm is None or sbm.is_auto_alloc(), "for decoding sbm allocates automatically")
        return qkv_tkg(
            hidden=input,
            qkv_w=fused_qkv_weights,
            norm_w=gamma_norm_weights,
            fused_add=fused_residual_add,
            mlp_prev=mlp_prev,
            attn_prev=attention_prev,
            d_head=d_head,
            num_kv_heads=num_kv_heads,
            num_q_heads=num_q_heads,
            output_layout=output_layout,
            eps=norm_eps,
            norm_type=fused_norm_type,
            quantization_type=quantization_type,
            qkv_w_scale=qkv_w_scale,
            qkv_in_scale=qkv_in_scale,
            output_in_sbuf=store_output_in_sbuf,
            qkv_bias=bias,
            norm_bias=layer_norm_bias,
            hidden_actual=hidden_actual,
            sbm=sbm,
        )

    kernel_assert(
        not store_output_in_sbuf, "for B * S over 96 or with RoPE the result is in HBM, not in SBUF"
    )
    kernel_assert(hidden <= MAX_H, f"for B * S over 96 or with RoPE H is at most {MAX_H}, got {hidden}")
    if output_layout == QKVOutputLayout.NBSd:
        kernel_assert(
            d_head == CTE_D_HEAD,
            f"for B * S over 96 or with RoPE NBSd takes d_head {CTE_D_HEAD}, got {d_head}",
        )
    if is_input_swizzled:
        kernel_assert(quantization_type == QuantizationType.MX, "only MX quantization takes swizzled input")
        kernel_assert(
            fused_norm_type == NormType.NO_NORM and not fused_residual_add,
            "swizzled input takes neither a norm nor residuals",
        )
    if fused_rope:
        _check_rope(input, cos_cache, sin_cache, d_head, num_q_heads, num_kv_heads)
    cache = None
    if k_scale is not None or v_scale is not None:
        kernel_assert(
            k_scale is not None and v_scale is not None and k_cache is not None and v_cache is not None,
            "FP8 caches need k_scale, v_scale, k_cache and v_cache",
        )
        kernel_assert(output_layout == QKVOutputLayout.BSD, f"FP8 caches go with BSD, got {output_layout}")
        kernel_assert(
            d_head is not None and num_q_heads is not None and num_kv_heads is not None,
            "FP8 caches need d_head, num_q_heads and num_kv_heads",
        )
        _check_caches(
            input,
            k_cache,
            v_cache,
            k_scale,
            v_scale,
            num_kv_heads * d_head,
            use_block_kv,
            block_size,
            slot_mapping,
        )
        high = get_max_positive_value_for_dtype(k_cache.dtype) if fp8_max is None else fp8_max
        low = -high if fp8_min is None else fp8_min
        cache = CacheArguments(
            k_cache, v_cache, k_scale, v_scale, low, high, slot_mapping if use_block_kv else None
        )
    return qkv_cte(
        input,
        fused_qkv_weights,
        output_layout,
        bias,
        quantization_type,
        qkv_w_scale,
        qkv_in_scale,
        residuals,
        fused_norm_type,
        gamma_norm_weights,
        layer_norm_bias,
        norm_eps,
        hidden_actual,
        cos_cache if fused_rope else None,
        sin_cache if fused_rope else None,
        d_head,
        num_q_heads,
        num_kv_heads,
        cache,
        load_input_with_DMA_transpose,
        is_input_swizzled,
        None if sbm is None else sbm.get_free_space(),
    )


# --- what is refused


def _residuals(input, adds, mlp_prev, attention_prev):
    """The tensors to add, or none."""
    given = mlp_prev is not None or attention_prev is not None
    if not adds:
        kernel_assert(not given, "mlp_prev and attention_prev are given, but fused_residual_add is False")
        return []
    kernel_assert(
        mlp_prev is not None and attention_prev is not None,
        "fused_residual_add needs mlp_prev and attention_prev",
    )
    kernel_assert(is_hbm_buffer(input), "fused_residual_add takes input in HBM")
    assert_shape(mlp_prev, input.shape, "mlp_prev")
    assert_shape(attention_prev, input.shape, "attention_prev")
    return [mlp_prev, attention_prev]


def _check_shapes(input, weights, quantization_type, bias, hidden_actual, in_sbuf):
    """The hidden size, if input, weights and bias fit each other."""
    kernel_assert(
        len(input.shape) == 3,
        f"input is [B, S, H], or [128, B * S, H / 128] in SBUF, got shape {input.shape}",
    )
    kernel_assert(len(weights.shape) == 2, f"fused_qkv_weights is [H, I], got shape {weights.shape}")
    kernel_assert(
        min(input.shape) > 0 and weights.shape[1] > 0,
        f"B * S, H and I are at least 1, got input {input.shape} and fused_qkv_weights {weights.shape}",
    )
    kernel_assert(input.dtype in FLOATS, f"input is one of {FLOATS}, got {input.dtype}")
    hidden = input.shape[0] * input.shape[2] if in_sbuf else input.shape[2]
    kernel_assert(hidden % P_MAX == 0, f"H is a multiple of {P_MAX}, got {hidden}")
    rows = hidden // 4 if quantization_type == QuantizationType.MX else hidden
    kernel_assert(
        weights.shape[0] == rows,
        f"fused_qkv_weights has {weights.shape[0]} rows, for H = {hidden} it has {rows}",
    )
    if bias is not None:
        assert_shape(bias, (1, weights.shape[1]), "bias")
    if hidden_actual is not None:
        kernel_assert(
            0 < hidden_actual <= hidden, f"hidden_actual is in (0, H = {hidden}], got {hidden_actual}"
        )
    return hidden


def _check_norm(norm_type, gamma, beta, hidden):
    """Weights of the norm are given where it uses them, and only there."""
    uses = normalization_uses_weights(norm_type)
    kernel_assert(
        (gamma is not None) == uses,
        f"gamma_norm_weights go with RMS_NORM and LAYER_NORM, and those need them; got {norm_type}",
    )
    kernel_assert(
        beta is None or norm_type == NormType.LAYER_NORM,
        f"layer_norm_bias goes with LAYER_NORM, got {norm_type}",
    )
    if gamma is not None:
        assert_shape(gamma, (1, hidden), "gamma_norm_weights")
    if beta is not None:
        assert_shape(beta, (1, hidden), "layer_norm_bias")


def _check_heads(columns, layout, d_head, q_heads, kv_heads):
    """The columns are whole heads, and as many as there are."""
    kernel_assert(
        layout in (QKVOutputLayout.BSD, QKVOutputLayout.NBSd), f"output_layout is BSD or NBSd, got {layout}"
    )
    if layout == QKVOutputLayout.NBSd:
        kernel_assert(d_head is not None, "NBSd needs d_head")
        kernel_assert(columns % d_head == 0, f"NBSd takes I a multiple of d_head = {d_head}, got {columns}")
    if d_head is not None and q_heads is not None and kv_heads is not None:
        wanted = (q_heads + 2 * kv_heads) * d_head
        kernel_assert(
            columns == wanted,
            f"{q_heads} heads of q and {kv_heads} of k and v of {d_head} make I = {wanted}, got {columns}",
        )


def _check_quantization(
    hidden, columns, weights, quantization_type, w_scale, in_scale, d_head, q_heads, prefill
):
    """The quantization is offered, and weights and scales are those it takes."""
    if quantization_type == QuantizationType.NONE:
        return
    if quantization_type == QuantizationType.MX:
        kernel_assert(prefill, "MX quantization takes input in HBM with B * S over 96, or RoPE")
        kernel_assert(
            weights.dtype == nl.float8_e4m3fn_x4, f"MX takes weights of float8_e4m3fn_x4, got {weights.dtype}"
        )
        kernel_assert(w_scale is not None, "MX quantization needs qkv_w_scale")
        assert_shape(w_scale, (hidden // 32, columns), "qkv_w_scale")
        return
    kernel_assert(
        quantization_type == QuantizationType.STATIC,
        f"quantization_type is NONE, STATIC or MX, got {quantization_type}",
    )
    kernel_assert(
        weights.dtype == nl.float8_e4m3, f"STATIC takes weights of float8_e4m3, got {weights.dtype}"
    )
    kernel_assert(
        w_scale is not None and in_scale is not None, "STATIC quantization needs qkv_w_scale and qkv_in_scale"
    )
    kernel_assert(
        d_head is not None and q_heads is not None,
        "STATIC quantization needs d_head, num_q_heads and num_kv_heads",
    )
    assert_shape(w_scale, (P_MAX, 3), "qkv_w_scale")
    assert_shape(in_scale, (P_MAX, 1), "qkv_in_scale")


def _check_rope(input, cosines, sines, d_head, q_heads, kv_heads):
    """RoPE has its angles and knows the heads."""
    kernel_assert(cosines is not None and sines is not None, "RoPE needs cos_cache and sin_cache")
    kernel_assert(
        d_head is not None and q_heads is not None and kv_heads is not None,
        "RoPE needs d_head, num_q_heads and num_kv_heads",
    )
    kernel_assert(d_head % 2 == 0, f"RoPE takes an even d_head, got {d_head}")
    expected = (input.shape[0], input.shape[1], d_head)
    assert_shape(cosines, expected, "cos_cache")
    assert_shape(sines, expected, "sin_cache")


def _check_caches(input, k_cache, v_cache, k_scale, v_scale, columns, in_blocks, block_size, slot_mapping):
    """The FP8 caches have room for all rows, and scales."""
    assert_shape(k_scale, (P_MAX, 1), "k_scale")
    assert_shape(v_scale, (P_MAX, 1), "v_scale")
    assert_shape(v_cache, k_cache.shape, "v_cache")
    batch, sequence, _ = input.shape
    kernel_assert(
        len(k_cache.shape) == 3 and k_cache.shape[2] == columns,
        f"k_cache is [.., .., num_kv_heads * d_head = {columns}], got shape {k_cache.shape}",
    )
    if in_blocks:
        kernel_assert(
            block_size is not None and slot_mapping is not None,
            "use_block_kv needs block_size and slot_mapping",
        )
        kernel_assert(
            k_cache.shape[1] == block_size,
            f"blocks of k_cache have {k_cache.shape[1]} rows, not {block_size}",
        )
        assert_shape(slot_mapping, (batch, sequence), "slot_mapping")
    else:
        kernel_assert(
            k_cache.shape[0] == batch and k_cache.shape[1] >= sequence,
            f"k_cache is [B = {batch}, at least S = {sequence}, ..], got shape {k_cache.shape}",
        )
