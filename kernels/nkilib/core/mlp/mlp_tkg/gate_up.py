"""Gate and up projection of token generation, and what is between them and the down projection."""

from dataclasses import dataclass
from typing import Any

import nki.isa as nisa
import nki.language as nl

from ...utils.common_types import ActFnType
from ...utils.kernel_helpers import div_ceil, get_nl_act_fn_from_type
from ...utils.projection import AT_ONCE, load_aside
from ...utils.tensor_view import TensorView
from ...utils.tiled_range import TiledRange, TiledRangeIterator
from .contraction import PARTITIONS, clear_tail, contract_weights
from .hidden import rows_of_weights

BLOCK = 2048  # most columns of weights that are worked on at a time: half of PSUM
CHUNK_BYTES = 8192  # of weights in each partition that one DMA brings: 1 MiB
LEAST_CHUNKS = 4  # of them, since products wait for the first one and the last one


def project_hidden(hidden, tokens, weights, tiling: Any):
    """Products of the tokens with weights, or of this core's rows of them.

    Args:
        hidden: :class:`.hidden.Hidden`, x [128, K, width].
        tokens: T.
        weights: view of HBM, [128 * K, N].
        tiling: :class:`.contraction.ColumnTiling` of x: tokens stationary; None: weights stationary.

    Returns:
        fp32 [128, ceil(N / 128), T] in SBUF; rows beyond N are 0.
    """
    x, chunks, width = hidden.x, hidden.chunks, weights.shape[1]
    blocks = div_ceil(width, PARTITIONS)
    accumulator = nl.ndarray((PARTITIONS, blocks, tokens), dtype=nl.float32, buffer=nl.sbuf)
    clear_tail(accumulator, width)
    alike = div_ceil(blocks, div_ceil(width, BLOCK)) * PARTITIONS
    for columns in TiledRange(width, alike):
        most = min(CHUNK_BYTES // (columns.size * _bytes(weights.dtype)), x.shape[1] // LEAST_CHUNKS)
        first = columns.start_offset // PARTITIONS
        banks = [] if tiling is None else tiling.banks(columns.size)
        for rows in row_groups(chunks, x.shape[1] // chunks, max(1, most)):
            tile = load_rows(weights, chunks, rows, columns)
            if tiling is not None:
                tiling.multiply(banks, tile, rows.first)
            else:
                contract_weights(
                    accumulator,
                    x[:, nl.ds(rows.first, tile.shape[1]), :],
                    tile,
                    rows=tile.shape[1] * PARTITIONS,
                    columns=columns.size,
                    first=first,
                    is_first=rows.first == 0,
                )
        if tiling is not None:
            tiling.collect(accumulator, banks, first, x.shape[1])
    return accumulator


@dataclass
class RowGroup(nl.NKIObject):
    """Blocks of rows that one DMA brings: some blocks of a chunk, or all of some chunks.

    Attributes:
        chunk: the chunks.
        block: the blocks in each.
        first: the number of the first block, over all chunks.
    """

    chunk: TiledRangeIterator
    block: TiledRangeIterator
    first: int


def row_groups(chunks, blocks, most):
    """All blocks of rows, `blocks` in each of the chunks, in groups of up to `most`, of a chunk all alike."""
    groups = []
    alike = div_ceil(blocks, div_ceil(blocks, most))
    for chunk in TiledRange(chunks, max(1, most // blocks)):
        for block in TiledRange(blocks, alike):
            groups.append(RowGroup(chunk, block, chunk.start_offset * blocks + block.start_offset))
    last = groups.pop()  # comes in two, as products wait for all of a group
    halves = div_ceil(last.block.size, 2) if last.chunk.size == 1 else last.block.size
    for chunk in TiledRange(last.chunk, div_ceil(last.chunk.size, 2)):
        for block in TiledRange(last.block, halves):
            groups.append(RowGroup(chunk, block, chunk.start_offset * blocks + block.start_offset))
    return groups


def load_rows(weights, chunks, rows, columns):
    """A group of blocks of weights [H, N] in HBM, for some of the columns: [128, k, n] in SBUF."""
    tile = nl.ndarray(
        (PARTITIONS, rows.chunk.size, rows.block.size, columns.size), dtype=weights.dtype, buffer=nl.sbuf
    )
    view = rows_of_weights(weights, chunks).slice(1, rows.chunk.start_offset, rows.chunk.end_offset)
    view = view.slice(2, rows.block.start_offset, rows.block.end_offset)
    source = view.slice(3, columns.start_offset, columns.end_offset).get_view()
    nisa.dma_copy(dst=tile, src=source, dge_mode=AT_ONCE)
    return tile.reshape((PARTITIONS, rows.chunk.size * rows.block.size, columns.size))


def _bytes(dtype):
    return 1 if dtype == nl.float8_e4m3 else 2


def sum_over_cores(accumulator, program, pipe_id=0):
    """Add the other core's `accumulator` to this core's, on both: each had half of the contraction."""
    add_part(accumulator, exchange(accumulator, program, pipe_id))


def exchange(part, program, pipe_id=0):
    """The other core's `part`, in SBUF."""
    other = nl.ndarray(part.shape, dtype=part.dtype, buffer=nl.sbuf)
    nisa.sendrecv(src=part, dst=other, send_to_rank=1 - program, recv_from_rank=1 - program, pipe_id=pipe_id)
    return other


def add_part(accumulator, other):
    """accumulator += other."""
    nisa.tensor_tensor(dst=accumulator, data1=accumulator, data2=other, op=nl.add)


def load_by_column(vector):
    """A row of HBM, [1, N], as [128, ceil(N / 128)] in SBUF: element n at [n % 128, n // 128], then zeros."""
    width = vector.shape[1]
    blocks, whole = div_ceil(width, PARTITIONS), width // PARTITIONS
    tile = nl.ndarray((PARTITIONS, blocks), dtype=vector.dtype, buffer=nl.sbuf)
    if whole > 0:
        part = vector[:, nl.ds(0, whole * PARTITIONS)]
        load_aside(tile[:, nl.ds(0, whole)], part.ap([[1, PARTITIONS], [PARTITIONS, whole]]))
    rest = width - whole * PARTITIONS
    if rest > 0:
        nisa.memset(dst=tile[:, nl.ds(whole, 1)], value=0.0)
        part = vector[:, nl.ds(whole * PARTITIONS, rest)]
        load_aside(tile[nl.ds(0, rest), nl.ds(whole, 1)], part.ap([[1, rest], [1, 1]]))
    return tile


def along_tokens(column, tokens):
    """[128, N] in SBUF seen as [128, N, tokens], the same for each token."""
    return TensorView(column).expand_dim(2).broadcast(2, tokens).get_view()


def finish_projection(values, scale, bias, clamp_upper, clamp_lower):
    """values = clamp(values * scale + bias), in place.

    Args:
        values: fp32 [128, blocks, T] in SBUF, columns of the weights along partitions and blocks.
        scale: [128, 1] or [128, blocks] fp32 in SBUF, or None.
        bias: [128, blocks] in SBUF, or None.
        clamp_upper: the largest value, or None.
        clamp_lower: the smallest value, or None.
    """
    tokens = values.shape[2]
    if scale is not None and scale.shape[1] == 1:
        nisa.tensor_scalar(dst=values, data=values, op0=nl.multiply, operand0=scale)
    elif scale is not None:
        nisa.tensor_tensor(dst=values, data1=values, data2=along_tokens(scale, tokens), op=nl.multiply)
    if bias is not None:
        nisa.tensor_tensor(dst=values, data1=values, data2=along_tokens(bias, tokens), op=nl.add)
    if clamp_upper is not None and clamp_lower is not None:
        nisa.tensor_scalar(
            dst=values,
            data=values,
            op0=nl.minimum,
            operand0=clamp_upper,
            op1=nl.maximum,
            operand1=clamp_lower,
        )
    elif clamp_upper is not None:
        nisa.tensor_scalar(dst=values, data=values, op0=nl.minimum, operand0=clamp_upper)
    elif clamp_lower is not None:
        nisa.tensor_scalar(dst=values, data=values, op0=nl.maximum, operand0=clamp_lower)


def activate(gate, up, activation_fn: ActFnType, dtype):
    """act(gate) * up, or act(up) where gate is None, in `dtype`; operands fp32 [128, blocks, T] in SBUF."""
    result = nl.ndarray(up.shape, dtype=dtype, buffer=nl.sbuf)
    function = get_nl_act_fn_from_type(activation_fn)
    if gate is None:
        nisa.activation(dst=result, op=function, data=up)
        return result
    nisa.activation(dst=gate, op=function, data=gate)
    nisa.tensor_tensor(dst=result, data1=gate, data2=up, op=nl.multiply)
    return result
