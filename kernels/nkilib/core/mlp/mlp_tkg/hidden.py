"""The input of the token-generation MLP: hidden plus residual, normalized, with H along the partitions.

The rows of tokens are brought in as runs of columns, so that many partitions, and with them many DMA engines,
take part; sums of squares are along such rows. The tensor engine turns them: block (k, b) of the result holds
rows k * W + p * B + b of H, p the partition, for a chunk of W = 128 B rows. Weights in that order are read in
runs of B rows (:func:`rows_of_weights`), those of the norm in runs of B elements: there are few chunks.
Statistics arrive while the rows are turned and are multiplied in last.
"""

from dataclasses import dataclass
from typing import Any

import nki.isa as nisa
import nki.language as nl

from ...utils.common_types import NormType
from ...utils.projection import AT_ONCE, BANK, identity, load_aside
from ...utils.tensor_view import TensorView
from ...utils.tiled_range import TiledRange
from ..mlp_parameters import PARTITIONS
from .contraction import column_group

MOST_CHUNKS = 2  # of a core: its weights of the norm take a descriptor for each partition of each chunk


@dataclass
class HiddenSource(nl.NKIObject):
    """What :func:`load_hidden` takes: the same attributes as those of MlpArguments; by default all of H."""

    hidden: Any
    tokens: int
    hidden_size: int
    dtype: Any
    hidden_in_sbuf: bool
    programs: int = 1
    program: int = 0
    fused_add: Any = None
    store_fused_add: bool = False
    norm_type: NormType = NormType.NO_NORM
    norm_weights: Any = None
    norm_bias: Any = None


@dataclass
class Hidden(nl.NKIObject):
    """This core's part of x in SBUF.

    Attributes:
        x: [128, K, width], K blocks of 128 rows; tokens from T on are 0.
        chunks: into how many chunks the K blocks are grouped, see :func:`rows_of_weights`.
    """

    x: Any
    chunks: int


def rows_of_weights(weights, chunks):
    """Weights [H, N] in HBM seen as [128, chunks, B, N], in the order of the blocks of :class:`Hidden`."""
    blocks = weights.shape[0] // PARTITIONS // chunks
    view = TensorView(weights).reshape_dim(0, (chunks, PARTITIONS, blocks))
    return view.permute((1, 0, 2, 3))


def load_hidden(a, width):
    """Load, add the residual, store the sum, normalize.

    Args:
        a: :class:`HiddenSource` or MlpArguments.
        width: tokens of the result, at least T.

    Returns:
        (:class:`Hidden`, the sum with the residual in HBM or None).
    """
    return _from_sbuf(a, width) if a.hidden_in_sbuf else _from_hbm(a, width)


# --- rows of tokens in HBM


@dataclass
class _Cut(nl.NKIObject):
    """How rows of tokens are cut, so that they fill partitions.

    Attributes:
        chunks: of a core's part of H.
        runs: of a chunk, each for so many of the partitions it is turned to.
        width: columns of a run.
        cores: whose parts of H lie in one tile.
    """

    chunks: int
    runs: int
    width: int
    cores: int


def _cut(a):
    blocks = a.hidden_size // PARTITIONS // a.programs
    chunks = max(1, min(MOST_CHUNKS, PARTITIONS // (a.tokens * a.programs), blocks))
    while blocks % chunks != 0:
        chunks -= 1
    runs = PARTITIONS // column_group(1)
    while runs > 1 and a.tokens * a.programs * chunks * runs > PARTITIONS:
        runs //= 2
    cores = a.programs if a.tokens * a.programs * chunks <= PARTITIONS else 1
    return _Cut(chunks, runs, blocks * PARTITIONS // chunks // runs, cores)


def _from_hbm(a, width):
    cut = _cut(a)
    first, parts = 0, []
    if a.norm_type == NormType.NO_NORM and not a.store_fused_add:  # only this core's part is needed
        cut.cores = 1
        first = a.program
        parts.append(_load_rows(a, a.program, cut))
    else:
        for core in range(0, a.programs, cut.cores):
            parts.append(_load_rows(a, core, cut))
    mine = parts[(a.program - first) // cut.cores]
    stored = _store_sum(a, parts, cut) if a.store_fused_add else None

    rows = mine.shape[0]
    ones = identity(rows, a.dtype)
    mean, scale = None, None
    if a.norm_type != NormType.NO_NORM:
        mean, scale = _statistics_of_rows(a, parts, ones)
    blocks = a.hidden_size // PARTITIONS // a.programs // cut.chunks
    result = _Normalized(a, cut.chunks, blocks, width, mean, scale)

    lanes = PARTITIONS // cut.runs
    before = (a.program - first) % cut.cores * cut.chunks
    chosen = TensorView(ones).reshape_dim(1, (a.tokens, cut.cores * cut.chunks, cut.runs))
    chosen = chosen.slice(2, before, before + cut.chunks)
    for group in TiledRange(blocks, BANK // (a.tokens * cut.chunks)):
        turned = nl.ndarray((PARTITIONS, group.size, a.tokens, cut.chunks), dtype=nl.float32, buffer=nl.psum)
        for b in range(group.size):
            block = group.start_offset + b
            for run in range(cut.runs):
                nisa.nc_matmul(
                    dst=turned[nl.ds(run * lanes, lanes), b, :, :],
                    stationary=mine[:, block : block + (lanes - 1) * blocks + 1 : blocks],
                    moving=chosen.select(3, run).get_view(),
                    tile_position=(0, run * lanes),
                    tile_size=(PARTITIONS, lanes),
                )
        result.take(TensorView(turned).permute((0, 3, 1, 2)), group.start_offset, group.size)
    return result.hidden(), stored


def _rows(a, tensor, core, cut):
    """The parts of H of one tile, from that of `core` on, in [B, S, H] in HBM seen as [T, runs, columns]."""
    size = a.hidden_size // a.programs
    rows = TensorView(tensor.reshape((a.tokens, a.hidden_size)))
    rows = rows.slice(1, core * size, (core + cut.cores) * size)
    return rows.reshape_dim(1, (cut.cores * cut.chunks * cut.runs, cut.width))


def _load_rows(a, core, cut):
    """hidden + residual of the parts of H from that of `core` on, [T * runs, columns] in SBUF."""
    shape = (a.tokens * cut.cores * cut.chunks * cut.runs, cut.width)
    rows = nl.ndarray(shape, dtype=a.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=rows, src=_rows(a, a.hidden, core, cut).get_view(), dge_mode=AT_ONCE)
    if a.fused_add is not None:
        residual = nl.ndarray(shape, dtype=a.fused_add.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=residual, src=_rows(a, a.fused_add, core, cut).get_view(), dge_mode=AT_ONCE)
        nisa.tensor_tensor(dst=rows, data1=rows, data2=residual, op=nl.add)
    return rows


def _store_sum(a, parts, cut):
    """The sum with the residual in HBM: each core stores some of the tokens."""
    stored = nl.ndarray(a.hidden.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    first = a.tokens * a.program // a.programs
    end = a.tokens * (a.program + 1) // a.programs
    if first < end:
        for index in range(len(parts)):
            rows = parts[index].shape[0] // a.tokens
            target = _rows(a, stored, index * cut.cores, cut).slice(0, first, end)
            source = parts[index][nl.ds(first * rows, (end - first) * rows), :]
            nisa.dma_copy(dst=target.get_view(), src=source)
    return stored


def _statistics_of_rows(a, parts, ones):
    """(mean or None, 1 / deviation) of each token, [128, T] in SBUF, every partition alike.

    `parts` are [T * runs, columns]; sums over the runs of a token are products with a matrix of ones and
    zeros, made of the identity `ones`.
    """
    rows = ones.shape[0]
    token_of_row = nl.ndarray((rows, a.tokens), dtype=nl.float32, buffer=nl.sbuf)
    grouped = ones.reshape((rows, a.tokens, rows // a.tokens))
    nisa.tensor_reduce(dst=token_of_row, op=nl.add, data=grouped, axis=2)

    mean = None
    minus_mean = None
    if a.norm_type == NormType.LAYER_NORM:
        sums = []
        for part in parts:
            total = nl.ndarray((rows, 1), dtype=nl.float32, buffer=nl.sbuf)
            nisa.tensor_reduce(dst=total, op=nl.add, data=part, axis=1)
            sums.append(total)
        mean = nl.ndarray((PARTITIONS, a.tokens), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(
            dst=mean, data=_total(sums, token_of_row), op0=nl.multiply, operand0=1.0 / a.hidden_size
        )
        per_row = nl.ndarray((rows, 1), dtype=nl.float32, buffer=nl.psum)
        same_token = TensorView(token_of_row).expand_dim(2).broadcast(2, rows // a.tokens).get_view()
        for total in sums:
            nisa.nc_matmul(dst=per_row, stationary=same_token, moving=total)
        minus_mean = nl.ndarray((rows, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=minus_mean, data=per_row, op0=nl.multiply, operand0=-1.0 / a.hidden_size)

    sums = []
    for part in parts:
        total = nl.ndarray((rows, 1), dtype=nl.float32, buffer=nl.sbuf)
        squares = nl.ndarray(part.shape, dtype=nl.bfloat16, buffer=nl.sbuf)
        nisa.activation_reduce(
            dst=squares, op=nl.square, data=part, bias=minus_mean, reduce_op=nl.add, reduce_res=total
        )
        sums.append(total)
    return mean, _inverse_deviation(a, _total(sums, token_of_row))


def _total(sums, token_of_row):
    """Sums of rows, each [R, 1], added up for each token: [128, T] in PSUM, every partition alike."""
    total = nl.ndarray((PARTITIONS, token_of_row.shape[1]), dtype=nl.float32, buffer=nl.psum)
    for part in sums:
        repeated = TensorView(part).broadcast(1, PARTITIONS).get_view()
        nisa.nc_matmul(dst=total, stationary=repeated, moving=token_of_row)
    return total


def _inverse_deviation(a, squares):
    """1 / sqrt(squares / H + eps) in SBUF."""
    eps = nl.ndarray((PARTITIONS, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=eps, value=a.eps)
    scale = nl.ndarray(squares.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=scale, op=nl.rsqrt, data=squares, scale=1.0 / a.hidden_size, bias=eps)
    return scale


# --- hidden in SBUF, with H along the partitions already


def _from_sbuf(a, width):
    everything = a.hidden
    if a.fused_add is not None:
        everything = nl.ndarray(a.hidden.shape, dtype=a.dtype, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=everything, data1=a.hidden, data2=a.fused_add, op=nl.add)
    mean, scale = None, None
    if a.norm_type != NormType.NO_NORM:
        mean, scale = _statistics_of_columns(a, everything)
    blocks = a.hidden_size // PARTITIONS // a.programs
    result = _Normalized(a, 1, blocks, width, mean, scale)
    mine = TensorView(everything).slice(2, a.program * blocks, (a.program + 1) * blocks)
    result.take(mine.expand_dim(1).permute((0, 1, 3, 2)), 0, blocks)
    return result.hidden(), None


def _statistics_of_columns(a, x):
    """As :func:`_statistics_of_rows`, of x [128, T, H / 128]."""
    mean = None
    centred = x
    if a.norm_type == NormType.LAYER_NORM:
        mean = nl.ndarray((PARTITIONS, a.tokens), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=mean, data=_total_of_columns(x), op0=nl.multiply, operand0=1.0 / a.hidden_size)
        centred = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
        per_token = TensorView(mean).expand_dim(2).broadcast(2, x.shape[2]).get_view()
        nisa.tensor_tensor(dst=centred, data1=x, data2=per_token, op=nl.subtract)
    squares = nl.ndarray(x.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=squares, op=nl.square, data=centred)
    return mean, _inverse_deviation(a, _total_of_columns(squares))


def _total_of_columns(x):
    """x [128, T, N] summed over partitions and N: [128, T] in PSUM, every partition alike."""
    partial = nl.ndarray((PARTITIONS, x.shape[1]), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=partial, op=nl.add, data=x, axis=2)
    ones = nl.ndarray((PARTITIONS, PARTITIONS), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=ones, value=1.0)
    total = nl.ndarray((PARTITIONS, x.shape[1]), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=ones, moving=partial)
    return total


# --- what both end with


class _Normalized(nl.NKIObject):
    """x = ((rows - mean) * weights * scale + bias), written a group of blocks at a time."""

    def __init__(self, a, chunks, blocks, width, mean: Any, scale: Any):
        self.tokens = a.tokens
        self.chunks = chunks
        self.x = nl.ndarray((PARTITIONS, chunks, blocks, width), dtype=a.dtype, buffer=nl.sbuf)
        if width > a.tokens:
            pad = TensorView(self.x).slice(3, a.tokens, width).get_view()
            nisa.memset(dst=pad, value=0.0)
        has_weights = a.norm_type in (NormType.RMS_NORM, NormType.LAYER_NORM)
        weights = _load_vector(a, a.norm_weights, chunks) if has_weights else None
        bias = _load_vector(a, a.norm_bias, chunks) if a.norm_bias is not None else None
        self.steps = []
        if mean is not None:
            self.steps.append((mean, nl.subtract))
        if weights is not None:
            self.steps.append((weights, nl.multiply))
        if scale is not None:
            self.steps.append((scale, nl.multiply))
        if bias is not None:
            self.steps.append((bias, nl.add))

    def take(self, rows, first, count):
        """Blocks `first` on of each chunk, from the view [128, chunks, count, T]."""
        end = first + count
        target = TensorView(self.x).slice(2, first, end).slice(3, 0, self.tokens).get_view()
        current = rows.get_view()
        if len(self.steps) == 0:
            nisa.tensor_copy(dst=target, src=current)
            return
        between = current
        if len(self.steps) > 1:
            between = nl.ndarray(
                (PARTITIONS, self.chunks, count, self.tokens), dtype=nl.float32, buffer=nl.sbuf
            )
        for index in range(len(self.steps)):
            operand, op = self.steps[index]
            if len(operand.shape) == 2:
                view = (
                    TensorView(operand)
                    .expand_dim(1)
                    .expand_dim(1)
                    .broadcast(1, self.chunks)
                    .broadcast(2, count)
                )
            else:
                view = TensorView(operand).slice(2, first, end).expand_dim(3).broadcast(3, self.tokens)
            written = target if index == len(self.steps) - 1 else between
            nisa.tensor_tensor(dst=written, data1=current, data2=view.get_view(), op=op)
            current = written

    def hidden(self):
        blocks, width = self.x.shape[2], self.x.shape[3]
        return Hidden(self.x.reshape((PARTITIONS, self.chunks * blocks, width)), self.chunks)


def _load_vector(a, vector, chunks):
    """This core's part of a vector [1, H], [128, chunks, blocks] in SBUF."""
    size = a.hidden_size // a.programs
    blocks = size // PARTITIONS // chunks
    tile = nl.ndarray((PARTITIONS, chunks, blocks), dtype=vector.dtype, buffer=nl.sbuf)
    part = TensorView(vector).slice(1, a.program * size, (a.program + 1) * size)
    view = part.reshape_dim(1, (chunks, PARTITIONS, blocks)).squeeze_dim(0).permute((1, 0, 2))
    load_aside(tile, view.get_view())
    return tile
