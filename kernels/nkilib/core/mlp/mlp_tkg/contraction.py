"""Products of few tokens with weights that are read once: the matrix products of token generation.

Operands keep the contraction on the partitions: `x` is [128, K, T], K blocks of up to 128 rows, and a chunk
of weights in SBUF is [128, k, N], some of those blocks for N columns. Results of :func:`contract_weights`
and :func:`contract_tokens` are the same: fp32 in SBUF, [128, ceil(N / 128), T], column n of the weights at
partition n % 128 of block n // 128.

The weights of a token-generation step are read from HBM once and used once, at 2 bytes (1 in fp8) for a
multiply with each of T tokens, so the tensor engine waits for DMA. Two orders of operands:

* weights stationary (:func:`contract_weights`): a block of 128 columns is loaded into the array and T columns
  of tokens stream through, 64 cycles or T for 128 * 128 weights.
* tokens stationary (:func:`contract_tokens`): T columns of the array hold tokens and the weights stream
  through, 128 cycles for 128 * 128 weights. With column tiling, the array is cut into groups of 32 (or 64)
  columns, each of which works on other rows of the contraction; the groups are summed, and the result turned
  to [N, T], by a product with a matrix of ones and zeros.
"""

import nki.isa as nisa
import nki.language as nl

from ...utils.kernel_helpers import div_ceil
from ...utils.projection import BANK, evacuate, identity
from ...utils.tensor_view import TensorView
from ...utils.tiled_range import TiledRange

PARTITIONS = 128


def column_group(tokens: int) -> int:
    """Columns of the array that a group of column tiling takes for so many tokens."""
    smallest = 64 if nisa.get_nc_version() == nisa.nc_version.gen2 else 32
    for size in (32, 64):
        if smallest <= size and tokens <= size:
            return size
    return PARTITIONS


def clear_tail(accumulator, columns):
    """Zero the block of `accumulator` that `columns` columns fill only in part."""
    if columns % PARTITIONS != 0:
        last = columns // PARTITIONS
        nisa.memset(dst=accumulator[:, nl.ds(last, 1), :], value=0.0)


def contract_weights(accumulator, x, weights, rows, columns, first, is_first, stride=1):
    """accumulator[:, first + b] (+)= weights[:, :, block b].T @ x, weights stationary.

    Args:
        accumulator: fp32 [128, blocks, T] in SBUF.
        x: [128, k, T] in SBUF.
        weights: [128, k, N] in SBUF, as many blocks of rows as x.
        rows: rows of the contraction in all k blocks, the last of which may have less than 128.
        columns: columns of the weights to use, counted over all blocks.
        first: block of the accumulator that receives block 0.
        is_first: True to set the accumulator, False to add to it.
        stride: 1 where block b is columns 128 b to 128 b + 127; otherwise it is columns b, b + stride, ...
    """
    tokens = accumulator.shape[2]
    blocks = div_ceil(columns, PARTITIONS)
    whole = columns // PARTITIONS
    for bank in TiledRange(blocks, BANK // tokens):
        sums = nl.ndarray((PARTITIONS, bank.size, tokens), dtype=nl.float32, buffer=nl.psum)
        for b in range(bank.size):
            block = bank.start_offset + b
            width = min(PARTITIONS, columns - block * PARTITIONS)
            for k in TiledRange(rows, PARTITIONS):
                if stride == 1:
                    stationary = weights[nl.ds(0, k.size), k.index, nl.ds(block * PARTITIONS, width)]
                else:
                    stationary = weights[
                        nl.ds(0, k.size), k.index, block : block + (width - 1) * stride + 1 : stride
                    ]
                nisa.nc_matmul(
                    dst=sums[nl.ds(0, width), b, :],
                    stationary=stationary,
                    moving=x[nl.ds(0, k.size), k.index, nl.ds(0, tokens)],
                )
        full = min(bank.end_offset, whole) - bank.start_offset
        start = first + bank.start_offset
        if full > 0:
            _accumulate(accumulator[:, nl.ds(start, full), :], sums[:, nl.ds(0, full), :], is_first)
        if full < bank.size:
            tail = nl.ds(0, columns - whole * PARTITIONS)
            _accumulate(accumulator[tail, nl.ds(start + full, 1), :], sums[tail, nl.ds(full, 1), :], is_first)


def _accumulate(target, sums, is_first):
    if is_first:
        nisa.tensor_copy(dst=target, src=sums)
    else:
        nisa.tensor_tensor(dst=target, data1=target, data2=sums, op=nl.add)


class ColumnTiling(nl.NKIObject):
    """Sums of products with tokens stationary, up to 1024 columns of weights at a time.

    Attributes:
        x: [128, K, group] in SBUF, the tokens padded with zeros to the columns of a group.
        tokens: T.
        group: columns of the array each group has.
        groups: how many there are.
        selection: fp32 [128, T], 1 where a partition holds that token, in any group.
    """

    def __init__(self, x, tokens):
        self.x = x
        self.tokens = tokens
        self.group = x.shape[2]
        self.groups = PARTITIONS // self.group
        self.selection = nl.ndarray((PARTITIONS, self.group), dtype=nl.float32, buffer=nl.sbuf)
        in_groups = TensorView(identity(PARTITIONS, nl.float32)).reshape_dim(1, (self.groups, self.group))
        nisa.tensor_reduce(
            dst=self.selection, op=nl.add, data=in_groups.permute((0, 2, 1)).get_view(), axis=2
        )

    def banks(self, columns):
        """PSUM banks for the sums of `columns` columns of weights."""
        found = []
        for tile in TiledRange(columns, BANK):
            found.append(nl.ndarray((PARTITIONS, tile.size), dtype=nl.float32, buffer=nl.psum))
        return found

    def multiply(self, banks, weights, k0):
        """Add the products with a chunk of weights, [128, k, columns], whose first block of rows is `k0`."""
        for k in range(weights.shape[1]):
            group = (k0 + k) % self.groups
            rows = nl.ds(group * self.group, self.group)
            for tile in TiledRange(weights.shape[2], BANK):
                columns = nl.ds(tile.start_offset, tile.size)
                if self.groups == 1:
                    nisa.nc_matmul(
                        dst=banks[tile.index],
                        stationary=self.x[:, k0 + k, :],
                        moving=weights[:, k, columns],
                    )
                else:
                    nisa.nc_matmul(
                        dst=banks[tile.index][rows, :],
                        stationary=self.x[:, k0 + k, :],
                        moving=weights[:, k, columns],
                        tile_position=(0, group * self.group),
                        tile_size=(PARTITIONS, self.group),
                    )

    def collect(self, accumulator, banks, first, blocks_of_rows):
        """Sum the groups into accumulator[:, first:], a block for each 128 columns of the banks.

        Args:
            accumulator: fp32 [128, blocks, T] in SBUF.
            banks: what :meth:`multiply` wrote.
            first: the block that receives the first 128 columns.
            blocks_of_rows: how many went through :meth:`multiply`; groups beyond them hold nothing.
        """
        used = min(self.groups, blocks_of_rows) * self.group
        for index in range(len(banks)):
            columns = banks[index].shape[1]
            partial = nl.ndarray((used, columns), dtype=nl.float32, buffer=nl.sbuf)
            for half in TiledRange(columns, div_ceil(columns, 2)):
                part = nl.ds(half.start_offset, half.size)
                evacuate(partial[:, part], banks[index][nl.ds(0, used), part], None, None, half.index)
            tiles = TiledRange(columns, PARTITIONS)
            sums = nl.ndarray((PARTITIONS, len(tiles), self.tokens), dtype=nl.float32, buffer=nl.psum)
            for tile in tiles:
                nisa.nc_matmul(
                    dst=sums[nl.ds(0, tile.size), tile.index, :],
                    stationary=partial[:, nl.ds(tile.start_offset, tile.size)],
                    moving=self.selection[nl.ds(0, used), nl.ds(0, self.tokens)],
                    is_moving_onezero=True,
                )
            start = first + index * (BANK // PARTITIONS)
            whole = columns // PARTITIONS
            if whole > 0:
                nisa.tensor_copy(dst=accumulator[:, nl.ds(start, whole), :], src=sums[:, nl.ds(0, whole), :])
            if columns % PARTITIONS != 0:
                tail = nl.ds(0, columns % PARTITIONS)
                nisa.tensor_copy(
                    dst=accumulator[tail, nl.ds(start + whole, 1), :], src=sums[tail, nl.ds(whole, 1), :]
                )
