"""A range cut into tiles, the last one as short as it must be."""

from dataclasses import dataclass

import nki.language as nl

from .kernel_helpers import div_ceil


@dataclass
class TiledRangeIterator(nl.NKIObject):
    """One tile of a range.

    Attributes:
        size: elements in this tile.
        index: its number, from 0.
        start_offset: its first element, counted from the start of the outermost range.
        end_offset: one past its last element.
    """

    size: int
    index: int
    start_offset: int
    end_offset: int


def TiledRange(size, tile_size: int):
    """The tiles of a range of `size` elements, or of a tile of another range, as a tuple.

    Args:
        size: an int, or a :class:`TiledRangeIterator` to cut further.
        tile_size: elements in each tile but perhaps the last.
    """
    start = 0
    total = size
    if isinstance(size, TiledRangeIterator):
        start = size.start_offset
        total = size.size
    tiles = []
    for index in range(div_ceil(total, tile_size)):
        length = min(tile_size, total - index * tile_size)
        first = start + index * tile_size
        tiles.append(TiledRangeIterator(length, index, first, first + length))
    return tuple(tiles)
