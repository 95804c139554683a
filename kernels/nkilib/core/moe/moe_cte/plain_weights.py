"""Weights in bf16, fp16 or fp8 with scales a column: how one core reads and multiplies them."""

from dataclasses import dataclass
from typing import Any

import nki.isa as nisa
import nki.language as nl

from ...utils.kernel_helpers import div_ceil
from ...utils.tiled_range import TiledRange
from .block_phases import COLUMNS, PIECE_BYTES, P, affinities_of, rows_of, stacks, weights_copy


@dataclass
class PlainWeights(nl.NKIObject):
    """gate_up_proj_weight [E, H, 2, I] and down_proj_weight [E, I, H].

    Attributes:
        problem, share: what is computed, and which part of it here.
        tile: columns of I that lie on the partitions of one tile.
    """

    problem: Any
    share: Any

    def __post_init__(self):
        self.tile = P

    # --- rows of x

    def gather_rows(self, gathered, group):
        """[128, tokens / 128, H]: rows of x of a group of at most 512 tokens, token t * 128 + p at [p, t]."""
        problem, span = self.problem, nl.ds(group.start_offset // P, group.size // P)
        rows = rows_of(problem, problem.hidden_states, gathered.ids[:, span])
        if problem.prescaled():
            affinities = affinities_of(problem, gathered.ids[:, span], gathered.expert)
            for tile in range(group.size // P):
                part = rows[:, tile, :]
                nisa.tensor_scalar(
                    dst=part, data=part, op0=nl.multiply, operand0=affinities[:, nl.ds(tile, 1)]
                )
        return rows

    def moving(self, rows):
        """x with H on partitions, [128, H / 128, tokens], of rows [128, tokens / 128, H]."""
        dtype, tiles, hidden = self.problem.compute_dtype, rows.shape[1], rows.shape[2]
        result = nl.ndarray((P, hidden // P, tiles * P), dtype=dtype, buffer=nl.sbuf)
        for group in TiledRange(hidden // P, 2 * COLUMNS // (tiles * P)):
            bank = nl.ndarray((P, group.size, tiles * P), dtype=dtype, buffer=nl.psum)
            for tile in TiledRange(group, 1):
                for token in range(tiles):
                    nisa.nc_transpose(
                        dst=bank[:, tile.index, nl.ds(token * P, P)],
                        data=rows[:, token, nl.ds(tile.start_offset * P, P)],
                    )
            engine = nisa.vector_engine if group.index % 2 == 0 else nisa.scalar_engine
            target = result[:, nl.ds(group.start_offset, group.size), :]
            nisa.tensor_copy(dst=target, src=bank, engine=engine)
        return result

    # --- gate and up

    def gate_up_pieces(self):
        """Ranges of this core's columns of I, each of weights that fit a piece."""
        tile_bytes = self.problem.hidden // P * 2 * P * self._bytes()
        return TiledRange(self.share.size, max(1, PIECE_BYTES // tile_bytes) * P)

    def _bytes(self):
        return 1 if self.problem.gate_up_proj_scale is not None else 2

    def load_gate_up(self, gathered, piece, before):
        """[128, H / 128, 2, piece] of gate and up weights, into `before` if they may be there already."""
        hidden, intermediate = self.problem.hidden, self.problem.intermediate
        table, weights = self.problem.gate_up_proj_weight, before
        if weights is None:
            weights = nl.ndarray((P, hidden // P, 2, piece.size), dtype=table.dtype, buffer=nl.sbuf)
        columns = 2 * intermediate
        source = table.ap(
            pattern=[[columns, P], [P * columns, hidden // P], [intermediate, 2], [1, piece.size]],
            offset=self.share.first + piece.start_offset,
            scalar_offset=gathered.weights,
            indirect_dim=0,
        )
        weights_copy(self.problem, weights, source)
        return weights

    def gate_up_bank(self, weights, moving, half, tile):
        """Gate (half 0) or up (half 1) of one tile of I of a piece: [size, tokens] in PSUM."""
        bank = nl.ndarray((tile.size, moving.shape[2]), dtype=nl.float32, buffer=nl.psum)
        for contracted in range(moving.shape[1]):
            nisa.nc_matmul(
                dst=bank,
                stationary=weights[:, contracted, half, nl.ds(tile.index * P, tile.size)],
                moving=moving[:, contracted, :],
            )
        return bank

    def scales(self, gathered):
        """[128, tiles, 2] fp32 scales of gate and up, or None."""
        scale = self.problem.gate_up_proj_scale
        if scale is None:
            return None
        return self._columns(scale.reshape((scale.shape[0], scale.shape[2])), gathered.expert)

    def biases(self, gathered):
        """[128, tiles, 2] fp32 biases of gate and up, or None."""
        bias = self.problem.gate_and_up_proj_bias
        if bias is None:
            return None
        return self._columns(bias.reshape((bias.shape[0], 2 * bias.shape[2])), gathered.expert)

    def _columns(self, table, expert):
        """Row `expert` of a table [E or 1, 2 I] with I on partitions; [E or 1, 2] has one value for all."""
        size, stride = self.share.size, self.problem.intermediate
        loaded = nl.ndarray((P, div_ceil(size, P), 2), dtype=table.dtype, buffer=nl.sbuf)
        result = loaded
        if table.dtype != nl.float32:
            result = nl.ndarray(loaded.shape, dtype=nl.float32, buffer=nl.sbuf)
        step = 1 if table.shape[1] > 2 else 0
        for stack in stacks(size):
            pattern = [[step, stack.partitions], [P * step, stack.count], [stride if step else 1, 2]]
            offset = (self.share.first + stack.first * P) * step
            if table.shape[0] == 1:
                source = table.ap(pattern=pattern, offset=offset)
            else:
                source = table.ap(
                    pattern=pattern, offset=offset, scalar_offset=expert[0:1, 0:1], indirect_dim=0
                )
            part = loaded[0 : stack.partitions, nl.ds(stack.first, stack.count), :]
            nisa.dma_copy(dst=part, src=source)
            if table.dtype != nl.float32:
                target = result[0 : stack.partitions, nl.ds(stack.first, stack.count), :]
                nisa.tensor_copy(dst=target, src=part, engine=nisa.gpsimd_engine)
        return result

    # --- the product of gate and up, and down

    def new_product(self, tokens):
        """Room for the product of gate and up, I on partitions."""
        shape = (P, div_ceil(self.share.size, P), tokens)
        return nl.ndarray(shape, dtype=self.problem.compute_dtype, buffer=nl.sbuf)

    def slot(self, product, tile, size):
        """Where the product of one tile of I goes."""
        return product[0:size, tile, :]

    def sealed(self, product):
        """The product as the down projection multiplies it."""
        return product

    def down_pieces(self):
        """Ranges of the columns of H that one core finishes, each of weights that fit a piece."""
        bank_bytes = div_ceil(self.share.size, P) * COLUMNS * self._bytes()
        return TiledRange(self.share.width, max(1, PIECE_BYTES // bank_bytes) * COLUMNS)

    def load_down(self, gathered, first, piece, before):
        """[128, tiles of I, piece] of down weights, into `before` if they may be there already."""
        hidden, table = self.problem.hidden, self.problem.down_proj_weight
        weights = before
        if weights is None:
            shape = (P, div_ceil(self.share.size, P), piece.size)
            weights = nl.ndarray(shape, dtype=table.dtype, buffer=nl.sbuf)
        for stack in stacks(self.share.size):
            source = table.ap(
                pattern=[[hidden, stack.partitions], [P * hidden, stack.count], [1, piece.size]],
                offset=(self.share.first + stack.first * P) * hidden + first + piece.start_offset,
                scalar_offset=gathered.weights,
                indirect_dim=0,
            )
            part = weights[0 : stack.partitions, nl.ds(stack.first, stack.count), :]
            weights_copy(self.problem, part, source)
        return weights

    def down_bank(self, weights, product, token, start, width):
        """[128 tokens, `width` columns of H from `start` of a piece] in PSUM."""
        bank = nl.ndarray((P, width), dtype=nl.float32, buffer=nl.psum)
        for tile in TiledRange(self.share.size, P):
            nisa.nc_matmul(
                dst=bank,
                stationary=product[0 : tile.size, tile.index, nl.ds(token * P, P)],
                moving=weights[0 : tile.size, tile.index, nl.ds(start, width)],
            )
        return bank
