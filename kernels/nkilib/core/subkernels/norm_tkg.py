"""RMSNorm and LayerNorm of few rows, transposed: what :mod:`.rmsnorm_tkg` and :mod:`.layernorm_tkg` share.

    y = x * rstd * gamma                 rstd = 1 / sqrt(mean(x^2) + eps)             RMSNorm
    y = (x - mean) * rstd * gamma + beta rstd = 1 / sqrt(mean((x - mean)^2) + eps)    LayerNorm

Input [BxS, H], output [128, BxS, H1] with H1 = H / 128: the hidden dimension lies on the partitions, as the
matmul after it contracts it. H is cut into one chunk for each core, each chunk is seen as (128, H1 / chunks),
and the chunks lie side by side: y[p, r, c * H1 / n + j] is column c * H / n + p * H1 / n + j of row r. With
`hidden_dim_tp` H is seen as (H1, 128), and y[p, r, j] is column j * 128 + p.

Two ways, chosen by where the input is and how many rows there are:

- **Spread** (few rows, or input in SBUF): the input is loaded into the layout of the
  output, in pieces of H1 / n elements. Scalar engine: squares; vector engine: their sums over H1; tensor
  engine: the sums over the partitions, by a matmul with ones, which leaves them in every partition; scalar
  engine: rsqrt; vector engine: times gamma (while the sums are made), then times rstd.
- **By rows** (else): each row is loaded into a partition, in one piece. Scalar engine: squares and their sum,
  one instruction for 128 rows; tensor engine: 128 columns at a time times diag(rstd), which transposes and
  scales at once; vector engine: times gamma, from PSUM to the output. For 16-bit inputs the diagonal is the
  sum of two bf16 matrices, so that rstd keeps 16 bits.

Each core makes all rows, or, above a threshold and if they are even, half of them; the halves are exchanged
if the output is in SBUF.

Kept in SBUF, bytes per partition: gamma and beta H1 elements each; spread: H1 * rows elements of the input
and twice as many of fp32; by rows: H elements of the input, 8 KiB for squares, and without output in SBUF
H1 * rows elements of the output.
"""

import nki.isa as nisa
import nki.language as nl

from ..utils.allocator import SbufManager, create_auto_alloc_manager, sizeinbytes
from ..utils.kernel_assert import assert_shape, kernel_assert
from ..utils.kernel_helpers import div_ceil, get_verified_program_sharding_info, is_hbm_buffer
from ..utils.projection import load_aside
from ..utils.tensor_view import TensorView
from ..utils.tiled_range import TiledRange

SPREAD_ROWS = 16
_SPREAD_PIECES = 1024  # elements of a partition up to which more rows are spread too
_SPREAD_ELEMENTS = 4096  # of one tile and partition: 16 KiB of fp32
_SQUARES = 4096  # columns that one instruction squares
_STATISTICS = 512  # columns that one bn_stats takes
_BANK = 512  # fp32 elements of a PSUM bank


class Norm(nl.NKIObject):
    """One call: its tensors as views, its options, and where its tiles come from.

    Attributes:
        input: [BxS, H] in HBM or [128, BxS, H1] in SBUF.
        output: [128, BxS, H1].
        gamma: [1, H] in HBM.
        beta: the same, or None.
        centred: True for LayerNorm.
        eps: added to the mean of the squares.
        hidden: elements that means are over.
        chunks: of H, in the layout.
        transposed: H is seen as (H1, 128).
        sbm: what allocates.
        use_heap: on the heap, not the stack.
        heap_tiles: how many tiles are on the heap.
        residual: [BxS, H] in HBM, added to the input, or None; `output_residual` takes the sum.
    """

    def __init__(self, name: str, input, gamma, output, beta, eps: float, sbm: SbufManager, use_heap: bool):
        view = TensorView(input)
        self.output = TensorView(output)
        kernel_assert(
            self.output.get_dim() == 3 and self.output.shape[0] == 128,
            f"{name}: output is [128, BxS, H // 128], got {output.shape}",
        )
        hidden = self.output.shape[2] * 128
        if view.get_dim() == 3 and is_hbm_buffer(view.base_tensor):
            view = view.flatten_dims(0, 1)
        if is_hbm_buffer(view.base_tensor):
            assert_shape(view, (self.output.shape[1], hidden), "input", f"{name}: [BxS, H] as output has it")
        else:
            assert_shape(view, self.output.shape, "input", f"{name}: in SBUF it has the shape of output")
        self.input = view
        self.gamma = TensorView(gamma)
        self.beta = None if beta is None else TensorView(beta)
        assert_shape(self.gamma, (1, hidden), "gamma", f"{name}: [1, H]")
        if beta is not None:
            assert_shape(self.beta, (1, hidden), "beta", f"{name}: [1, H]")
        self.centred = False
        self.eps = eps
        self.hidden = hidden
        self.chunks = 1
        self.transposed = False
        self.sbm = create_auto_alloc_manager() if sbm is None else sbm
        self.use_heap = use_heap
        self.heap_tiles = 0
        self.residual = None
        self.output_residual = None

    def set_hidden_actual(self, name: str, hidden_actual) -> None:
        """Take means over `hidden_actual` elements; None leaves them over H."""
        if hidden_actual is not None:
            kernel_assert(
                0 < hidden_actual <= self.hidden,
                f"{name}: hidden_actual is in (0, H = {self.hidden}], got {hidden_actual}",
            )
            self.hidden = hidden_actual

    def tile(self, shape, dtype):
        """A tile in SBUF until :meth:`free`."""
        if self.use_heap:
            self.heap_tiles += 1
            return self.sbm.alloc_heap(shape, dtype)
        return self.sbm.alloc_stack(shape, dtype)

    def free(self, kept: int) -> None:
        """Free all tiles but the first `kept` ones of the heap; the stack is freed by its scope."""
        while self.heap_tiles > kept:
            self.sbm.pop_heap()
            self.heap_tiles -= 1


def run_norm(norm: Norm, name: str, threshold: int, single_core: bool):
    """Compute the norm; above `threshold` rows the cores share them unless each is alone."""
    _, cores, core = get_verified_program_sharding_info(name, (0, 1), 2)
    rows, h1 = norm.output.shape[1], norm.output.shape[2]
    if not norm.transposed and not single_core:
        norm.chunks = cores
    kernel_assert(
        h1 % norm.chunks == 0,
        f"{name}: H // 128 = {h1} does not divide over {norm.chunks} chunks, one a core",
    )
    to_hbm = is_hbm_buffer(norm.output.base_tensor)
    shared = cores == 2 and not single_core and rows > threshold and rows % 2 == 0
    count = rows // 2 if shared else rows
    first = core * count if shared else 0

    norm.sbm.open_scope(name=name)
    gamma = _weights(norm, norm.gamma)
    beta = None if norm.beta is None else _weights(norm, norm.beta)
    by_rows = is_hbm_buffer(norm.input.base_tensor) and (
        not _is_spread(count, h1) or norm.residual is not None
    )
    if by_rows:
        size = _rows_of_a_tile(norm, to_hbm)
        identity = _identity(norm, min(size, count))
    else:
        size = max(1, _SPREAD_ELEMENTS // h1)
        ones = norm.tile((128, 128), nl.float32)
        nisa.memset(dst=ones, value=1.0)
        eps = norm.tile((128, 1), nl.float32)
        nisa.memset(dst=eps, value=norm.eps)
    kept = norm.heap_tiles
    for tile in TiledRange(count, size):
        start = first + tile.start_offset
        norm.sbm.open_scope(name=f"{name}_rows")
        target = norm.output.slice(1, start, start + tile.size)
        result = target
        if to_hbm:
            result = TensorView(norm.tile((128, tile.size, h1), norm.output.dtype))
        if by_rows:
            _norm_by_rows(norm, start, tile.size, gamma, beta, identity, result)
        else:
            _norm_spread(norm, start, tile.size, gamma, beta, eps, ones, result)
        if to_hbm:
            _store(target, result, cores, core, shared)
        norm.sbm.close_scope()
        norm.free(kept)
    if shared and not to_hbm:
        nisa.sendrecv(
            src=norm.output.slice(1, first, first + count).get_view(),
            dst=norm.output.slice(1, count - first, 2 * count - first).get_view(),
            send_to_rank=1 - core,
            recv_from_rank=1 - core,
            pipe_id=0,
        )
    norm.sbm.close_scope()
    norm.free(0)


def _is_spread(rows: int, h1: int) -> bool:
    """Whether the input is loaded into the layout of the output, in small pieces."""
    return rows <= SPREAD_ROWS or rows * h1 <= _SPREAD_PIECES


def _store(target, result, cores: int, core: int, shared: bool) -> None:
    """Store a tile; rows that both cores have are stored half by each."""
    if cores == 2 and not shared:
        target = target.slice(0, core * 64, core * 64 + 64)
        result = result.slice(0, core * 64, core * 64 + 64)
    nisa.dma_copy(dst=target.get_view(), src=result.get_view())


def _in_layout(norm: Norm, columns):
    """A view [rows, H] as [128, rows, chunks, H1 / chunks], the layout of the output."""
    h1 = norm.output.shape[2]
    split = columns.reshape_dim(1, (norm.chunks, 128, h1 // norm.chunks))
    return split.permute((2, 0, 1, 3))


def _weights(norm: Norm, weights):
    """Gamma or beta as [128, H1]."""
    h1 = norm.output.shape[2]
    tile = norm.tile((128, h1), weights.dtype)
    if not norm.transposed:
        view = TensorView(tile).reshape_dim(1, (norm.chunks, -1)).expand_dim(1)
        load_aside(view.get_view(), _in_layout(norm, weights).get_view())
        return tile
    _load_transposed(norm, tile, weights.reshape_dim(1, (h1, 128)).flatten_dims(0, 1))
    return tile


def _load(target, source) -> None:
    """A DMA whose descriptors are made before the kernel runs: it starts about 1.5 us earlier."""
    nisa.dma_copy(dst=target.get_view(), src=source.get_view(), dge_mode=nisa.dge_mode.none)


def _load_transposed(norm: Norm, tile, lines) -> None:
    """tile [128, lines] = lines [lines, 128] of HBM, loaded in pieces of 128 elements and transposed."""
    for part in TiledRange(lines.shape[0], 128):
        loaded = norm.tile((part.size, 128), lines.dtype)
        _load(TensorView(loaded), lines.slice(0, part.start_offset, part.end_offset))
        turned = nl.ndarray((128, part.size), dtype=lines.dtype, buffer=nl.psum)
        nisa.nc_transpose(dst=turned, data=loaded)
        nisa.tensor_copy(dst=tile[:, part.start_offset : part.end_offset], src=turned)


# --- hidden dimension spread over the partitions


def _norm_spread(norm: Norm, start: int, rows: int, gamma, beta, eps, ones, result) -> None:
    """result = norm of rows, all in [128, rows, H1]."""
    h1 = norm.output.shape[2]
    shape = (128, rows, h1)
    if is_hbm_buffer(norm.input.base_tensor):
        x = norm.tile(shape, norm.input.dtype)
        source = norm.input.slice(0, start, start + rows)
        if norm.transposed:
            lines = source.reshape_dim(1, (h1, 128)).flatten_dims(0, 1)
            _load_transposed(norm, x.reshape((128, rows * h1)), lines)
        else:
            split = TensorView(x).reshape_dim(2, (norm.chunks, h1 // norm.chunks))
            _load(split, _in_layout(norm, source))
    else:
        x = norm.input.slice(1, start, start + rows).get_view()
    sums = norm.tile((128, rows), nl.float32)
    if norm.centred:
        nisa.tensor_reduce(dst=sums, data=x, op=nl.add, axis=2)
        mean = norm.tile((128, rows), nl.float32)
        total = nl.ndarray((128, rows), dtype=nl.float32, buffer=nl.psum)
        nisa.nc_matmul(dst=total, stationary=ones, moving=sums)
        nisa.tensor_scalar(dst=mean, data=total, op0=nl.multiply, operand0=1.0 / norm.hidden)
        centred = norm.tile(shape, nl.float32)
        nisa.tensor_tensor(dst=centred, data1=x, data2=_over_columns(mean, h1), op=nl.subtract)
        x = centred
    squares = norm.tile(shape, nl.float32)
    nisa.activation(dst=squares, op=nl.square, data=x)
    nisa.tensor_reduce(dst=sums, data=squares, op=nl.add, axis=2)
    nisa.tensor_tensor(dst=squares, data1=x, data2=_over_rows(gamma, rows), op=nl.multiply)
    total = nl.ndarray((128, rows), dtype=nl.float32, buffer=nl.psum)
    nisa.nc_matmul(dst=total, stationary=ones, moving=sums)
    rstd = norm.tile((128, rows), nl.float32)
    nisa.activation(dst=rstd, op=nl.rsqrt, data=total, scale=1.0 / norm.hidden, bias=eps)
    if beta is None:
        nisa.tensor_tensor(
            dst=result.get_view(), data1=squares, data2=_over_columns(rstd, h1), op=nl.multiply
        )
    else:
        nisa.tensor_tensor(dst=squares, data1=squares, data2=_over_columns(rstd, h1), op=nl.multiply)
        nisa.tensor_tensor(dst=result.get_view(), data1=squares, data2=_over_rows(beta, rows), op=nl.add)


def _over_rows(weights, rows: int):
    """[128, H1] as [128, rows, H1]."""
    return TensorView(weights).expand_dim(1).broadcast(1, rows).get_view()


def _over_columns(statistics, h1: int):
    """[128, rows] as [128, rows, H1]."""
    return TensorView(statistics).expand_dim(2).broadcast(2, h1).get_view()


# --- rows on the partitions


def _rows_of_a_tile(norm: Norm, to_hbm: bool) -> int:
    """As many rows, at most 128, as two tiles of the output fit beside two of the input."""
    if not to_hbm:
        return 128
    h1 = norm.output.shape[2]
    left = norm.sbm.get_free_space() - 2 * h1 * 128 * sizeinbytes(norm.input.dtype) - 32768
    return max(16, min(128, left // (2 * h1 * sizeinbytes(norm.output.dtype)) // 16 * 16))


def _identity(norm: Norm, rows: int):
    """The identity that becomes diag(rstd)."""
    dtype = nl.float32 if norm.input.dtype == nl.float32 else nl.bfloat16
    return nl.shared_identity_matrix(rows, dtype=dtype)


def _norm_by_rows(norm: Norm, start: int, rows: int, gamma, beta, identity, result) -> None:
    """result [128, rows, H1] = norm of rows that are loaded into a partition each."""
    h1 = norm.output.shape[2]
    width = h1 * 128
    x = norm.tile((rows, width), norm.input.dtype)
    _load(TensorView(x), norm.input.slice(0, start, start + rows))
    if norm.residual is not None:
        added = norm.tile((rows, width), norm.residual.dtype)
        _load(TensorView(added), norm.residual.slice(0, start, start + rows))
        nisa.tensor_tensor(dst=x, data1=x, data2=added, op=nl.add)
        nisa.dma_copy(dst=norm.output_residual.slice(0, start, start + rows).get_view(), src=x)
    rstd = norm.tile((rows, 1), nl.float32)
    if norm.centred:
        moments = _moments(norm, x)
        nisa.tensor_scalar(dst=x, data=x, op0=nl.subtract, operand0=moments[:, 0:1])
        nisa.tensor_scalar(dst=rstd, data=moments[:, 1:2], op0=nl.add, operand0=norm.eps)
    else:
        squares = _sum_of_squares(norm, x)
        nisa.tensor_scalar(
            dst=rstd,
            data=squares,
            op0=nl.multiply,
            operand0=1.0 / norm.hidden,
            op1=nl.add,
            operand1=norm.eps,
        )
    # Not by the scalar engine, which would load another table than that of square.
    nisa.tensor_scalar(dst=rstd, data=rstd, op0=nl.rsqrt, operand0=0.0, engine=nisa.gpsimd_engine)
    diagonals = _scaled_identity(norm, identity[0:rows, 0:rows], rstd)

    columns = TensorView(x).reshape_dim(1, (h1, 128))  # [rows, H1, 128]: slice j of the output takes [:, j]
    if not norm.transposed:
        columns = TensorView(x).reshape_dim(1, (norm.chunks, 128, h1 // norm.chunks))
    for group in TiledRange(h1, _BANK // rows):
        bank = nl.ndarray((128, group.size, rows), dtype=nl.float32, buffer=nl.psum)
        for k in range(group.size):
            j = group.start_offset + k
            if norm.transposed:
                data = columns.select(1, j)
            else:
                data = columns.select(1, j // (h1 // norm.chunks)).select(2, j % (h1 // norm.chunks))
            for diagonal in diagonals:
                nisa.nc_matmul(dst=bank[:, k, :], stationary=data.get_view(), moving=diagonal)
        target = result.permute((0, 2, 1)).slice(1, group.start_offset, group.end_offset).get_view()
        _times_weights(norm, target, bank, gamma, beta, group, rows)


def _sum_of_squares(norm: Norm, x):
    """[rows, 1] of [rows, H]."""
    rows, width = x.shape
    parts = div_ceil(width, _SQUARES)
    sums = norm.tile((rows, parts), nl.float32)
    squares = norm.tile((rows, min(width, _SQUARES)), nl.bfloat16)
    for part in TiledRange(width, _SQUARES):
        nisa.activation_reduce(
            dst=squares[:, 0 : part.size],
            op=nl.square,
            data=x[:, part.start_offset : part.end_offset],
            reduce_op=nl.add,
            reduce_res=sums[:, part.index : part.index + 1],
        )
    if parts == 1:
        return sums
    total = norm.tile((rows, 1), nl.float32)
    nisa.tensor_reduce(dst=total, data=sums, op=nl.add, axis=1)
    return total


def _moments(norm: Norm, x):
    """Mean and variance [rows, 2] of [rows, H]."""
    rows, width = x.shape
    parts = norm.tile((rows, div_ceil(width, _STATISTICS), 6), nl.float32)
    for part in TiledRange(width, _STATISTICS):
        nisa.bn_stats(dst=parts[:, part.index, :], data=x[:, part.start_offset : part.end_offset])
    moments = norm.tile((rows, 2), nl.float32)
    nisa.bn_aggr(dst=moments, data=parts.reshape((rows, parts.shape[1] * 6)))
    return moments


def _times_weights(norm: Norm, target, bank, gamma, beta, group, rows: int) -> None:
    """target [128, columns, rows] = bank * gamma + beta."""
    part = TensorView(gamma).slice(1, group.start_offset, group.end_offset).expand_dim(2).broadcast(2, rows)
    if beta is None:
        nisa.tensor_tensor(dst=target, data1=bank, data2=part.get_view(), op=nl.multiply)
        return
    added = TensorView(beta).slice(1, group.start_offset, group.end_offset).expand_dim(2).broadcast(2, rows)
    scaled = norm.tile(bank.shape, nl.float32)
    nisa.tensor_tensor(dst=scaled, data1=bank, data2=part.get_view(), op=nl.multiply)
    nisa.tensor_tensor(dst=target, data1=scaled, data2=added.get_view(), op=nl.add, engine=nisa.gpsimd_engine)


def _scaled_identity(norm: Norm, identity, rstd):
    """diag(rstd) as a list of matrices whose sum it is: one of fp32, or two of bf16."""
    rows = identity.shape[0]
    diagonal = norm.tile((rows, rows), identity.dtype)
    nisa.tensor_scalar(dst=diagonal, data=identity, op0=nl.multiply, operand0=rstd)
    if identity.dtype == nl.float32:
        return [diagonal]
    rounded = norm.tile((rows, 1), nl.bfloat16)
    nisa.tensor_copy(dst=rounded, src=rstd)
    rest = norm.tile((rows, 1), nl.float32)
    nisa.tensor_tensor(dst=rest, data1=rstd, data2=rounded, op=nl.subtract)
    low = norm.tile((rows, rows), identity.dtype)
    nisa.tensor_scalar(dst=low, data=identity, op0=nl.multiply, operand0=rest)
    return [diagonal, low]
