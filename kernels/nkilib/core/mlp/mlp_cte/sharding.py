"""How context encoding is divided: between two cores, into blocks of tokens, into columns of weights."""

from dataclasses import dataclass

import nki.language as nl

from ...utils.common_types import QuantizationType
from ...utils.kernel_assert import kernel_assert
from ...utils.kernel_helpers import div_ceil
from ..mlp_parameters import PARTITIONS, MlpArguments

SHORT_SEQUENCE = 256  # up to so many tokens reading the weights takes longer than multiplying
BANK = 512  # fp32 elements of a PSUM bank
TILES = 4  # of 128 tokens in a block: half of the PSUM banks, so that the other half can be emptied
PIECE_BLOCKS = 8  # 2 KiB of a row
TURNED_BYTES = 128 * 1024  # of turned rows in each partition, at most


@dataclass
class Span(nl.NKIObject):
    """Tokens, rows or columns `start` to `start + size`."""

    start: int
    size: int

    def window(self):
        """As an index of a tensor."""
        return nl.ds(self.start, self.size)


def cut(start, size, piece):
    """Spans of up to `piece` that cover `size` from `start` on, all but the last of that size."""
    spans = []
    for index in range(div_ceil(size, piece)):
        first = index * piece
        spans.append(Span(start + first, min(piece, size - first)))
    return spans


@dataclass
class Division(nl.NKIObject):
    """The part of one core.

    Attributes:
        tokens: the tokens it works on.
        intermediate: the columns of the gate and up projections it computes.
        hidden: the columns of the result it computes.
        shares_weights: True if each core has all tokens and part of the weights.
    """

    tokens: Span
    intermediate: Span
    hidden: Span
    shares_weights: bool


def divide(a: MlpArguments):
    """The part of this core.

    Two cores share the tokens. With few tokens they share the weights instead, each of which is then read
    by one core only: half of the columns of gate and up, and, after the exchange of the results, half of
    the columns of down.
    """
    everything = Division(Span(0, a.tokens), Span(0, a.intermediate_size), Span(0, a.hidden_size), False)
    if a.programs == 1:
        return everything
    short = a.tokens <= SHORT_SEQUENCE and a.intermediate_size > PARTITIONS
    if short and a.quantization_type == QuantizationType.NONE and a.tokens % a.programs == 0:
        blocks = div_ceil(a.intermediate_size, PARTITIONS)
        first = div_ceil(blocks, 2) * PARTITIONS
        half = a.hidden_size // 2
        mine = [Span(0, first), Span(first, a.intermediate_size - first)]
        return Division(everything.tokens, mine[a.program], Span(a.program * half, half), True)
    kernel_assert(
        a.tokens % a.programs == 0,
        f"B * S = {a.tokens} tokens must divide over {a.programs} cores",
    )
    size = a.tokens // a.programs
    return Division(Span(a.program * size, size), everything.intermediate, everything.hidden, False)


def token_blocks(tokens: Span, hidden_size: int):
    """The tokens in blocks, each a list of tiles of up to 128.

    A tile of turned rows, 16 bits an element, takes 2 * H bytes of each partition; those of a block stay
    within :data:`TURNED_BYTES`.
    """
    most = max(1, min(TILES, TURNED_BYTES // (2 * hidden_size)))
    tiles = cut(tokens.start, tokens.size, PARTITIONS)
    count = div_ceil(len(tiles), most)
    blocks = []
    first = 0
    for index in range(count):
        last = (index + 1) * len(tiles) // count
        blocks.append(tiles[first:last])
        first = last
    return blocks


def column_groups(spans, tiles):
    """Spans in groups that are worked on at once, as many as find PSUM banks for all tiles of tokens."""
    size = max(1, TILES // tiles)
    groups = []
    for index in range(div_ceil(len(spans), size)):
        groups.append(spans[index * size : (index + 1) * size])
    return groups


def column_tiles(span: Span):
    """Spans of up to a PSUM bank of columns, of nearly equal size."""
    count = div_ceil(span.size, BANK)
    return cut(span.start, span.size, div_ceil(span.size, count))


def around(spans):
    """The span from the first of consecutive spans to the last."""
    last = spans[len(spans) - 1]
    return Span(spans[0].start, last.start + last.size - spans[0].start)


def blocks_of_piece(blocks: int) -> int:
    """Blocks of 128 columns that are loaded as one piece of a row of `blocks`: a divisor, about 8."""
    best = 1
    for size in range(2, min(blocks, 2 * PIECE_BLOCKS) + 1):
        if blocks % size == 0 and abs(size - PIECE_BLOCKS) <= abs(best - PIECE_BLOCKS):
            best = size
    return best
