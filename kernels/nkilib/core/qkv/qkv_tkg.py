"""QKV projection for decoding: out = norm(hidden + residuals) @ weights + bias, for few rows.

Shapes: hidden [B, S, H] in HBM or [128, B * S, H / 128] in SBUF, weights [H, I]; out [B, S, I] or
[heads, B, S, d] in HBM, or [B * S, I] in SBUF.

Few rows meet all weights, so the time is that of reading the weights once. Partition p has the values
p * H / 128 + j of H; these rows of the weights lie side by side in HBM, so a DMA reads kilobytes at a time.

- **DMA** loads hidden states in this order, and the weights, up to 1 MiB at a time: first and last ones come
  in small pieces, so that products begin early and little is left when the last byte is there.
- RMSNorm waits for nothing: hidden states are multiplied by gamma, the **scalar engine** squares them, and
  rows of the result are multiplied by 1 / rms at the end. LayerNorm, and RMSNorm before STATIC
  quantization, is :mod:`..subkernels.norm_tkg`; the scalar and **vector engines** quantize.
- The **tensor engine** holds the rows of one j and streams up to 2560 columns of weights into PSUM, as they
  arrive; FP8 takes two j at once.
- Two cores have H1 = H / 256 of the j each. Of their sums they exchange, scaled and with the bias, what the
  other one finishes: half of the columns, or for a result in SBUF all of them. Meanwhile they load weights of
  about 1 MiB each which they share by columns, so that the exchange takes no time of its own; small
  weights are shared by columns alone, and nothing is exchanged. (All of them by columns would be read in
  runs half as long.) The **vector engine** scales and adds.

In SBUF, per partition: hidden states 2 B S H / 128 bytes, 3 times that and 32 KiB with residuals; weights
8 KiB for each transfer in flight; sums 10 KiB for each 2560 columns.
"""

import nki.isa as nisa
import nki.language as nl

from ..subkernels.layernorm_tkg import layernorm_tkg
from ..subkernels.rmsnorm_tkg import rmsnorm_tkg
from ..utils.common_types import NormType, QKVOutputLayout, QuantizationType
from ..utils.kernel_helpers import div_ceil, is_hbm_buffer
from ..utils.projection import AT_ONCE, BANK, broadcast_line, load_aside, load_line, quantize
from ..utils.tensor_view import TensorView
from .qkv_rows import RowTarget, load_static_scales, scale_columns, store_rows
from .qkv_tkg_plan import own_rows, place_of, plan_of, side_by_side, window

P_MAX = nl.tile_size.pmax
FIRST_PIECE = 1024  # weights of a partition that are loaded at once: first,
PIECE = 4096  # at most,
LAST_PIECE = 256  # and last
LAST_ROWS = 3  # of a partition: their last columns come when all others are complete
LAST_COLUMNS = 256  # fewer are not worth to be cut into these
SUMS = 4096  # sums of residuals of a partition that one engine hands to the next


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
    plan = plan_of(
        hidden,
        qkv_w,
        fused_add,
        norm_type,
        quantization_type,
        output_layout,
        d_head,
        eps,
        hidden_actual,
        output_in_sbuf,
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
        source = _add(plan, hidden, mlp_prev, attn_prev, summed)
    if not plan.late:
        source = _normalize(plan, source, norm_w, norm_bias, eps, norm_type, hidden_actual)
    local = _local_part(plan, source, hidden.dtype, factor)
    factor = None
    if plan.late:
        rows = local
        if norm_w is not None:
            local = _times_gamma(plan, rows, norm_w)  # first: products wait for it
        factor = _inverse_rms(plan, rows)

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
    for first in range(0, columns, plan.group):
        width = min(plan.group, columns - first)
        _project(plan, local, qkv_w, factor, target, result if output_in_sbuf else None, first, width)
    if fused_add:
        return result, summed
    return result


# --- hidden states with H on the partitions


def _values_of(plan, tensor, first, count):
    """Values of each partition that lie side by side, of [B, S, H] in HBM: [128, B * S, count]."""
    place, pitch = place_of(plan, first)
    return tensor.ap(pattern=[[pitch, P_MAX], [plan.hidden, plan.rows], [1, count]], offset=place)


def _load(plan, tensor, first, count):
    """Values of each partition, of [B, S, H] in HBM, in SBUF: [128, B * S, count]."""
    tile = nl.ndarray((P_MAX, plan.rows, count), dtype=tensor.dtype, buffer=nl.sbuf)
    for run in side_by_side(plan, first, count):
        start, number = run
        dst = tile[:, :, nl.ds(start - first, number)]
        nisa.dma_copy(dst=dst, src=_values_of(plan, tensor, start, number), dge_mode=AT_ONCE)
    return tile


def _add(plan, hidden, mlp_prev, attn_prev, summed):
    """The sum of all three in SBUF, what this program projects or, for a norm, all; each stores its half."""
    first, count = (0, plan.depth) if plan.apart else window(plan)
    tiles = []
    for tensor in (hidden, mlp_prev, attn_prev):
        tiles.append(_load(plan, tensor, first, count))
    total = tiles[0]
    at_once = min(plan.rows, max(1, SUMS // count))
    sums = []
    for _ in range(min(2, div_ceil(plan.rows, at_once))):
        sums.append(nl.ndarray((P_MAX, at_once, count), dtype=nl.float32, buffer=nl.sbuf))
    for turn in range(div_ceil(plan.rows, at_once)):
        rows = nl.ds(turn * at_once, min(at_once, plan.rows - turn * at_once))
        added = sums[turn % len(sums)][:, nl.ds(0, rows.size), :]
        nisa.tensor_tensor(
            dst=added,
            data1=tiles[1][:, rows, :],
            data2=tiles[2][:, rows, :],
            op=nl.add,
            engine=nisa.gpsimd_engine,
        )
        nisa.tensor_tensor(
            dst=total[:, rows, :],
            data1=total[:, rows, :],
            data2=added,
            op=nl.add,
            engine=nisa.vector_engine,
        )
    mine = plan.program * plan.half
    nisa.dma_copy(
        dst=_values_of(plan, summed, mine, plan.half),
        src=total[:, :, nl.ds(mine - first, plan.half)],
        dge_mode=AT_ONCE,
    )
    return total


def _normalize(plan, source, gamma, beta, eps, norm_type, hidden_actual):
    """`source` normalized, [128, B * S, programs * H1] in SBUF; without a norm as it is."""
    if norm_type == NormType.NO_NORM:
        return source
    output = nl.ndarray((P_MAX, plan.rows, plan.depth), dtype=source.dtype, buffer=nl.sbuf)
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
    """What this program projects, [128, B * S, values] in SBUF, quantized if `factor` is given."""
    first, count = window(plan)
    if is_hbm_buffer(source):
        source = _load(plan, source, first, count)
    part = source if source.shape[2] == count else source[:, :, nl.ds(first, count)]
    if dtype == nl.float32 and factor is None:
        dtype = nl.bfloat16
    local = nl.ndarray((P_MAX, plan.rows, count), dtype=nl.float8_e4m3 if plan.fp8 else dtype, buffer=nl.sbuf)
    if plan.fp8:
        quantize(local, part, factor)
        return local
    if source.dtype == dtype:
        return part
    nisa.tensor_copy(dst=local, src=part)
    return local


def _inverse_rms(plan, local):
    """1 / sqrt(mean of squares + eps) of each row, over all of H, [rows, 1] fp32 in SBUF."""
    values = local
    is_whole = local.shape[2] == plan.depth
    if not is_whole:  # shared rows are of one half
        values = local[:, :, nl.ds(plan.program * plan.half - window(plan)[0], plan.half)]
    squares = nl.ndarray(values.shape, dtype=nl.float32, buffer=nl.sbuf)
    sums = nl.ndarray((P_MAX, plan.rows), dtype=nl.float32, buffer=nl.sbuf)
    ones = nl.ndarray((P_MAX, 1), dtype=nl.float32, buffer=nl.sbuf)
    total = nl.ndarray((plan.rows, 1), dtype=nl.float32, buffer=nl.psum)
    result = nl.ndarray((plan.rows, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=squares, op=nl.square, data=values)
    nisa.tensor_reduce(dst=sums, op=nl.add, data=squares, axis=2)
    nisa.memset(dst=ones, value=1.0)
    nisa.nc_matmul(dst=total, stationary=sums, moving=ones)
    nisa.tensor_copy(dst=result, src=total)
    if not is_whole:
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
    """What this program projects times gamma."""
    first, count = window(plan)
    weights = nl.ndarray((P_MAX, count), dtype=gamma.dtype, buffer=nl.sbuf)
    for run in side_by_side(plan, first, count):
        start, number = run
        place, pitch = place_of(plan, start)
        source = gamma.ap(pattern=[[pitch, P_MAX], [1, number]], offset=place)
        load_aside(weights[:, nl.ds(start - first, number)], source)
    result = nl.ndarray(local.shape, dtype=local.dtype, buffer=nl.sbuf)
    every_row = weights.ap(pattern=[[count, P_MAX], [0, plan.rows], [1, count]], offset=0)
    nisa.tensor_tensor(dst=result, data1=local, data2=every_row, op=nl.multiply)
    return result


# --- the product


def _project(plan, local, weights, factor, target, result, first, width):
    """Project to a group of columns: sums of own rows, which are exchanged, then those of shared rows.

    Args:
        plan: the sizes.
        local: [128, rows, values] in SBUF, what this program projects.
        weights: [H, I] in HBM.
        factor: [rows, 1] fp32 that rows are multiplied by, or None.
        target: scales, bias and where rows go.
        result: [rows, I] in SBUF, written; or None, and the columns go to HBM.
        first: the first column.
        width: how many.
    """
    is_last = first + width == weights.shape[1]
    shared = plan.shared if is_last else 0
    value, count = own_rows(plan, shared)
    column, kept, added = first, width, None
    if plan.programs > 1:
        start, number, skipped = _share(plan, width, result)
        column, kept = first + start + skipped, number - skipped
        if count > 0:
            sums = nl.ndarray((plan.rows, width), dtype=nl.float32, buffer=nl.psum)
            _multiply(plan, [(first, sums)], local, weights, value, count)
            away = width - number - start
            sent = nl.ndarray((plan.rows, number), dtype=nl.float32, buffer=nl.sbuf)
            scale_columns(target, sent, sums[:, nl.ds(away, number)], first + away, factor)
            added = _exchange(plan, sent)[:, nl.ds(skipped, kept)]
            mine = sums[:, nl.ds(start + skipped, kept)]
            if shared == 0:
                _finish(target, result, mine, factor, added, column)
                return
            both = nl.ndarray((plan.rows, kept), dtype=nl.float32, buffer=nl.sbuf)
            scale_columns(target, both, mine, column, factor, added)
            added = both
        value, count = plan.half - shared, 2 * shared
    parts = _parts(plan, column, kept, is_last)
    late = min(LAST_ROWS, count) if len(parts) > 1 else 0
    _multiply(plan, parts, local, weights, value, count - late)
    for part in parts:
        place, sums = part
        _multiply(plan, [part], local, weights, value + count - late, late)
        rest = None if added is None else added[:, nl.ds(place - column, sums.shape[1])]
        _finish(target, result, sums, factor, rest, place)


def _parts(plan, column, width, is_last):
    """Columns whose sums are complete at one time: (first column, sums [rows, columns] fp32 in PSUM) each.

    Where nothing follows, half of them, at most a bank, are complete after all others: little is left to do.
    """
    early = 0
    if is_last and width > LAST_COLUMNS:
        early = max(width // 2, width - BANK) // plan.unit * plan.unit
    parts = []
    for part in ((column, early), (column + early, width - early)):
        if part[1] > 0:
            sums = nl.ndarray((plan.rows, part[1]), dtype=nl.float32, buffer=nl.psum)
            parts.append((part[0], sums))
    return parts


def _multiply(plan, parts, local, weights, value, count):
    """Add some rows of hidden states times weights to sums.

    Args:
        plan: the sizes.
        parts: columns that lie side by side, as :func:`_parts` has them.
        local: [128, rows, values] in SBUF.
        weights: [H, I] in HBM.
        value: the first of the values of a partition.
        count: how many.
    """
    first = parts[0][0]
    width = parts[-1][0] + parts[-1][1].shape[1] - first
    columns = weights.shape[1]
    dtype = weights.dtype if plan.fp8 else local.dtype
    base = window(plan)[0]
    fold = 2 if plan.fp8 else 1  # of rows, for as many bytes
    pairs = plan.fp8 and nisa.get_nc_version() >= nisa.nc_version.gen3
    soon = fold * div_ceil(FIRST_PIECE, width)
    most = fold * max(1, PIECE // width)
    least = fold * div_ceil(LAST_PIECE, width)
    done = 0
    for run in side_by_side(plan, value, count):
        start, left = run
        while left > 0:
            number = min(
                left, most, max(soon, done), max(least, left // 2)
            )  # products wait for all of a piece
            if pairs and number > 1:
                number -= number % 2
            piece = nl.ndarray((P_MAX, number, width), dtype=dtype, buffer=nl.sbuf)
            place, pitch = place_of(plan, start)
            pattern = [[pitch * columns, P_MAX], [columns, number], [1, width]]
            source = weights.ap(pattern=pattern, offset=place * columns + first)
            if dtype == weights.dtype:
                nisa.dma_copy(dst=piece, src=source, dge_mode=AT_ONCE)
            else:
                nisa.dma_copy(dst=piece, src=source)
            for step in range(0, number, 2 if pairs else 1):
                together = min(2 if pairs else 1, number - step)
                rows = local[:, :, nl.ds(start - base + step, together)]
                for part in parts:
                    there, sums = part
                    for column in range(0, sums.shape[1], BANK):
                        length = min(BANK, sums.shape[1] - column)
                        moving = piece[:, nl.ds(step, together), nl.ds(there - first + column, length)]
                        _product(sums[:, nl.ds(column, length)], rows, moving)
            start += number
            left -= number
            done += number


def _product(sums, rows, weights):
    """sums [rows, columns] += rows [128, rows, 1 or 2] times weights [128, 1 or 2, columns]."""
    if rows.shape[2] == 2:
        nisa.nc_matmul(
            dst=sums,
            stationary=_swapped(rows),
            moving=weights,
            perf_mode=nisa.matmul_perf_mode.double_row,
        )
    else:
        nisa.nc_matmul(dst=sums, stationary=rows[:, :, 0], moving=weights[:, 0, :])


def _swapped(view):
    """[128, rows, 2] of SBUF as [128, 2, rows]."""
    return TensorView(view).permute((0, 2, 1)).get_view()


# --- the result


def _finish(target, result, sums, factor, added, column):
    """Scale sums, add what the other core has summed or the bias, and store.

    Args:
        target: scales, bias and where rows go.
        result: [rows, I] in SBUF, written; or None, and the columns go to HBM.
        sums: [rows, columns] fp32 in PSUM.
        factor: [rows, 1] fp32 that rows are multiplied by, or None.
        added: of the shape of `sums`, with the bias; or None.
        column: the first column.
    """
    if result is not None:
        scale_columns(target, result[:, nl.ds(column, sums.shape[1])], sums, column, factor, added)
        return
    values = nl.ndarray(sums.shape, dtype=target.out.dtype, buffer=nl.sbuf)
    scale_columns(target, values, sums, column, factor, added)
    store_rows(target, values, 0, column)


def _share(plan, width, result):
    """The columns of a group that this program finishes: (start, number, how many of them the other stores).

    Both shares have one size, as what is exchanged has; in odd numbers they overlap.
    """
    if result is not None:
        return 0, width, 0
    unit = plan.unit if width > plan.unit else 1
    number = div_ceil(width // unit, 2) * unit
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
