"""Output projection for decoding.

    out[b, s, h] = sum over n, d of attention[d, b, n, s] * weight[n D + d, h] + bias[h]

Shapes: attention [D, B, N, S], weight [N * D, H], bias [1, H], out [B * S, H] or transposed.

Few rows meet all weights, so the time is that of reading the weights once. As many heads as fit share the
partitions, so that each DMA writes all of them, through all DMA engines.

- **DMA** loads the weights in rows of 8 KiB, one tile of the contraction at a time, for up to 4096 columns;
  those of the next columns before results are stored, as 4 rows of them keep a DMA engine busy.
- The **tensor engine** holds the scores of up to 128 rows and streams the weights of each tile as it arrives,
  into the banks of PSUM. Half of the last columns are complete two tiles early, the others in pieces that
  shrink to a bank: when the last byte is there, one matmul, half a bank for two engines and a small store
  are left, 2.7 us of the 29.3 us that Llama-3 70B's 16.9 MB (TP8) take.
- The **scalar** and **vector engines** take turns to move the sums out of PSUM, scaled (FP8) and with the
  bias; the gpsimd engine adds the bias to what the scalar engine moved.
- Transposed, the **tensor engine** turns each 128 columns, one of every H / (128 lnc), at the end.

On two cores each computes half of H. In SBUF, per partition: weights in two groups of columns in turns,
8 to 128 KiB; scores, 2 B S bytes a tile; results 8 KiB, or all columns of each 128 rows if transposed.
"""

from dataclasses import dataclass

import nki
import nki.isa as nisa
import nki.language as nl

from ..utils.allocator import sizeinbytes
from ..utils.common_types import QuantizationType
from ..utils.kernel_assert import assert_shape, kernel_assert
from ..utils.kernel_helpers import div_ceil, get_verified_program_sharding_info, is_hbm_buffer
from ..utils.projection import AT_ONCE, BANK, arrivals, broadcast_line, evacuate, load_line, quantize
from ..utils.tensor_view import TensorView
from ..utils.tiled_range import TiledRange
from .output_projection_utils import (
    FLOATS,
    P_MAX,
    Contraction,
    check_quantization,
    contraction_of,
    load_rows,
    load_static_scales,
    multiply,
)

MAX_D = 128
MAX_TRANSPOSED_ROWS = 512
MAX_TRANSPOSED_BYTES = 163840 * 2  # of N * H weights: 163840 of 16 bits, 81920 of fp32

GROUP = 4096  # columns in all banks of PSUM; half of them where row after row needs banks
CHUNK_BYTES = 16 << 10  # of scores in one partition that are folded at once
WORK_BYTES = 72 << 10  # of scores being folded and results being stored, in one partition


@dataclass
class Plan(nl.NKIObject):
    """Sizes of a call.

    Attributes:
        rows: B * S.
        first: first column of H that this program computes.
        columns: how many.
        group: columns whose weights are in SBUF at a time.
        heads: heads side by side in the partitions of a tile of the contraction.
        contraction: the tiles of N * D, `heads` * D rows each.
        programs: number of programs.
        program: this one.
    """

    rows: int
    first: int
    columns: int
    group: int
    heads: int
    contraction: Contraction
    programs: int
    program: int


@nki.jit
def output_projection_tkg(
    attention,
    weight,
    bias=None,
    quantization_type=QuantizationType.NONE,
    weight_scale=None,
    input_scale=None,
    TRANSPOSE_OUT=False,
    OUT_IN_SB=False,
):
    """Project attention scores to the hidden dimension, for few rows.

    Args:
        attention: [D, B, N, S] in HBM or SBUF, bfloat16, float16 or float32; D at most 128.
        weight: [N * D, H] in HBM, of the dtype of `attention`, or float8_e4m3 with STATIC; H a multiple of
            the number of programs, transposed of 128 times that.
        bias: [1, H] in HBM, added to every row.
        quantization_type: NONE, or STATIC: the scores are divided by the input scale, clipped to the range
            of FP8 and rounded to it; the sums are multiplied by both scales.
        weight_scale: [128, 1] fp32, 128 times the scale of `weight`.
        input_scale: [128, 1] fp32, 128 times the scale of the scores.
        TRANSPOSE_OUT: put the hidden dimension on the partitions. B * S is at most 512, N * H at most
            163840 (81920 in fp32).
        OUT_IN_SB: leave each program's columns in its SBUF. Not transposed, B * S is at most 128.

    Returns:
        Of the dtype of `attention`: [B * S, H] in HBM, or this program's [B * S, H / lnc] in SBUF.
        Transposed, [128, lnc, R, B * S] with R = H / (128 lnc) and column h = (l * 128 + p) * R + r of
        the projection at [p, l, r], or this program's [128, R, B * S] in SBUF.
    """
    plan = _plan(
        attention, weight, bias, quantization_type, weight_scale, input_scale, TRANSPOSE_OUT, OUT_IN_SB
    )
    scales = None
    if quantization_type == QuantizationType.STATIC:
        scales = load_static_scales(weight_scale, input_scale)
    line = None if bias is None else load_line(bias, plan.first, plan.columns)
    scores = _fold_heads(attention, scales, plan)

    if not TRANSPOSE_OUT and not OUT_IN_SB:
        out = nl.ndarray((plan.rows, weight.shape[1]), dtype=attention.dtype, buffer=nl.shared_hbm)
        _project(None, out, scores, weight, line, scales, plan)
        return out
    results = []
    for row in range(0, plan.rows, P_MAX):
        count = min(P_MAX, plan.rows - row)
        results.append(nl.ndarray((count, plan.columns), dtype=attention.dtype, buffer=nl.sbuf))
    _project(results, None, scores, weight, line, scales, plan)
    if not TRANSPOSE_OUT:
        return results[0]
    spread = plan.columns // P_MAX
    if OUT_IN_SB:
        out = nl.ndarray((P_MAX, spread, plan.rows), dtype=attention.dtype, buffer=nl.sbuf)
        _transpose(results, out, plan)
    else:
        shape = (P_MAX, plan.programs, spread, plan.rows)
        out = nl.ndarray(shape, dtype=attention.dtype, buffer=nl.shared_hbm)
        _transpose(results, out[:, plan.program, :, :], plan)
    return out


def _plan(attention, weight, bias, quantization_type, weight_scale, input_scale, transposed, in_sbuf):
    """Refuse what is not offered, and cut the columns into groups that fit."""
    name = "output_projection_tkg"
    kernel_assert(len(attention.shape) == 4, f"attention is [D, B, N, S], got shape {attention.shape}")
    kernel_assert(len(weight.shape) == 2, f"weight is [N * D, H], got shape {weight.shape}")
    d_head, batch, heads, sequence = attention.shape
    size, hidden = weight.shape
    _, programs, program = get_verified_program_sharding_info(name, (0, 1), 2)
    rows = batch * sequence
    width = sizeinbytes(weight.dtype)
    wide = sizeinbytes(attention.dtype)
    kernel_assert(attention.dtype in FLOATS, f"attention is one of {FLOATS}, got {attention.dtype}")
    kernel_assert(d_head <= MAX_D, f"D is at most {MAX_D}, got {d_head}")
    kernel_assert(heads * d_head == size, f"weight has {size} rows, attention has N * D = {heads * d_head}")
    kernel_assert(hidden % programs == 0, f"H = {hidden} does not divide over {programs} programs")
    if bias is not None:
        assert_shape(bias, (1, hidden), "bias")
    check_quantization(name, quantization_type, weight, weight_scale, input_scale)
    static = quantization_type == QuantizationType.STATIC
    if not static:
        kernel_assert(
            weight.dtype == attention.dtype,
            f"weight is {weight.dtype} but attention is {attention.dtype}: unquantized they are equal",
        )
    if transposed:
        limit = MAX_TRANSPOSED_BYTES // max(2, width)
        kernel_assert(
            hidden % (P_MAX * programs) == 0,
            f"with TRANSPOSE_OUT H is a multiple of 128 * {programs} programs, got {hidden}",
        )
        kernel_assert(
            rows <= MAX_TRANSPOSED_ROWS,
            f"with TRANSPOSE_OUT B * S is at most {MAX_TRANSPOSED_ROWS}, got {rows}",
        )
        kernel_assert(
            heads * hidden <= limit, f"with TRANSPOSE_OUT N * H is at most {limit}, got {heads * hidden}"
        )
    elif in_sbuf:
        kernel_assert(rows <= P_MAX, f"with OUT_IN_SB B * S is at most {P_MAX}, got {rows}")

    columns = hidden // programs
    together = min(heads, P_MAX // d_head)
    cut = contraction_of(size, together * d_head, static)
    kept = 0  # bytes of one partition that the rows of the result need until the end
    if transposed or in_sbuf:
        kept = div_ceil(rows, P_MAX) * columns * wide
    if transposed and in_sbuf:
        kept += columns // P_MAX * rows * wide
    bias_bytes = 0 if bias is None else columns * sizeinbytes(bias.dtype)
    free = nl.tile_size.total_available_sbuf_size - kept - bias_bytes - cut.tiles * rows * width - WORK_BYTES
    most = GROUP if rows <= P_MAX else GROUP // 2
    group = min(most, free // (2 * cut.tiles * width) // BANK * BANK)
    kernel_assert(
        group > 0,
        f"B * S = {rows} rows of N * D = {size} and H = {hidden} do not fit in SBUF: call with fewer rows",
    )
    return Plan(rows, program * columns, columns, group, together, cut, programs, program)


def _fold_heads(attention, scales, plan):
    """The scores [heads * D, tiles, B * S] in SBUF: those of `plan.heads` heads below each other, quantized.

    Head j of a tile lies at partitions j * D on. The scores of all heads are copied there as they lie, j
    heads further to the left, so that one view shows head j of every tile in its partitions.
    """
    d_head, batch, heads, sequence = attention.shape
    cut = plan.contraction
    flat = attention.reshape((d_head, batch * heads * sequence))
    dtype = attention.dtype if scales is None else nl.float8_e4m3
    scores = nl.ndarray((cut.rows, cut.tiles, plan.rows), dtype=dtype, buffer=nl.sbuf)
    direct = plan.heads == 1 and not is_hbm_buffer(attention)
    pitch = heads * sequence
    at_once = batch if direct else max(1, CHUNK_BYTES // (pitch * sizeinbytes(attention.dtype)))
    for first in range(0, batch, at_once):
        batches = min(at_once, batch - first)
        chunk = flat
        if not direct:
            chunk = nl.ndarray((cut.rows, batches * pitch), dtype=attention.dtype, buffer=nl.sbuf)
            length = batches * pitch - (plan.heads - 1) * sequence
            _copy_heads(chunk, flat, first * pitch, sequence, plan.heads, 0, length)
            if cut.tail > 0:
                last = cut.tail // d_head  # heads whose last scores no other head has
                _copy_heads(
                    chunk,
                    flat,
                    first * pitch,
                    sequence,
                    last,
                    length,
                    batches * pitch - (last - 1) * sequence,
                )
        rows = nl.ds(first * sequence, batches * sequence)
        for tile in range(cut.tiles):
            partitions = cut.rows if tile < cut.full else cut.tail
            start = tile * plan.heads * sequence
            shown = TensorView(chunk).slice(0, 0, partitions).reshape_dim(1, (batches, pitch))
            shown = shown.slice(2, start, start + sequence).get_view()
            kept = scores[0:partitions, tile, rows].reshape((partitions, batches, sequence))
            if scales is None:
                nisa.tensor_copy(dst=kept, src=shown)
            else:
                quantize(kept, shown, scales.reciprocal)
    return scores


def _copy_heads(dst, flat, first, sequence, heads, start, stop):
    """dst[j * D + d, column] = flat[d, first + j * sequence + column], column from `start` to `stop`.

    In HBM one view shows all heads, further along; the partitions of SBUF are no dimension like others.
    """
    d_head, width = flat.shape
    columns = nl.ds(start, stop - start)
    if is_hbm_buffer(flat):
        pattern = [[sequence, heads], [width, d_head], [1, stop - start]]
        source = flat.ap(pattern=pattern, offset=first + start)
        nisa.dma_copy(dst=dst[0 : heads * d_head, columns], src=source, dge_mode=AT_ONCE)
        return
    for head in range(heads):
        source = flat[:, nl.ds(first + head * sequence + start, stop - start)]
        nisa.dma_copy(dst=dst[nl.ds(head * d_head, d_head), columns], src=source, dge_mode=AT_ONCE)


def _project(results, out, scores, weight, line, scales, plan):
    """Multiply with the weights, group of columns by group, as they arrive.

    Args:
        results: a tile [rows, columns] in SBUF for each 128 rows, written; or None, and `out` is.
        out: [B * S, H] in HBM; or None.
        scores: [rows, tiles, B * S] in SBUF.
        weight: [N * D, H] in HBM.
        line: the bias, [1, columns] in SBUF, or None.
        scales: those of static quantization or None.
        plan: the sizes.
    """
    cut = plan.contraction
    product = None if scales is None else scales.product
    turn = 0
    groups = TiledRange(plan.columns, plan.group)
    following = _load(weight, groups[0], len(groups) == 1, plan)
    for group in groups:
        weights, width = following, group.size
        is_last = group.index + 1 == len(groups)
        if not is_last:  # before the results of this group are stored
            following = _load(weight, groups[group.index + 1], group.index + 2 == len(groups), plan)
        bias = None
        if line is not None:
            bias = broadcast_line(line[:, nl.ds(group.start_offset, width)], min(P_MAX, plan.rows))
        for row in range(0, plan.rows, P_MAX):
            count = min(P_MAX, plan.rows - row)
            if results is None:
                result = nl.ndarray((count, width), dtype=out.dtype, buffer=nl.sbuf)
            else:
                result = results[row // P_MAX][:, nl.ds(group.start_offset, width)]
            sums = nl.ndarray((count, width), dtype=nl.float32, buffer=nl.psum)
            stored = 0
            for part in arrivals(len(cut.steps), width, is_last):
                step, first, size, closes = part
                multiply(sums[:, nl.ds(first, size)], scores, weights, cut.steps[step], row, first)
                if not closes:
                    continue
                end = first + size
                for bank in TiledRange(size, div_ceil(size, 2) if is_last and end == width else BANK):
                    columns = nl.ds(first + bank.start_offset, bank.size)
                    added = None if bias is None else bias[0:count, columns]
                    evacuate(result[:, columns], sums[:, columns], product, added, turn)
                    turn += 1
                if results is None and (stored == 0 or end + BANK >= width):
                    columns = nl.ds(plan.first + group.start_offset + stored, end - stored)
                    done = result[:, nl.ds(stored, end - stored)]
                    nisa.dma_copy(dst=out[nl.ds(row, count), columns], src=done, dge_mode=AT_ONCE)
                    stored = end


def _load(weight, group, is_last, plan):
    """The weights of a group of columns, [rows, tiles, columns] in SBUF."""
    cut = plan.contraction
    weights = nl.ndarray((cut.rows, cut.tiles, group.size), dtype=weight.dtype, buffer=nl.sbuf)
    for part in arrivals(len(cut.steps), group.size, is_last):
        step, first, size, _ = part
        tile, together, rows = cut.steps[step]
        there = weights[0:rows, nl.ds(tile, together), nl.ds(first, size)]
        load_rows(there, weight, cut, tile, together, rows, plan.first + group.start_offset + first)
    return weights


def _transpose(results, out, plan):
    """out[p, r, row] = results[row, p * R + r], in SBUF, or in HBM some r at a time.

    Args:
        results: a tile [rows, columns] in SBUF for each 128 rows.
        out: view [128, R, B * S] of SBUF or HBM, written.
        plan: the sizes.
    """
    dtype = out.dtype
    spread = plan.columns // P_MAX
    in_bank = BANK * 4 // sizeinbytes(dtype)
    stored = is_hbm_buffer(out)
    at_once = min(spread, max(1, GROUP // plan.rows)) if stored else spread
    turn = 0
    for first in range(0, spread, at_once):
        number = min(at_once, spread - first)
        turned = out
        if stored:
            turned = nl.ndarray((P_MAX, number, plan.rows), dtype=dtype, buffer=nl.sbuf)
        for row in range(0, plan.rows, P_MAX):
            result = results[row // P_MAX]
            count = result.shape[0]
            columns = result.reshape((count, P_MAX, spread))
            pitch = div_ceil(count, 2) * 2  # rows of PSUM start at multiples of 4 bytes
            for start in range(0, number, in_bank // pitch):
                several = min(in_bank // pitch, number - start)
                padded = nl.ndarray((P_MAX, several, pitch), dtype=dtype, buffer=nl.psum)
                bank = padded[:, :, nl.ds(0, count)]
                for k in range(several):
                    nisa.nc_transpose(dst=bank[:, k, :], data=columns[:, :, first + start + k])
                evacuate(turned[:, nl.ds(start, several), nl.ds(row, count)], bank, None, None, turn)
                turn += 1
        if stored:
            nisa.dma_copy(dst=out[:, nl.ds(first, number), :], src=turned, dge_mode=AT_ONCE)
