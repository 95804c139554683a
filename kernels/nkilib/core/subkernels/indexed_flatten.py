"""Rows written into one long array, each from a block of it on.

    output[(row_offsets[e] + k) * f_len + i] = input[e, k * f_len + i]      else padding_val

Rows are written in order: a later one overwrites what an earlier one wrote, and blocks outside of the output
are left out. The expert rows of a mixture of experts end in padding, which the next expert's row overwrites.

Nothing is scattered, since then each row would wait for the one before. The vector engine finds the row that
every block b of the output comes from: the largest e * K + b - row_offsets[e] where b - row_offsets[e] is not
negative and less than K (blocks in a row) is of the last row that covers b, and is the number of its block in
the input. One indirect DMA then gathers 128 blocks; blocks that no row covers have an index outside of the
input, are skipped, and keep the padding that gpsimd wrote there. Each core makes half of the output.

Kept in SBUF, bytes per partition: 4 * f_len for each of two tiles of blocks, 24 KiB for the indices.
"""

import nki
import nki.isa as nisa
import nki.language as nl

from ..utils.kernel_assert import kernel_assert
from ..utils.kernel_helpers import div_ceil, get_verified_program_sharding_info
from ..utils.tensor_view import TensorView
from ..utils.tiled_range import TiledRange

_ROWS_OF_DMA = 16  # T // f_len is a multiple of it
_ELEMENTS = 2048  # of a tile of indices, per partition


@nki.jit
def indexed_flatten(
    input_tensor, f_len: int, output_len: int, row_offsets, row_offsets_start=None, padding_val: int = -1
):
    """Write the rows of `input_tensor` into one array, from the block on that `row_offsets` says.

    Args:
        input_tensor: [E, T] in HBM, 32-bit integers or float32.
        f_len: elements of a block; divides `output_len` and T, whose blocks are a multiple of 16.
        output_len: elements of the output, a multiple of 128.
        row_offsets: [N] int32 in HBM: the block that each row starts at; E of them are used.
        row_offsets_start: [1] int32 in HBM: the first one used; None for 0, and then N is E.
        padding_val: what is in elements that no row covers.

    Returns:
        [output_len] in HBM, of the dtype of `input_tensor`.
    """
    _, cores, core = get_verified_program_sharding_info("indexed_flatten", (0, 1), 2)
    kernel_assert(len(input_tensor.shape) == 2, f"input_tensor is [E, T], got shape {input_tensor.shape}")
    rows, length = input_tensor.shape
    _check(length, f_len, output_len)
    offered = row_offsets.shape[0]
    if row_offsets_start is None:
        kernel_assert(offered == rows, f"row_offsets has one for each of {rows} rows, got {offered}")
    else:
        kernel_assert(offered >= rows, f"row_offsets has at least the {rows} that are used, got {offered}")

    output = nl.ndarray((output_len,), dtype=input_tensor.dtype, buffer=nl.shared_hbm)
    blocks_in_row = length // f_len
    source = input_tensor.reshape((rows * blocks_in_row, f_len))
    target = output.reshape((output_len // f_len, f_len))
    share = div_ceil(div_ceil(output_len // f_len, cores), 128) * 128
    first = core * share
    last = min(first + share, output_len // f_len)
    if first >= last:
        return output
    columns = div_ceil(last - first, 128)
    sources = _sources(row_offsets, row_offsets_start, rows, blocks_in_row, first, columns)
    for tile in TiledRange(last - first, 128):
        blocks = nl.ndarray((tile.size, f_len), dtype=input_tensor.dtype, buffer=nl.sbuf)
        nisa.memset(dst=blocks, value=padding_val, engine=nisa.gpsimd_engine)
        nisa.dma_copy(
            dst=blocks,
            src=source.ap(
                pattern=[[f_len, tile.size], [1, f_len]],
                vector_offset=sources[0 : tile.size, tile.index : tile.index + 1],
                indirect_dim=0,
            ),
            oob_mode=nisa.oob_mode.skip,
        )
        start = first + tile.start_offset
        nisa.dma_copy(dst=target[start : start + tile.size, :], src=blocks)
    return output


def _check(length: int, f_len: int, output_len: int) -> None:
    kernel_assert(f_len >= 1, f"f_len is at least 1, got {f_len}")
    kernel_assert(output_len % 128 == 0, f"output_len is a multiple of 128, got {output_len}")
    kernel_assert(output_len % f_len == 0, f"output_len is a multiple of f_len = {f_len}, got {output_len}")
    kernel_assert(length % f_len == 0, f"T is a multiple of f_len = {f_len}, got {length}")
    kernel_assert(
        length // f_len % _ROWS_OF_DMA == 0,
        f"T // f_len is a multiple of {_ROWS_OF_DMA}, got {length} // {f_len} = {length // f_len}",
    )


def _sources(row_offsets, row_offsets_start, rows: int, blocks_in_row: int, first: int, columns: int):
    """The block of the input that each block of the output is, as int32 [128, columns].

    Element [p, c] is for block ``first + c * 128 + p``. A block of padding gets the number of all blocks,
    which no block of the input has.
    """
    offsets = nl.ndarray((128, rows), dtype=row_offsets.dtype, buffer=nl.sbuf)
    start = None
    if row_offsets_start is not None:
        start = nl.ndarray((1, 1), dtype=row_offsets_start.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=start, src=row_offsets_start.reshape((1, 1)))
    nisa.dma_copy(dst=offsets, src=row_offsets.ap(pattern=[[0, 128], [1, rows]], scalar_offset=start))
    blocks = nl.ndarray((128, columns), dtype=nl.float32, buffer=nl.sbuf)
    nisa.iota(dst=blocks, pattern=[[128, columns]], offset=first, channel_multiplier=1)
    numbers = nl.ndarray((128, rows), dtype=nl.float32, buffer=nl.sbuf)  # 1 + the first block of each row
    nisa.iota(dst=numbers, pattern=[[blocks_in_row, rows]], offset=1, channel_multiplier=0)

    found = nl.ndarray((128, columns), dtype=nl.float32, buffer=nl.sbuf)  # 1 + the block, 0 for padding
    for tile in TiledRange(columns, max(1, _ELEMENTS // rows)):
        shape = (128, tile.size, rows)
        part = (
            TensorView(blocks).slice(1, tile.start_offset, tile.end_offset).expand_dim(2).broadcast(2, rows)
        )
        away = nl.ndarray(shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(
            dst=away,
            data1=part.get_view(),
            data2=TensorView(offsets).expand_dim(1).broadcast(1, tile.size).get_view(),
            op=nl.subtract,
        )
        number = nl.ndarray(shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(
            dst=number,
            data1=away,
            data2=TensorView(numbers).expand_dim(1).broadcast(1, tile.size).get_view(),
            op=nl.add,
        )
        _where(number, away, nl.greater_equal, 0.0)
        _where(number, away, nl.less, float(blocks_in_row))
        nisa.tensor_reduce(
            dst=found[:, tile.start_offset : tile.end_offset], data=number, op=nl.maximum, axis=2
        )

    outside = nl.ndarray((128, columns), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_scalar(
        dst=outside,
        data=found,
        op0=nl.equal,
        operand0=0.0,
        op1=nl.multiply,
        operand1=float(rows * blocks_in_row + 1),
    )
    sources = nl.ndarray((128, columns), dtype=nl.int32, buffer=nl.sbuf)
    nisa.scalar_tensor_tensor(
        dst=sources, data=found, op0=nl.subtract, operand0=1.0, op1=nl.add, operand1=outside
    )
    return sources


def _where(number, away, op, limit: float) -> None:
    """number = number where `away` op `limit`, else 0."""
    nisa.scalar_tensor_tensor(dst=number, data=away, op0=op, operand0=limit, op1=nl.multiply, operand1=number)
