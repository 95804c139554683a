"""What both output projections share: tiles of the contraction, and static FP8 quantization."""

from dataclasses import dataclass

import nki.isa as nisa
import nki.language as nl

from ..utils.common_types import QuantizationType
from ..utils.kernel_assert import assert_shape, kernel_assert
from ..utils.kernel_helpers import div_ceil, get_max_positive_value_for_dtype

FLOATS = (nl.float32, nl.float16, nl.bfloat16)
P_MAX = nl.tile_size.pmax
BANK = nl.tile_size.gemm_moving_fmax  # columns of fp32 in a bank of PSUM

# Descriptors that are ready when the kernel starts: the first byte moves 0.75 us after the trigger, not 2 us
# as with software DGE; and scales and biases, which have those, do not wait in the same queue.
AT_ONCE = nisa.dge_mode.none


@dataclass
class Contraction(nl.NKIObject):
    """The N * D rows that are summed over, cut into tiles of partitions.

    Attributes:
        tiles: number of tiles.
        rows: partitions of each tile but perhaps the last.
        full: tiles that have all `rows` partitions.
        tail: partitions of the last tile if it is shorter, else 0.
        steps: one (first tile, tiles, partitions) for each matmul; two tiles at once in double row mode.
    """

    tiles: int
    rows: int
    full: int
    tail: int
    steps: list


def contraction_of(size: int, rows: int, fp8: bool) -> Contraction:
    """Cut `size` rows into tiles of `rows` partitions; in FP8 the tensor engine takes full tiles in pairs."""
    full = size // rows
    tail = size - full * rows
    pairs = fp8 and nisa.get_nc_version() >= nisa.nc_version.gen3
    steps = []
    tile = 0
    while tile < full:
        together = 2 if pairs and tile + 1 < full else 1
        steps.append((tile, together, rows))
        tile += together
    if tail > 0:
        steps.append((full, 1, tail))
    return Contraction(div_ceil(size, rows), rows, full, tail, steps)


def accumulate(dst, stationary, moving, contraction, stationary_from, moving_from):
    """dst = stationary.T @ moving, summed over the tiles of a contraction.

    Args:
        dst: view [M, F] of one or several banks of PSUM, written; F of any size.
        stationary: [rows, tiles, ...] in SBUF; M columns from `stationary_from` on.
        moving: [rows, tiles, ...] in SBUF; F columns from `moving_from` on.
        contraction: the tiles.
        stationary_from: first column of `stationary`.
        moving_from: first column of `moving`.
    """
    m, total = dst.shape
    columns = nl.ds(stationary_from, m)
    for step in contraction.steps:
        tile, together, rows = step
        for start in range(0, total, BANK):
            width = min(BANK, total - start)
            part = nl.ds(moving_from + start, width)
            if together == 2:
                pair = nl.ds(tile, 2)
                nisa.nc_matmul(
                    dst=dst[:, nl.ds(start, width)],
                    stationary=stationary[0:rows, pair, columns],
                    moving=moving[0:rows, pair, part],
                    perf_mode=nisa.matmul_perf_mode.double_row,
                )
            else:
                nisa.nc_matmul(
                    dst=dst[:, nl.ds(start, width)],
                    stationary=stationary[0:rows, tile, columns],
                    moving=moving[0:rows, tile, part],
                )


def load_rows(dst, weight, contraction, tile, together, rows, first):
    """Load `rows` rows of each of `together` tiles of the contraction, columns from `first` on.

    Args:
        dst: [rows, together, columns] in SBUF, written.
        weight: [N * D, H] in HBM.
        contraction: the tiles.
        tile: the first of them.
        together: how many.
        rows: partitions of each.
        first: first column.
    """
    pitch = weight.shape[1]
    pattern = [[pitch, rows], [contraction.rows * pitch, together], [1, dst.shape[2]]]
    src = weight.ap(pattern=pattern, offset=tile * contraction.rows * pitch + first)
    nisa.dma_copy(dst=dst, src=src, dge_mode=AT_ONCE)


# --- sums out of PSUM


def load_line(row, first, columns):
    """Columns of a row [1, H] in HBM, in one partition of SBUF."""
    line = nl.ndarray((1, columns), dtype=row.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=line, src=row[0:1, nl.ds(first, columns)])
    return line


def broadcast_line(line, partitions):
    """A line [1, columns] of SBUF in all of `partitions` partitions.

    A DMA to all partitions would write the line as often; here the tensor engine multiplies a column of
    ones with it.
    """
    columns = line.shape[1]
    ones = nl.ndarray((1, partitions), dtype=line.dtype, buffer=nl.sbuf)
    result = nl.ndarray((partitions, columns), dtype=line.dtype, buffer=nl.sbuf)
    nisa.memset(dst=ones, value=1.0)
    for turn in range(div_ceil(columns, BANK)):
        part = nl.ds(turn * BANK, min(BANK, columns - turn * BANK))
        copies = nl.ndarray((partitions, part.size), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=copies, stationary=ones, moving=line[:, part])
        evacuate(result[:, part], copies, None, None, turn)
    return result


def evacuate(dst, sums, scale, bias, turn):
    """dst = sums * scale + bias: the scalar engine at even turns, the vector engine at odd ones.

    Args:
        dst: in SBUF, written.
        sums: in PSUM, of the same shape.
        scale: [P, 1] fp32, or None.
        bias: of the shape of `sums`, or None. The scalar engine adds only what is one value in a
            partition: what it has scaled goes to the gpsimd engine.
        turn: counts the calls.
    """
    factor = 1.0 if scale is None else scale[0 : sums.shape[0], :]
    if turn % 2 == 0:
        scaled = dst
        if bias is not None:
            scaled = nl.ndarray(sums.shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=scaled, op=nl.copy, data=sums, scale=factor)
        if bias is not None:
            nisa.tensor_tensor(dst=dst, data1=scaled, data2=bias, op=nl.add, engine=nisa.gpsimd_engine)
    elif bias is not None:
        nisa.scalar_tensor_tensor(
            dst=dst, data=sums, op0=nl.multiply, operand0=factor, op1=nl.add, operand1=bias
        )
    elif scale is None:
        nisa.tensor_copy(dst=dst, src=sums, engine=nisa.vector_engine)
    else:
        nisa.tensor_scalar(dst=dst, data=sums, op0=nl.multiply, operand0=factor, engine=nisa.vector_engine)


# --- static FP8 quantization


@dataclass
class StaticScales(nl.NKIObject):
    """Scales of static quantization in SBUF, one value in every partition.

    Attributes:
        reciprocal: 1 / input scale, [128, 1] fp32: what multiplies the activations.
        product: input scale * weight scale, [128, 1] fp32: what multiplies the sums.
    """

    reciprocal: object
    product: object


def check_quantization(kernel_name, quantization_type, weight, weight_scale, input_scale):
    """Refuse quantizations that no output projection offers, and scales that do not fit the one asked for."""
    kernel_assert(
        quantization_type in (QuantizationType.NONE, QuantizationType.STATIC),
        f"{kernel_name} takes quantization_type NONE or STATIC, got {quantization_type}",
    )
    if quantization_type == QuantizationType.NONE:
        return
    kernel_assert(
        weight.dtype == nl.float8_e4m3,
        f"{kernel_name} with STATIC quantization takes weight of float8_e4m3, got {weight.dtype}",
    )
    kernel_assert(
        weight_scale is not None and input_scale is not None,
        f"{kernel_name} with STATIC quantization needs the scales of weight and input",
    )
    assert_shape(weight_scale, (P_MAX, 1), "the weight scale")
    assert_shape(input_scale, (P_MAX, 1), "the input scale")


def load_static_scales(weight_scale, input_scale):
    """Load both scales [128, 1] from HBM and compute what multiplies activations and sums."""
    scales = StaticScales(
        nl.ndarray((P_MAX, 1), dtype=nl.float32, buffer=nl.sbuf),
        nl.ndarray((P_MAX, 1), dtype=nl.float32, buffer=nl.sbuf),
    )
    inputs = nl.ndarray((P_MAX, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=inputs, src=input_scale)
    nisa.dma_copy(dst=scales.product, src=weight_scale)
    nisa.reciprocal(dst=scales.reciprocal, data=inputs)
    nisa.tensor_tensor(dst=scales.product, data1=scales.product, data2=inputs, op=nl.multiply)
    return scales


def quantize(dst, src, reciprocal):
    """dst = src / input scale as FP8, clipped to its range.

    The scalar engine divides, the vector engine clips.

    Args:
        dst: float8_e4m3, written.
        src: of the same shape.
        reciprocal: [128, 1] fp32.
    """
    limit = get_max_positive_value_for_dtype(dst.dtype)
    scratch = nl.ndarray(src.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=scratch, op=nl.copy, data=src, scale=reciprocal[0 : src.shape[0], :])
    nisa.tensor_scalar(dst=dst, data=scratch, op0=nl.maximum, operand0=-limit, op1=nl.minimum, operand1=limit)
