"""Weights in MXFP4 or MXFP8: how one core reads and multiplies them, and quantizes what they multiply.

Four values lie in one packed element, and groups of 8 partitions by 4 values share a scale. So H and I are
laid out as

    h = w * H/4 + t * 128 + p      of the hidden states, t of H / 512 tiles
    i = t * 512 + w * Ip + p       of the columns of gate and up, Ip = min(128, I / 4)

with p on partitions and w the value of the packed element: 4 tiles of Ip columns of I, one after the other,
make one packed tile.
"""

from dataclasses import dataclass
from typing import Any

import nki.isa as nisa
import nki.language as nl

from ...utils.kernel_helpers import div_ceil
from ...utils.tiled_range import TiledRange
from .block_phases import COLUMNS, PIECE_BYTES, P, affinities_of, indexed_copy, weights_copy

WIDTH = 4  # values of a packed element
GROUP = 8  # partitions that share a scale
QUADRANT = 32  # partitions whose scales lie in its first four


@dataclass
class Packed(nl.NKIObject):
    """Packed values and their scales, both in SBUF."""

    values: Any
    scales: Any


@dataclass
class MxWeights(nl.NKIObject):
    """gate_up_proj_weight [E, 128, 2, H/512, I] and down_proj_weight [E, Ip, I/512, H], both packed.

    Scales are uint8 [E, 16, 2, H/512, I] and [E, Ip/8, I/512, H].

    Attributes:
        problem, share: what is computed, and which part of it here.
        tile: Ip, columns of I that lie on the partitions of one tile.
        partitions: Ip made a multiple of 32; those above Ip hold zeros.
    """

    problem: Any
    share: Any

    def __post_init__(self):
        self.tile = self.problem.down_proj_weight.shape[1]
        self.partitions = div_ceil(self.tile, QUADRANT) * QUADRANT

    # --- rows of x

    def gather_rows(self, gathered, group):
        """[128, tokens / 32, H / 4]: quarter w of token t * 32 + r at [r * 4 + w, t]."""
        problem, quarter = self.problem, self.problem.hidden // WIDTH
        groups = group.size // QUADRANT
        ids = self._quarter_ids(gathered, group)
        rows = nl.ndarray((P, groups, quarter), dtype=problem.compute_dtype, buffer=nl.sbuf)
        if problem.skip.skip_token:
            nisa.memset(dst=rows, value=0.0)
        affinities = None
        if problem.prescaled():
            affinities = affinities_of(problem, self._repeated_ids(gathered, group), gathered.expert)
        table = problem.hidden_states.reshape((problem.rows * WIDTH, quarter))
        for part in range(groups):
            source = table.ap(
                pattern=[[quarter, P], [1, quarter]],
                vector_offset=ids[:, nl.ds(part, 1)],
                indirect_dim=0,
            )
            target = rows[:, part, :]
            indexed_copy(problem, target, source)
            if affinities is not None:
                nisa.tensor_scalar(
                    dst=target, data=target, op0=nl.multiply, operand0=affinities[:, nl.ds(part, 1)]
                )
        return rows

    def _repeated_ids(self, gathered, group):
        """[128, tokens / 32] int32: the id of token t * 32 + r at [r * 4 + w, t] for each w."""
        size, count = self.problem.block_size, group.size // QUADRANT
        ids = nl.ndarray((P, count), dtype=nl.int32, buffer=nl.sbuf)
        positions = self.problem.token_position_to_id.reshape((self.problem.blocks, size))
        pattern = [[1, QUADRANT], [0, WIDTH], [QUADRANT, count]]
        if isinstance(gathered.block, int):
            source = positions.ap(pattern=pattern, offset=gathered.block * size + group.start_offset)
        else:
            source = positions.ap(
                pattern=pattern, offset=group.start_offset, scalar_offset=gathered.block, indirect_dim=0
            )
        nisa.dma_copy(dst=ids, src=source)
        return ids

    def _quarter_ids(self, gathered, group):
        """[128, tokens / 32] int32: rows of the hidden states in quarters, id * 4 + w."""
        ids = self._repeated_ids(gathered, group)
        quarter = nl.ndarray((P, 1), dtype=nl.int32, buffer=nl.sbuf)
        nisa.iota(quarter, [[0, 1]], 0, 1)
        nisa.tensor_scalar(dst=quarter, data=quarter, op0=nl.bitwise_and, operand0=WIDTH - 1)
        result = nl.ndarray(ids.shape, dtype=nl.int32, buffer=nl.sbuf)  # integers of gpsimd are exact
        nisa.memset(dst=result, value=WIDTH)
        nisa.tensor_tensor(dst=result, data1=result, data2=ids, op=nl.multiply)
        spread = quarter.ap(pattern=[[1, P], [0, ids.shape[1]]])
        nisa.tensor_tensor(dst=result, data1=result, data2=spread, op=nl.add)
        return result

    def moving(self, rows):
        """x quantized with H on partitions: values [128, H / 512, tokens], scales beside them."""
        groups, tiles = rows.shape[1], self.problem.hidden // (P * WIDTH)
        dtype, tokens = self.problem.compute_dtype, groups * QUADRANT
        turned = nl.ndarray((P, tiles, tokens * WIDTH), dtype=dtype, buffer=nl.sbuf)
        for tile in range(tiles):
            for part in TiledRange(groups, 2 * COLUMNS // P):
                bank = nl.ndarray((P, part.size * P), dtype=dtype, buffer=nl.psum)
                for token in range(part.size):
                    nisa.nc_transpose(
                        dst=bank[:, nl.ds(token * P, P)],
                        data=rows[:, part.start_offset + token, nl.ds(tile * P, P)],
                    )
                target = turned[:, tile, nl.ds(part.start_offset * P, part.size * P)]
                nisa.tensor_copy(dst=target, src=bank, engine=nisa.scalar_engine)
        return self._quantized(turned, P)

    def _quantized(self, source, partitions):
        tiles, tokens = source.shape[1], source.shape[2] // WIDTH
        values = nl.ndarray((partitions, tiles, tokens), dtype=nl.float8_e4m3fn_x4, buffer=nl.sbuf)
        scales = self._new_scales((partitions, tiles, tokens))
        for tile in range(tiles):
            nisa.quantize_mx(dst=values[:, tile, :], src=source[:, tile, :], dst_scale=scales[:, tile, :])
        return Packed(values, scales)

    # --- gate and up

    def gate_up_pieces(self):
        """Ranges of this core's columns of I, each of weights that fit a piece."""
        column_bytes = self.problem.hidden // (P * WIDTH) * 2 * (WIDTH + 1)
        return TiledRange(self.share.size, max(1, PIECE_BYTES // (column_bytes * self.tile)) * self.tile)

    def load_gate_up(self, gathered, piece, before):
        """[128, 2, H / 512, piece] of gate and up weights, into `before` if they may be there already."""
        intermediate, tiles = self.problem.intermediate, self.problem.hidden // (P * WIDTH)
        table, weights = self.problem.gate_up_proj_weight, before
        shape = (P, 2 * tiles, piece.size)
        if weights is None:
            weights = self._room(shape, table.dtype)
        first = self.share.first + piece.start_offset
        row = 2 * tiles * intermediate
        source = table.ap(
            pattern=[[row, P], [intermediate, 2 * tiles], [1, piece.size]],
            offset=first,
            scalar_offset=gathered.weights,
            indirect_dim=0,
        )
        weights_copy(self.problem, weights.values, source)
        inner = [[intermediate, 2 * tiles], [1, piece.size]]
        self._load_scales(
            gathered, self.problem.gate_up_proj_scale, weights.scales, P // GROUP, row, inner, first
        )
        return weights

    def _room(self, shape, dtype):
        values = nl.ndarray(shape, dtype=dtype, buffer=nl.sbuf)
        if shape[0] > self.tile and shape[0] < P:  # partitions beyond Ip
            nisa.memset(dst=values, value=0)
        return Packed(values, self._new_scales(shape))

    def _new_scales(self, shape):
        """Scales, zero: those of a quadrant are in four partitions of it, and a matmul is given all."""
        scales = nl.ndarray(shape, dtype=nl.uint8, buffer=nl.sbuf)
        nisa.memset(dst=scales, value=0)
        return scales

    def _load_scales(self, gathered, table, scales, rows, row, inner, offset):
        """Read `rows` rows of scales, four to the first partitions of each quadrant."""
        for quadrant in TiledRange(rows, QUADRANT // GROUP):
            pattern = [[row, quadrant.size]]
            pattern.extend(inner)
            source = table.ap(
                pattern=pattern,
                offset=offset + quadrant.start_offset * row,
                scalar_offset=gathered.weights,
                indirect_dim=0,
            )
            target = scales[nl.ds(quadrant.index * QUADRANT, quadrant.size), :, :]
            weights_copy(self.problem, target, source)

    def gate_up_bank(self, weights, moving, half, tile):
        """Gate (half 0) or up (half 1) of one tile of I of a piece: [Ip, tokens] in PSUM."""
        tokens, tiles = moving.values.shape[2], moving.values.shape[1]
        bank = nl.ndarray((tile.size, tokens), dtype=nl.float32, buffer=nl.psum)
        span = nl.ds(tile.index * self.tile, tile.size)
        for contracted in range(tiles):
            row = half * tiles + contracted
            nisa.nc_matmul_mx(
                dst=bank,
                stationary=weights.values[:, row, span],
                moving=moving.values[:, contracted, :],
                stationary_scale=weights.scales[:, row, span],
                moving_scale=moving.scales[:, contracted, :],
            )
        return bank

    def scales(self, gathered):
        """None: scales are the matmul's."""
        return None

    def biases(self, gathered):
        """[Ip, tiles, 2] fp32 biases of gate and up, of [E, Ip, 2, I / 512, 4], or None."""
        table = self.problem.gate_and_up_proj_bias
        if table is None:
            return None
        columns = table.shape[3] * WIDTH
        tiles = self.share.size // self.tile
        loaded = nl.ndarray((self.tile, tiles, 2), dtype=table.dtype, buffer=nl.sbuf)
        source = table.ap(
            pattern=[[2 * columns, self.tile], [1, tiles], [columns, 2]],
            offset=self.share.first // self.tile,
            scalar_offset=gathered.expert[0:1, 0:1],
            indirect_dim=0,
        )
        nisa.dma_copy(dst=loaded, src=source)
        result = nl.ndarray(loaded.shape, dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_copy(dst=result, src=loaded, engine=nisa.gpsimd_engine)
        return result

    # --- the product of gate and up, and down

    def new_product(self, tokens):
        """Room for the product of gate and up: [partitions, packed tiles, tokens * 4]."""
        packed = self.share.size // (self.tile * WIDTH)
        product = nl.ndarray(
            (self.partitions, packed, tokens * WIDTH), dtype=self.problem.compute_dtype, buffer=nl.sbuf
        )
        if self.partitions > self.tile:
            nisa.memset(dst=product, value=0.0)
        return product

    def slot(self, product, tile, size):
        """Where the product of one tile of I goes: every fourth value of a packed tile."""
        columns = product.shape[1] * product.shape[2]
        return product.ap(
            pattern=[[columns, size], [WIDTH, product.shape[2] // WIDTH]],
            offset=tile // WIDTH * product.shape[2] + tile % WIDTH,
        )

    def sealed(self, product):
        """The product quantized."""
        return self._quantized(product, self.partitions)

    def down_pieces(self):
        """Ranges of the columns of H that one core finishes, each of weights that fit a piece."""
        packed = self.share.size // (self.tile * WIDTH)
        bank_bytes = packed * COLUMNS * (WIDTH + 1)
        return TiledRange(self.share.width, max(1, PIECE_BYTES // bank_bytes) * COLUMNS)

    def load_down(self, gathered, first, piece, before):
        """[partitions, packed tiles, piece] of down weights, into `before` if they may be there already."""
        table, hidden, weights = self.problem.down_proj_weight, self.problem.hidden, before
        packed = self.share.size // (self.tile * WIDTH)
        if weights is None:
            weights = self._room((self.partitions, packed, piece.size), table.dtype)
        row = table.shape[2] * hidden
        offset = self.share.first // (self.tile * WIDTH) * hidden + first + piece.start_offset
        source = table.ap(
            pattern=[[row, self.tile], [hidden, packed], [1, piece.size]],
            offset=offset,
            scalar_offset=gathered.weights,
            indirect_dim=0,
        )
        weights_copy(self.problem, weights.values[0 : self.tile, :, :], source)
        inner = [[hidden, packed], [1, piece.size]]
        self._load_scales(
            gathered, self.problem.down_proj_scale, weights.scales, self.tile // GROUP, row, inner, offset
        )
        return weights

    def down_bank(self, weights, product, token, start, width):
        """[128 tokens, `width` columns of H from `start` of a piece] in PSUM."""
        bank = nl.ndarray((P, width), dtype=nl.float32, buffer=nl.psum)
        for packed in range(product.values.shape[1]):
            nisa.nc_matmul_mx(
                dst=bank,
                stationary=product.values[:, packed, nl.ds(token * P, P)],
                moving=weights.values[:, packed, nl.ds(start, width)],
                stationary_scale=product.scales[:, packed, nl.ds(token * P, P)],
                moving_scale=weights.scales[:, packed, nl.ds(start, width)],
            )
        return bank
