"""The attention block of a transformer layer for a few new tokens, in one kernel.

    q, k, v = norm(X) W_qkv + b                                    qkv_tkg
    q, k    = norm(rope(norm(q))), norm(rope(norm(k))), per head   here, RoPE_sbuf
    out     = softmax(q [cache, k].T * scale + mask) [cache, v]    attention_tkg
    cache   = k, v at kv_cache_update_idx                          here
    result  = out W_out + b                                        output_projection_tkg

All that passes from step to step stays in SBUF: q, k and v of B * S tokens by rows, [B * S, I], where norms
without rotation are sums along the free dimension; then turned, [d, B, heads, S], where rotation is a product
of two halves of the partitions, and a norm a product with ones on the tensor engine, which leaves each sum on
all partitions. Only new values go through HBM, where attention_tkg reads them as it reads the cache.

Two programs share out what each step shares out. Every program has all of q, k and v, and of the attention.
They meet before the cache is written, since the other one may still read it, and then write every other
sequence.
"""

from dataclasses import dataclass
from typing import Any

import nki
import nki.isa as nisa
import nki.language as nl

from ...core.attention.attention_tkg import attention_tkg
from ...core.attention.attention_tkg_plan import reads_new_keys
from ...core.attention.attention_tkg_utils import AttnTKGConfig
from ...core.embeddings.rope import RoPE_sbuf
from ...core.output_projection.output_projection_tkg import output_projection_tkg
from ...core.qkv.qkv_tkg import qkv_tkg
from ...core.utils.allocator import create_auto_alloc_manager
from ...core.utils.common_types import NormType
from ...core.utils.kernel_assert import assert_shape, kernel_assert
from ...core.utils.kernel_helpers import div_ceil, get_verified_program_sharding_info, is_hbm_buffer
from ...core.utils.tiled_range import TiledRange

P = 128
BANK = 512
FP8_MAX = 240.0


@dataclass
class Sizes(nl.NKIObject):
    """Sizes of a call.

    Attributes:
        batch, tokens: B and S; rows is their product.
        heads, d: of q; k and v have one head.
        dtype: of X.
        programs, program: how many programs, and which this is.
    """

    batch: int
    tokens: int
    heads: int
    d: int
    dtype: Any
    programs: int
    program: int

    def __post_init__(self):
        self.rows = self.batch * self.tokens


@nki.jit
def attention_block_tkg(
    X,
    X_hidden_dim_actual,
    rmsnorm_X_enabled,
    rmsnorm_X_eps,
    rmsnorm_X_gamma,
    W_qkv,
    bias_qkv,
    quantization_type_qkv,
    weight_dequant_scale_qkv,
    input_dequant_scale_qkv,
    rmsnorm_QK_pre_rope_enabled,
    rmsnorm_QK_pre_rope_eps,
    cos,
    sin,
    rope_contiguous_layout,
    rmsnorm_QK_post_rope_enabled,
    rmsnorm_QK_post_rope_eps,
    rmsnorm_QK_post_rope_W_Q,
    rmsnorm_QK_post_rope_W_K,
    K_cache_transposed,
    active_blocks_table,
    K_cache,
    V_cache,
    attention_mask,
    sink,
    update_cache,
    kv_cache_update_idx,
    W_out,
    bias_out,
    quantization_type_out,
    weight_dequant_scale_out,
    input_dequant_scale_out,
    transposed_out,
    out_in_sb,
    softmax_scale=None,
    k_scale=None,
    v_scale=None,
    sbm=None,
    skip_attention=False,
):
    """Norm, QKV projection, rotation, attention, cache update and output projection of B * S new tokens.

    Args:
        X: [B, S, H] in HBM, or [128, B * S, H / 128] in SBUF as the norms for decoding leave it.
        X_hidden_dim_actual: values that the mean of the first norm is over, or None for H.
        rmsnorm_X_enabled, rmsnorm_X_eps, rmsnorm_X_gamma: the first norm; gamma [1, H].
        W_qkv: [H, (heads + 2) * d]; STATIC float8_e4m3. bias_qkv: [1, (heads + 2) * d] or None.
        quantization_type_qkv, weight_dequant_scale_qkv, input_dequant_scale_qkv: NONE, or STATIC with
            scales [128, 3] and [128, 1] fp32.
        rmsnorm_QK_pre_rope_enabled, rmsnorm_QK_pre_rope_eps: a norm of each head of q and k.
        cos, sin: [d / 2, B, S], or None for no rotation.
        rope_contiguous_layout: halves of a head are rotated; else neighbouring elements.
        rmsnorm_QK_post_rope_enabled, rmsnorm_QK_post_rope_eps, rmsnorm_QK_post_rope_W_Q,
            rmsnorm_QK_post_rope_W_K: a norm after it, times [1, d] or None.
        K_cache_transposed: K_cache is [B, d, S_max], else [B, S_max, d].
        active_blocks_table: [B, S_ctx / block_len] uint32 for block caches [blocks, block_len, d], or None.
        K_cache, V_cache: may have a dimension of one head after the first.
        attention_mask: [S_ctx, B, heads, S] uint8. sink: [heads, 1] or None.
        update_cache: write k and v into the caches, from row kv_cache_update_idx, [B, 1] uint32; of a block
            cache counted over all blocks; the largest uint32 leaves a sequence out.
        W_out: [heads * d, H] or None. bias_out: [1, H] or None.
        quantization_type_out, weight_dequant_scale_out, input_dequant_scale_out: NONE, or STATIC with scales
            [128, 1] fp32.
        transposed_out, out_in_sb: layout and place of the result.
        softmax_scale: of q; None for 1 / sqrt(d).
        k_scale, v_scale: [128, 1] or [1, 1] fp32: k and v are multiplied and stored in float8_e4m3 caches.
        sbm: where attention takes SBUF from, or None.
        skip_attention: q takes the place of the attention's result.

    Returns:
        (result, K, V). The result is [B * S, H] in HBM or [B * S, H / programs] in SBUF; transposed
        [128, programs, H / programs / 128, B * S] or [128, H / programs / 128, B * S]; without W_out
        [B, heads, d, S] or [d, B * heads * S]. K and V are the caches with `update_cache`, else the new
        [d, B, S] and [B, 1, S, d].
    """
    sizes = _sizes(X, W_qkv, V_cache, cos, attention_mask, kv_cache_update_idx)
    _check(
        X,
        sizes,
        W_qkv,
        cos,
        sin,
        rmsnorm_QK_pre_rope_enabled or rmsnorm_QK_post_rope_enabled,
        attention_mask,
        W_out,
        transposed_out,
        skip_attention,
        k_scale,
        v_scale,
        K_cache,
    )
    rows, d, heads = sizes.rows, sizes.d, sizes.heads
    norm = NormType.NO_NORM
    if rmsnorm_X_enabled:
        norm = NormType.RMS_NORM_SKIP_GAMMA if rmsnorm_X_gamma is None else NormType.RMS_NORM
    projected = qkv_tkg(
        X,
        W_qkv,
        norm_w=rmsnorm_X_gamma if rmsnorm_X_enabled else None,
        d_head=d,
        num_kv_heads=1,
        num_q_heads=heads,
        eps=rmsnorm_X_eps if rmsnorm_X_eps is not None else 1e-6,
        norm_type=norm,
        quantization_type=quantization_type_qkv,
        qkv_w_scale=weight_dequant_scale_qkv,
        qkv_in_scale=input_dequant_scale_qkv,
        output_in_sbuf=True,
        qkv_bias=bias_qkv,
        hidden_actual=X_hidden_dim_actual,
    )
    if rmsnorm_QK_pre_rope_enabled:
        projected = _norm_of_rows(sizes, projected, rmsnorm_QK_pre_rope_eps)
    turned = _turned(sizes, projected)
    if cos is not None and sin is not None:
        turned = _rotated(sizes, turned, cos, sin, rope_contiguous_layout)
    if rmsnorm_QK_post_rope_enabled:
        turned = _norm_of_columns(
            sizes, turned, rmsnorm_QK_post_rope_eps, rmsnorm_QK_post_rope_W_Q, rmsnorm_QK_post_rope_W_K
        )

    cfg = _attention_config(sizes, V_cache, attention_mask, active_blocks_table, K_cache_transposed)
    attends_new = not skip_attention and reads_new_keys(cfg, sizes.programs, sizes.program)
    keys = nl.ndarray((d, rows), dtype=sizes.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(
        dst=keys.reshape((d, sizes.batch, sizes.tokens)),
        src=turned[:, :, heads, :],
        engine=nisa.gpsimd_engine,
    )
    values, key_rows = projected[:, nl.ds((heads + 1) * d, d)], None
    if update_cache and not K_cache_transposed:
        key_rows = _by_rows(sizes, keys)
    if k_scale is not None:
        values = _quantized(values, v_scale, K_cache.dtype)
        if key_rows is not None:
            key_rows = _quantized(key_rows, k_scale, K_cache.dtype)
        if attends_new or key_rows is None:
            keys = _quantized(keys, k_scale, K_cache.dtype)
        else:  # only their shape and type are looked at
            keys = nl.ndarray(keys.shape, dtype=K_cache.dtype, buffer=nl.sbuf)

    attended = nl.ndarray((d, sizes.batch * heads * sizes.tokens), dtype=sizes.dtype, buffer=nl.sbuf)
    scale = 1.0
    if not skip_attention:
        scale = softmax_scale if softmax_scale is not None else d**-0.5
    queries = nl.ndarray(attended.shape, dtype=sizes.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(
        dst=queries.reshape((d, sizes.batch, heads, sizes.tokens)),
        data=turned[:, :, 0:heads, :],
        op0=nl.multiply,
        operand0=float(scale),
    )
    if skip_attention:
        attended = queries
    else:
        new = nl.ndarray((sizes.batch, 1, sizes.tokens, d), dtype=values.dtype, buffer=nl.private_hbm)
        if attends_new:
            nisa.dma_copy(dst=new.reshape((rows, d)), src=values)
        attention_tkg(
            queries,
            keys,
            new,
            _cache_view(K_cache, cfg, K_cache_transposed),
            _cache_view(V_cache, cfg, False),
            attention_mask,
            attended,
            cfg,
            sbm if sbm is not None else create_auto_alloc_manager(),
            sink=sink,
            active_blocks_table=active_blocks_table,
        )
    if update_cache:
        k_result, v_result = K_cache, V_cache
        if sizes.programs > 1 and not skip_attention:
            nisa.core_barrier(V_cache, (0, 1))
        _update(
            sizes,
            K_cache,
            V_cache,
            keys,
            key_rows,
            values,
            kv_cache_update_idx,
            K_cache_transposed,
            active_blocks_table,
        )
    else:
        k_result, v_result = _new_keys_and_values(sizes, keys, values)
    if W_out is None:
        return _stored(sizes, attended, out_in_sb), k_result, v_result
    result = output_projection_tkg(
        attended.reshape((d, sizes.batch, heads, sizes.tokens)),
        W_out,
        bias=bias_out,
        quantization_type=quantization_type_out,
        weight_scale=weight_dequant_scale_out,
        input_scale=input_dequant_scale_out,
        TRANSPOSE_OUT=transposed_out,
        OUT_IN_SB=out_in_sb,
    )
    return result, k_result, v_result


def _sizes(X, W_qkv, V_cache, cos, mask, index):
    _, programs, program = get_verified_program_sharding_info("attention_block_tkg", (0, 1), 2)
    d = V_cache.shape[-1]
    kernel_assert(d % 2 == 0, f"attention_block_tkg: d, the last dimension of V_cache, must be even, got {d}")
    columns = W_qkv.shape[1]
    kernel_assert(
        columns % d == 0 and columns // d > 2,
        f"attention_block_tkg: W_qkv must have (heads + 2) * {d} columns, got {columns}",
    )
    if is_hbm_buffer(X):
        kernel_assert(len(X.shape) == 3, f"attention_block_tkg: X must be [B, S, H], got shape {X.shape}")
        batch, tokens = X.shape[0], X.shape[1]
    else:
        batch = index.shape[0] if index is not None else mask.shape[1]
        tokens = X.shape[1] // batch
        kernel_assert(
            X.shape[0] == P and batch * tokens == X.shape[1],
            f"attention_block_tkg: X in SBUF must be [128, {batch} * S, H / 128], got shape {X.shape}",
        )
    return Sizes(batch, tokens, columns // d - 2, d, X.dtype, programs, program)


def _check(
    X, sizes, W_qkv, cos, sin, normed, mask, W_out, transposed_out, skip_attention, k_scale, v_scale, K_cache
):
    kernel_assert(
        sizes.rows <= P, f"attention_block_tkg: B * S must be at most {P}, got {sizes.rows} for X {X.shape}"
    )
    kernel_assert(
        (cos is None) == (sin is None),
        "attention_block_tkg: cos and sin must be given together or not at all",
    )
    if cos is not None:
        shape = (sizes.d // 2, sizes.batch, sizes.tokens)
        assert_shape(cos, shape, "cos")
        assert_shape(sin, shape, "sin")
    kernel_assert(
        not normed or sizes.d == P, f"attention_block_tkg: norms of q and k need a head of {P}, got {sizes.d}"
    )
    if not skip_attention:
        assert_shape(mask, (mask.shape[0], sizes.batch, sizes.heads, sizes.tokens), "attention_mask")
    kernel_assert(
        not transposed_out or W_out is not None,
        "attention_block_tkg: transposed_out must be False without W_out, got True",
    )
    kernel_assert(
        (k_scale is None) == (v_scale is None),
        "attention_block_tkg: k_scale and v_scale must be given together",
    )
    kernel_assert(
        k_scale is None or K_cache.dtype == nl.float8_e4m3,
        f"attention_block_tkg: K_cache must be float8_e4m3 with k_scale, got {K_cache.dtype}",
    )


# --- heads of q and k


def _norm_of_rows(sizes, projected, eps):
    """Heads of q and k by rows, each over the root of its mean of squares; v as it is."""
    rows, count, d = sizes.rows, sizes.heads + 1, sizes.d
    result = nl.ndarray(projected.shape, dtype=sizes.dtype, buffer=nl.sbuf)
    normed = nl.ds(0, count * d)
    squares = nl.ndarray((rows, count, d), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=squares.reshape((rows, count * d)), op=nl.square, data=projected[:, normed])
    factor = nl.ndarray((rows, count), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=factor, op=nl.add, data=squares, axis=2)
    _inverse_root(factor, d, eps)
    nisa.tensor_tensor(
        dst=result[:, normed].reshape((rows, count, d)),
        data1=projected[:, normed].reshape((rows, count, d)),
        data2=factor.ap(pattern=[[count, rows], [1, count], [0, d]]),
        op=nl.multiply,
    )
    nisa.tensor_copy(
        dst=result[:, nl.ds(count * d, d)], src=projected[:, nl.ds(count * d, d)], engine=nisa.gpsimd_engine
    )
    return result


def _inverse_root(sums, count, eps):
    """1 / sqrt(sums / count + eps), in place."""
    small = nl.ndarray((sums.shape[0], 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=small, value=float(eps))
    nisa.activation(dst=sums, op=nl.rsqrt, data=sums, scale=1.0 / count, bias=small)


def _turned(sizes, projected):
    """Heads of q and k with d on partitions: [d, B, heads + 1, S]."""
    rows, d, count = sizes.rows, sizes.d, sizes.heads + 1
    result = nl.ndarray((d, sizes.batch, count, sizes.tokens), dtype=sizes.dtype, buffer=nl.sbuf)
    for head in range(count):
        bank = nl.ndarray((d, rows), dtype=projected.dtype, buffer=nl.psum)
        nisa.nc_transpose(dst=bank, data=projected[:, nl.ds(head * d, d)])
        engine = nisa.vector_engine if head % 2 == 0 else nisa.scalar_engine
        nisa.tensor_copy(
            dst=result[:, :, head, :], src=bank.reshape((d, sizes.batch, sizes.tokens)), engine=engine
        )
    return result


def _rotated(sizes, turned, cos, sin, contiguous):
    angles = []
    for table in (cos, sin):
        loaded = nl.ndarray(table.shape, dtype=sizes.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=loaded, src=table)
        angles.append(loaded)
    result = nl.ndarray(turned.shape, dtype=sizes.dtype, buffer=nl.sbuf)
    RoPE_sbuf(turned, angles[0], angles[1], result, convert_from_interleaved=not contiguous)
    return result


def _norm_of_columns(sizes, turned, eps, gamma_q, gamma_k):
    """Heads of q and k with d on partitions, each over its root of the mean of squares, times gamma."""
    d, heads = sizes.d, sizes.heads
    columns = sizes.batch * (heads + 1) * sizes.tokens
    flat = turned.reshape((d, columns))
    ones = nl.ndarray((d, d), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=ones, value=1.0)
    factor = nl.ndarray((d, columns), dtype=nl.float32, buffer=nl.sbuf)
    for part in TiledRange(columns, BANK):
        span = nl.ds(part.start_offset, part.size)
        squares = nl.ndarray((d, part.size), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=squares, op=nl.square, data=flat[:, span])
        bank = nl.ndarray((d, part.size), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=bank, stationary=ones, moving=squares)
        nisa.tensor_copy(dst=factor[:, span], src=bank)
    _inverse_root(factor, d, eps)
    result = nl.ndarray(turned.shape, dtype=sizes.dtype, buffer=nl.sbuf)
    shaped = factor.reshape(turned.shape)
    for part in range(2):
        span = nl.ds(heads, 1) if part == 1 else nl.ds(0, heads)
        gamma = gamma_k if part == 1 else gamma_q
        data, by, target = turned[:, :, span, :], shaped[:, :, span, :], result[:, :, span, :]
        if gamma is None:
            nisa.tensor_tensor(dst=target, data1=data, data2=by, op=nl.multiply)
        else:
            column = nl.ndarray((d, 1), dtype=nl.float32, buffer=nl.sbuf)
            nisa.dma_copy(dst=column, src=gamma.reshape((d, 1)))
            nisa.scalar_tensor_tensor(
                dst=target, data=data, op0=nl.multiply, operand0=column, op1=nl.multiply, operand1=by
            )
    return result


def _by_rows(sizes, keys):
    """[B * S, d] of keys [d, B * S]."""
    bank = nl.ndarray((sizes.rows, sizes.d), dtype=keys.dtype, buffer=nl.psum)
    nisa.nc_transpose(dst=bank, data=keys)
    result = nl.ndarray((sizes.rows, sizes.d), dtype=keys.dtype, buffer=nl.sbuf)
    nisa.tensor_copy(dst=result, src=bank)
    return result


def _quantized(source, scale, dtype):
    """source * scale, limited to what fp8 holds."""
    partitions = source.shape[0]
    column = nl.ndarray((partitions, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=column, src=scale.ap(pattern=[[0, partitions], [1, 1]], offset=0))
    scaled = nl.ndarray(source.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(
        dst=scaled, data=source, op0=nl.multiply, operand0=column, op1=nl.minimum, operand1=FP8_MAX
    )
    result = nl.ndarray(source.shape, dtype=dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=result, data=scaled, op0=nl.maximum, operand0=-FP8_MAX)
    return result


# --- attention and the cache


def _attention_config(sizes, V_cache, mask, table, transposed):
    block_len, full = 0, V_cache.shape[-2]
    if table is not None:
        block_len = V_cache.shape[-2] if len(V_cache.shape) == 3 else V_cache.shape[1]
        full = V_cache.shape[0] * block_len
    context = full if mask is None else mask.shape[0]
    return AttnTKGConfig(
        bs=sizes.batch,
        q_head=sizes.heads,
        s_active=sizes.tokens,
        curr_sprior=context,
        full_sprior=max(full, context),
        d_head=sizes.d,
        block_len=block_len,
        tp_k_prior=not transposed,
        strided_mm1=table is None,
        qk_in_sb=True,
        out_in_sb=True,
    )


def _cache_view(cache, cfg, transposed):
    """A cache without, or with, a dimension of one head, as attention_tkg takes it."""
    if cfg.block_len > 0:
        return cache.reshape((cache.shape[0], cfg.block_len, cfg.d_head))
    if transposed:
        return cache.reshape((cache.shape[0], 1, cfg.d_head, cache.shape[-1]))
    return cache.reshape((cache.shape[0], 1, cache.shape[-2], cfg.d_head))


def _update(sizes, K_cache, V_cache, keys, key_rows, values, index, transposed, table):
    """Write each sequence's new keys and values from its row on, the programs taking sequences in turn."""
    batch, tokens, d = sizes.batch, sizes.tokens, sizes.d
    places = nl.ndarray((1, batch), dtype=nl.uint32, buffer=nl.sbuf)
    nisa.dma_copy(dst=places, src=index.reshape((1, batch)))
    total = _elements(V_cache)
    v_flat = V_cache.reshape((total // d, d))
    length = 0 if table is not None else V_cache.shape[-2]
    for sequence in range(batch):
        if sequence % sizes.programs == sizes.program:
            place, here = places[0:1, nl.ds(sequence, 1)], nl.ds(sequence * tokens, tokens)
            by_rows = [[d, tokens], [1, d]]
            first = sequence * length * d
            target = v_flat.ap(pattern=by_rows, offset=first, scalar_offset=place, indirect_dim=0)
            nisa.dma_copy(dst=target, src=values[here, :], oob_mode=nisa.oob_mode.skip)
            if transposed:
                k_flat = K_cache.reshape((_elements(K_cache), 1))
                target = k_flat.ap(
                    pattern=[[length, d], [1, tokens]], offset=first, scalar_offset=place, indirect_dim=0
                )
                nisa.dma_copy(dst=target, src=keys[:, here], oob_mode=nisa.oob_mode.skip)
            else:
                k_flat = K_cache.reshape((total // d, d))
                target = k_flat.ap(pattern=by_rows, offset=first, scalar_offset=place, indirect_dim=0)
                nisa.dma_copy(dst=target, src=key_rows[here, :], oob_mode=nisa.oob_mode.skip)


def _elements(tensor):
    total = 1
    for size in tensor.shape:
        total *= size
    return total


def _new_keys_and_values(sizes, keys, values):
    """[d, B, S] and [B, 1, S, d] in HBM, one written by each program."""
    batch, tokens, d = sizes.batch, sizes.tokens, sizes.d
    k_new = nl.ndarray((d, batch, tokens), dtype=keys.dtype, buffer=nl.shared_hbm)
    v_new = nl.ndarray((batch, 1, tokens, d), dtype=values.dtype, buffer=nl.shared_hbm)
    if sizes.program == 0:
        nisa.dma_copy(dst=k_new.reshape((d, sizes.rows)), src=keys)
    if sizes.program == sizes.programs - 1:
        nisa.dma_copy(dst=v_new.reshape((sizes.rows, d)), src=values)
    return k_new, v_new


def _stored(sizes, attended, out_in_sb):
    """The attention's result without a projection: as it is, or [B, heads, d, S] in HBM."""
    if out_in_sb:
        return attended
    d, tokens, each = sizes.d, sizes.tokens, sizes.batch * sizes.heads
    result = nl.ndarray((sizes.batch, sizes.heads, d, tokens), dtype=sizes.dtype, buffer=nl.shared_hbm)
    heads = attended.reshape((d, each, tokens))
    for part in TiledRange(each, div_ceil(each, sizes.programs)):
        if part.index == sizes.program:
            target = result.ap(
                pattern=[[tokens, d], [d * tokens, part.size], [1, tokens]],
                offset=part.start_offset * d * tokens,
            )
            nisa.dma_copy(dst=target, src=heads[:, nl.ds(part.start_offset, part.size), :])
    return result
