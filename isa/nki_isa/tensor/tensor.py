"""How the bytes of a storage are looked at: :class:`NkiTensor` and its indexing.

A tensor is a strided view: element ``(i0, i1, ...)`` of it sits at element
position ``offset + sum(strides[k] * ik)`` of its storage, counted in elements
of the view's dtype. For SBUF and PSUM the storage is a matrix of partitions by
bytes; its partition stride is the number of elements one partition holds, so
position ``q`` is element ``q % row`` of partition ``q // row``.

A run-time offset adds ``index * stride`` to that position (:class:`DynamicOffset`).

Sources: SDK ``nki.language.NkiTensor``, the access-pattern deep dive (``nki-aps.rst``) and the sections
"Tensor Values" and "Tensor Indexing" of the NKI Language Guide.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from nki_isa.diagnostics import NkiError, error
from nki_isa.machine.dtypes import DType
from nki_isa.tensor.addressing import AddressedView, Index
from nki_isa.tensor.dynamic import DynamicOffset, already_indirect, dynamic_offset
from nki_isa.tensor.kinds import Kind, checked, checked_methods, define
from nki_isa.tensor.opaque import never_equal, opaque
from nki_isa.tensor.shown import more_of
from nki_isa.tensor.storage import INPUT, MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.strides import contiguous_strides, integer, is_row_major, reach

_copier: ContextVar[Callable[[NkiTensor, NkiTensor], None] | None] = ContextVar("copier", default=None)


@contextlib.contextmanager
def assigning(copy: Callable[[NkiTensor, NkiTensor], None]) -> Iterator[None]:
    """Inside the block ``view[...] = tile`` is ``copy(view, tile)``."""
    token = _copier.set(copy)
    try:
        yield
    finally:
        _copier.reset(token)


class DynamicSlice:
    """``size`` positions from `start`, which may be known only at run time; made by :func:`ds`.

    Attributes:
        start: an integer, a register, or an SBUF tensor of one integer.
        size: how many positions.
    """

    __slots__ = ("size", "start")

    def __init__(self, start: int | VirtualRegister | NkiTensor, size: int):
        if type(start) is not int and not isinstance(start, (VirtualRegister, NkiTensor)):
            start = integer(start)
        if type(size) is not int:
            size = integer(size)
        if size < 0:
            raise error("NKI-V013", f"nl.ds takes {size} elements", help="a size is at least 0")
        self.start = start
        self.size = size

    def __repr__(self) -> str:
        return f"ds({self.start!r}, {self.size})"


@checked
def ds(start: int | VirtualRegister | NkiTensor, size: int) -> DynamicSlice:
    """``nl.ds``: the positions ``start`` to ``start + size`` of a dimension, as an index of a tensor.

    Raises:
        NKI-V012: `start` or `size` is not an integer (or, for `start`, a register or tensor).
        NKI-V013: `size` is negative. One of 0 makes a view that no instruction takes, for a share of
            the work that is empty.
    """
    return DynamicSlice(start, size)


_BACKWARDS = (
    "a slice steps forwards; for the reverse order write t.ap(pattern=[[512, 128], [-1, 512]], offset=511), "
    "for a tile of [128, 512]"
)


@opaque
@checked_methods
class NkiTensor(AddressedView):
    """A strided view of a storage; every view method returns another, no data moves.

    Attributes:
        shape: sizes, dimension 0 the partition dimension on chip.
        strides: in elements of `dtype`, one per dimension.
        offset: elements from the start of the storage.
        dtype: how the bytes are read.
        storage: the buffer.
        dynamic: the run-time offset, or None.
    """

    __slots__ = ("dtype", "dynamic", "offset", "shape", "storage", "strides")

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
        """The memory it lives in; that of a kernel's input equals ``nl.hbm`` and ``nl.shared_hbm``."""
        return INPUT if self.storage.kind == "input" else self.storage.region

    @property
    def name(self) -> str:
        """The storage's name."""
        return self.storage.name

    @property
    def address(self) -> tuple[int, int] | None:
        """``(partition, byte)`` that its buffer was allocated at, or None if it is placed later."""
        return self.storage.address

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def is_contiguous(self) -> bool:
        """True if the elements are dense and in row-major order; on chip, within each partition."""
        first = self.storage.on_chip
        return is_row_major(self.shape[first:], self.strides[first:])

    def is_indirect(self) -> bool:
        """True if a run-time index takes part in the address."""
        return self.dynamic is not None

    @property
    def data(self) -> NkiTensor:
        """The tensor itself, as a cell of a grid has one."""
        return self

    # --- indexing

    def __getitem__(self, key: Any) -> NkiTensor:
        """The view that integers, slices, ``...`` and :func:`ds` name, one per dimension.

        An integer drops its dimension, but on chip dimension 0 stays with size 1, and where too few
        dimensions would remain (2 on chip, 1 in HBM) the last one stays with size 1. Negative integers
        and bounds count from the end; bounds beyond the dimension are refused, not clipped (the NKI
        front end published as leanprover/KLR refuses them too).

        Raises:
            NKI-V010, V011, V012, V013: the key does not fit the shape.
            NKI-V015: a step along the partition dimension.
            NKI-V024, V025, V026, V027: a run-time start that cannot be.
        """
        keys: Any = key if type(key) is tuple else (key,)
        shape, strides, offset = self.shape, self.strides, self.offset
        dynamic = self.dynamic
        if len(keys) > len(shape):
            if not any([item is Ellipsis for item in keys]):
                raise self._too_many_indices(keys)
            return self[self._without_ellipsis(keys)]
        sizes = list(shape)
        changed: list[int | None] | None = None  # strides, None for a dimension that is dropped
        for dim, item in enumerate(keys):
            kind = type(item)
            if kind is DynamicSlice:
                start, count = item.start, item.size
                if type(start) is int:
                    if start < 0 or start + count > shape[dim]:
                        raise self._out_of_range(dim, item)
                    if dynamic is not None:
                        self._check_locked(dim, count)
                    offset += start * strides[dim]
                    sizes[dim] = count
                    continue
            elif kind is slice and item.start is item.stop is item.step is None and shape[dim]:
                continue  # all of it
            elif item is Ellipsis:
                return self[self._without_ellipsis(keys)]
            start, count, step, kept = self._extent(dim, item)
            if dynamic is not None:
                self._check_locked(dim, count if kept else 0)
            if kind is DynamicSlice:
                self._refuse_runtime_partition(dim)
                if dynamic is not None:
                    raise already_indirect(self)
                dynamic = dynamic_offset(self, "scalar", item.start, strides[dim], shape[dim] - count + 1)
            if dim == 0 and self.storage.on_chip:
                kept = True
                if step != 1 and count > 1:
                    raise error(
                        "NKI-V015",
                        f"{self} is sliced with step {step} along its partitions; an access takes "
                        f"consecutive partitions",
                        help="step along a free dimension, or move the partitions with nisa.dma_copy",
                    )
                step = 1
            offset += start * strides[dim]
            sizes[dim] = count
            if step != 1 or not kept:
                changed = changed or [*strides]
                changed[dim] = strides[dim] * step if kept else None
        if changed is not None:  # else one object for all parts of a tensor
            sizes = [size for size, stride in zip(sizes, changed, strict=True) if stride is not None]
            new = [stride for stride in changed if stride is not None]
            if len(sizes) < 1 + self.storage.on_chip:
                sizes.append(1)
                new.append(strides[-1])
            strides = tuple(new)
        return NkiTensor(tuple(sizes), strides, offset, self.dtype, self.storage, dynamic)

    def slice(self, dim: int, start: int, end: int, step: int = 1) -> NkiTensor:
        """Elements `start` to `end` (exclusive) of `dim`, every `step`-th.

        Raises:
            NKI-V010: not ``0 <= start < end <= shape[dim]``. NKI-V013: ``step < 1`` or ``start >= end``.
            NKI-V014: no such `dim`. NKI-V015: a step along the partitions. NKI-V025: `dim` is locked.
        """
        self._check_dim(dim)
        if integer(start) < 0 or integer(end) < 0:
            raise self._out_of_range(dim, slice(start, end, step))
        return self[(slice(None),) * dim + (slice(start, end, step),)]

    def select(self, dim: int, index: int | Index) -> NkiTensor:
        """One element along `dim`, which is dropped as an integer index drops it.

        Args:
            dim: any; with a run-time index on chip, not 0.
            index: an integer; or a register or an SBUF tensor of one integer, read at run time.

        Raises:
            NKI-V010: the integer is not in ``range(shape[dim])``. NKI-V014: no such `dim`.
            NKI-V024: a second run-time index. NKI-V025: `dim` is locked. NKI-V026: `index` is neither.
            NKI-V027: a run-time index along the partitions.
        """
        self._check_dim(dim)
        before = (slice(None),) * dim
        if isinstance(index, NkiTensor | VirtualRegister):
            self._refuse_runtime_partition(dim)
            dynamic = dynamic_offset(self, "scalar", index, self.strides[dim], self.shape[dim])
            key = (*before, 0)
            view = self[key]
            view.dynamic = dynamic
            return view
        if integer(index) < 0:
            raise self._out_of_range(dim, index)
        key = (*before, index)
        return self[key]

    # --- identity

    def __eq__(self, other: object) -> bool:
        """True for the same view of the same storage; contents do not take part."""
        if self is other:
            return True
        if isinstance(other, NkiTensor):
            return signature(self) == signature(other)
        if isinstance(other, (int, float, np.number)):
            never_equal(self, other)
        return False

    def __hash__(self) -> int:
        return hash(signature(self))

    def __repr__(self) -> str:
        indirect = " indirect" if self.dynamic else ""
        return f"{self.name}{list(self.shape)} {self.dtype} {self.buffer.value}{indirect}{more_of(self)}"

    # --- what a tensor is not

    def __setitem__(self, key: Any, value: Any) -> None:
        """A tile assigned to a view is copied there by whoever specializes the kernel.

        Raises:
            NKI-V029: `value` is not a tensor, or nothing records a kernel.
        """
        copy = _copier.get()
        if copy is not None and isinstance(value, NkiTensor):
            return copy(self[key], value)
        raise error(
            "NKI-V029",
            f"{self} is assigned to; a tensor is memory on the device, written by instructions",
            help="nisa.tensor_copy(dst=t[...], src=...) within SBUF and PSUM, nisa.dma_copy to or from HBM, "
            "nisa.memset(dst=t[...], value=...) for a constant",
        )

    # --- checks

    def _at(
        self,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        offset: int,
        dtype: DType,
        dynamic: DynamicOffset | None = None,
    ) -> NkiTensor:
        """Another part of the same storage, or the same part read as `dtype`."""
        return NkiTensor(shape, strides, offset, dtype, self.storage, dynamic)

    def _with(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> NkiTensor:
        """The same bytes as other dimensions."""
        if len(shape) < 1 + self.storage.on_chip:
            raise self._too_few(shape)
        return NkiTensor(shape, strides, self.offset, self.dtype, self.storage)

    def _without_ellipsis(self, keys: tuple[Any, ...]) -> tuple[Any, ...]:
        at = [k for k, item in enumerate(keys) if item is Ellipsis]
        if len(at) > 1:
            raise error("NKI-V011", f"the key of {self} has {len(at)} Ellipsis; one is enough")
        full = (slice(None),) * (self.ndim - len(keys) + 1)
        return keys[: at[0]] + full + keys[at[0] + 1 :]

    def _too_many_indices(self, keys: tuple[Any, ...]) -> NkiError:
        help = f"give at most {self.ndim} indices, or `...` for the dimensions left out"
        if None in [key if key is None else 0 for key in keys]:
            dims = [dim for dim, key in enumerate(keys) if key is None]
            help = "write t" + "".join(f".expand_dim({dim})" for dim in dims) + " to add dimensions of size 1"
        return error(
            "NKI-V011", f"{self} has {self.ndim} dimensions; the key has {len(keys)} indices", help=help
        )

    def _extent(self, dim: int, item: Any) -> tuple[int, int, int, bool]:
        """What an index takes of dimension `dim`: start, count, step, and whether the dimension stays."""
        size = self.shape[dim]
        kind = type(item)
        if kind is slice:
            start, stop = item.start, item.stop
            if type(start) is not int or start < 0:
                start = 0 if start is None else self._position(start, size)
            if type(stop) is not int or stop < 0:
                stop = size if stop is None else self._position(stop, size)
            step = 1 if item.step is None else integer(item.step, "the step of a slice")
            if start < 0 or stop < 0 or stop > size:
                raise self._out_of_range(dim, item)
            if start >= stop or step < 1:
                raise error(
                    "NKI-V013",
                    f"slice {_text(item)} of dimension {dim} of {self}, which has size {size}",
                    help=_BACKWARDS if step < 1 else "a slice takes at least one element: write t[:, 0:1]",
                )
            return start, -((start - stop) // step), step, True
        if kind is DynamicSlice:  # from a place known at run time
            if item.size > size:
                raise self._out_of_range(dim, item)
            return 0, item.size, 1, True
        start = self._position(item, size)
        if not 0 <= start < size:
            raise self._out_of_range(dim, item)
        return start, 1, 1, False

    def _check_locked(self, dim: int, count: int) -> None:
        """Refuse to take a part of a dimension that a run-time index addresses."""
        if self.dynamic is not None and dim <= self.dynamic.dim and count != self.shape[dim]:
            raise self._locked("index", dim)

    def _position(self, value: Any, size: int) -> int:
        """An index or bound as an int, counted from the start."""
        if type(value) is not int:
            value = integer(value, f"an index of {self}")
        return value + size if value < 0 else value

    def _out_of_range(self, dim: int, index: Any) -> NkiError:
        return error(
            "NKI-V010",
            f"index {_text(index)} of dimension {dim} of {self}, which has size {self.shape[dim]}",
            help=f"nothing is clipped: for a partial tile write min(end, {self.shape[dim]}) yourself",
        )


_MAKE_TENSOR = (
    "pass a tensor made by nl.ndarray; an array comes in as an argument of the kernel, or by "
    "nl.shared_constant, and is loaded into SBUF first"
)
define(
    "NkiTensor",
    Kind("a tensor", lambda v: isinstance(v, NkiTensor), help=_MAKE_TENSOR, usual=frozenset({NkiTensor})),
)
define(
    "list[NkiTensor]",
    Kind(
        "a list of tensors",
        lambda v: isinstance(v, (list, tuple)) and all(isinstance(item, NkiTensor) for item in v),
        help="pass the tensors in brackets: [a, b]",
    ),
)


def box(tensor: NkiTensor) -> tuple[int, int, int, int]:
    """The rectangle of its storage that `tensor` touches, run-time offsets included.

    Returns:
        ``(partition_start, partition_count, byte_start, byte_end)``, relative to the storage, the end
        exclusive. HBM has one partition, 0.
    """
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    itemsize = tensor.dtype.itemsize
    row = storage.row_bytes // itemsize
    start, low = divmod(tensor.offset, row)
    first = 1 if storage.on_chip else 0
    before, after = reach(shape[first:], strides[first:])
    low, high = low + before, low + after + 1
    dynamic = tensor.dynamic
    if dynamic is not None:
        high = min(row, high + dynamic.stride * (dynamic.limit - 1))
    return start, (shape[0] if first else 1), low * itemsize, high * itemsize


def signature(tensor: NkiTensor) -> Hashable:
    """What makes two views the same: storage, dtype, offset, shape, strides, run-time offset."""
    return tensor.storage, tensor.dtype, tensor.offset, tensor.shape, tensor.strides, tensor.dynamic


def _text(index: Any) -> str:
    if not isinstance(index, slice):
        return repr(index)
    parts = [index.start, index.stop] + ([index.step] if index.step is not None else [])
    return ":".join("" if part is None else repr(part) for part in parts)
