"""Rows of tokens: loaded, summed with the residual, normalized, and turned to have H along the partitions.

A row is read in pieces of about 1024 columns. In piece k, element k * W + p * B + b (W = 128 B) of the row
comes to partition p of block k * B + b, an order in which weights are read in runs of B rows
(:func:`...mlp_tkg.hidden.rows_of_weights`).

RMSNorm needs nothing before the products: the inverse deviation of a token multiplies them afterwards, and
the weights of the norm multiply where a turned block leaves PSUM. LayerNorm subtracts the mean first, so
its statistics come from an earlier reading of the rows.
"""

import nki.isa as nisa
import nki.language as nl

from ...utils.common_types import NormType
from ...utils.kernel_helpers import is_rms_normalization
from ...utils.tensor_view import TensorView
from ..mlp_parameters import PARTITIONS, ROW_SCALE_ELEMENTS
from .sharding import BANK, blocks_of_piece, cut

BYTES = 2  # of a sum with the residual
KEPT_BYTES = 64 * 1024  # of such sums in each partition, at most


class NormVectors(nl.NKIObject):
    """Weights and bias of the normalization in SBUF, [128, K] fp32 each, or None; loaded once.

    Attributes:
        pieces: pieces of a row.
        piece_blocks: blocks of 128 columns in each.
    """

    def __init__(self, a):
        self.piece_blocks = blocks_of_piece(a.hidden_size // PARTITIONS)
        self.pieces = a.hidden_size // PARTITIONS // self.piece_blocks
        uses_weights = a.norm_type in (NormType.RMS_NORM, NormType.LAYER_NORM)
        self.weights = self._load(a.norm_weights) if uses_weights else None
        self.bias = self._load(a.norm_bias) if a.norm_bias is not None else None

    def _load(self, vector):
        shape = (PARTITIONS, self.pieces, self.piece_blocks)
        loaded = nl.ndarray(shape, dtype=vector.dtype, buffer=nl.sbuf)
        view = TensorView(vector).reshape_dim(1, (self.pieces, PARTITIONS, self.piece_blocks))
        nisa.dma_copy(dst=loaded, src=view.squeeze_dim(0).permute((1, 0, 2)).get_view())
        column = nl.ndarray(shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(dst=column, src=loaded)
        return column.reshape((PARTITIONS, self.pieces * self.piece_blocks))


class TurnedRows(nl.NKIObject):
    """A block of tokens with H along the partitions, turned a block of 128 columns at a time.

    Attributes:
        scale: for each tile of tokens what its products are multiplied by, fp32 [tokens, 1] in SBUF; None
            for 1. Complete when every block is turned.
        blocks: contractions of the tensor engine that cover a row.
        unstored: sums with the residual that are still to be stored: (tile, piece, rows).
    """

    def __init__(self, a, tiles, norm, stored, statistics):
        self.a = a
        self.tiles = tiles
        self.norm = norm
        self.stored = stored
        self.statistics = statistics
        self.pairs = 2 if a.hidden_is_quantized else 1
        self.piece_blocks = norm.piece_blocks // self.pairs
        self.blocks = norm.pieces * self.piece_blocks
        self.tokens = 0
        for tile in tiles:
            self.tokens += tile.size
        self.x = nl.ndarray((PARTITIONS, self.blocks, self.tokens), dtype=a.dtype, buffer=nl.sbuf)
        self.turned = 0
        self.unstored = []
        self.keeps_sums = stored is not None and len(tiles) * a.hidden_size * BYTES <= KEPT_BYTES
        self.rows = []
        self.squares = []
        self.scale = []
        for tile in tiles:
            if is_rms_normalization(a.norm_type):
                self.squares.append(nl.ndarray((tile.size, norm.pieces), dtype=nl.float32, buffer=nl.sbuf))
            self.scale.append(None)

    def turn_until(self, count):
        """Turn the blocks before `count`."""
        while self.turned < min(count, self.blocks):
            ahead = min(self.turned + self.piece_blocks // 2, self.blocks - 1) // self.piece_blocks
            while len(self.rows) <= ahead:
                self._load_piece(len(self.rows))
            self._turn(self.turned)
            self.turned += 1
            if self.turned == self.blocks:
                self._finish_scale()

    def store_sums(self, count):
        """Store `count` of the sums that were kept until the rows are loaded, which they would delay."""
        if self.turned == self.blocks:
            for sums in self.unstored[:count]:
                store_piece(self.stored, sums[0], sums[1], sums[2])
            self.unstored = self.unstored[count:]

    def stationary(self, block, index):
        """Block of rows of H for the tokens of a tile: [128, tokens], of fp8 [128, 2, tokens]."""
        start = self.tiles[index].start - self.tiles[0].start
        size = self.tiles[index].size
        if self.pairs == 1:
            return self.x[:, block, nl.ds(start, size)]
        return pairs_of_rows(self.x[:, block, nl.ds(start, size)], size)

    def _load_piece(self, piece):
        loaded = []
        for index in range(len(self.tiles)):
            stored = None if self.keeps_sums else self.stored
            rows = load_piece(self.a, self.tiles[index], piece, self.norm.piece_blocks, stored)
            if self.keeps_sums:
                self.unstored.append((self.tiles[index], piece, rows))
            if is_rms_normalization(self.a.norm_type):
                squares = nl.ndarray(rows.shape, dtype=nl.bfloat16, buffer=nl.sbuf)
                nisa.activation_reduce(
                    dst=squares,
                    op=nl.square,
                    data=rows,
                    reduce_op=nl.add,
                    reduce_res=self.squares[index][:, nl.ds(piece, 1)],
                )
            elif self.a.norm_type == NormType.LAYER_NORM:
                mean, scale = self.statistics[index]
                nisa.tensor_scalar(
                    dst=rows, data=rows, op0=nl.subtract, operand0=mean, op1=nl.multiply, operand1=scale
                )
            if self.pairs == 2:
                rows = rows.view(nl.bfloat16)
            loaded.append(rows)
        self.rows.append(loaded)

    def _turn(self, block):
        within = block % self.piece_blocks
        rows = self.rows[block // self.piece_blocks]
        columns = slice(within, within + (PARTITIONS - 1) * self.piece_blocks + 1, self.piece_blocks)
        turned = nl.ndarray((PARTITIONS, self.tokens), dtype=self.a.dtype, buffer=nl.psum)
        for index in range(len(self.tiles)):
            start = self.tiles[index].start - self.tiles[0].start
            nisa.nc_transpose(
                dst=turned[:, nl.ds(start, self.tiles[index].size)], data=rows[index][:, columns]
            )
        target = self.x[:, block, :]
        weights, bias = self.norm.weights, self.norm.bias
        if weights is not None and bias is not None:
            nisa.tensor_scalar(
                dst=target,
                data=turned,
                op0=nl.multiply,
                operand0=weights[:, nl.ds(block, 1)],
                op1=nl.add,
                operand1=bias[:, nl.ds(block, 1)],
            )
        elif weights is not None:
            nisa.tensor_scalar(dst=target, data=turned, op0=nl.multiply, operand0=weights[:, nl.ds(block, 1)])
        elif bias is not None:
            nisa.tensor_scalar(dst=target, data=turned, op0=nl.add, operand0=bias[:, nl.ds(block, 1)])
        else:
            nisa.tensor_copy(dst=target, src=turned, engine=nisa.engine.vector)

    def _finish_scale(self):
        a = self.a
        for index in range(len(self.tiles)):
            if is_rms_normalization(a.norm_type):
                self.scale[index] = _inverse_deviation(a, self.squares[index])
            elif a.hidden_is_quantized and self.a.hidden.shape[2] != a.hidden_size:
                self.scale[index] = _load_row_scale(a, self.tiles[index])


def pairs_of_rows(turned, tokens):
    """Turned pairs of fp8, [128, tokens] of a 16-bit type, seen as [128, 2, tokens] of fp8."""
    view = TensorView(turned.view(nl.float8_e4m3)).reshape_dim(1, (tokens, 2))
    return view.permute((0, 2, 1)).get_view()


def load_piece(a, tile, piece, blocks, stored):
    """Columns of a piece for a tile of tokens, hidden + residual, [tokens, 128 * blocks] in SBUF."""
    width = blocks * PARTITIONS
    columns = nl.ds(piece * width, width)
    rows = nl.ndarray((tile.size, width), dtype=a.hidden.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=rows, src=_by_token(a.hidden)[tile.window(), columns])
    if a.fused_add is not None:
        residual = nl.ndarray((tile.size, width), dtype=a.fused_add.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=residual, src=_by_token(a.fused_add)[tile.window(), columns])
        nisa.tensor_tensor(dst=rows, data1=rows, data2=residual, op=nl.add)
        if stored is not None:
            store_piece(stored, tile, piece, rows)
    return rows


def store_piece(stored, tile, piece, rows):
    """Store the columns of a piece for a tile of tokens."""
    width = rows.shape[1]
    nisa.dma_copy(dst=_by_token(stored)[tile.window(), nl.ds(piece * width, width)], src=rows)


def _by_token(tensor):
    """[B, S, N] in HBM as [B * S, N]."""
    return tensor.reshape((tensor.shape[0] * tensor.shape[1], tensor.shape[2]))


def _inverse_deviation(a, squares):
    """1 / sqrt(sum of squares / H + eps), [tokens, 1]; the sum is still in pieces, [tokens, pieces]."""
    tokens = squares.shape[0]
    total = nl.ndarray((tokens, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=total, op=nl.add, data=squares, axis=1)
    eps = nl.ndarray((tokens, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=eps, value=a.eps)
    scale = nl.ndarray((tokens, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=scale, op=nl.rsqrt, data=total, scale=1.0 / a.hidden_size, bias=eps)
    return scale


def _load_row_scale(a, tile):
    """The fp32 scale in the last 4 bytes of each row of quantized hidden, [tokens, 1]."""
    packed = nl.ndarray((tile.size, ROW_SCALE_ELEMENTS), dtype=a.hidden.dtype, buffer=nl.sbuf)
    tail = nl.ds(a.hidden_size, ROW_SCALE_ELEMENTS)
    nisa.dma_copy(dst=packed, src=_by_token(a.hidden)[tile.window(), tail])
    return packed.view(nl.float32)


def layer_norm_statistics(a, tiles, norm, stored):
    """(mean, 1 / deviation) of the rows of each tile, fp32 [tokens, 1] in SBUF; stores hidden + residual."""
    found = []
    if a.norm_type != NormType.LAYER_NORM:
        return found
    for tile in tiles:
        width = norm.piece_blocks * PARTITIONS
        spans = cut(0, width, BANK)
        statistics = nl.ndarray((tile.size, norm.pieces * len(spans), 6), dtype=nl.float32, buffer=nl.sbuf)
        for piece in range(norm.pieces):
            rows = load_piece(a, tile, piece, norm.piece_blocks, stored)
            for index in range(len(spans)):
                nisa.bn_stats(
                    dst=statistics[:, piece * len(spans) + index, :], data=rows[:, spans[index].window()]
                )
        moments = nl.ndarray((tile.size, 2), dtype=nl.float32, buffer=nl.sbuf)
        nisa.bn_aggr(dst=moments, data=statistics)
        eps = nl.ndarray((tile.size, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(dst=eps, value=a.eps)
        scale = nl.ndarray((tile.size, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=scale, op=nl.rsqrt, data=moments[:, nl.ds(1, 1)], bias=eps)
        found.append((moments[:, nl.ds(0, 1)], scale))
    return found
