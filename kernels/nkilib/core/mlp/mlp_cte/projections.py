"""The three matrix products of context encoding, a block of tokens at a time.

Tokens are stationary: 128 of them are the columns of the array, and up to 512 columns of weights stream
through and are summed in a PSUM bank, [128 tokens, 512]. Each chunk of weights serves all tiles of the
block while it is in SBUF; a block's four tiles take four banks, and the other four are emptied meanwhile.
"""

from typing import Any

import nki.isa as nisa
import nki.language as nl

from ...utils.kernel_helpers import div_ceil, get_max_positive_value_for_dtype, get_nl_act_fn_from_type
from ...utils.tensor_view import TensorView
from ..mlp_parameters import PARTITIONS
from ..mlp_tkg.hidden import rows_of_weights
from .rows import pairs_of_rows
from .sharding import BANK, around, column_groups, column_tiles, cut

CHUNK_BYTES = 8192  # of weights in each partition that one DMA brings: 1 MiB
LOOKAHEAD = 3  # blocks of rows that are turned ahead of the products with them
STORES = 2  # sums with the residual stored with a chunk of weights
STORE_COLUMNS = 2048
SMALLEST_SCALE = 1e-5


def _multiply(dst, stationary, moving):
    """One product; operands of three dimensions are pairs of rows of fp8."""
    if len(stationary.shape) == 3:
        nisa.nc_matmul(
            dst=dst, stationary=stationary, moving=moving, perf_mode=nisa.matmul_perf_mode.double_row
        )
    else:
        nisa.nc_matmul(dst=dst, stationary=stationary, moving=moving)


class ColumnVector(nl.NKIObject):
    """A number for each column of a result, the same in all partitions; loaded where it is first needed.

    Attributes:
        tensor: [1, N] or, rows alike, [128, N] in HBM.
        loaded: parts of it in SBUF, [128, n], by their first column.
    """

    def __init__(self, tensor):
        self.tensor = tensor
        self.loaded = {}

    def at(self, tokens, span):
        """Its part for some columns, in as many partitions as there are tokens; spans never overlap."""
        key = str(span.start)
        if key not in self.loaded:
            tile = nl.ndarray((PARTITIONS, span.size), dtype=self.tensor.dtype, buffer=nl.sbuf)
            columns = TensorView(self.tensor).slice(1, span.start, span.start + span.size)
            if self.tensor.shape[0] == 1:
                columns = columns.broadcast(0, PARTITIONS)
            nisa.dma_copy(dst=tile, src=columns.get_view())
            self.loaded[key] = tile
        return self.loaded[key][nl.ds(0, tokens), :]


class Finish(nl.NKIObject):
    """What follows a product: result = sums * token scale * column scale + bias.

    Attributes:
        column_scale: :class:`ColumnVector` or None.
        static_scale: fp32 [128, 1] in SBUF, the scale of all columns, or None.
        bias: :class:`ColumnVector` or None.
    """

    def __init__(self, column_scale: Any = None, static_scale: Any = None, bias: Any = None):
        self.column_scale = column_scale
        self.static_scale = static_scale
        self.bias = bias

    def token_scale(self, scale, tokens):
        """`scale` [tokens, 1] or None, times the static scale."""
        if self.static_scale is None:
            return scale
        static = self.static_scale[nl.ds(0, tokens), :]
        if scale is None:
            return static
        both = nl.ndarray((tokens, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_tensor(dst=both, data1=scale, data2=static, op=nl.multiply)
        return both

    def is_by_token(self):
        """True if columns are all treated alike."""
        return self.column_scale is None and self.bias is None

    def apply(self, dst, sums, scale, span, index=0):
        """dst = the result, for the columns `span`; dst in SBUF, sums in PSUM, scale [tokens, 1] or None."""
        tokens = sums.shape[0]
        if self.is_by_token():
            if index % 2 == 1:
                nisa.activation(dst=dst, op=nl.copy, data=sums, scale=1.0 if scale is None else scale)
            elif scale is None:
                nisa.tensor_copy(dst=dst, src=sums, engine=nisa.engine.vector)
            else:
                nisa.tensor_scalar(dst=dst, data=sums, op0=nl.multiply, operand0=scale)
            return
        factor = 1.0 if scale is None else scale
        if self.column_scale is None or self.bias is None:
            vector = self.bias if self.column_scale is None else self.column_scale
            op = nl.add if self.column_scale is None else nl.multiply
            operand = vector.at(tokens, span)
            if scale is None:
                nisa.tensor_tensor(dst=dst, data1=sums, data2=operand, op=op)
            else:
                nisa.scalar_tensor_tensor(
                    dst=dst, data=sums, op0=nl.multiply, operand0=factor, op1=op, operand1=operand
                )
            return
        scaled = nl.ndarray(sums.shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.scalar_tensor_tensor(
            dst=scaled,
            data=sums,
            op0=nl.multiply,
            operand0=factor,
            op1=nl.multiply,
            operand1=self.column_scale.at(tokens, span),
        )
        nisa.tensor_tensor(dst=dst, data1=scaled, data2=self.bias.at(tokens, span), op=nl.add)


# --- gate and up


def gate_up(a, rows, columns, gate_finish, up_finish):
    """act(x Wgate) * (x Wup) for a block of tokens.

    Args:
        a: the arguments.
        rows: :class:`.rows.TurnedRows`.
        columns: span of the columns of the gate and up weights.
        gate_finish: :class:`Finish` of the gate projection.
        up_finish: that of the up projection.

    Returns:
        For each tile [tokens, columns.size] in SBUF, in the dtype of the products, or fp32 if it is to be
        quantized.
    """
    dtype = nl.float32 if a.hidden_is_quantized else a.dtype
    results = []
    for tile in rows.tiles:
        results.append(nl.ndarray((tile.size, columns.size), dtype=dtype, buffer=nl.sbuf))
    for spans in column_groups(column_tiles(columns), len(rows.tiles)):
        gates = []
        banks = _products(a.gate.weights, rows, spans)
        for index in range(len(rows.tiles)):
            for k in range(len(spans)):
                gates.append(_activate(a, banks[index][k], rows.scale[index], spans[k], gate_finish))
        banks = _products(a.up.weights, rows, spans)
        for index in range(len(rows.tiles)):
            for k in range(len(spans)):
                target = results[index][:, nl.ds(spans[k].start - columns.start, spans[k].size)]
                gate = gates[index * len(spans) + k]
                _times(target, gate, banks[index][k], rows.scale[index], spans[k], up_finish)
    rows.store_sums(len(rows.unstored))
    return results


def _banks(tiles, spans):
    """A PSUM bank for each tile of tokens and span of columns."""
    banks = []
    for tile in tiles:
        of_tile = []
        for span in spans:
            of_tile.append(nl.ndarray((tile.size, span.size), dtype=nl.float32, buffer=nl.psum))
        banks.append(of_tile)
    return banks


def _products(weights, rows, spans):
    """x W for consecutive spans of columns: PSUM banks by tile of tokens and span."""
    banks = _banks(rows.tiles, spans)
    whole = around(spans)
    view = rows_of_weights(weights, rows.norm.pieces).slice(3, whole.start, whole.start + whole.size)
    size = rows.norm.piece_blocks
    most = max(rows.pairs, CHUNK_BYTES // (whole.size * _bytes(weights.dtype)) // rows.pairs * rows.pairs)
    for piece in range(rows.norm.pieces):
        of_piece = view.slice(1, piece, piece + 1).squeeze_dim(1)
        for chunk in cut(0, size, most):
            tile = nl.ndarray((PARTITIONS, chunk.size, whole.size), dtype=weights.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=tile, src=of_piece.slice(1, chunk.start, chunk.start + chunk.size).get_view())
            rows.store_sums(STORES)
            for k in range(chunk.size // rows.pairs):
                block = (piece * size + chunk.start) // rows.pairs + k
                pair = nl.ds(rows.pairs * k, rows.pairs)
                rows.turn_until(block + LOOKAHEAD)
                for index in range(len(rows.tiles)):
                    stationary = rows.stationary(block, index)
                    for s in range(len(spans)):
                        columns = nl.ds(spans[s].start - whole.start, spans[s].size)
                        moving = tile[:, k, columns] if rows.pairs == 1 else tile[:, pair, columns]
                        _multiply(banks[index][s], stationary, moving)
    return banks


def _bytes(dtype):
    return 1 if dtype == nl.float8_e4m3 else 2


def _activate(a, sums, scale, span, finish):
    """act(the finished sums), fp32 in SBUF."""
    function = get_nl_act_fn_from_type(a.activation_fn)
    result = nl.ndarray(sums.shape, dtype=nl.float32, buffer=nl.sbuf)
    scale = finish.token_scale(scale, sums.shape[0])
    if finish.is_by_token():
        nisa.activation(dst=result, op=function, data=sums, scale=1.0 if scale is None else scale)
    else:
        finish.apply(result, sums, scale, span)
        nisa.activation(dst=result, op=function, data=result)
    return result


def _times(dst, gate, sums, scale, span, finish):
    """dst = gate * the finished sums."""
    scale = finish.token_scale(scale, sums.shape[0])
    if not finish.is_by_token():
        up = nl.ndarray(sums.shape, dtype=nl.float32, buffer=nl.sbuf)
        finish.apply(up, sums, scale, span)
        nisa.tensor_tensor(dst=dst, data1=up, data2=gate, op=nl.multiply)
    elif scale is None:
        nisa.tensor_tensor(dst=dst, data1=sums, data2=gate, op=nl.multiply)
    else:
        nisa.scalar_tensor_tensor(
            dst=dst, data=sums, op0=nl.multiply, operand0=scale, op1=nl.multiply, operand1=gate
        )


# --- between


def quantize_rows(values, clipping_bound, static_scale):
    """Quantize fp32 rows [tokens, N] to float8_e4m3.

    Args:
        values: in SBUF; overwritten.
        clipping_bound: values are clipped to plus or minus this first, unless it is 0.
        static_scale: fp32 [128, 1] in SBUF, the scale of all rows; None to take the largest value of each
        row.

    Returns:
        (fp8 [tokens, N], scale fp32 [tokens, 1]) in SBUF: values are about fp8 * scale.
    """
    tokens = values.shape[0]
    most = get_max_positive_value_for_dtype(nl.float8_e4m3)
    inverse = nl.ndarray((tokens, 1), dtype=nl.float32, buffer=nl.sbuf)
    if static_scale is not None:
        scale = static_scale[nl.ds(0, tokens), :]
    else:
        if clipping_bound > 0.0:
            _clip(values, clipping_bound)
        largest = nl.ndarray((tokens, 2), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(dst=largest[:, 0:1], op=nl.maximum, data=values, axis=1)
        nisa.tensor_reduce(dst=largest[:, 1:2], op=nl.minimum, data=values, axis=1, negate=True)
        scale = nl.ndarray((tokens, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(dst=scale, op=nl.maximum, data=largest, axis=1)
        nisa.tensor_scalar(
            dst=scale,
            data=scale,
            op0=nl.multiply,
            operand0=1.0 / most,
            op1=nl.maximum,
            operand1=SMALLEST_SCALE,
        )
    nisa.reciprocal(dst=inverse, data=scale)
    nisa.tensor_scalar(
        dst=values, data=values, op0=nl.multiply, operand0=inverse, op1=nl.minimum, operand1=most
    )
    result = nl.ndarray(values.shape, dtype=nl.float8_e4m3, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=result, data=values, op0=nl.maximum, operand0=-most)
    return result, scale


def _clip(values, bound):
    nisa.tensor_scalar(
        dst=values, data=values, op0=nl.minimum, operand0=bound, op1=nl.maximum, operand1=-bound
    )


class TurnedIntermediate(nl.NKIObject):
    """The input of the down projection with I along the partitions: [128, blocks, tokens] in SBUF.

    With `in_halves` the number of blocks in SBUF is even and all are written, for an exchange of halves.

    Attributes:
        size: I.
        pairs: rows that one row of the array holds: 2 of fp8, else 1.
    """

    def __init__(self, a, tiles, in_halves):
        self.tiles = tiles
        self.size = a.intermediate_size
        self.pairs = 2 if a.hidden_is_quantized else 1
        self.rows_of_block = PARTITIONS * self.pairs
        self.tokens = 0
        for tile in tiles:
            self.tokens += tile.size
        self.blocks = div_ceil(self.size, self.rows_of_block)
        held = div_ceil(self.blocks, 2) * 2 if in_halves else self.blocks
        self.x = nl.ndarray((PARTITIONS, held, self.tokens), dtype=a.dtype, buffer=nl.sbuf)
        filled = self.size // self.rows_of_block
        if in_halves and filled < held:
            nisa.memset(dst=self.x[:, nl.ds(filled, held - filled), :], value=0.0)

    def partitions(self, block):
        """Partitions that a block fills."""
        return min(self.rows_of_block, self.size - block * self.rows_of_block) // self.pairs

    def turn(self, rows, span, index):
        """Turn the rows [tokens, columns] of a tile; `span` says which columns of I they are."""
        tile = self.tiles[index]
        start = tile.start - self.tiles[0].start
        if self.pairs == 2:
            rows = rows.view(nl.bfloat16)
        first = span.start // self.rows_of_block
        count = div_ceil(span.size, self.rows_of_block)
        for group in cut(0, count, 2 * BANK // PARTITIONS):
            whole_words = div_ceil(tile.size, 2) * 2  # rows of PSUM start at multiples of 4 bytes
            padded = nl.ndarray((PARTITIONS, group.size, whole_words), dtype=self.x.dtype, buffer=nl.psum)
            turned = padded[:, :, nl.ds(0, tile.size)]
            whole = 0
            for b in range(group.size):
                used = self.partitions(first + group.start + b)
                columns = nl.ds((group.start + b) * PARTITIONS, used)
                nisa.nc_transpose(dst=turned[nl.ds(0, used), b, :], data=rows[:, columns])
                if used == PARTITIONS:
                    whole += 1
            target = first + group.start
            tokens = nl.ds(start, tile.size)
            if whole > 0:
                nisa.tensor_copy(
                    dst=self.x[:, nl.ds(target, whole), tokens],
                    src=turned[:, nl.ds(0, whole), :],
                    engine=nisa.engine.vector,
                )
            if whole < group.size:
                used = nl.ds(0, self.partitions(target + whole))
                nisa.tensor_copy(
                    dst=self.x[used, nl.ds(target + whole, 1), tokens],
                    src=turned[used, nl.ds(whole, 1), :],
                    engine=nisa.engine.vector,
                )

    def stationary(self, block, index):
        """A block of rows of I for the tokens of a tile."""
        tile = self.tiles[index]
        turned = self.x[
            nl.ds(0, self.partitions(block)), block, nl.ds(tile.start - self.tiles[0].start, tile.size)
        ]
        return turned if self.pairs == 1 else pairs_of_rows(turned, tile.size)


# --- down


def down(a, inter, scales, columns, finish, y):
    """Down projection of a block of tokens, stored to HBM.

    Args:
        a: the arguments.
        inter: :class:`TurnedIntermediate`.
        scales: for each tile fp32 [tokens, 1] in SBUF or None.
        columns: span of the columns of the result.
        finish: :class:`Finish`.
        y: [B * S, H] in HBM.
    """
    count = 0
    for stored in cut(columns.start, columns.size, STORE_COLUMNS):
        outs = []
        for tile in inter.tiles:
            outs.append(nl.ndarray((tile.size, stored.size), dtype=a.output_dtype, buffer=nl.sbuf))
        for spans in column_groups(cut(stored.start, stored.size, BANK), len(inter.tiles)):
            banks = _down_products(a.down.weights, inter, spans)
            for index in range(len(inter.tiles)):
                scale = finish.token_scale(scales[index], inter.tiles[index].size)
                for s in range(len(spans)):
                    target = outs[index][:, nl.ds(spans[s].start - stored.start, spans[s].size)]
                    finish.apply(target, banks[index][s], scale, spans[s], count)
                    count += 1
        for index in range(len(inter.tiles)):
            nisa.dma_copy(dst=y[inter.tiles[index].window(), stored.window()], src=outs[index])


def _down_products(weights, inter, spans):
    """inter W for consecutive spans of columns: PSUM banks by tile of tokens and span."""
    banks = _banks(inter.tiles, spans)
    whole = around(spans)
    most = max(1, CHUNK_BYTES // (whole.size * inter.pairs * _bytes(weights.dtype)))
    for chunk in cut(0, inter.blocks, most):
        tile = _load_down(weights, inter, chunk, whole)
        for index in range(len(inter.tiles)):
            for b in range(chunk.size):
                block = chunk.start + b
                used = nl.ds(0, inter.partitions(block))
                stationary = inter.stationary(block, index)
                for s in range(len(spans)):
                    at = nl.ds(spans[s].start - whole.start, spans[s].size)
                    moving = tile[used, b, at] if inter.pairs == 1 else tile[used, b, :, at]
                    _multiply(banks[index][s], stationary, moving)
    return banks


def _load_down(weights, inter, chunk, span):
    """Blocks of rows of the down weights for some columns: [128, blocks, n], of fp8 [128, blocks, 2, n]."""
    shape = (PARTITIONS, chunk.size, span.size)
    if inter.pairs == 2:
        shape = (PARTITIONS, chunk.size, 2, span.size)
    tile = nl.ndarray(shape, dtype=weights.dtype, buffer=nl.sbuf)
    size = inter.rows_of_block
    first = chunk.start * size
    whole = min(inter.size - first, chunk.size * size) // size
    view = TensorView(weights).slice(1, span.start, span.start + span.size)
    if whole > 0:
        part = view.slice(0, first, first + whole * size)
        part = part.reshape_dim(0, (whole, PARTITIONS, inter.pairs)).permute((1, 0, 2, 3))
        nisa.dma_copy(dst=tile[:, nl.ds(0, whole)], src=part.get_view())
    if whole < chunk.size:
        used = inter.partitions(chunk.start + whole)
        start = first + whole * size
        part = view.slice(0, start, inter.size).reshape_dim(0, (used, inter.pairs))
        nisa.dma_copy(dst=tile[nl.ds(0, used), nl.ds(whole, 1)], src=part.get_view())
    return tile
