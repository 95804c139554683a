"""What both output projections share: tiles of the contraction, and static FP8 quantization."""

from dataclasses import dataclass

import nki.isa as nisa
import nki.language as nl

from ..utils.common_types import QuantizationType
from ..utils.kernel_assert import assert_shape, kernel_assert
from ..utils.kernel_helpers import div_ceil
from ..utils.projection import AT_ONCE, BANK

FLOATS = (nl.float32, nl.float16, nl.bfloat16)
P_MAX = nl.tile_size.pmax


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
    for step in contraction.steps:
        multiply(dst, stationary, moving, step, stationary_from, moving_from)


def multiply(dst, stationary, moving, step, stationary_from, moving_from):
    """Adds the products of one step of a contraction; arguments as of :func:`accumulate`."""
    m, total = dst.shape
    columns = nl.ds(stationary_from, m)
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
