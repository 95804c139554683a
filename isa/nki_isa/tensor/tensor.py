"""How the bytes of a storage are looked at: :class:`NkiTensor`, its indexing and run-time addressing.

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
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy as np

from nki_isa.diagnostics import NkiError, error
from nki_isa.machine.dtypes import DType, as_dtype
from nki_isa.tensor.dynamic import DynamicOffset, already_indirect, dynamic_offset
from nki_isa.tensor.kinds import Kind, checked, checked_methods, define
from nki_isa.tensor.opaque import never_equal, opaque, tolerated
from nki_isa.tensor.shown import more_of
from nki_isa.tensor.storage import INPUT, MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.strides import contiguous_strides, integer, is_row_major, pattern_dims, reach, restride
from nki_isa.tensor.views import StridedView

#: A run-time index: a tensor, or where one index serves the whole view a register (NKI-V026).
Index: TypeAlias = Any


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
        is_plain = type(start) is int or isinstance(start, (VirtualRegister, NkiTensor))
        self.start = start if is_plain else integer(start)
        self.size = size if type(size) is int else integer(size)
        if self.size < 0:
            raise error("NKI-V013", f"nl.ds takes {self.size} elements", help="a size is at least 0")

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
class NkiTensor(StridedView):
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

    def get_pattern(self) -> list[list[int]]:
        """``[[stride, count], ...]``, one pair per dimension, outermost first."""
        return [[stride, count] for stride, count in zip(self.strides, self.shape, strict=True)]

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
        shape, strides, offset, dynamic = self.shape, self.strides, self.offset, self.dynamic
        if len(keys) > len(shape):
            if not any([item is Ellipsis for item in keys]):
                raise self._too_many_indices(keys)
            return self[self._without_ellipsis(keys)]
        on_chip = self.storage.on_chip
        locked = 0 if dynamic is None else dynamic.dim + 1
        new_shape: list[int] = []
        new_strides: list[int] = []
        dim = -1
        for dim, item in enumerate(keys):
            stride = strides[dim]
            kind = type(item)
            if kind is slice and item.start is item.stop is item.step is None and shape[dim]:  # all of it
                new_shape.append(shape[dim])
                new_strides.append(stride)
                continue
            if item is Ellipsis:
                return self[self._without_ellipsis(keys)]
            if kind is DynamicSlice and type(item.start) is int:
                start, count, step, kept = item.start, item.size, 1, True
                if start < 0 or start + count > shape[dim]:
                    raise self._out_of_range(dim, item)
            else:
                start, count, step, kept = self._extent(dim, item)
            if dim < locked and not (kept and count == shape[dim]):
                raise self._locked("index", dim)
            if kind is DynamicSlice and type(item.start) is not int:
                self._refuse_runtime_partition(dim)
                if dynamic is not None:
                    raise already_indirect(self)
                dynamic = dynamic_offset(self, "scalar", item.start, stride, shape[dim] - count + 1)
            if dim == 0 and on_chip:
                kept = True
                if step != 1 and count > 1:
                    raise error(
                        "NKI-V015",
                        f"{self} is sliced with step {step} along its partitions; an access takes "
                        f"consecutive partitions",
                        help="step along a free dimension, or move the partitions with nisa.dma_copy",
                    )
                step = 1
            offset += start * stride
            if kept:
                new_shape.append(count)
                new_strides.append(stride * step)
        new_shape.extend(shape[dim + 1 :])
        new_strides.extend(strides[dim + 1 :])
        if len(new_shape) < 1 + on_chip:
            new_shape.append(1)
            new_strides.append(strides[-1])
        steps = tuple(new_strides)
        if steps == strides:
            steps = strides  # one object for all parts of a tensor
        return NkiTensor(tuple(new_shape), steps, offset, self.dtype, self.storage, dynamic)

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

    def vector_select(self, dim: int, vector_offset: Index) -> NkiTensor:
        """A gather: position ``i`` of dimension 0 becomes row ``vector_offset[i]`` of this HBM tensor.

        Args:
            dim: 0.
            vector_offset: SBUF integers of shape ``(P, 1)``.

        Returns:
            Shape ``(P, *shape[1:])``; its dimension 0 is locked.

        Raises:
            NKI-V024: already indirect. NKI-V026: `vector_offset` is not as above.
            NKI-V027: not HBM, `dim` is not 0, or a later dimension has a larger stride.
        """
        self._check_dim(dim)
        dynamic = dynamic_offset(self, "vector", vector_offset, self.strides[0], self.shape[0])
        if vector_offset.size != vector_offset.shape[0]:
            raise error(
                "NKI-V026",
                f"vector_select of {self} gets {vector_offset}, which has more than one column",
                help="pass SBUF integers of shape (P, 1)",
            )
        if dim != 0 or max(self.strides) > self.strides[0]:
            raise error(
                "NKI-V027",
                f"vector_select along dimension {dim} of {self} with strides {self.strides}; the hardware "
                f"replaces the outermost dimension",
                help="call it with dim=0, before permute",
            )
        shape, strides = (vector_offset.shape[0], *self.shape[1:]), (0, *self.strides[1:])
        return NkiTensor(shape, strides, self.offset, self.dtype, self.storage, dynamic)

    def indirect(self, index: Index, num_elem: int | None = None) -> NkiTensor:
        """Tensor indirection (trn3): column ``i`` of the result is the column that offset ``i`` names.

        Offset ``i`` is ``index[i % G, i // G]``, in elements of the flattened free dimensions; G is 16, or
        32 on the tensor engine, so instructions check what depends on it.

        Args:
            index: SBUF integers of shape ``(P, K)`` with ``P == shape[0]``.
            num_elem: how many offsets are used; all of them by default.

        Returns:
            Shape ``(P, num_elem)``; both dimensions are locked.

        Raises:
            NKI-V019: the free dimensions are not one regular run. NKI-V024: already indirect.
            NKI-V026: `index` is not as above, or has fewer than `num_elem` offsets. NKI-V027: HBM.
        """
        free = math.prod(self.shape[1:])
        strides = restride(self.shape[1:], self.strides[1:], (free,))
        if strides is None:
            raise self._needs_copy(f"flatten its free dimensions to ({free},)")
        dynamic = dynamic_offset(self, "indirect", index, strides[0], free)
        count = index.size if num_elem is None else integer(num_elem)
        if not 1 <= count <= index.size:
            raise error("NKI-V026", f"num_elem is {count}; {index} holds {index.size} offsets")
        shape, row = (self.shape[0], count), (self.strides[0], 0)
        return NkiTensor(shape, row, self.offset, self.dtype, self.storage, dynamic)

    # --- the storage itself

    def view(self, dtype: Any) -> NkiTensor:
        """The same bytes read as `dtype`; the last dimension grows or shrinks by the ratio of the widths.

        Raises:
            NKI-V019: the last dimension is not contiguous. NKI-V020: offset, strides or the last
            dimension do not divide. NKI-V024: after dynamic addressing. NKI-V032: not a data type.
        """
        new, old = _dtype(dtype), self.dtype
        if self.dynamic is not None:
            raise error(
                "NKI-V024",
                f"{self} is read as {new} after dynamic addressing",
                help="call view before select, vector_select or ap with a run-time offset",
            )
        if new.itemsize == old.itemsize:
            return NkiTensor(self.shape, self.strides, self.offset, new, self.storage)
        if self.strides[-1] != 1 and self.shape[-1] != 1:
            raise self._needs_copy(f"read its last dimension, of stride {self.strides[-1]}, as {new}")
        widths = [self.offset, *self.strides[:-1], self.shape[-1]]
        scaled = [_scale(width, old, new, self) for width in widths]
        shape, strides = (*self.shape[:-1], scaled[-1]), (*scaled[1:-1], 1)
        return NkiTensor(shape, strides, scaled[0], new, self.storage)

    def reinterpret_cast(self, dtype: Any) -> NkiTensor:
        """Another name of :meth:`view`."""
        return self.view(dtype)

    def ap(
        self,
        pattern: Sequence[Sequence[int]],
        offset: int | None = None,
        scalar_offset: Index | None = None,
        vector_offset: Index | None = None,
        indirect_dim: int = 0,
        dtype: Any = None,
    ) -> NkiTensor:
        """The hardware's own access pattern over the storage, whatever this view shows of it.

        With a run-time offset the access starts at ``offset + index * self.strides[indirect_dim]``: one step
        of the index is one step along that dimension of this view, whatever part of it a slice shows.
        Without one, any run-time offset of this view is dropped too.

        Args:
            pattern: ``[[stride, count], ...]`` in elements of `dtype`, outermost first. On chip the first
                pair is the partitions: its stride is the elements of one partition of the storage. That of
                this view's own shape is a warning (NKI-V022): then `offset` counts in this view too.
            offset: elements of `dtype` from the start of the storage; this view's own by default. (The
                Language Guide and the deep dive say so; the API page says added to the view's offset.)
            scalar_offset: one run-time index: a register, or an SBUF tensor of one integer.
            vector_offset: an index per position of dimension 0: SBUF integers of shape ``(P, 1)``, for
                dma_transpose also ``(128, N)``, which it takes column by column. The
                stride of the first pair is then not used.
            indirect_dim: the dimension of this view that the index counts in.
            dtype: how to read the bytes; as this view by default.

        Raises:
            NKI-V014: no such `indirect_dim`. NKI-V020: bytes do not divide. NKI-V021: malformed pattern.
            NKI-V022: wrong partition stride. NKI-V024: already indirect. A pattern outside the storage is
            refused by the instruction that is given it (:meth:`check_inside`).
            NKI-V026, V027: a run-time index that cannot be. NKI-V032: not a data type.
            NKI-V033: too few dimensions.
        """
        shape, strides = pattern_dims(pattern)
        old = self.dtype
        new = old if dtype is None else _dtype(dtype)
        start = self.offset if new is old else _scale(self.offset, old, new, self)
        given, offset = offset, start if offset is None else integer(offset)
        dynamic = None
        if scalar_offset is not None or vector_offset is not None:
            dynamic = self._ap_dynamic(scalar_offset, vector_offset, indirect_dim, new, shape[0])
            if dynamic.dim == 0:
                strides = (0, *strides[1:])
        row = _scale(self.storage.row_bytes, 1, new, self)
        if self.storage.on_chip:
            if len(shape) < 2:
                raise self._too_few(shape)
            if strides[0] != row:
                wrong = error(
                    "NKI-V022",
                    f"the first stride of {pattern!r} is {strides[0]}; one partition of {self} "
                    f"holds {row} elements of {new}",
                    help=f"write [[{row}, {shape[0]}], ...]: the access is the same in every partition",
                )
                if self._counts_in_itself(strides[0], old, new) and (shape[0] > 1 or offset != start):
                    tolerated(wrong)
                    partitions, elements = divmod(0 if given is None else offset, strides[0])
                    offset = start + partitions * row + elements
                elif shape[0] > 1:
                    raise wrong
                strides = (row, *strides[1:])
        return NkiTensor(shape, strides, offset, new, self.storage, dynamic)

    def _counts_in_itself(self, step: int, old: DType, new: DType) -> bool:
        """True if a pattern with `step` from partition to partition takes this part of a storage for a whole.

        A helper that makes patterns from shapes does so: handed half of each partition, it steps by the half.
        Engines and DMA step by whole partitions, and such kernels give right results on the device: their
        patterns and offsets count from the first element of the view, as the API page says of offsets.
        """
        width = math.prod(self.shape[1:]) * old.itemsize
        return step * new.itemsize == width and is_row_major(self.shape[1:], self.strides[1:])

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
            NKI-V029: `value` is not a tensor, or nobody does.
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
            start = 0 if item.start is None else self._position(item.start, size)
            stop = size if item.stop is None else self._position(item.stop, size)
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

    def _position(self, value: Any, size: int) -> int:
        """An index or bound as an int, counted from the start."""
        if type(value) is not int:
            value = integer(value, f"an index of {self}")
        return value + size if value < 0 else value

    def _ap_dynamic(
        self, scalar: Any, vector: Any, indirect_dim: int, dtype: DType, count: int
    ) -> DynamicOffset:
        if scalar is not None and vector is not None:
            raise error(
                "NKI-V027", f"ap of {self} gets scalar_offset and vector_offset", help="give at most one"
            )
        self._check_dim(indirect_dim)
        stride = _scale(self.strides[indirect_dim], self.dtype, dtype, self)
        limit = self.shape[indirect_dim]
        if scalar is not None:
            self._refuse_runtime_partition(indirect_dim)
            if limit == 1:  # an index counts strides, and another dimension may have the same one
                step = self.strides[indirect_dim]
                limit = max(size for size, own in zip(self.shape, self.strides, strict=True) if own == step)
            return dynamic_offset(self, "scalar", scalar, stride, limit)
        if math.prod(self.shape[:indirect_dim]) != 1:
            raise error(
                "NKI-V027",
                f"vector_offset with indirect_dim={indirect_dim} of {self}; it indexes the first dimension",
                help="reshape the tensor so that the indexed dimension comes first, and use indirect_dim=0",
            )
        dynamic = dynamic_offset(self, "vector", vector, stride, limit)
        if vector.size < count:
            raise error(
                "NKI-V026", f"{vector!r} holds {vector.size} indices; the pattern takes {count} of them"
            )
        return dynamic

    def check_inside(self) -> None:
        """Refuse a pattern that leaves the storage, or on chip the partitions it starts in.

        Only :meth:`ap` makes such views. Kernels may make one they do not use, in the last turn of a
        loop for example, so instructions ask, not ``ap``.

        Raises:
            NKI-V013: it has no elements. NKI-V023: an element lies outside.
        """
        shape, strides, offset = self.shape, self.strides, self.offset
        if 0 in shape:
            raise error(
                "NKI-V013",
                f"{self} has no elements",
                help="leave the instruction out where there is nothing to do, or take at least one element",
            )
        storage = self.storage
        row = storage.row_bytes // self.dtype.itemsize
        before, after = reach(shape, strides)
        first, last = offset + before, offset + after
        total = row * storage.partitions
        if first < 0 or last >= total:
            raise error(
                "NKI-V023",
                f"the pattern {self.get_pattern()} from offset {offset} reaches element "
                f"{first if first < 0 else last}; {storage.name} holds {total} elements of {self.dtype}",
            )
        if storage.on_chip:
            first, last = offset % row + before, offset % row + after - row * (shape[0] - 1)
            if first < 0 or last >= row:
                raise error(
                    "NKI-V023",
                    f"the pattern {self.get_pattern()} from offset {offset} reaches element "
                    f"{first if first < 0 else last} of a partition; one partition of {storage.name} holds "
                    f"{row} elements of {self.dtype}",
                )

    def _refuse_runtime_partition(self, dim: int) -> None:
        if dim == 0 and self.storage.on_chip:
            raise error(
                "NKI-V027",
                f"the partitions of {self} are addressed at run time",
                help="index a free dimension at run time, or move the partitions with nisa.dma_copy",
            )

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


def _dtype(value: Any) -> DType:
    try:
        return as_dtype(value)
    except TypeError as cause:
        raise error("NKI-V032", str(cause)) from None


def _scale(elements: int, old: DType | int, new: DType, tensor: NkiTensor) -> int:
    """A count of elements of `old` (a dtype or a width in bytes) as elements of `new`."""
    width = old if isinstance(old, int) else old.itemsize
    count, rest = divmod(elements * width, new.itemsize)
    if rest:
        raise error(
            "NKI-V020",
            f"{tensor} read as {new}: {elements * width} bytes do not divide into elements of "
            f"{new.itemsize} bytes",
        )
    return count


def _text(index: Any) -> str:
    if not isinstance(index, slice):
        return repr(index)
    parts = [index.start, index.stop] + ([index.step] if index.step is not None else [])
    return ":".join("" if part is None else repr(part) for part in parts)
