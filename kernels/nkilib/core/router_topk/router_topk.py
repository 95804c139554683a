"""Router of a mixture of experts: logits, the k experts of each token, their affinities.

    logits     = x @ w + bias                                             [T, E]
    index      = the k experts of largest logit, the largest first        [T, k]
    affinities = of the experts of a token; 0 for those not chosen        [T, E]

    router_pre_norm  norm_topk_prob   affinity, softmax                sigmoid
    no               either           softmax over the k logits        sigmoid(logit)
    yes              no               softmax over E, none set to 0    sigmoid(logit), none set to 0
    yes              yes              softmax over the k logits        sigmoid(logit) / sum over the k

(A softmax over E divided by its sum over the k chosen is the softmax over these k.)

Tokens lie on the partitions. A block is up to 128 tokens by G groups, with token ``start + p * G + g`` in
partition p: the rows of a partition follow each other in HBM, and one transfer stores a block.

    DMA      w once, x, results as [partition, G, E]
    tensor   transposes of x where it is [T, H] in HBM; logits, H/128 matmuls to a group; the bias as one more
             row of the contraction (use_PE_broadcast_w_bias)
    vector   bias, the eight largest (max8), their places, the mask of the chosen
    scalar   exp or sigmoid of rows, summed on the way; half the copies of transposed x

`use_indirect_dma_scatter` and `use_column_tiling` change no result. The chosen experts are marked in SBUF
either way: a second pass through HBM, zeros first and then k values per token, takes longer for every E there
may be.

SBUF per partition: w H * E / 64 bytes in 16 bits (8 KiB at H = 4096, E = 128), x of a block up to 32 KiB
(twice if transposed), and about 20 bytes per group and expert, of which there are at most 2048.
"""

from dataclasses import dataclass

import nki.isa as nisa
import nki.language as nl

from ..utils.common_types import RouterActFnType
from ..utils.kernel_assert import assert_shape, kernel_assert
from ..utils.kernel_helpers import get_verified_program_sharding_info
from .layouts import (
    FEW_TOKENS,
    PARTITIONS,
    XHBMLayout_H_T__0,
    XHBMLayout_T_H__1,
    XSBLayout__128_Hdiv128_T__3,
    XSBLayout_tp102__0,
    XSBLayout_tp201__2,
    XSBLayout_tp2013__1,
    bytes_of,
    router_topk_input_w_load,
    router_topk_input_x_load,
    transpose_rows,
)

__all__ = [
    "XHBMLayout_H_T__0",
    "XHBMLayout_T_H__1",
    "XSBLayout__128_Hdiv128_T__3",
    "XSBLayout_tp102__0",
    "XSBLayout_tp201__2",
    "XSBLayout_tp2013__1",
    "router_topk",
    "router_topk_input_w_load",
    "router_topk_input_x_load",
]

MAX_K = 8
MAX_E = 512
# A block: fp32 logits per partition, half of PSUM, and bytes of x per partition.
BLOCK_LOGITS = 2048
BLOCK_X_BYTES = 32 * 1024
# Below and above every logit.
LOWEST = -3.0e38
HIGHEST = 3.0e38


@dataclass
class _Router(nl.NKIObject):
    """The call: its options, its shapes, and what all blocks share."""

    act_fn: RouterActFnType
    k: int
    x: object
    x_in_sbuf: bool
    hbm_layout: int
    sb_layout: int
    tokens: int
    hidden: int
    experts: int
    masked: bool
    normalizer: str
    w: object = None
    bias: object = None
    ones: object = None


def router_topk(
    x,
    w,
    w_bias,
    router_logits,
    expert_affinities,
    expert_index,
    act_fn: RouterActFnType,
    k,
    x_hbm_layout,
    x_sb_layout,
    output_in_sbuf=False,
    router_pre_norm=True,
    norm_topk_prob=False,
    use_column_tiling=False,
    use_indirect_dma_scatter=False,
    return_eager_affi=False,
    use_PE_broadcast_w_bias=False,
    shard_on_tokens=False,
    skip_store_expert_index=False,
    skip_store_router_logits=False,
    x_input_in_sbuf=False,
    expert_affin_in_sb=False,
):
    """Choose k experts for each token. Called from a kernel; it writes into tensors it is given.

    Args:
        x: [H, T] (`x_hbm_layout` 0) or [T, H] (1) in HBM, or in SBUF as `x_sb_layout` says; H a multiple of
            128.
        w: [H, E] in HBM, E at most 512, of the dtype of `x`.
        w_bias: [1, E] or [E] in HBM, or None.
        router_logits: [T, E] in HBM; written.
        expert_affinities: [T, E] in HBM or SBUF; written.
        expert_index: [T, k] uint32 in HBM or SBUF; written.
        act_fn: softmax or sigmoid.
        k: experts per token, 1 to 8.
        x_hbm_layout: 0 or 1; of no matter for x in SBUF.
        x_sb_layout: 0, 1 or 2, see :mod:`.layouts`; of no matter for x in HBM.
        output_in_sbuf: `expert_affinities` and `expert_index` are in SBUF; T at most 128.
        router_pre_norm: activate before the choice, see the table of this module.
        norm_topk_prob: with `router_pre_norm`, divide by the sum over the chosen.
        use_column_tiling: changes no result.
        use_indirect_dma_scatter: needed for sigmoid; changes no result. T (half of it with `shard_on_tokens`)
            is then at most 128 or a multiple of it, and the affinities are in HBM.
        return_eager_affi: also return the affinities of the chosen, T at most 128.
        use_PE_broadcast_w_bias: the bias goes through the tensor engine.
        shard_on_tokens: the first of two programs takes the first T // 2 tokens, the other the rest. Who
            reads rows of the other program puts a core_barrier before. Without it, and with outputs in SBUF,
            each program does all tokens.
        skip_store_expert_index: do not write `expert_index`.
        skip_store_router_logits: do not write `router_logits`.
        x_input_in_sbuf: `x` is in SBUF.
        expert_affin_in_sb: `expert_affinities` is in SBUF.

    Returns:
        [router_logits, expert_index, expert_affinities], and with `return_eager_affi` [T, k] fp32 in SBUF.
    """
    tokens, hidden = _shape_of_x(x, x_hbm_layout, x_sb_layout, x_input_in_sbuf)
    experts = w.shape[1]
    _, count, program = get_verified_program_sharding_info("router_topk", (0, 1))
    in_sbuf = output_in_sbuf or expert_affin_in_sb
    _check_tensors(x, w, w_bias, router_logits, expert_affinities, expert_index, k, tokens, hidden)
    kernel_assert(
        act_fn in (RouterActFnType.SOFTMAX, RouterActFnType.SIGMOID),
        f"act_fn is SOFTMAX or SIGMOID, got {act_fn}",
    )
    kernel_assert(not shard_on_tokens or count > 1, "shard_on_tokens needs two programs, got one")
    sharded = shard_on_tokens and not in_sbuf
    first = tokens // 2 * program if sharded else 0
    end = tokens // 2 if sharded and program == 0 else tokens
    if act_fn == RouterActFnType.SIGMOID:
        kernel_assert(use_indirect_dma_scatter, "SIGMOID needs use_indirect_dma_scatter=True")
    if use_indirect_dma_scatter:
        kernel_assert(
            end - first <= PARTITIONS or (end - first) % PARTITIONS == 0,
            "with use_indirect_dma_scatter, T of a program is at most 128 or a multiple of it, "
            f"got {end - first}",
        )
        kernel_assert(not in_sbuf, "use_indirect_dma_scatter writes affinities in HBM, not in SBUF")
    if in_sbuf or return_eager_affi:
        kernel_assert(tokens <= PARTITIONS, f"T is at most 128 for results in SBUF, got {tokens}")

    chosen_only = not router_pre_norm or norm_topk_prob
    normalizer = "none"
    if act_fn == RouterActFnType.SOFTMAX:
        normalizer = "chosen" if chosen_only else "all"
    elif router_pre_norm and norm_topk_prob:
        normalizer = "chosen"
    router = _Router(
        act_fn=act_fn,
        k=k,
        x=x,
        x_in_sbuf=x_input_in_sbuf,
        hbm_layout=x_hbm_layout,
        sb_layout=x_sb_layout if x_input_in_sbuf else XSBLayout_tp102__0,
        tokens=tokens,
        hidden=hidden,
        experts=experts,
        masked=chosen_only,
        normalizer=normalizer,
    )
    eager = None
    lanes = min(end - first, PARTITIONS)
    while first < end:
        lanes = min(lanes, end - first)
        groups = min((end - first) // lanes, _most_groups(router))
        tiles = _x_tiles(router, first, lanes, groups)
        if router.w is None:
            router.w = router_topk_input_w_load(w, router.sb_layout, "router_w")
            _load_bias(router, w_bias, lanes, use_PE_broadcast_w_bias)
        logits = _logits(router, tiles, lanes, groups)
        rows = nl.ds(first, lanes * groups)
        if not skip_store_router_logits:
            _store(router_logits[rows], logits[:, :, 0:experts])
        top = _largest(logits)
        if not skip_store_expert_index:
            _store(expert_index[rows], _places(logits, top)[:, :, 0:k])
        affinities, eager = _affinities(router, logits, top, expert_affinities.dtype, return_eager_affi)
        _store(expert_affinities[rows], affinities)
        first += lanes * groups

    results = [router_logits, expert_index, expert_affinities]
    if return_eager_affi:
        results.append(eager)
    return results


def _shape_of_x(x, x_hbm_layout, x_sb_layout, x_input_in_sbuf):
    """T and H."""
    kernel_assert(x_hbm_layout in (0, 1), f"x_hbm_layout is 0 or 1, got {x_hbm_layout}")
    kernel_assert(x_sb_layout in (0, 1, 2), f"x_sb_layout is 0, 1 or 2, got {x_sb_layout}")
    if x_input_in_sbuf:
        kernel_assert(
            len(x.shape) == 3 and x.shape[0] == PARTITIONS,
            f"x in SBUF has three dimensions, the first of {PARTITIONS}, got {x.shape}",
        )
        return x.shape[1], x.shape[2] * PARTITIONS
    kernel_assert(len(x.shape) == 2, f"x in HBM is [H, T] or [T, H], got {x.shape}")
    if x_hbm_layout == XHBMLayout_H_T__0:
        return x.shape[1], x.shape[0]
    return x.shape[0], x.shape[1]


def _check_tensors(x, w, w_bias, router_logits, expert_affinities, expert_index, k, tokens, hidden):
    experts = w.shape[1]
    kernel_assert(hidden % PARTITIONS == 0, f"H is a multiple of {PARTITIONS}, got {hidden}")
    kernel_assert(w.shape[0] == hidden, f"w is [H, E] with H = {hidden}, got {w.shape}")
    kernel_assert(experts <= MAX_E, f"E, the experts of w, is at most {MAX_E}, got {experts}")
    kernel_assert(1 <= k <= min(MAX_K, experts), f"k is 1 to {min(MAX_K, experts)}, got {k}")
    kernel_assert(x.dtype == w.dtype, f"x and w have one dtype, got {x.dtype} and {w.dtype}")
    if w_bias is not None:
        kernel_assert(
            tuple(w_bias.shape) in ((experts,), (1, experts)),
            f"w_bias is [E] or [1, E] with E = {experts}, got {w_bias.shape}",
        )
    assert_shape(router_logits, (tokens, experts), "router_logits")
    assert_shape(expert_affinities, (tokens, experts), "expert_affinities")
    assert_shape(expert_index, (tokens, k), "expert_index")


def _most_groups(router):
    """Groups of a block such that its logits and its x have room."""
    in_x = BLOCK_X_BYTES // (router.hidden * bytes_of(router.x.dtype))
    return max(1, min(BLOCK_LOGITS // _stride_of(router.experts), in_x))


def _stride_of(experts):
    """Columns of PSUM for a row of logits: a power of two, so that no row crosses a bank."""
    stride = 8
    while stride < experts:
        stride *= 2
    return stride


def _x_tiles(router, start, lanes, groups):
    """x of a block in SBUF: for each group a view [128, H/128, lanes]."""
    x, hidden, tokens = router.x, router.hidden, router.tokens
    steps = hidden // PARTITIONS
    tiles = []
    if router.x_in_sbuf:
        for group in range(groups):
            pattern = [[steps * tokens, PARTITIONS], [1, steps], [groups * steps, lanes]]
            tiles.append(x.ap(pattern, offset=(start + group) * steps))
        return tiles
    if router.hbm_layout == XHBMLayout_H_T__0:
        size = lanes * groups
        block = nl.ndarray((PARTITIONS, steps, size), dtype=x.dtype, buffer=nl.sbuf)
        pattern = [[steps * tokens, PARTITIONS], [tokens, steps], [1, size]]
        nisa.dma_copy(dst=block, src=x.ap(pattern, offset=start))
        for group in range(groups):
            pattern = [[steps * size, PARTITIONS], [size, steps], [groups, lanes]]
            tiles.append(block.ap(pattern, offset=group))
        return tiles
    if tokens <= FEW_TOKENS:
        block = router_topk_input_x_load(x, XHBMLayout_T_H__1, router.sb_layout)
        pattern = [[steps * tokens, PARTITIONS], [1, steps], [steps, lanes]]
        tiles.append(block.ap(pattern, offset=start * steps))
        return tiles
    for group in range(groups):
        rows = nl.ndarray((lanes, hidden), dtype=x.dtype, buffer=nl.sbuf)
        tile = nl.ndarray((PARTITIONS, steps, lanes), dtype=x.dtype, buffer=nl.sbuf)
        pattern = [[groups * hidden, lanes], [1, hidden]]
        nisa.dma_copy(dst=rows, src=x.ap(pattern, offset=(start + group) * hidden))
        transpose_rows(rows, tile, router.sb_layout)
        tiles.append(tile)
    return tiles


def _load_bias(router, w_bias, lanes, on_tensor_engine):
    """The bias in every partition, or in one, with ones to multiply it by."""
    if w_bias is None:
        return
    rows = 1 if on_tensor_engine else lanes
    router.bias = nl.ndarray((rows, router.experts), dtype=w_bias.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=router.bias, src=w_bias.ap([[0, rows], [1, router.experts]]))
    if on_tensor_engine:
        router.ones = nl.ndarray((1, lanes), dtype=w_bias.dtype, buffer=nl.sbuf)
        nisa.memset(dst=router.ones, value=1.0)


def _logits(router, tiles, lanes, groups):
    """[lanes, groups, E] fp32, at least eight columns: max8 takes no fewer."""
    experts = router.experts
    width = max(experts, MAX_K)
    steps = router.hidden // PARTITIONS
    sums = nl.ndarray((lanes, groups, _stride_of(experts)), dtype=nl.float32, buffer=nl.psum)
    for group in range(groups):
        target = sums[:, group, 0:experts]
        for step in range(steps):
            nisa.nc_matmul(dst=target, stationary=tiles[group][:, step, :], moving=router.w[:, step, :])
        if router.ones is not None:
            nisa.nc_matmul(dst=target, stationary=router.ones[:, 0:lanes], moving=router.bias)
    logits = nl.ndarray((lanes, groups, width), dtype=nl.float32, buffer=nl.sbuf)
    if width > experts:
        nisa.memset(dst=logits[:, :, experts:width], value=LOWEST)
    if router.bias is None or router.ones is not None:
        nisa.tensor_copy(dst=logits[:, :, 0:experts], src=sums[:, :, 0:experts])
    else:
        bias = router.bias.ap([[experts, lanes], [0, groups], [1, experts]])
        nisa.tensor_tensor(dst=logits[:, :, 0:experts], data1=sums[:, :, 0:experts], data2=bias, op=nl.add)
    return logits


def _largest(logits):
    """The eight largest logits of each token, the largest first."""
    lanes, groups, _ = logits.shape
    top = nl.ndarray((lanes, groups, MAX_K), dtype=nl.float32, buffer=nl.sbuf)
    for group in range(groups):
        nisa.max8(dst=top[:, group, :], src=logits[:, group, :])
    return top


def _places(logits, top):
    """The experts that the largest logits belong to."""
    places = nl.ndarray(top.shape, dtype=nl.uint32, buffer=nl.sbuf)
    for group in range(top.shape[1]):
        nisa.nc_find_index8(dst=places[:, group, :], data=logits[:, group, :], vals=top[:, group, :])
    return places


def _affinities(router, logits, top, dtype, eager):
    """Affinities [lanes, groups, E] of `dtype`; those of the chosen [lanes, k] fp32 if `eager`, else None."""
    lanes, groups, _ = logits.shape
    experts, k = router.experts, router.k
    plain = not router.masked and router.normalizer == "none"
    result = nl.ndarray((lanes, groups, experts), dtype=dtype, buffer=nl.sbuf)
    active = result
    if not plain:
        active = nl.ndarray((lanes, groups, experts), dtype=nl.float32, buffer=nl.sbuf)
    chosen = nl.ndarray((lanes, groups, k), dtype=nl.float32, buffer=nl.sbuf)
    sums = nl.ndarray((lanes, groups), dtype=nl.float32, buffer=nl.sbuf)
    lowered = _negated_largest(router, top)
    if router.normalizer == "chosen" or eager:
        _activate(router, chosen, top[:, :, 0:k], lowered, sums, router.normalizer == "chosen")
    _activate(router, active, logits[:, :, 0:experts], lowered, sums, router.normalizer == "all")
    if router.normalizer != "none":
        nisa.reciprocal(dst=sums, data=sums)

    mask = _mask(router, logits, top) if router.masked else None
    if not plain:
        for group in range(groups):
            _scale(router, result, active, sums, mask, group)
    if eager and router.normalizer != "none":
        nisa.tensor_scalar(dst=chosen, data=chosen, op0=nl.multiply, operand0=sums)
    return result, chosen.reshape((lanes, k)) if eager else None


def _negated_largest(router, top):
    """Minus the largest logit, added before exp; None for sigmoid."""
    if router.act_fn == RouterActFnType.SIGMOID:
        return None
    lanes, groups, _ = top.shape
    lowered = nl.ndarray((lanes, groups), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=lowered, data=top[:, :, 0], op0=nl.multiply, operand0=-1.0)
    return lowered


def _activate(router, dst, src, lowered, sums, summed):
    """dst = exp(src - largest) or sigmoid(src); if `summed`, `sums` are those of the rows."""
    groups = dst.shape[1]
    if lowered is None and not summed:
        nisa.activation(dst=dst, op=nl.sigmoid, data=src)
        return
    for group in range(groups):
        column = slice(group, group + 1)
        nisa.activation(
            dst=dst[:, group, :],
            op=nl.sigmoid if lowered is None else nl.exp,
            data=src[:, group, :],
            bias=None if lowered is None else lowered[:, column],
            reduce_op=nl.add if summed else None,
            reduce_res=sums[:, column] if summed else None,
            reduce_cmd=nisa.reduce_cmd.reset_reduce if summed else nisa.reduce_cmd.idle,
        )


def _mask(router, logits, top):
    """1.0 for the k chosen experts of each token, even among equal logits, else 0.0."""
    lanes, groups, width = logits.shape
    experts, k = router.experts, router.k
    wanted = top
    if k < MAX_K:
        wanted = nl.ndarray((lanes, groups, MAX_K), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=wanted, value=HIGHEST)
        nisa.tensor_copy(dst=wanted[:, :, 0:k], src=top[:, :, 0:k])
    rest = nl.ndarray((lanes, groups, width), dtype=nl.float32, buffer=nl.sbuf)
    for group in range(groups):
        nisa.nc_match_replace8(
            dst=rest[:, group, :], data=logits[:, group, :], vals=wanted[:, group, :], imm=HIGHEST
        )
    mask = nl.ndarray((lanes, groups, experts), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=mask, data1=rest[:, :, 0:experts], data2=logits[:, :, 0:experts], op=nl.not_equal)
    return mask


def _scale(router, result, active, inverse, mask, group):
    """result = active * inverse * mask of one group, without those factors there are not."""
    dst, data = result[:, group, :], active[:, group, :]
    column = inverse[:, group : group + 1]
    if mask is None:
        nisa.tensor_scalar(dst=dst, data=data, op0=nl.multiply, operand0=column)
    elif router.normalizer == "none":
        nisa.tensor_tensor(dst=dst, data1=data, data2=mask[:, group, :], op=nl.multiply)
    else:
        nisa.scalar_tensor_tensor(
            dst=dst, data=data, op0=nl.multiply, operand0=column, op1=nl.multiply, operand1=mask[:, group, :]
        )


def _store(dst, src):
    """src [lanes, groups, n] to the rows `dst` [lanes * groups, n], in HBM or SBUF, in the dtype of `dst`."""
    lanes, groups, width = src.shape
    if dst.buffer == nl.sbuf:
        nisa.tensor_copy(dst=dst, src=src.reshape((lanes, width)))
        return
    tile = src
    if src.dtype != dst.dtype:
        tile = nl.ndarray((lanes, groups, width), dtype=dst.dtype, buffer=nl.sbuf)
        nisa.tensor_copy(dst=tile, src=src, engine=nisa.engine.scalar)
    nisa.dma_copy(dst=dst.reshape((lanes, groups, width)), src=tile)
