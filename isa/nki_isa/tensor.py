"""Where bytes live (:class:`Storage`) and how they are looked at (:class:`NkiTensor`).

A tensor is a strided view: element ``(i0, i1, ...)`` of it sits at element
position ``offset + sum(strides[k] * ik)`` of its storage, counted in elements
of the view's dtype. For SBUF and PSUM the storage is a matrix of partitions by
bytes; its partition stride is the number of elements one partition holds, so
position ``q`` is element ``q % row`` of partition ``q // row``.

Source: SDK ``nki.language.NkiTensor`` and the access-pattern deep dive.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

from nki_isa.diagnostics import Frame
from nki_isa.dtypes import DType


class MemoryRegion(enum.Enum):
    """The memories a tensor can live in."""

    sbuf = "sbuf"
    psum = "psum"
    private_hbm = "private_hbm"
    shared_hbm = "shared_hbm"

    @property
    def on_chip(self) -> bool:
        """True for SBUF and PSUM, which have partitions."""
        return self is MemoryRegion.sbuf or self is MemoryRegion.psum

    @property
    def is_hbm(self) -> bool:
        """True for both kinds of HBM."""
        return not self.on_chip


@dataclass(eq=False, slots=True)
class Storage:
    """A buffer a kernel allocated, or an input it was given.

    Attributes:
        index: position in the Program's list of storages; its identity in IR text.
        name: the user's name for it, or one made from the region and index.
        region: the memory it lives in.
        shape: as allocated; dimension 0 is the partition dimension on chip.
        dtype: as allocated.
        address: ``(partition, byte)`` the user asked for, or None to be placed.
        kind: ``"local"``, ``"input"``, ``"constant"``.
        stack: the user's calls that allocated it, innermost last.
        data: initial bytes of a constant, else None.
    """

    index: int
    name: str
    region: MemoryRegion
    shape: tuple[int, ...]
    dtype: DType
    address: tuple[int, int] | None = None
    kind: str = "local"
    stack: tuple[Frame, ...] = ()
    data: bytes | None = None

    @property
    def partitions(self) -> int:
        """Partitions occupied; 1 for HBM, which has none."""
        return self.shape[0] if self.region.on_chip else 1

    @property
    def row_bytes(self) -> int:
        """Bytes in one partition, or in the whole buffer for HBM."""
        dims = self.shape[1:] if self.region.on_chip else self.shape
        return math.prod(dims) * self.dtype.itemsize


class VirtualRegister:
    """A 32-bit scalar in an engine's register file, known only at run time.

    Attributes:
        index: its number in the Program.
        frozen: True for a loop's induction variable, which cannot be written.
    """

    __slots__ = ("index", "frozen")

    def __init__(self, index: int = -1, frozen: bool = False):
        self.index = index
        self.frozen = frozen


@dataclass(frozen=True, slots=True)
class DynamicOffset:
    """A run-time term of a view's address.

    Attributes:
        kind: ``"scalar"`` (one offset for all partitions), ``"vector"`` (one per
            partition of the index) or ``"indirect"`` (trn3 tensor indirection).
        index: a register, or the tensor that holds the offsets.
        stride: elements one step of the index moves by.
        dim: the dimension of the view that the index replaces or shifts.
        limit: size of the indexed dimension, for out-of-bounds checks.
    """

    kind: str
    index: NkiTensor | VirtualRegister
    stride: int
    dim: int
    limit: int


class NkiTensor:
    """A strided view of a storage; every view method returns another, no data moves.

    Attributes:
        shape: sizes, dimension 0 the partition dimension on chip.
        strides: in elements of `dtype`, one per dimension.
        offset: elements from the start of the storage.
        dtype: how the bytes are read.
        storage: the buffer.
        dynamic: the run-time offset, or None.
    """

    __slots__ = ("shape", "strides", "offset", "dtype", "storage", "dynamic")

    def __init__(
        self,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        offset: int,
        dtype: DType,
        storage: Storage,
        dynamic: DynamicOffset | None = None,
    ):
        self.shape = shape
        self.strides = strides
        self.offset = offset
        self.dtype = dtype
        self.storage = storage
        self.dynamic = dynamic

    @classmethod
    def whole(cls, storage: Storage) -> NkiTensor:
        """The row-major view of all of `storage`."""
        return cls(storage.shape, contiguous_strides(storage.shape), 0, storage.dtype, storage)

    @property
    def buffer(self) -> MemoryRegion:
        """The memory it lives in."""
        return self.storage.region

    @property
    def name(self) -> str:
        """The storage's name."""
        return self.storage.name

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def get_pattern(self) -> list[list[int]]:
        """``[[stride, count], ...]``, one pair per dimension, outermost first."""
        return [[stride, count] for stride, count in zip(self.strides, self.shape)]

    # The view methods of the API page follow here: __getitem__, slice, select, vector_select, permute,
    # broadcast, expand_dim, squeeze_dim, reshape_dim, flatten_dims, reshape, rearrange, ap, view,
    # reinterpret_cast, indirect, is_contiguous, is_indirect.

    def __setitem__(self, key: Any, value: Any) -> None:
        raise NotImplementedError


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides of `shape`, in elements."""
    strides = [1] * len(shape)
    for k in range(len(shape) - 2, -1, -1):
        strides[k] = strides[k + 1] * shape[k + 1]
    return tuple(strides)
