"""Down projection of token generation, in both orders of operands.

With tokens stationary, groups of columns of the array hold the tokens again, each for other columns of the
result: nothing is left to be summed.
"""

from typing import Any

import nki.isa as nisa
import nki.language as nl

from ...utils.kernel_helpers import div_ceil
from ...utils.projection import AT_ONCE, BANK, arrivals, copy_in
from ...utils.tiled_range import TiledRange
from .contraction import PARTITIONS, column_group, contract_weights

BLOCK = 4096  # columns of the result that tokens-stationary works on at a time: all PSUM banks
CHUNK_BYTES = 16384  # of weights in each partition that weights-stationary sums before it leaves PSUM


class TokenRows(nl.NKIObject):
    """Takes sums [T, n] from PSUM and keeps sums * scale + bias as rows of tokens in SBUF.

    Attributes:
        out: [T, N] in SBUF.
        scale: fp32 [T, 1] or [T, N] in SBUF, or None.
        bias: [T, N] in SBUF, or None.
        stored: [T, N] in HBM, where the rows are stored as they are finished, or None.
    """

    def __init__(self, out, scale: Any = None, bias: Any = None, stored: Any = None):
        self.out = out
        self.stored = stored
        self.scale = scale
        self.bias = bias

    def take(self, sums, first, index):
        """Take columns `first` on of the result; `index` counts the calls, which alternate engines."""
        columns = nl.ds(first, sums.shape[1])
        target = self.out[:, columns]
        if self.scale is None and self.bias is None:
            if index % 2:
                nisa.activation(dst=target, op=nl.copy, data=sums)
            else:
                nisa.tensor_copy(dst=target, src=sums, engine=nisa.engine.vector)
        elif self.scale is None:
            nisa.tensor_tensor(dst=target, data1=sums, data2=self.bias[:, columns], op=nl.add)
        elif self.scale.shape[1] == 1 and self.bias is None:
            nisa.activation(dst=target, op=nl.copy, data=sums, scale=self.scale)
        elif self.scale.shape[1] == 1:
            nisa.scalar_tensor_tensor(
                dst=target,
                data=sums,
                op0=nl.multiply,
                operand0=self.scale,
                op1=nl.add,
                operand1=self.bias[:, columns],
            )
        elif self.bias is None:
            nisa.tensor_tensor(dst=target, data1=sums, data2=self.scale[:, columns], op=nl.multiply)
        else:
            scaled = nl.ndarray(sums.shape, dtype=nl.float32, buffer=nl.sbuf)
            nisa.tensor_tensor(dst=scaled, data1=sums, data2=self.scale[:, columns], op=nl.multiply)
            nisa.tensor_tensor(dst=target, data1=scaled, data2=self.bias[:, columns], op=nl.add)

    def finish(self, first, size):
        """Columns `first` to `first + size` have been taken."""
        if self.stored is not None:
            columns = nl.ds(first, size)
            nisa.dma_copy(dst=self.stored[:, columns], src=self.out[:, columns], dge_mode=AT_ONCE)


class _Sums(nl.NKIObject):
    """Sums of a block of columns in PSUM, tokens stationary.

    A bank of columns belongs to one group of columns of the array, the next one to the next: two groups work
    beside each other, as a row of the array takes the moving data of two.
    """

    def __init__(self, tokens, columns):
        self.tokens = tokens
        self.group = column_group(tokens)
        self.groups = PARTITIONS // self.group
        banks = div_ceil(div_ceil(columns, BANK), self.groups)
        self.tile = nl.ndarray((PARTITIONS, banks, BANK), dtype=nl.float32, buffer=nl.psum)

    def columns(self, first, size):
        """[T, size], of one bank."""
        bank = first // BANK
        lanes = nl.ds(bank % self.groups * self.group, self.tokens)
        return self.tile[lanes, bank // self.groups, nl.ds(first % BANK, size)]

    def multiply(self, inter, weights, first):
        """Add inter.T @ weights, [rows, T] and [rows, n], for n columns from `first` on."""
        rows = column_group(weights.shape[0])
        for tile in TiledRange(weights.shape[1], BANK):
            group = (first + tile.start_offset) // BANK % self.groups
            nisa.nc_matmul(
                dst=self.columns(first + tile.start_offset, tile.size),
                stationary=inter,
                moving=weights[:, nl.ds(tile.start_offset, tile.size)],
                tile_position=(0, group * self.group),
                tile_size=(rows, self.group),
            )


def project_down_by_token(inter, rows, weights, result):
    """inter.T @ weights with tokens stationary, handed to `result` a PSUM bank at a time.

    Weights come as :func:`nkilib.core.utils.projection.arrivals` says; those of the last two steps before
    the first results are stored.

    Args:
        inter: [128, ceil(rows / 128), T] in SBUF.
        rows: rows of the contraction, I.
        weights: view of HBM, [I, N].
        result: has methods take(sums, first, index) and finish(first, size), as :class:`TokenRows`.
    """
    steps = []
    for step in TiledRange(rows, PARTITIONS):
        steps.append(step)
    steps.insert(0, steps.pop())  # it may have few rows, and as many matmuls: what comes last has many
    blocks = TiledRange(weights.shape[1], BLOCK)
    index = 0
    for block in blocks:
        is_last = block.index + 1 == len(blocks)
        sums = _Sums(inter.shape[2], block.size)
        parts = arrivals(len(steps), block.size, is_last)
        tiles = []
        for step in steps:
            tiles.append(nl.ndarray((step.size, block.size), dtype=weights.dtype, buffer=nl.sbuf))
        loaded, finished = 0, 0
        for number in range(len(parts)):
            while loaded < len(parts) and (loaded <= number or parts[number][2] < block.size):
                which = parts[loaded][0]
                _load(tiles[which], steps[which], parts[loaded], weights, block)
                loaded += 1
            which, first, size, closes = parts[number]
            k = steps[which]
            sums.multiply(inter[nl.ds(0, k.size), k.index, :], tiles[which][:, nl.ds(first, size)], first)
            if not closes:
                continue
            end = first + size
            for tile in TiledRange(size, BANK if size > BANK else div_ceil(size, 2)):  # for two engines
                start = first + tile.start_offset
                result.take(sums.columns(start, tile.size), block.start_offset + start, index)
                index += 1
            if finished == 0 or end + BANK >= block.size:
                result.finish(block.start_offset + finished, end - finished)
                finished = end


def _load(tile, k, part, weights, block):
    """Loads a part of the weights of a block of columns, of those with the rows `k`."""
    _, first, size, _ = part
    nisa.dma_copy(
        dst=tile[:, nl.ds(first, size)],
        src=weights[nl.ds(k.start_offset, k.size), nl.ds(block.start_offset + first, size)],
        dge_mode=AT_ONCE,
    )


def project_down_by_weight(accumulator, inter, rows, weights, strided, is_first=True, parts=1):
    """accumulator (+)= weights.T @ inter with weights stationary.

    Args:
        accumulator: fp32 [128, N / 128, T] in SBUF.
        inter: [128, ceil(rows / 128), T] in SBUF.
        rows: rows of the contraction, I.
        weights: :class:`TensorView` of HBM, [I, N], N a multiple of 128 * parts.
        strided: True: with B = N / 128 / parts, [p, c * B + j, t] is column c * 128 * B + p * B + j; False:
            it is column (c * B + j) * 128 + p.
        is_first: True to set the accumulator, False to add to it.
        parts: pieces of N, see `strided`.
    """
    width = weights.shape[1]
    piece = width // parts
    blocks = piece // PARTITIONS
    row_bytes = width * (1 if weights.dtype == nl.float8_e4m3 else 2)
    for chunk in TiledRange(rows, PARTITIONS * max(1, CHUNK_BYTES // row_bytes)):
        count = div_ceil(chunk.size, PARTITIONS)
        tile = nl.ndarray((PARTITIONS, count, width), dtype=weights.dtype, buffer=nl.sbuf)
        for k in TiledRange(chunk, PARTITIONS):
            source = weights.slice(0, k.start_offset, k.end_offset)
            copy_in(tile[nl.ds(0, k.size), k.index, :], source.get_view())
        for part in range(parts):
            contract_weights(
                accumulator,
                inter[:, nl.ds(chunk.start_offset // PARTITIONS, count), :],
                tile[:, :, nl.ds(part * piece, piece)],
                rows=chunk.size,
                columns=piece,
                first=part * blocks,
                is_first=is_first and chunk.index == 0,
                stride=blocks if strided else 1,
            )
