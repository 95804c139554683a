"""The stages that a chunk of hidden states passes: loaded, turned to H on the partitions, multiplied."""

from dataclasses import dataclass

import nki.isa as nisa
import nki.language as nl

from ..utils.allocator import sizeinbytes
from ..utils.common_types import NormType, QuantizationType
from ..utils.kernel_helpers import div_ceil, get_max_positive_value_for_dtype
from ..utils.projection import AT_ONCE, BANK, copy_in, evacuate

P_MAX = nl.tile_size.pmax
MX_WIDTH = 4  # values of H in one element of an MX tensor
MX_BLOCK = 32  # values of H that share a scale: 8 partitions of 4
QUADRANT = 32  # partitions; the scales of a quadrant are in its first 4


@dataclass
class Weights(nl.NKIObject):
    """One chunk of the weights in SBUF, and what belongs to its rows.

    Attributes:
        values: [128, tiles, columns].
        scales: MX: [128, tiles, columns] uint8, 4 rows in each quadrant of partitions.
        gamma: [128, tiles], MX [128, tiles, 4], or None: weights of the norm.
        beta: the same for LayerNorm.
    """

    values: object
    scales: object
    gamma: object
    beta: object


@dataclass
class Chunk(nl.NKIObject):
    """One chunk of one row tile on its way.

    Attributes:
        natural: [rows, columns of the chunk] in SBUF; MX swizzled [rows, 4, columns / 4]. None if not needed.
        others: what is still to be added to it, [rows, columns of the chunk] fp32, or None.
        turned: [128, tiles, rows] in SBUF; MX not yet quantized [128, 4, tiles, rows]. None before turned.
        scales: MX: [128, tiles, rows] uint8.
    """

    natural: object
    others: object
    turned: object
    scales: object


def chunk_view(tensor, plan, offset, tiles, pitch, columns, first):
    """Rows of H of a chunk as [128, tiles, columns]: tile k has row k * 128 + p, or, spread, p * tiles + k.

    Args:
        tensor: [H, columns] or (columns 1) a vector of H in HBM.
        plan: says if rows are spread.
        offset: first row of the chunk.
        tiles: number of tiles in the chunk.
        pitch: elements from one row to the next.
        columns: columns to show.
        first: the first of them.
    """
    by_partition, by_tile = (tiles * pitch, pitch) if plan.spread else (pitch, P_MAX * pitch)
    pattern = [[by_partition, P_MAX], [by_tile, tiles], [1, columns]]
    return tensor.ap(pattern=pattern, offset=offset * pitch + first)


def load_weights(plan, weights, scales, gamma, beta, input_factor, start, tiles, first, width):
    """Load one chunk of the weights; gamma goes into them, or stays beside where they are quantized.

    Args:
        plan: the choices.
        weights: [H, I], MX [H / 4, I] in HBM.
        scales: MX: [H / 32, I] uint8 in HBM.
        gamma: [1, H] in HBM or None.
        beta: [1, H] in HBM or None.
        input_factor: STATIC: [128, 1] fp32 that multiplies what is quantized.
        start: first value of H of the chunk.
        tiles: number of tiles.
        first: first column.
        width: columns.
    """
    mx = plan.quantization == QuantizationType.MX
    per_row = MX_WIDTH if mx else 1
    pitch = weights.shape[1]
    dtype = plan.dtype if plan.quantization == QuantizationType.NONE else weights.dtype
    values = nl.ndarray((P_MAX, tiles, width), dtype=dtype, buffer=nl.sbuf)
    view = chunk_view(weights, plan, start // per_row, tiles, pitch, width, first)
    copy_in(values, view)
    scale_tile = None
    if mx:
        scale_tile = nl.ndarray((P_MAX, tiles, width), dtype=scales.dtype, buffer=nl.sbuf)
        nisa.memset(dst=scale_tile, value=0)  # the product reads all partitions
        in_tile = P_MAX * MX_WIDTH // MX_BLOCK  # rows of scales for a tile
        in_quadrant = QUADRANT * MX_WIDTH // MX_BLOCK
        for quadrant in range(P_MAX // QUADRANT):
            pattern = [[pitch, in_quadrant], [in_tile * pitch, tiles], [1, width]]
            offset = (start // MX_BLOCK + quadrant * in_quadrant) * pitch + first
            dst = scale_tile[nl.ds(quadrant * QUADRANT, in_quadrant), :, :]
            nisa.dma_copy(dst=dst, src=scales.ap(pattern=pattern, offset=offset))
    gamma_tile = _load_vector(plan, gamma, start, tiles, input_factor)
    beta_tile = _load_vector(plan, beta, start, tiles, input_factor)
    if gamma is not None and not plan.early:
        shared = div_ceil(tiles * 3, 5)  # the gpsimd engine takes as long for the rest
        _times_gamma(values, gamma_tile, 0, shared, nisa.vector_engine)
        _times_gamma(values, gamma_tile, shared, tiles - shared, nisa.gpsimd_engine)
    return Weights(values, scale_tile, gamma_tile, beta_tile)


def _times_gamma(values, gamma, first, count, engine):
    """values [128, tiles, columns] *= gamma [128, tiles], of `count` tiles."""
    if count > 0:
        _, tiles, width = values.shape
        part = values[:, nl.ds(first, count), :]
        factor = gamma.ap(pattern=[[tiles, P_MAX], [1, count], [0, width]], offset=first)
        nisa.tensor_tensor(dst=part, data1=part, data2=factor, op=nl.multiply, engine=engine)


def _load_vector(plan, vector, start, tiles, factor):
    """The part of a vector of H that belongs to a chunk, H on the partitions, times `factor`."""
    if vector is None:
        return None
    if plan.quantization == QuantizationType.MX:
        tile = nl.ndarray((P_MAX, tiles, MX_WIDTH), dtype=vector.dtype, buffer=nl.sbuf)
        src = chunk_view(vector, plan, start // MX_WIDTH, tiles, MX_WIDTH, MX_WIDTH, 0)
        nisa.dma_copy(dst=tile, src=src)
        return tile
    tile = nl.ndarray((P_MAX, tiles), dtype=vector.dtype, buffer=nl.sbuf)
    if plan.by_dma and sizeinbytes(vector.dtype) == 2:
        nisa.dma_transpose(dst=tile, src=vector.ap(pattern=[[P_MAX, tiles], [1, P_MAX]], offset=start))
    else:
        view = chunk_view(vector, plan, start, tiles, 1, 1, 0)
        nisa.dma_copy(dst=tile.reshape((P_MAX, tiles, 1)), src=view)
    if factor is None:
        return tile
    scaled = nl.ndarray((P_MAX, tiles), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=scaled, data=tile, op0=nl.multiply, operand0=factor)
    return scaled


# --- stage 1: load


def load_chunk(plan, hidden, residuals, row, count, start, width):
    """Load rows of one chunk, turned by DMA or as they lie; the gpsimd engine adds up the residuals.

    Args:
        plan: the choices.
        hidden: [rows, H] in HBM.
        residuals: two further tensors [rows, H] in HBM, or none.
        row: the first row.
        count: rows.
        start: first column of H.
        width: columns of the chunk.
    """
    pitch = plan.hidden
    tiles = width // plan.tile
    if plan.by_dma and plan.swizzled:
        turned = nl.ndarray((P_MAX, MX_WIDTH, tiles, count), dtype=plan.dtype, buffer=nl.sbuf)
        pattern = [[pitch, count], [pitch, 1], [P_MAX, tiles], [1, P_MAX]]
        for part in range(MX_WIDTH):
            offset = row * pitch + part * (pitch // MX_WIDTH) + start // MX_WIDTH
            source = hidden.ap(pattern=pattern, offset=offset)
            nisa.dma_transpose(dst=turned[:, nl.ds(part, 1), :, :], src=source)
        return Chunk(None, None, turned, None)
    if plan.by_dma:
        blocks = div_ceil(count, 16) * 16  # a DMA transpose writes rows of blocks of 32 bytes
        turned = nl.ndarray((P_MAX, 1, tiles, blocks), dtype=plan.dtype, buffer=nl.sbuf)
        pattern = [[pitch, count], [pitch, 1], [P_MAX, tiles], [1, P_MAX]]
        source = hidden.ap(pattern=pattern, offset=row * pitch + start)
        nisa.dma_transpose(dst=turned[:, :, :, nl.ds(0, count)], src=source)
        return Chunk(None, None, turned[:, 0, :, nl.ds(0, count)], None)
    if plan.swizzled:
        natural = nl.ndarray((count, MX_WIDTH, width // MX_WIDTH), dtype=plan.dtype, buffer=nl.sbuf)
        pattern = [[pitch, count], [pitch // MX_WIDTH, MX_WIDTH], [1, width // MX_WIDTH]]
        copy_in(natural, hidden.ap(pattern=pattern, offset=row * pitch + start // MX_WIDTH))
        return Chunk(natural, None, None, None)
    natural = load_natural(plan, hidden, row, count, start, width)
    added = None
    if len(residuals) > 0:
        others = []
        for residual in residuals:
            others.append(load_natural(plan, residual, row, count, start, width))
        added = nl.ndarray((count, width), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=added, data1=others[0], data2=others[1], op=nl.add, engine=nisa.gpsimd_engine)
    return Chunk(natural, added, None, None)


def load_natural(plan, tensor, row, count, start, width):
    """Rows of one chunk as they lie."""
    natural = nl.ndarray((count, width), dtype=plan.dtype, buffer=nl.sbuf)
    copy_in(natural, tensor[nl.ds(row, count), nl.ds(start, width)])
    return natural


def add_residuals(chunk, kept, row, start):
    """Add the residuals to a chunk, and keep the sums in HBM if later passes need them.

    Args:
        chunk: loaded; `natural` is set to the sums.
        kept: [rows, H] in HBM that receives the sums, or None.
        row: its first row.
        start: its first column of H.
    """
    if chunk.others is not None:
        count, width = chunk.natural.shape
        summed = nl.ndarray((count, width), dtype=chunk.natural.dtype, buffer=nl.sbuf)
        nisa.tensor_tensor(
            dst=summed, data1=chunk.natural, data2=chunk.others, op=nl.add, engine=nisa.vector_engine
        )
        chunk.natural = summed
        if kept is not None:
            nisa.dma_copy(dst=kept[nl.ds(row, count), nl.ds(start, width)], src=summed, dge_mode=AT_ONCE)


# --- the norm


@dataclass
class Statistics(nl.NKIObject):
    """What the norm needs of a row tile.

    Attributes:
        squares: [rows, chunks] fp32: sums of squares.
        sums: [rows, chunks] fp32: sums, for LayerNorm.
        factor: [rows, 1] fp32: 1 / sqrt(variance + eps), when all chunks are there.
        mean: [rows, 1] fp32, for LayerNorm.
        by_partition: [128, rows] fp32: sums of squares of what each partition has, where chunks are turned by
            DMA; instead of `squares`.
        ones: [128, 1] fp32, which sums them up.
    """

    squares: object
    sums: object
    factor: object
    mean: object
    by_partition: object
    ones: object


def new_statistics(plan, count):
    """Room for the statistics of a row tile of `count` rows."""
    if plan.by_dma:
        by_partition = nl.ndarray((P_MAX, count), dtype=nl.float32, buffer=nl.sbuf)
        ones = nl.ndarray((P_MAX, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=ones, value=1.0)
        return Statistics(None, None, None, None, by_partition, ones)
    squares = nl.ndarray((count, plan.chunks), dtype=nl.float32, buffer=nl.sbuf)
    statistics = Statistics(squares, None, None, None, None, None)
    if plan.norm == NormType.LAYER_NORM:
        statistics.sums = nl.ndarray((count, plan.chunks), dtype=nl.float32, buffer=nl.sbuf)
    return statistics


def measure(statistics, natural, index):
    """Add what one chunk contributes to the statistics of its rows."""
    unused = nl.ndarray(natural.shape, dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.activation_reduce(
        dst=unused,
        op=nl.square,
        data=natural,
        reduce_op=nl.add,
        reduce_res=statistics.squares[:, index : index + 1],
    )
    if statistics.sums is not None:
        nisa.tensor_reduce(dst=statistics.sums[:, index : index + 1], op=nl.add, data=natural, axis=1)


def measure_turned(statistics, turned, index):
    """The same of a chunk with H on the partitions, [128, tiles, rows]; for sums of squares."""
    tiles, count = turned.shape[1], turned.shape[2]
    squares = nl.ndarray(turned.shape, dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.activation(dst=squares, op=nl.square, data=turned)
    sums = statistics.by_partition
    if index > 0:
        sums = nl.ndarray((P_MAX, count), dtype=nl.float32, buffer=nl.sbuf)
    by_row = squares.ap(pattern=[[tiles * count, P_MAX], [1, count], [count, tiles]])
    nisa.tensor_reduce(dst=sums, op=nl.add, data=by_row, axis=2)
    if index > 0:
        total = statistics.by_partition
        nisa.tensor_tensor(dst=total, data1=total, data2=sums, op=nl.add, engine=nisa.gpsimd_engine)


def _total_squares(statistics):
    """Sums of squares of rows, [rows, 1] fp32."""
    if statistics.by_partition is None:
        total = nl.ndarray((statistics.squares.shape[0], 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(dst=total, op=nl.add, data=statistics.squares, axis=1)
        return total
    total = nl.ndarray((statistics.by_partition.shape[1], 1), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=statistics.by_partition, moving=statistics.ones)
    return total


def close_statistics(plan, statistics):
    """Compute factor and mean when all chunks have been measured."""
    total = _total_squares(statistics)
    count = total.shape[0]
    each = 1.0 / plan.hidden_actual
    variance = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=variance, data=total, op0=nl.multiply, operand0=each)
    if statistics.sums is not None:
        mean = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
        square = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
        summed = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(dst=summed, op=nl.add, data=statistics.sums, axis=1)
        nisa.tensor_scalar(dst=mean, data=summed, op0=nl.multiply, operand0=each)
        nisa.tensor_tensor(dst=square, data1=mean, data2=mean, op=nl.multiply)
        nisa.tensor_tensor(dst=variance, data1=variance, data2=square, op=nl.subtract)
        statistics.mean = mean
    statistics.factor = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(
        dst=statistics.factor,
        data=variance,
        op0=nl.add,
        operand0=plan.eps,
        op1=nl.rsqrt,
        operand1=0.0,
        engine=nisa.gpsimd_engine,
    )


def normalize_chunk(chunk, statistics):
    """natural = (natural - mean) * factor, of its dtype."""
    natural = chunk.natural
    chunk.natural = nl.ndarray(natural.shape, dtype=natural.dtype, buffer=nl.sbuf)
    if statistics.mean is None:
        nisa.tensor_scalar(dst=chunk.natural, data=natural, op0=nl.multiply, operand0=statistics.factor)
    else:
        nisa.tensor_scalar(
            dst=chunk.natural,
            data=natural,
            op0=nl.subtract,
            operand0=statistics.mean,
            op1=nl.multiply,
            operand1=statistics.factor,
        )


# --- stage 2: turn


def turn_chunk(plan, chunk, weights, input_factor, turn):
    """Put H on the partitions, times gamma where that comes first, or what STATIC quantization multiplies.

    Args:
        plan: the choices.
        chunk: loaded, and normalized if that comes first; `turned` is set, MX [128, 4, tiles, rows].
        weights: the chunk of the weights that it meets.
        input_factor: STATIC: [128, 1] fp32 that multiplies what is quantized.
        turn: counts the calls.
    """
    static = plan.quantization == QuantizationType.STATIC
    source = chunk.turned
    if source is not None:  # by DMA
        if static:
            chunk.turned = nl.ndarray(source.shape, dtype=nl.float32, buffer=nl.sbuf)
            nisa.activation(dst=chunk.turned, op=nl.copy, data=source, scale=input_factor)
        return
    natural = chunk.natural
    mx = plan.quantization == QuantizationType.MX
    tiles = weights.values.shape[1]
    shape = (P_MAX, MX_WIDTH if mx else 1, tiles, natural.shape[0])
    pitch = div_ceil(shape[3], 2) * 2  # rows of PSUM start at multiples of 4 bytes
    padded = nl.ndarray((shape[0], shape[1], shape[2], pitch), dtype=natural.dtype, buffer=nl.psum)
    bank = padded[:, :, :, nl.ds(0, shape[3])]
    for part in range(shape[1]):
        for tile in range(tiles):
            nisa.nc_transpose(dst=bank[:, part, tile, :], data=_columns_of(plan, natural, tiles, part, tile))
    turned = nl.ndarray(shape, dtype=nl.float32 if static else natural.dtype, buffer=nl.sbuf)
    if weights.gamma is not None and plan.early:
        nisa.tensor_tensor(dst=turned, data1=bank, data2=_over_rows(weights.gamma, shape), op=nl.multiply)
    elif static:
        nisa.activation(dst=turned, op=nl.copy, data=bank, scale=input_factor)
    else:
        evacuate(turned, bank, None, None, turn)
    chunk.turned = turned if mx else turned.reshape((P_MAX, tiles, natural.shape[0]))


def settle_chunk(plan, chunk, weights):
    """What is left before a turned chunk is multiplied: beta, and quantization."""
    turned = chunk.turned
    if weights.beta is not None:
        shape = turned.shape
        if len(shape) == 3:
            shape = (shape[0], 1, shape[1], shape[2])
        nisa.tensor_tensor(
            dst=turned.reshape(shape),
            data1=turned.reshape(shape),
            data2=_over_rows(weights.beta, shape),
            op=nl.add,
            engine=nisa.gpsimd_engine,
        )
    if plan.quantization == QuantizationType.STATIC:
        chunk.turned = _as_fp8(turned)
    elif plan.quantization == QuantizationType.MX:
        _quantize_mx(chunk)


def _columns_of(plan, natural, tiles, part, tile):
    """The 128 columns of a chunk that become the partitions of one tile."""
    count = natural.shape[0]
    if plan.swizzled:
        return natural[:, part, nl.ds(tile * P_MAX, P_MAX)]
    if plan.quantization == QuantizationType.MX:
        return natural.reshape((count, tiles, P_MAX, MX_WIDTH))[:, tile, :, part]
    if plan.spread:
        return natural.reshape((count, P_MAX, tiles))[:, :, tile]
    return natural[:, nl.ds(tile * P_MAX, P_MAX)]


def _over_rows(vector, shape):
    """A vector of H, [128, tiles] or [128, tiles, 4], shown as [128, parts, tiles, rows]."""
    partitions, parts, tiles, count = shape
    pattern = [[parts * tiles, partitions], [1, parts], [parts, tiles], [0, count]]
    return vector.ap(pattern=pattern, offset=0)


def _as_fp8(scaled):
    """Clipped to the range of FP8 and rounded to it."""
    limit = get_max_positive_value_for_dtype(nl.float8_e4m3)
    result = nl.ndarray(scaled.shape, dtype=nl.float8_e4m3, buffer=nl.sbuf)
    nisa.tensor_scalar(
        dst=result, data=scaled, op0=nl.maximum, operand0=-limit, op1=nl.minimum, operand1=limit
    )
    return result


def _quantize_mx(chunk):
    """Blocks of 8 partitions by 4 values get a scale; `turned` becomes [128, tiles, rows], 4 values each."""
    partitions, parts, tiles, count = chunk.turned.shape
    packed = nl.ndarray((partitions, tiles, count), dtype=nl.float8_e4m3fn_x4, buffer=nl.sbuf)
    chunk.scales = nl.ndarray((partitions, tiles, count), dtype=nl.uint8, buffer=nl.sbuf)
    nisa.memset(dst=chunk.scales, value=0)
    pattern = [
        [parts * tiles * count, partitions],
        [count, tiles],
        [1, count],
        [tiles * count, parts],
    ]
    nisa.quantize_mx(dst=packed, src=chunk.turned.ap(pattern=pattern, offset=0), dst_scale=chunk.scales)
    chunk.turned = packed


# --- stage 3: multiply


def multiply_chunk(plan, sums, chunk, weights):
    """sums += chunk.T @ weights, the last dimension of the result in banks of PSUM.

    Args:
        plan: the choices.
        sums: [rows, columns] fp32 in PSUM.
        chunk: turned.
        weights: the chunk of the weights that it meets.
    """
    width = sums.shape[1]
    tiles = weights.values.shape[1]
    pairs = plan.quantization == QuantizationType.STATIC and nisa.get_nc_version() >= nisa.nc_version.gen3
    tile = 0
    while tile < tiles:
        together = 2 if pairs and tile + 1 < tiles else 1
        for start in range(0, width, BANK):
            columns = nl.ds(start, min(BANK, width - start))
            dst = sums[:, columns]
            if plan.quantization == QuantizationType.MX:
                nisa.nc_matmul_mx(
                    dst=dst,
                    stationary=chunk.turned[:, tile, :],
                    moving=weights.values[:, tile, columns],
                    stationary_scale=chunk.scales[:, tile, :],
                    moving_scale=weights.scales[:, tile, columns],
                )
            elif together == 2:
                nisa.nc_matmul(
                    dst=dst,
                    stationary=chunk.turned[:, nl.ds(tile, 2), :],
                    moving=weights.values[:, nl.ds(tile, 2), columns],
                    perf_mode=nisa.matmul_perf_mode.double_row,
                )
            else:
                nisa.nc_matmul(
                    dst=dst, stationary=chunk.turned[:, tile, :], moving=weights.values[:, tile, columns]
                )
        tile += together
