"""Tile and block grids: a tensor cut into tiles, or allocated as tiles, and indexed by tile.

A grid is a view: making or indexing one allocates nothing, copies nothing and records nothing. Its ``.data``
is the tensor that instructions take. Boundary cells are clamped to what there is; nothing is padded.

Source: SDK pages of ``nki.language`` (tiles, blocks, alloc_tiles, alloc_blocks, NkiTileGrid, NkiBlockGrid).
What they do not say is listed in docs/migration.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from nki.language.creation import like, ndarray, new_tensor
from nki_isa.diagnostics import NkiError, error
from nki_isa.machine.dtypes import DType
from nki_isa.tensor.kinds import Dtype, Kind, define, shown
from nki_isa.tensor.storage import MemoryRegion
from nki_isa.tensor.tensor import NkiTensor

#: A tuple of exact ints, which the functions here check themselves (NKI-V150).
Sizes: TypeAlias = Any

_SOURCE = "SDK pages of nl.tiles and nl.alloc_tiles"


@dataclass(frozen=True, slots=True)
class _Dimension:
    """What a grid shows of one dimension of its source.

    Attributes:
        start: the first element shown.
        extent: how many are.
        tile: elements of a tile; 1 where the dimension is not tiled.
        block: tiles of a cell.
        kept: True if it is a coordinate of the grid; an int takes it away.
    """

    start: int
    extent: int
    tile: int = 1
    block: int = 1
    kept: bool = True

    @property
    def step(self) -> int:
        return self.tile * self.block

    @property
    def cells(self) -> int:
        return -(-self.extent // self.step)

    def cell(self, first: int, count: int) -> _Dimension:
        """`count` cells from `first` on, the last one clamped."""
        start = first * self.step
        return replace(self, start=self.start + start, extent=min(count * self.step, self.extent - start))


class NkiGrid:
    """A grid of tiles or blocks; made by the functions of this module, not by hand.

    Attributes:
        shape: cells of each coordinate.
        tile_shape: elements of a tile, for the last dimensions of the source.
        element_shape: elements shown of each dimension of the source.
        index_step_elements: elements that one step of each coordinate moves by.
        data: the tensor of what is shown, where one access pattern describes it.
        is_data_representable: True where it does.
        is_remainder: True if a cell of what is shown is clamped.
        dtype: of the source.
        buffer: the memory it lives in.
    """

    def __init__(self, **kwargs: Any):
        made: tuple[_Dimension, ...] | None = kwargs.pop("_dimensions", None)
        if made is None:
            raise error(
                "NKI-V150",
                f"{type(self).__name__} is made by hand",
                help="call nl.tiles, nl.blocks, nl.alloc_tiles or nl.alloc_blocks",
            )
        self._dimensions = made
        self._rank: int = kwargs.pop("_rank")  # of a tile
        self._storage: _Plain | _Packed = kwargs.pop("_storage")

    def _with(self, dimensions: tuple[_Dimension, ...]) -> NkiGrid:
        return type(self)(_dimensions=dimensions, _rank=self._rank, _storage=self._storage)

    # --- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(d.cells for d in self._dimensions if d.kept)

    @property
    def tile_shape(self) -> tuple[int, ...]:
        return tuple(d.tile for d in self._dimensions[-self._rank :])

    @property
    def element_shape(self) -> tuple[int, ...]:
        return tuple(d.extent for d in self._dimensions)

    @property
    def index_step_elements(self) -> tuple[int, ...]:
        return tuple(d.step for d in self._dimensions if d.kept)

    @property
    def is_remainder(self) -> bool:
        return any(d.extent % d.step for d in self._dimensions)

    @property
    def dtype(self) -> DType:
        return self._storage.tensor.dtype

    @property
    def buffer(self) -> MemoryRegion:
        return self._storage.tensor.buffer

    @property
    def is_data_representable(self) -> bool:
        return self._storage.view(self._dimensions) is not None

    @property
    def data(self) -> NkiTensor:
        """The tensor of what is shown; dimensions that are not tiled and that an int selected are left out.

        Raises:
            NkiError: NKI-V152, no one access pattern describes it.
        """
        view = self._storage.view(self._dimensions)
        if view is None:
            raise error(
                "NKI-V152",
                f"{self!r} is {self.shape} tiles of {self.tile_shape} in different places of "
                f"{self.buffer.value}; no one access pattern describes them",
                help="take .data of fewer cells: of one tile, or of tiles along the free dimension",
                notes=(f"source: {_SOURCE}",),
            )
        return view

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"{kind} {list(self.shape)} of {self._storage.tensor.name}{list(self.element_shape)}"

    # --- indexing

    def __getitem__(self, key: Any) -> NkiGrid:
        """The grid that ints and slices select, one for each coordinate; an int takes its coordinate away.

        Raises:
            NkiError: NKI-V151 for other keys, for too many, and beyond the grid's shape.
        """
        keys = key if isinstance(key, tuple) else (key,)
        kept = [k for k, d in enumerate(self._dimensions) if d.kept]
        if len(keys) > len(kept):
            raise _bad_index(self, key, f"it has {len(kept)} coordinates")
        made = list(self._dimensions)
        for place, item in zip(kept, keys):
            made[place] = self._selected(made[place], item, key)
        return self._with(tuple(made))

    def _selected(self, dimension: _Dimension, item: Any, key: Any) -> _Dimension:
        cells = dimension.cells
        if type(item) is int:
            if not -cells <= item < cells:
                raise _bad_index(self, key, f"{item} is outside the {cells} cells of its coordinate")
            return replace(dimension.cell(item % cells, 1), kept=False)
        if isinstance(item, slice):
            if not all(part is None or type(part) is int for part in (item.start, item.stop, item.step)):
                raise _bad_index(self, key, "the parts of a slice are ints")
            if item.step not in (None, 1):
                raise _bad_index(self, key, f"a slice has step 1, not {item.step}")
            first, last, _ = item.indices(cells)
            if (item.stop or 0) > cells or last <= first:
                raise _bad_index(self, key, f"the slice takes nothing, or more than {cells} cells")
            return dimension.cell(first, last - first)
        raise _bad_index(self, key, f"{shown(item)} is neither an int nor a slice")

    def __iter__(self) -> Any:
        raise _bad_index(self, ..., "it is not iterated over")


class NkiTileGrid(NkiGrid):
    """A grid whose cells are tiles; see :class:`NkiGrid`."""


class NkiBlockGrid(NkiGrid):
    """A grid whose cells are blocks of tiles; see :class:`NkiGrid`.

    Attributes:
        block_shape: tiles of a block, for each dimension of a tile.
    """

    @property
    def block_shape(self) -> tuple[int, ...]:
        return tuple(d.block for d in self._dimensions[-self._rank :])


def _bad_index(grid: NkiGrid, key: Any, why: str) -> NkiError:
    return error(
        "NKI-V151",
        f"{grid!r} is indexed with {key!r}: {why}",
        help="write g[i, j], g[i, :] or g[:, j0:j1], with ints known at compile time",
        notes=(f"source: {_SOURCE}",),
    )


# --- where the elements are


@dataclass(frozen=True, slots=True)
class _Plain:
    """A tensor that holds its elements in their order."""

    tensor: NkiTensor

    def view(self, dimensions: tuple[_Dimension, ...]) -> NkiTensor | None:
        keys = tuple(
            slice(d.start, d.start + d.extent) if d.kept or d.step > 1 or d.extent != 1 else d.start
            for d in dimensions
        )
        return self.tensor[keys]


@dataclass(frozen=True, slots=True)
class _Packed:
    """Whole tiles one after the other along the free dimension of one tensor on chip.

    Attributes:
        tensor: of shape (partitions of a tile, tiles * free elements of one).
        grid: tiles along each dimension.
    """

    tensor: NkiTensor
    grid: tuple[int, ...]

    def view(self, dimensions: tuple[_Dimension, ...]) -> NkiTensor | None:
        """Along a dimension with several tiles, the next tile goes on where the last one ends."""
        tile = [d.tile for d in dimensions]
        free = math.prod(tile[1:])
        inside = [math.prod(tile[k + 1 :]) for k in range(len(tile))]  # strides of a tile's elements
        outside = [free * math.prod(self.grid[k + 1 :]) for k in range(len(tile))]  # from tile to tile
        partitions = math.prod(self.tensor.shape[1:])
        offset, pattern = 0, []
        for k, d in enumerate(dimensions):
            first, within = divmod(d.start, d.tile)
            several = within + d.extent > d.tile
            stride = partitions if k == 0 else inside[k]
            if several and (k == 0 or outside[k] != stride * d.tile):
                return None
            offset += first * outside[k] + within * (0 if k == 0 else stride)
            pattern.append([stride, d.extent])
        return self.tensor.ap(pattern, offset)


# --- making grids


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    """A shape that the caller gave.

    Raises:
        TypeError (NKI-V150): it is not a tuple of ints; ValueError (NKI-V150): an entry is not positive.
    """
    if not isinstance(shape, tuple) or not all(type(size) is int for size in shape):
        raise _misshapen(
            TypeError, f"{name} is {shown(shape)}, not a tuple of ints", f"write {name}=(128, 512)"
        )
    if any(size <= 0 for size in shape):
        raise _misshapen(ValueError, f"{name} is {shape}, with an entry below 1", "give positive sizes")
    return shape


class _TypeError(NkiError, TypeError):
    """A shape or a buffer of a wrong kind: Python's TypeError too, as the pages say."""


class _ValueError(NkiError, ValueError):
    """A size that cannot be: Python's ValueError too, as the pages say."""


def _misshapen(kind: type[Exception], message: str, help: str) -> NkiError:
    made = _TypeError if kind is TypeError else _ValueError
    return made(error("NKI-V150", message, help=help, notes=(f"source: {_SOURCE}",)).diagnostics)


def _tile_shape(shape: Any, rank: int) -> tuple[int, ...]:
    sizes = _shape("tile_shape", shape)
    if not 2 <= len(sizes) <= rank:
        raise _misshapen(
            ValueError,
            f"tile_shape {sizes} has {len(sizes)} sizes; it has 2 to {rank}, for the last dimensions",
            "write (n, 1) or (1, n) for rows or columns",
        )
    return sizes


def _block_shape(shape: Any, rank: int) -> tuple[int, ...]:
    sizes = _shape("block_shape", shape)
    if len(sizes) != rank:
        raise _misshapen(
            ValueError,
            f"block_shape {sizes} has {len(sizes)} sizes, tile_shape has {rank}",
            "give the number of tiles of a block for each dimension of a tile",
        )
    return sizes


def _grid(
    kind: type[NkiGrid], source: Any, tile_shape: Any, block_shape: Any, called: str
) -> Any:  # NkiTileGrid or NkiBlockGrid
    if not isinstance(source, (NkiTensor, NkiGrid)):
        raise _misshapen(
            TypeError, f"{called}: source is {shown(source)}, not a tensor or a grid", "pass a tensor"
        )
    if isinstance(source, NkiTensor):
        storage: _Plain | _Packed = _Plain(source)
        dimensions = tuple(_Dimension(0, size) for size in source.shape)
        if tile_shape is None:
            raise _misshapen(
                TypeError, f"{called} of a tensor has no tile_shape", "write tile_shape=(128, 512)"
            )
    else:
        storage, dimensions = source._storage, source._dimensions
        tile_shape = source.tile_shape if tile_shape is None else tile_shape
    sizes = _tile_shape(tile_shape, len(dimensions))
    if isinstance(storage, _Packed) and isinstance(source, NkiGrid) and sizes != source.tile_shape:
        raise _misshapen(
            ValueError,
            f"{called}: tile_shape is {sizes}, the tiles in {source.buffer.value} are {source.tile_shape}",
            "leave tile_shape out",
        )
    rank = len(sizes)
    blocks = (1,) * rank if block_shape is None else _block_shape(block_shape, rank)
    untiled = tuple(replace(d, tile=1, block=1) for d in dimensions[:-rank])
    tiled = tuple(
        replace(d, tile=size, block=block, kept=True)
        for d, size, block in zip(dimensions[-rank:], sizes, blocks, strict=True)
    )
    return kind(_dimensions=(*untiled, *tiled), _rank=rank, _storage=storage)


def tiles(source: NkiTensor | NkiTileGrid | NkiBlockGrid, *, tile_shape: Sizes | None = None) -> NkiTileGrid:
    """`source` as a grid of tiles; a view.

    Args:
        source: a tensor, or a grid: of a block, its tiles.
        tile_shape: sizes of a tile, two or more, for the last dimensions of `source`; the dimensions before
            are coordinates of single elements. None keeps a grid's tiles.

    Raises:
        NkiError: NKI-V150 for a shape that is none.
    """
    return _grid(NkiTileGrid, source, tile_shape, None, "nl.tiles")


def blocks(
    source: NkiTensor | NkiTileGrid | NkiBlockGrid,
    *,
    tile_shape: Sizes | None = None,
    block_shape: Sizes,
) -> NkiBlockGrid:
    """`source` as a grid of blocks of tiles; a view.

    Args:
        source: a tensor or a grid.
        tile_shape: as for :func:`tiles`.
        block_shape: tiles of a block, for each dimension of a tile.

    Raises:
        NkiError: NKI-V150 for a shape that is none.
    """
    return _grid(NkiBlockGrid, source, tile_shape, block_shape, "nl.blocks")


def _allocated(
    kind: type[NkiGrid],
    tile_shape: Any,
    block_shape: Any,
    element_shape: Any,
    buffer: Any,
    dtype: Any,
    address: Any,
    name: Any,
) -> Any:
    elements = _shape("element_shape", element_shape)
    sizes = _tile_shape(tile_shape, len(elements))
    blocks = (1,) * len(sizes) if block_shape is None else _block_shape(block_shape, len(sizes))
    if not isinstance(buffer, MemoryRegion):
        raise _misshapen(TypeError, f"buffer is {shown(buffer)}, not a memory region", "write buffer=nl.sbuf")
    if buffer.on_chip and len(sizes) != len(elements):
        raise _misshapen(
            ValueError,
            f"tile_shape {sizes} leaves dimensions of element_shape {elements} untiled, in {buffer.value}",
            "give a tile size for each dimension",
        )
    first = len(elements) - len(sizes)
    dimensions = tuple(
        _Dimension(0, size) if k < first else _Dimension(0, size, sizes[k - first], blocks[k - first])
        for k, size in enumerate(elements)
    )
    if not buffer.on_chip:
        storage: _Plain | _Packed = _Plain(new_tensor(elements, dtype, buffer, name, address))
    else:
        grid = tuple(-(-size // tile) for size, tile in zip(elements, sizes, strict=True))
        shape = sizes[0], math.prod(grid) * math.prod(sizes[1:])
        storage = _Packed(new_tensor(shape, dtype, buffer, name, address), grid)
    return kind(_dimensions=dimensions, _rank=len(sizes), _storage=storage)


def alloc_tiles(
    *,
    tile_shape: Sizes,
    element_shape: Sizes,
    buffer: MemoryRegion,
    dtype: Dtype,
    address: tuple[int, ...] | None = None,
    name: str = "",
) -> NkiTileGrid:
    """New, unset storage for `element_shape` elements as a grid of tiles.

    In HBM it is the elements in their order; on chip one tensor of (partitions of a tile, tiles times free
    elements of one), with room for whole tiles.

    Args:
        tile_shape: sizes of a tile, two or more; dimension 0 is the partitions on chip.
        element_shape: sizes of what is stored; the tiles at its ends are clamped.
        buffer: ``nl.sbuf``, ``nl.psum`` or a region of HBM.
        dtype: an NKI dtype.
        address: where, as of :func:`nki.language.ndarray`.
        name: a label for reports.

    Raises:
        NkiError: NKI-V150 for a shape or buffer that is none, also as Python's TypeError or ValueError; those
            of :func:`nki.language.ndarray`.
    """
    made = _allocated(NkiTileGrid, tile_shape, None, element_shape, buffer, dtype, address, name)
    return made


def alloc_blocks(
    *,
    tile_shape: Sizes,
    block_shape: Sizes,
    element_shape: Sizes,
    buffer: MemoryRegion,
    dtype: Dtype,
    address: tuple[int, ...] | None = None,
    name: str = "",
) -> NkiBlockGrid:
    """As :func:`alloc_tiles`, as a grid of blocks: the storage is the same.

    Args:
        block_shape: tiles of a block, for each dimension of a tile.
    """
    made = _allocated(NkiBlockGrid, tile_shape, block_shape, element_shape, buffer, dtype, address, name)
    return made


def empty_like(
    x: NkiTensor | NkiGrid, dtype: Dtype | None = None, buffer: Any = None, name: str | None = ""
) -> Any:
    """An unset tensor of the shape of `x`, of its dtype and buffer unless others are given; or a grid."""
    if isinstance(x, NkiTensor):
        return ndarray(x.shape, *like(x, dtype, buffer), name)
    return _like(x, dtype, buffer, name)


def _like(grid: NkiGrid, dtype: Any, buffer: Any, name: str | None) -> NkiGrid:
    """New, unset storage of the geometry of what `grid` shows."""
    blocks = grid.block_shape if isinstance(grid, NkiBlockGrid) else None
    region = grid.buffer if buffer is None else buffer
    shape = grid.element_shape[-len(grid.tile_shape) :] if region.on_chip else grid.element_shape
    kind = grid.dtype if dtype is None else dtype
    made = _allocated(type(grid), grid.tile_shape, blocks, shape, region, kind, None, name or "")
    return made


define(
    "NkiGrid",
    Kind("a grid of tiles", lambda value: isinstance(value, NkiGrid), help="make one with nl.tiles"),
)

__all__ = [
    "NkiBlockGrid",
    "NkiGrid",
    "NkiTileGrid",
    "alloc_blocks",
    "alloc_tiles",
    "blocks",
    "empty_like",
    "tiles",
]
