"""Output projection for context encoding.

    out[b, s, h] = sum over n, d of attention[b, n, d, s] * weight[n D + d, h] + bias[h]

Shapes: attention [B, N, D, S], weight [N * D, H], bias [1, H], out [B, S, H].

The scores arrive with the contraction on the way to the partitions: attention is [B, N * D, S] as it
lies in HBM, so the heads fold into tiles of up to 128 partitions whatever D is, and the scores are the
stationary operand without a transpose. Rows of the result, b * S + s, are tiled by 128 across the ends
of batches.

- **DMA** loads each weight once, 4 KiB rows at a time, and stores the result in rows of 4 KiB.
- The **tensor engine** holds a tile of scores and streams 512 columns of weights past it; FP8 runs in
  double row mode. The first block of rows is multiplied column group by column group, as the weights
  arrive.
- The **scalar** and **vector engines** take turns to move the sums out of PSUM, two banks at a time,
  scaled (FP8) on the way. A bias is the same in all partitions and differs by column: the vector engine
  adds it as it moves the sums; the gpsimd engine adds it to what the scalar engine moved.

On two cores each computes half of H. In SBUF, KiB per partition: weights up to 80 (one block of columns
if they fit, else two that take turns), scores 32 (48 for FP8), results 16 (32 for fp32), bias up to 32.
"""

from dataclasses import dataclass

import nki
import nki.isa as nisa
import nki.language as nl

from ...utils.allocator import sizeinbytes
from ...utils.common_types import QuantizationType
from ...utils.kernel_assert import assert_shape, kernel_assert
from ...utils.kernel_helpers import div_ceil, get_ceil_aligned_size, get_verified_program_sharding_info
from ...utils.projection import AT_ONCE, BANK, broadcast_line, evacuate, load_line, quantize
from ..output_projection_utils import (
    FLOATS,
    P_MAX,
    Contraction,
    accumulate,
    check_quantization,
    contraction_of,
    load_rows,
    load_static_scales,
)

MAX_D = 128
MAX_N = 17
MAX_H = 20705
MAX_ROWS = 131072

WEIGHT_BYTES = 80 << 10  # of weights in one partition
BLOCK_BYTES = 16 << 10  # of one row of a block of columns
SCORE_BYTES = 16 << 10  # of a block of scores in one partition
PIECE = 4096  # columns times tiles of the contraction loaded at once: 1 MiB of bf16
GROUP = 2048  # columns stored at once: rows of 4 KiB
SUMS = 1024  # columns moved out of PSUM at once: two banks
ROWS = 512  # rows of the result in a block, at most


@dataclass
class Plan(nl.NKIObject):
    """Sizes of a call.

    Attributes:
        batch: B.
        sequence: S.
        size: N * D.
        first: first column of H that this program computes.
        columns: how many.
        block: columns of which the weights are in SBUF at a time.
        piece: columns of the weights loaded at once.
        rows: rows of the result whose scores are in SBUF at a time.
        contraction: the tiles of N * D.
    """

    batch: int
    sequence: int
    size: int
    first: int
    columns: int
    block: int
    piece: int
    rows: int
    contraction: Contraction


@nki.jit
def output_projection_cte(
    attention,
    weight,
    bias=None,
    quantization_type=QuantizationType.NONE,
    input_scales=None,
    weight_scales=None,
):
    """Project attention scores to the hidden dimension, for long sequences.

    Args:
        attention: [B, N, D, S] in HBM, bfloat16, float16 or float32; D at most 128, N at most 17,
            B * S at most 131072.
        weight: [N * D, H] in HBM, of the dtype of `attention`, or float8_e4m3 with STATIC; H at most
            20705 and a multiple of the number of programs.
        bias: [1, H] in HBM, added to every row.
        quantization_type: NONE, or STATIC: the scores are divided by the input scale, clipped to the
            range of FP8 and rounded to it; the sums are multiplied by both scales.
        input_scales: [128, 1] fp32, 128 times the scale of the scores.
        weight_scales: [128, 1] fp32, 128 times the scale of `weight`.

    Returns:
        [B, S, H] in HBM, of the dtype of `attention`.
    """
    plan = _plan(attention, weight, bias, quantization_type, input_scales, weight_scales)
    scales = None
    if quantization_type == QuantizationType.STATIC:
        scales = load_static_scales(weight_scales, input_scales)

    out = nl.ndarray(
        (plan.batch, plan.sequence, weight.shape[1]), dtype=attention.dtype, buffer=nl.shared_hbm
    )
    for start in range(0, plan.columns, plan.block):
        columns = min(plan.block, plan.columns - start)
        _project_columns(out, attention, weight, bias, scales, plan, plan.first + start, columns)
    return out


def _plan(attention, weight, bias, quantization_type, input_scales, weight_scales):
    """Refuse what is not offered, and cut the rest into blocks that fit."""
    name = "output_projection_cte"
    kernel_assert(len(attention.shape) == 4, f"attention is [B, N, D, S], got shape {attention.shape}")
    kernel_assert(len(weight.shape) == 2, f"weight is [N * D, H], got shape {weight.shape}")
    batch, heads, d_head, sequence = attention.shape
    size, hidden = weight.shape
    _, programs, program = get_verified_program_sharding_info(name, (0, 1), 2)
    kernel_assert(attention.dtype in FLOATS, f"attention is one of {FLOATS}, got {attention.dtype}")
    kernel_assert(d_head <= MAX_D, f"D is at most {MAX_D}, got {d_head}")
    kernel_assert(heads <= MAX_N, f"N is at most {MAX_N}, got {heads}")
    kernel_assert(batch * sequence <= MAX_ROWS, f"B * S is at most {MAX_ROWS}, got {batch * sequence}")
    kernel_assert(hidden <= MAX_H, f"H is at most {MAX_H}, got {hidden}")
    kernel_assert(hidden % programs == 0, f"H = {hidden} does not divide over {programs} programs")
    kernel_assert(heads * d_head == size, f"weight has {size} rows, attention has N * D = {heads * d_head}")
    if bias is not None:
        assert_shape(bias, (1, hidden), "bias")
    check_quantization(name, quantization_type, weight, weight_scales, input_scales)
    static = quantization_type == QuantizationType.STATIC
    if not static:
        kernel_assert(
            weight.dtype == attention.dtype,
            f"weight is {weight.dtype} but attention is {attention.dtype}: unquantized they are equal",
        )

    tiles = div_ceil(size, P_MAX)
    columns = hidden // programs
    width = sizeinbytes(weight.dtype)
    wide = sizeinbytes(attention.dtype)
    block = columns
    limit = min(WEIGHT_BYTES // (tiles * width), BLOCK_BYTES // wide)
    if columns > limit:
        # Two blocks are in SBUF at once: one is loaded while the other is used.
        limit = min(limit, WEIGHT_BYTES // (2 * tiles * width))
        block = get_ceil_aligned_size(div_ceil(columns, div_ceil(columns, limit)), BANK)
        if block > limit:
            block = block - BANK
    rows = min(ROWS, SCORE_BYTES // (tiles * wide) // P_MAX * P_MAX)
    return Plan(
        batch,
        sequence,
        size,
        program * columns,
        columns,
        block,
        max(BANK, min(GROUP, PIECE // tiles // BANK * BANK)),
        rows,
        contraction_of(size, div_ceil(size, tiles), static),
    )


def _project_columns(out, attention, weight, bias, scales, plan, first, columns):
    """Columns `first` to `first` + `columns` of all rows of the result."""
    rows = plan.batch * plan.sequence
    cut = plan.contraction
    flat = out.reshape((rows, weight.shape[1]))
    bias_sb = None
    if bias is not None:
        bias_sb = broadcast_line(load_line(bias, first, columns), P_MAX)
    scores = _load_scores(attention, scales, plan, 0)
    weights = nl.ndarray((cut.rows, cut.tiles, columns), dtype=weight.dtype, buffer=nl.sbuf)
    for start in range(0, columns, plan.piece):
        width = min(plan.piece, columns - start)
        part = nl.ds(start, width)
        load_rows(weights[:, 0 : cut.full, part], weight, cut, 0, cut.full, cut.rows, first + start)
        if cut.tail > 0:
            last = nl.ds(cut.full, 1)
            load_rows(weights[0 : cut.tail, last, part], weight, cut, cut.full, 1, cut.tail, first + start)

    product = None if scales is None else scales.product
    turn = 0
    for row in range(0, rows, plan.rows):
        following = None
        if row + plan.rows < rows:
            following = _load_scores(attention, scales, plan, row + plan.rows)
        group = plan.piece if row == 0 else GROUP  # at first, what has arrived
        for start in range(0, columns, group):
            width = min(group, columns - start)
            for tile in range(row, min(row + plan.rows, rows), P_MAX):
                count = min(P_MAX, rows - tile)
                result = nl.ndarray((count, width), dtype=out.dtype, buffer=nl.sbuf)
                for part in range(0, width, SUMS):
                    size = min(SUMS, width - part)
                    sums = nl.ndarray((count, size), dtype=nl.float32, buffer=nl.psum)
                    accumulate(sums, scores, weights, cut, tile - row, start + part)
                    added = None if bias is None else bias_sb[0:count, nl.ds(start + part, size)]
                    evacuate(result[:, nl.ds(part, size)], sums, product, added, turn)
                    turn += 1
                nisa.dma_copy(
                    dst=flat[nl.ds(tile, count), nl.ds(first + start, width)], src=result, dge_mode=AT_ONCE
                )
        scores = following


def _load_scores(attention, scales, plan, row):
    """The scores of `plan.rows` rows of the result, as a tile [rows, tiles, rows of the result]."""
    cut = plan.contraction
    count = min(plan.rows, plan.batch * plan.sequence - row)
    tile = nl.ndarray((cut.rows, cut.tiles, count), dtype=attention.dtype, buffer=nl.sbuf)
    done = 0
    while done < count:
        batch, start = divmod(row + done, plan.sequence)
        whole = (count - done) // plan.sequence if start == 0 else 0
        batches = max(1, whole)
        length = plan.sequence if whole > 0 else min(plan.sequence - start, count - done)
        _load_segment(tile, attention, plan, batch, batches, start, length, done)
        done += batches * length
    if scales is None:
        return tile
    quantized = nl.ndarray((cut.rows, cut.tiles, count), dtype=nl.float8_e4m3, buffer=nl.sbuf)
    for step in range(cut.tiles):
        partitions = cut.rows if step < cut.full else cut.tail
        quantize(
            quantized[0:partitions, step, :],
            tile[0:partitions, step, :],
            scales.reciprocal,
        )
    return quantized


def _load_segment(tile, attention, plan, batch, batches, start, length, column):
    """`length` positions from `start` on of each of `batches` batches, to the columns from `column` on."""
    cut = plan.contraction
    pitch = plan.sequence
    base = batch * plan.size * pitch + start
    columns = nl.ds(column, batches * length)
    tail = [[plan.size * pitch, batches], [1, length]]
    nisa.dma_copy(
        dst=tile[:, 0 : cut.full, columns],
        src=attention.ap(pattern=[[pitch, cut.rows], [cut.rows * pitch, cut.full]] + tail, offset=base),
        dge_mode=AT_ONCE,
    )
    if cut.tail > 0:
        nisa.dma_copy(
            dst=tile[0 : cut.tail, cut.full, columns],
            src=attention.ap(pattern=[[pitch, cut.tail]] + tail, offset=base + cut.full * cut.rows * pitch),
            dge_mode=AT_ONCE,
        )
