"""QKV projection for decoding: out = norm(hidden + residuals) @ weights + bias, for few rows.

Shapes: hidden [B, S, H] in HBM or [128, B * S, H / 128] in SBUF, weights [H, I]; out [B, S, I] or
[heads, B, S, d] in HBM, or [B * S, I] in SBUF.

Few rows meet all weights, so the time is that of reading the weights once. H is cut into a part for each
core; part l is seen as (128, H1): partition p has the H1 rows l * H / lnc + p * H1 + j of the weights. They
lie side by side in HBM, so a DMA reads kilobytes at a time.

- **DMA** loads hidden states in this order, and the weights, 512 KiB at a time.
- RMSNorm waits for nothing: hidden states are multiplied by gamma, the **scalar engine** squares them, and
  rows of the result are multiplied by 1 / rms at the end. LayerNorm, and RMSNorm before STATIC
  quantization, is :mod:`..subkernels.norm_tkg`; the scalar and **vector engines** quantize.
- The **tensor engine** holds the rows of one j and streams up to 2048 columns of weights into PSUM, as they
  arrive; FP8 takes two j at once.
- Two cores have sums over half of H each, and of its squares, which they exchange at once. Of the products
  they exchange, scaled and with the bias, what the other one finishes: half of the columns, or for a result
  in SBUF all of them. The **vector engine** scales and adds.

In SBUF, per partition: hidden states 2 B S H / 128 bytes, 3 times that and 32 KiB with residuals; weights
4 KiB for each transfer in flight; sums 8 KiB for each 2048 columns.
"""

from dataclasses import dataclass

import nki.isa as nisa
import nki.language as nl

from ..subkernels.layernorm_tkg import SHARDING_THRESHOLD as LAYERNORM_THRESHOLD
from ..subkernels.layernorm_tkg import layernorm_tkg
from ..subkernels.rmsnorm_tkg import SHARDING_THRESHOLD as RMSNORM_THRESHOLD
from ..subkernels.rmsnorm_tkg import rmsnorm_tkg
from ..utils.common_types import NormType, QKVOutputLayout, QuantizationType
from ..utils.kernel_assert import kernel_assert
from ..utils.kernel_helpers import (
    div_ceil,
    get_verified_program_sharding_info,
    is_hbm_buffer,
    is_rms_normalization,
)
from ..utils.projection import AT_ONCE, BANK, broadcast_line, load_line, quantize
from ..utils.tensor_view import TensorView
from .qkv_rows import RowTarget, load_static_scales, scale_columns, store_rows

P_MAX = nl.tile_size.pmax
GROUP = 2048  # columns in four banks of PSUM
PIECE = 4096  # weights of a partition that are loaded at once
LAST_PIECE = 512  # at least; pieces shrink to that in the end
SUMS = 4096  # sums of residuals of a partition that one engine hands to the next


@dataclass
class Plan(nl.NKIObject):
    """Sizes of a call.

    Attributes:
        rows: B * S.
        hidden: H.
        programs: number of programs.
        program: this one.
        depth: H1: values of H in a partition, of one program's part.
        fp8: the weights are FP8.
        late: rows are multiplied by 1 / rms at the end.
        eps: added to the mean of squares.
        hidden_actual: values that the mean is over.
    """

    rows: int
    hidden: int
    programs: int
    program: int
    depth: int
    fp8: bool
    late: bool
    eps: float
    hidden_actual: int


def qkv_tkg(
    hidden,
    qkv_w,
    norm_w=None,
    fused_add=False,
    mlp_prev=None,
    attn_prev=None,
    d_head=None,
    num_kv_heads=None,
    num_q_heads=None,
    output_layout=QKVOutputLayout.BSD,
    eps=1e-6,
    norm_type=NormType.RMS_NORM,
    quantization_type=QuantizationType.NONE,
    qkv_w_scale=None,
    qkv_in_scale=None,
    output_in_sbuf=False,
    qkv_bias=None,
    norm_bias=None,
    hidden_actual=None,
    sbm=None,
):
    """Project few hidden states to queries, keys and values; for kernels to call.

    Args:
        hidden: [B, S, H] in HBM, or [128, B * S, H / 128] in SBUF as :mod:`..subkernels.norm_tkg` leaves
            it; B * S at most 128, H a multiple of 128 times the number of programs.
        qkv_w: [H, I] in HBM, of the dtype of `hidden`; STATIC float8_e4m3.
        norm_w: [1, H], for RMS_NORM and LAYER_NORM.
        fused_add: add `mlp_prev` and `attn_prev` first. With a norm on two cores, B * S over the sharding
            threshold of the norm is even.
        mlp_prev: [B, S, H] in HBM.
        attn_prev: [B, S, H] in HBM.
        d_head: columns of a head, for NBSd and STATIC.
        num_kv_heads: heads of k and of v, for STATIC.
        num_q_heads: heads of q, for STATIC.
        output_layout: BSD or NBSd; in SBUF always [B * S, I].
        eps: of the norm.
        norm_type: the normalization.
        quantization_type: NONE or STATIC.
        qkv_w_scale: STATIC: [128, 3] fp32, the scales of q, k and v in every row.
        qkv_in_scale: STATIC: [128, 1] fp32.
        output_in_sbuf: leave all of the result in the SBUF of each program.
        qkv_bias: [1, I] in HBM.
        norm_bias: [1, H] in HBM, for LAYER_NORM.
        hidden_actual: values that the mean is over, or None for H.
        sbm: a manager that allocates automatically, or None; the compiler allocates either way.

    Returns:
        The result; with `fused_add` also the sum of `hidden` and the residuals, [B, S, H] in HBM.
    """
    plan = _plan(
        hidden,
        qkv_w,
        fused_add,
        norm_type,
        quantization_type,
        output_layout,
        d_head,
        eps,
        hidden_actual,
        sbm,
    )
    columns = qkv_w.shape[1]
    target = RowTarget(None, output_layout, d_head, columns, 0, None, None, None, None, None)
    factor = None
    if plan.fp8:
        target.q_columns, target.kv_columns = num_q_heads * d_head, num_kv_heads * d_head
        target.column_scales, factor = load_static_scales(qkv_w_scale, qkv_in_scale)
    if qkv_bias is not None:
        target.bias = broadcast_line(load_line(qkv_bias, 0, columns), plan.rows)

    summed = None
    source = hidden
    if fused_add:
        summed = nl.ndarray(hidden.shape, dtype=hidden.dtype, buffer=nl.shared_hbm)
        whole = norm_type != NormType.NO_NORM and not plan.late
        source = _add(plan, hidden, mlp_prev, attn_prev, whole, summed)
    if not plan.late:
        source = _normalize(plan, source, norm_w, norm_bias, eps, norm_type, hidden_actual)
    local = _local_part(plan, source, hidden.dtype, factor)
    factor = None
    if plan.late:
        factor = _inverse_rms(plan, local)
        if norm_w is not None:
            local = _times_gamma(plan, local, norm_w)

    out = None
    if output_in_sbuf:
        result = nl.ndarray((plan.rows, columns), dtype=hidden.dtype, buffer=nl.sbuf)
    else:
        batch, sequence = hidden.shape[0], hidden.shape[1]
        shape = (batch, sequence, columns)
        flat = (plan.rows, columns)
        if output_layout == QKVOutputLayout.NBSd:
            shape = (columns // d_head, batch, sequence, d_head)
            flat = (columns // d_head, plan.rows, d_head)
        result = nl.ndarray(shape, dtype=hidden.dtype, buffer=nl.shared_hbm)
        out = result.reshape(flat)
    target.out = out
    for first in range(0, columns, GROUP):
        width = min(GROUP, columns - first)
        sums = nl.ndarray((plan.rows, width), dtype=nl.float32, buffer=nl.psum)
        _multiply(plan, sums, local, qkv_w, first)
        _finish(plan, sums, factor, target, result if output_in_sbuf else None, first)
    if fused_add:
        return result, summed
    return result


def _plan(hidden, weights, adds, norm_type, quantization_type, layout, d_head, eps, hidden_actual, sbm):
    """Refuse what is not offered."""
    name = "qkv_tkg"
    _, programs, program = get_verified_program_sharding_info(name, (0, 1), 2)
    if is_hbm_buffer(hidden):
        rows, size = hidden.shape[0] * hidden.shape[1], hidden.shape[2]
    else:
        rows, size = hidden.shape[1], hidden.shape[0] * hidden.shape[2]
        kernel_assert(
            hidden.shape[0] == P_MAX, f"{name}: hidden in SBUF has 128 partitions, got {hidden.shape}"
        )
        kernel_assert(not adds, f"{name}: fused_add takes hidden in HBM")
    kernel_assert(rows <= P_MAX, f"{name}: B * S is at most {P_MAX}, got {rows}")
    kernel_assert(
        size % (P_MAX * programs) == 0, f"{name}: H is a multiple of 128 * {programs} programs, got {size}"
    )
    kernel_assert(weights.shape[0] == size, f"{name}: weights have {weights.shape[0]} rows, H is {size}")
    kernel_assert(
        quantization_type in (QuantizationType.NONE, QuantizationType.STATIC),
        f"{name}: quantization_type is NONE or STATIC, got {quantization_type}",
    )
    kernel_assert(
        layout in (QKVOutputLayout.BSD, QKVOutputLayout.NBSd),
        f"{name}: output_layout is BSD or NBSd, got {layout}",
    )
    if layout == QKVOutputLayout.NBSd:
        kernel_assert(
            d_head is not None and weights.shape[1] % d_head == 0,
            f"{name}: NBSd takes I a multiple of d_head, got {weights.shape[1]} and {d_head}",
        )
    kernel_assert(sbm is None or sbm.is_auto_alloc(), f"{name}: sbm allocates automatically")
    if adds and norm_type != NormType.NO_NORM and programs > 1:
        limit = LAYERNORM_THRESHOLD if norm_type == NormType.LAYER_NORM else RMSNORM_THRESHOLD
        kernel_assert(
            rows <= limit or rows % 2 == 0,
            f"{name}: with fused_add and a norm on two cores, B * S over {limit} is even, got {rows}",
        )
    fp8 = quantization_type == QuantizationType.STATIC
    actual = size if hidden_actual is None else hidden_actual
    late = is_rms_normalization(norm_type) and not fp8
    return Plan(rows, size, programs, program, size // programs // P_MAX, fp8, late, eps, actual)


# --- hidden states with H on the partitions


def _part_of(plan, tensor, part):
    """One program's part of [B, S, H] in HBM as [128, B * S, H1]."""
    pattern = [[plan.depth, P_MAX], [plan.hidden, plan.rows], [1, plan.depth]]
    return tensor.ap(pattern=pattern, offset=part * P_MAX * plan.depth)


def _load_parts(plan, tensor, parts):
    """Parts of [B, S, H] in HBM, side by side: [128, B * S, parts * H1] in SBUF."""
    tile = nl.ndarray((P_MAX, plan.rows, len(parts) * plan.depth), dtype=tensor.dtype, buffer=nl.sbuf)
    for index in range(len(parts)):
        columns = nl.ds(index * plan.depth, plan.depth)
        nisa.dma_copy(dst=tile[:, :, columns], src=_part_of(plan, tensor, parts[index]), dge_mode=AT_ONCE)
    return tile


def _add(plan, hidden, mlp_prev, attn_prev, whole, summed):
    """The sum of all three in SBUF, this program's part or, `whole`, all parts; each stores its part."""
    parts = list(range(plan.programs)) if whole else [plan.program]
    tiles = []
    for tensor in (hidden, mlp_prev, attn_prev):
        tiles.append(_load_parts(plan, tensor, parts))
    total = tiles[0]
    at_once = min(plan.rows, max(1, SUMS // plan.depth))
    sums = []
    for _ in range(min(2, len(parts) * div_ceil(plan.rows, at_once))):
        sums.append(nl.ndarray((P_MAX, at_once, plan.depth), dtype=nl.float32, buffer=nl.sbuf))
    turn = 0
    for index in range(len(parts)):
        columns = nl.ds(index * plan.depth, plan.depth)
        for first in range(0, plan.rows, at_once):
            count = min(at_once, plan.rows - first)
            rows = nl.ds(first, count)
            added = sums[turn % len(sums)][:, nl.ds(0, count), :]
            turn += 1
            nisa.tensor_tensor(
                dst=added,
                data1=tiles[1][:, rows, columns],
                data2=tiles[2][:, rows, columns],
                op=nl.add,
                engine=nisa.gpsimd_engine,
            )
            nisa.tensor_tensor(
                dst=total[:, rows, columns],
                data1=total[:, rows, columns],
                data2=added,
                op=nl.add,
                engine=nisa.vector_engine,
            )
    mine = nl.ds(plan.program * plan.depth if whole else 0, plan.depth)
    nisa.dma_copy(dst=_part_of(plan, summed, plan.program), src=total[:, :, mine], dge_mode=AT_ONCE)
    return total


def _normalize(plan, source, gamma, beta, eps, norm_type, hidden_actual):
    """`source` normalized, [128, B * S, programs * H1] in SBUF; without a norm as it is."""
    if norm_type == NormType.NO_NORM:
        return source
    output = nl.ndarray((P_MAX, plan.rows, plan.programs * plan.depth), dtype=source.dtype, buffer=nl.sbuf)
    if norm_type == NormType.LAYER_NORM:
        return layernorm_tkg(source, gamma, output, beta, eps)
    if norm_type == NormType.RMS_NORM_SKIP_GAMMA:
        gamma = _ones(plan.hidden, source.dtype)
    return rmsnorm_tkg(source, gamma, output, eps, hidden_actual)


def _ones(hidden, dtype):
    """Weights [1, H] of ones in HBM, for a norm without weights."""
    ones = nl.ndarray((1, hidden), dtype=dtype, buffer=nl.private_hbm)
    line = nl.ndarray((P_MAX, hidden // P_MAX), dtype=dtype, buffer=nl.sbuf)
    nisa.memset(dst=line, value=1.0)
    nisa.dma_copy(dst=ones.reshape((P_MAX, hidden // P_MAX)), src=line)
    return ones


def _local_part(plan, source, dtype, factor):
    """This program's part of H, [128, H1, B * S] in SBUF, quantized if `factor` is given."""
    if is_hbm_buffer(source):
        source = _load_parts(plan, source, [plan.program])
    start = 0 if source.shape[2] == plan.depth else plan.program * plan.depth
    part = source[:, :, nl.ds(start, plan.depth)]
    if dtype == nl.float32 and factor is None:
        dtype = nl.bfloat16
    local = nl.ndarray(
        (P_MAX, plan.rows, plan.depth), dtype=nl.float8_e4m3 if plan.fp8 else dtype, buffer=nl.sbuf
    )
    if plan.fp8:
        quantize(local, part, factor)
        return local
    if source.dtype == dtype:
        return part
    nisa.tensor_copy(dst=local, src=part)
    return local


def _inverse_rms(plan, local):
    """1 / sqrt(mean of squares + eps) of each row, over all of H, [rows, 1] fp32 in SBUF."""
    squares = nl.ndarray((P_MAX, plan.rows, plan.depth), dtype=nl.float32, buffer=nl.sbuf)
    sums = nl.ndarray((P_MAX, plan.rows), dtype=nl.float32, buffer=nl.sbuf)
    ones = nl.ndarray((P_MAX, 1), dtype=nl.float32, buffer=nl.sbuf)
    total = nl.ndarray((plan.rows, 1), dtype=nl.float32, buffer=nl.psum)
    result = nl.ndarray((plan.rows, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=squares, op=nl.square, data=local)
    nisa.tensor_reduce(dst=sums, op=nl.add, data=squares, axis=2)
    nisa.memset(dst=ones, value=1.0)
    nisa.nc_matmul(dst=total, stationary=sums, moving=ones)
    nisa.tensor_copy(dst=result, src=total)
    if plan.programs > 1:
        theirs = _exchange(plan, result)
        nisa.tensor_tensor(dst=result, data1=result, data2=theirs, op=nl.add)
    nisa.tensor_scalar(
        dst=result,
        data=result,
        op0=nl.multiply,
        operand0=1.0 / plan.hidden_actual,
        op1=nl.add,
        operand1=plan.eps,
    )
    nisa.tensor_scalar(
        dst=result,
        data=result,
        op0=nl.multiply,
        operand0=1.0,
        op1=nl.rsqrt,
        operand1=0.0,
        engine=nisa.gpsimd_engine,
    )
    return result


def _times_gamma(plan, local, gamma):
    """This program's part of the rows times gamma."""
    weights = nl.ndarray((P_MAX, plan.depth), dtype=gamma.dtype, buffer=nl.sbuf)
    pattern = [[plan.depth, P_MAX], [1, plan.depth]]
    nisa.dma_copy(dst=weights, src=gamma.ap(pattern=pattern, offset=plan.program * P_MAX * plan.depth))
    result = nl.ndarray((P_MAX, plan.rows, plan.depth), dtype=local.dtype, buffer=nl.sbuf)
    every_row = weights.ap(pattern=[[plan.depth, P_MAX], [0, plan.rows], [1, plan.depth]], offset=0)
    nisa.tensor_tensor(dst=result, data1=local, data2=every_row, op=nl.multiply)
    return result


# --- the product


def _multiply(plan, sums, local, weights, first):
    """sums = rows of this program's part of H times the weights, `first` the first column.

    Args:
        plan: the sizes.
        sums: [rows, columns] fp32 in PSUM, written.
        local: [128, rows, H1] in SBUF.
        weights: [H, I] in HBM.
        first: first column.
    """
    width = sums.shape[1]
    pitch = weights.shape[1]
    dtype = weights.dtype if plan.fp8 else local.dtype
    pairs = plan.fp8 and nisa.get_nc_version() >= nisa.nc_version.gen3
    at_once = max(1, min(plan.depth, PIECE * (2 if plan.fp8 else 1) // width))
    least = div_ceil(LAST_PIECE, width)
    base = plan.program * P_MAX * plan.depth * pitch
    start = 0
    while start < plan.depth:
        left = plan.depth - start
        number = min(at_once, left, max(least, left // 2))  # products wait for all of a piece
        if pairs and number > 1:
            number -= number % 2
        piece = nl.ndarray((P_MAX, number, width), dtype=dtype, buffer=nl.sbuf)
        pattern = [[plan.depth * pitch, P_MAX], [pitch, number], [1, width]]
        source = weights.ap(pattern=pattern, offset=base + start * pitch + first)
        if dtype == weights.dtype:
            nisa.dma_copy(dst=piece, src=source, dge_mode=AT_ONCE)
        else:
            nisa.dma_copy(dst=piece, src=source)
        done = 0
        while done < number:
            together = 2 if pairs and done + 1 < number else 1
            for column in range(0, width, BANK):
                columns = nl.ds(column, min(BANK, width - column))
                if together == 2:
                    both = local[:, :, nl.ds(start + done, 2)]
                    nisa.nc_matmul(
                        dst=sums[:, columns],
                        stationary=_swapped(both),
                        moving=piece[:, nl.ds(done, 2), columns],
                        perf_mode=nisa.matmul_perf_mode.double_row,
                    )
                else:
                    nisa.nc_matmul(
                        dst=sums[:, columns],
                        stationary=local[:, :, start + done],
                        moving=piece[:, done, columns],
                    )
            done += together
        start += number


def _swapped(view):
    """[128, rows, 2] of SBUF as [128, 2, rows]."""
    return TensorView(view).permute((0, 2, 1)).get_view()


# --- the result


def _finish(plan, sums, factor, target, result, first):
    """Scale, add the bias and what the other core has summed, and store.

    Args:
        plan: the sizes.
        sums: [rows, columns] fp32 in PSUM.
        factor: [rows, 1] fp32 that rows are multiplied by, or None.
        target: scales, bias and where rows go.
        result: [rows, I] in SBUF, written; or None, and the columns go to HBM.
        first: first column.
    """
    rows, width = sums.shape
    start, number, skipped = 0, width, 0
    theirs = None
    if plan.programs > 1:
        away = 0
        if result is None:
            start, number, skipped = _share(plan, target, width)
            away = width - number - start
        sent = nl.ndarray((rows, number), dtype=nl.float32, buffer=nl.sbuf)
        scale_columns(target, sent, sums[:, nl.ds(away, number)], first + away, factor)
        theirs = _exchange(plan, sent)
    mine = sums[:, nl.ds(start, number)]
    if result is not None:
        scale_columns(target, result[:, nl.ds(first, width)], mine, first, factor, theirs)
        return
    values = nl.ndarray((rows, number), dtype=target.out.dtype, buffer=nl.sbuf)
    scale_columns(target, values, mine, first + start, factor, theirs)
    kept = values if skipped == 0 else values[:, nl.ds(skipped, number - skipped)]
    if number > skipped:
        store_rows(target, kept, 0, first + start + skipped)


def _share(plan, target, width):
    """The columns of a group that this program finishes: (start, number, how many of them the other stores).

    Both shares have one size, as what is exchanged has; in odd numbers they overlap.
    """
    unit = target.d_head if target.layout == QKVOutputLayout.NBSd else 1
    units = width // unit
    number = div_ceil(units, 2) * unit
    if plan.program == 0:
        return 0, number, 0
    start = width - number
    return start, number, number - start


def _exchange(plan, sent):
    """What the other core sends, of the shape of `sent`."""
    received = nl.ndarray(sent.shape, dtype=sent.dtype, buffer=nl.sbuf)
    other = 1 - plan.program
    nisa.sendrecv(src=sent, dst=received, send_to_rank=other, recv_from_rank=other, pipe_id=0)
    return received
