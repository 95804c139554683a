"""Where the columns of a matrix are not zero.

    indices[e] = the t with input[t, e] != 0, in order, then -1          nonzero_counts[e] = their number

``nonzero_with_count`` works on partitions 0, 16, ..., 112, one a gpsimd core: a group is eight columns.
Tokens are loaded onto the partitions in contiguous pieces; the vector engine makes them 1 or 0 in bf16; the
tensor engine transposes 128 tokens, each column of the group read 16 times, so that it ends on 16 partitions;
scalar and vector engine by turns copy four of those from PSUM. gpsimd then finds the indices of a chunk of
tokens, while the other engines make the next group. Chunks after the first are stored where the ones before
ended, over their padding. Each core makes half of the columns.

Kept in SBUF, bytes per partition, for a chunk of C tokens and n columns a core: C * n / 32 of the input,
C * n / 64 of flags, 4 * C for a group and 4 * (C + 1) for its indices, each twice where it fits.
"""

import nki
import nki.isa as nisa
import nki.language as nl

from ...core.utils.kernel_assert import kernel_assert
from ...core.utils.kernel_helpers import get_verified_program_sharding_info
from ...core.utils.tensor_view import TensorView
from ...core.utils.tiled_range import TiledRange

_GROUP = 8  # gpsimd cores
_LANES = 16  # partitions of one
_CHUNK = 8192  # tokens whose indices fit
_BANK = 512  # fp32 elements of a PSUM bank


@nki.jit
def find_nonzero_indices(input_tensor, row_start_id=None, n_rows=None, chunk_size=None, index_dtype=nl.int32):
    """The indices of the nonzero elements of each column, and their number.

    Args:
        input_tensor: [T, E] in HBM, float32 or int32; T is a multiple of 128.
        row_start_id: [1] int32 in HBM: the first column that counts; None for all columns.
        n_rows: the number of columns that count; needed with `row_start_id`.
        chunk_size: tokens handled at once at most, a multiple of 128 that divides T; None for T. More than
            8192 are handled as if it were the largest such divisor below.
        index_dtype: of both results.

    Returns:
        indices [E or n_rows, T] and counts [E or n_rows] in HBM.
    """
    _, cores, core = get_verified_program_sharding_info("find_nonzero_indices", (0, 1), 2)
    kernel_assert(len(input_tensor.shape) == 2, f"input_tensor is [T, E], got shape {input_tensor.shape}")
    tokens, experts = input_tensor.shape
    columns = experts
    start = None
    if row_start_id is not None:
        kernel_assert(n_rows is not None, "row_start_id comes with n_rows, the number of columns")
        kernel_assert(0 < n_rows <= experts, f"n_rows is in (0, E = {experts}], got {n_rows}")
        columns = n_rows
        start = nl.ndarray((1, 1), dtype=row_start_id.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=start, src=row_start_id.reshape((1, 1)))
    kernel_assert(
        columns % cores == 0,
        f"the {columns} columns divide over {cores} programs; they are {'E' if start is None else 'n_rows'}",
    )
    chunk = _chunk(tokens, chunk_size)
    share = columns // cores

    indices = nl.ndarray((columns, tokens), dtype=index_dtype, buffer=nl.shared_hbm)
    counts = nl.ndarray((columns,), dtype=index_dtype, buffer=nl.shared_hbm)
    identity = nl.shared_identity_matrix(128, dtype=nl.bfloat16)
    groups = TiledRange(share, _GROUP)
    ends = []
    for _ in groups:
        ends.append(nl.ndarray((128, 1), dtype=nl.int32, buffer=nl.sbuf))
    _pad(indices, core * share, share, chunk)
    for part in TiledRange(tokens, chunk):
        flags = _flags(input_tensor, start, core * share, share, part)
        for group in groups:
            values = _onto_cores(flags, identity, group)
            found = nl.ndarray((128, chunk + 1), dtype=nl.int32, buffer=nl.sbuf)
            nisa.memset(dst=found[:, chunk : chunk + 1], value=0)  # of partitions that have no core
            nisa.nonzero_with_count(dst=found, src=values, index_offset=part.start_offset, padding_val=-1)
            first = core * share + group.start_offset
            end = ends[group.index]
            _store(indices, found, end, first, group.size, part, chunk, tokens)
            count = found[:, chunk : chunk + 1]
            if part.index == 0:
                nisa.tensor_copy(dst=end, src=count)
            else:
                nisa.tensor_tensor(dst=end, data1=end, data2=count, op=nl.add)
    for group in groups:
        first = core * share + group.start_offset
        for i in range(group.size):
            nisa.dma_copy(
                dst=counts.reshape((columns, 1))[first + i : first + i + 1, :],
                src=ends[group.index][i * _LANES : i * _LANES + 1, :],
            )
    return indices, counts


def _chunk(tokens: int, chunk_size) -> int:
    """Tokens handled at once."""
    kernel_assert(tokens % 128 == 0, f"T is a multiple of 128, got {tokens}")
    if chunk_size is not None:
        kernel_assert(
            chunk_size >= 128 and chunk_size % 128 == 0, f"chunk_size is a multiple of 128, got {chunk_size}"
        )
        kernel_assert(tokens % chunk_size == 0, f"chunk_size divides T = {tokens}, got {chunk_size}")
    chunk = min(tokens if chunk_size is None else chunk_size, _CHUNK)
    while tokens % chunk != 0:
        chunk -= 128
    return chunk


def _flags(input_tensor, start, first: int, share: int, part):
    """Whether elements are not 0: bf16 [128, chunk / 128, share], token ``k * 128 + p`` at [p, k]."""
    experts = input_tensor.shape[1]
    blocks = part.size // 128
    loaded = nl.ndarray((128, blocks, share), dtype=input_tensor.dtype, buffer=nl.sbuf)
    source = input_tensor.ap(
        pattern=[[experts, 128], [128 * experts, blocks], [1, share]],
        offset=part.start_offset * experts + first,
        scalar_offset=start,
        indirect_dim=1,
    )
    nisa.dma_copy(dst=loaded, src=source)
    flags = nl.ndarray((128, blocks, share), dtype=nl.bfloat16, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=flags, data=loaded, op0=nl.not_equal, operand0=0.0)
    return flags


def _onto_cores(flags, identity, group):
    """The columns of a group, as fp32 [128, chunk]: column i on the partitions of gpsimd core i."""
    blocks = flags.shape[1]
    values = nl.ndarray((128, blocks * 128), dtype=nl.float32, buffer=nl.sbuf)
    if group.size < _GROUP:
        nisa.memset(dst=values, value=0.0)  # cores without a column count nothing
    lanes = group.size * _LANES
    for bank in TiledRange(blocks, _BANK // 128):
        turned = nl.ndarray((lanes, bank.size * 128), dtype=nl.float32, buffer=nl.psum)
        for k in range(bank.size):
            block = TensorView(flags).select(1, bank.start_offset + k)
            repeated = block.slice(1, group.start_offset, group.end_offset).expand_dim(2).broadcast(2, _LANES)
            nisa.nc_matmul(
                dst=turned[:, k * 128 : (k + 1) * 128], stationary=repeated.get_view(), moving=identity
            )
        nisa.tensor_copy(
            dst=values[0:lanes, bank.start_offset * 128 : bank.end_offset * 128],
            src=turned,
            engine=nisa.scalar_engine if bank.index % 2 == 0 else nisa.vector_engine,
        )
    return values


def _pad(indices, first: int, share: int, chunk: int) -> None:
    """Fill what the first chunk does not write with -1."""
    tokens = indices.shape[1]
    if tokens == chunk:
        return
    padding = nl.ndarray((min(share, 128), chunk), dtype=indices.dtype, buffer=nl.sbuf)
    nisa.memset(dst=padding, value=-1)
    for rows in TiledRange(share, 128):
        for part in TiledRange(tokens - chunk, chunk):
            nisa.dma_copy(
                dst=indices[
                    first + rows.start_offset : first + rows.end_offset,
                    chunk + part.start_offset : chunk + part.end_offset,
                ],
                src=padding[0 : rows.size, 0 : part.size],
            )


def _store(indices, found, end, first: int, size: int, part, chunk: int, tokens: int) -> None:
    """Store the indices of a chunk where those of the chunks before end."""
    results = found
    if indices.dtype != nl.int32:
        results = nl.ndarray(found.shape, dtype=indices.dtype, buffer=nl.sbuf)
        nisa.tensor_copy(dst=results, src=found)
    for i in range(size):
        line = results[i * _LANES : i * _LANES + 1, 0:chunk]
        row = (first + i) * tokens
        if part.index > 0:
            where = end[i * _LANES : i * _LANES + 1, :]
            nisa.dma_copy(
                dst=indices.reshape((indices.shape[0] * tokens, 1)).ap(
                    pattern=[[chunk, 1], [1, chunk]], offset=row, scalar_offset=where, indirect_dim=0
                ),
                src=line,
            )
        else:
            nisa.dma_copy(dst=indices[first + i : first + i + 1, 0:chunk], src=line)
