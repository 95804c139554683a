"""The input of the token-generation MLP: hidden plus residual, normalized, with H along the partitions.

H is cut into a chunk for each core; chunk c is (128, H / 128 / cores), and element (p, j) of it lies at
[p, t, c * (H / 128 / cores) + j]: rows of memory that are as long as they can be, in the order in which the
weights of the projections are read in long rows too.
"""

import nki.isa as nisa
import nki.language as nl

from ...utils.common_types import NormType
from ..mlp_parameters import PARTITIONS


def load_hidden(a, width):
    """Load, add the residual, store the sum, normalize.

    Args:
        a: the arguments.
        width: tokens of the result, at least T; those beyond are 0.

    Returns:
        ([128, K, width], sum): this core's part of x in SBUF, K blocks of 128 rows of H (row p * K + k of the
        part at [p, k]); and the sum with the residual in HBM, or None.
    """
    blocks = a.hidden_size // PARTITIONS // a.programs
    mine = nl.ndarray((PARTITIONS, width, blocks), dtype=a.dtype, buffer=nl.sbuf)
    if width > a.tokens:
        nisa.memset(dst=mine, value=0.0)
    target = mine[:, nl.ds(0, a.tokens), :]
    stored = None
    if a.norm_type == NormType.NO_NORM:
        stored = _sum_with_residual(a, target, a.program, 1)
    else:
        everything = nl.ndarray(
            (PARTITIONS, a.tokens, a.programs, blocks), dtype=a.dtype, buffer=nl.sbuf
        )
        stored = _sum_with_residual(a, everything, 0, a.programs)
        _normalize(a, everything, target)
    return mine.ap([[width * blocks, PARTITIONS], [1, blocks], [blocks, width]]), stored


def _sum_with_residual(a, target, first, chunks):
    """target = hidden + residual for `chunks` of the cores' chunks of H from `first` on; stores this core's."""
    stored = None
    if a.hidden_in_sbuf:
        blocks = a.hidden_size // PARTITIONS // a.programs
        nisa.tensor_copy(dst=target, src=a.hidden[:, :, nl.ds(first * blocks, chunks * blocks)])
    else:
        nisa.dma_copy(dst=target, src=_chunks(a, a.hidden, first, chunks))
    if a.fused_add is None:
        return stored
    other = nl.ndarray(target.shape, dtype=a.fused_add.dtype, buffer=nl.sbuf)
    if a.hidden_in_sbuf:
        nisa.tensor_copy(dst=other, src=a.fused_add[:, :, nl.ds(first * blocks, chunks * blocks)])
    else:
        nisa.dma_copy(dst=other, src=_chunks(a, a.fused_add, first, chunks))
    nisa.tensor_tensor(dst=target, data1=target, data2=other, op=nl.add)
    if a.store_fused_add:
        stored = nl.ndarray(a.hidden.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        part = target if chunks == 1 else target[:, :, a.program, :]
        nisa.dma_copy(dst=_chunks(a, stored, a.program, 1), src=part)
    return stored


def _chunks(a, tensor, first, chunks):
    """[B, S, H] in HBM seen as [128, T, chunks, H / 128 / cores], or without `chunks` where it is 1."""
    size = a.hidden_size // a.programs
    blocks = size // PARTITIONS
    rows = tensor.reshape((a.tokens, a.hidden_size))[:, nl.ds(first * size, chunks * size)]
    if chunks == 1:
        return rows.ap([[blocks, PARTITIONS], [a.hidden_size, a.tokens], [1, blocks]])
    return rows.ap([[blocks, PARTITIONS], [a.hidden_size, a.tokens], [size, chunks], [1, blocks]])


def _normalize(a, x, target):
    """target = this core's chunk of x [128, T, chunks, K], normalized over all of H."""
    centred = x
    if a.norm_type == NormType.LAYER_NORM:
        centred = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
        mean = nl.ndarray((PARTITIONS, a.tokens), dtype=nl.float32, buffer=nl.sbuf)
        total = _sum_over_hidden(x)
        nisa.tensor_scalar(dst=mean, data=total, op0=nl.multiply, operand0=1.0 / a.hidden_size)
        nisa.tensor_tensor(dst=centred, data1=x, data2=_per_token(mean, x), op=nl.subtract)
    squares = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=squares, op=nl.square, data=centred)
    total = _sum_over_hidden(squares)
    eps = nl.ndarray((PARTITIONS, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=eps, value=a.eps)
    scale = nl.ndarray((PARTITIONS, a.tokens), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=scale, op=nl.rsqrt, data=total, scale=1.0 / a.hidden_size, bias=eps)

    mine = centred[:, :, a.program, :]
    nisa.tensor_tensor(dst=target, data1=mine, data2=_per_token(scale, mine), op=nl.multiply)
    if a.norm_weights is not None and a.norm_type != NormType.RMS_NORM_SKIP_GAMMA:
        weights = _load_chunk(a, a.norm_weights)
        nisa.tensor_tensor(dst=target, data1=target, data2=_per_block(weights, target), op=nl.multiply)
    if a.norm_bias is not None:
        bias = _load_chunk(a, a.norm_bias)
        nisa.tensor_tensor(dst=target, data1=target, data2=_per_block(bias, target), op=nl.add)


def _sum_over_hidden(x):
    """x [128, T, ...] summed over everything but T: [128, T] in PSUM, the same in every partition."""
    tokens = x.shape[1]
    partial = nl.ndarray((PARTITIONS, tokens), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=partial, op=nl.add, data=x, axis=(2, 3))
    ones = nl.ndarray((PARTITIONS, PARTITIONS), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=ones, value=1.0)
    total = nl.ndarray((PARTITIONS, tokens), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=ones, moving=partial)
    return total


def _per_token(column, like):
    """[128, T] seen in the shape of `like`, [128, T, ...]."""
    tokens = like.shape[1]
    pattern = [[column.shape[1], PARTITIONS], [1, tokens]]
    for size in like.shape[2:]:
        pattern.append([0, size])
    return column.ap(pattern)


def _per_block(row, like):
    """[128, K] seen as [128, T, K], the shape of `like`."""
    return row.ap([[row.shape[1], PARTITIONS], [0, like.shape[1]], [1, like.shape[2]]])


def _load_chunk(a, vector):
    """This core's chunk of a vector [1, H], as [128, K]."""
    size = a.hidden_size // a.programs
    tile = nl.ndarray((PARTITIONS, size // PARTITIONS), dtype=vector.dtype, buffer=nl.sbuf)
    part = vector[:, nl.ds(a.program * size, size)]
    nisa.dma_copy(dst=tile, src=part.reshape((PARTITIONS, size // PARTITIONS)))
    return tile
