"""The view methods of a tensor that address its storage anew: as other types, by patterns, at run time.

Sources: SDK ``nki.language.NkiTensor``, the access-pattern deep dive (``nki-aps.rst``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from nki_isa.diagnostics import error
from nki_isa.machine.dtypes import DType, as_dtype
from nki_isa.tensor.dynamic import DynamicOffset, dynamic_offset
from nki_isa.tensor.kinds import checked_methods
from nki_isa.tensor.opaque import tolerated
from nki_isa.tensor.strides import integer, is_row_major, pattern_dims, reach, restride
from nki_isa.tensor.views import StridedView

if TYPE_CHECKING:
    from nki_isa.tensor.tensor import NkiTensor

#: A run-time index: a tensor, or where one index serves the whole view a register (NKI-V026).
Index: TypeAlias = Any


@checked_methods
class AddressedView(StridedView):
    """What a view does with the storage itself; a base of :class:`nki_isa.tensor.tensor.NkiTensor`."""

    __slots__ = ()

    if TYPE_CHECKING:

        def _at(
            self,
            shape: tuple[int, ...],
            strides: tuple[int, ...],
            offset: int,
            dtype: DType,
            dynamic: DynamicOffset | None = None,
        ) -> NkiTensor: ...

    # --- run-time positions

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
        return self._at(shape, strides, self.offset, self.dtype, dynamic)

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
        return self._at(shape, row, self.offset, self.dtype, dynamic)

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
            return self._at(self.shape, self.strides, self.offset, new)
        if self.strides[-1] != 1 and self.shape[-1] != 1:
            raise self._needs_copy(f"read its last dimension, of stride {self.strides[-1]}, as {new}")
        widths = [self.offset, *self.strides[:-1], self.shape[-1]]
        scaled = [_scale(width, old, new, self) for width in widths]
        shape, strides = (*self.shape[:-1], scaled[-1]), (*scaled[1:-1], 1)
        return self._at(shape, strides, scaled[0], new)

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
        return self._at(shape, strides, offset, new, dynamic)

    def _counts_in_itself(self, step: int, old: DType, new: DType) -> bool:
        """True if a pattern with `step` from partition to partition takes this part of a storage for a whole.

        A helper that makes patterns from shapes does so: handed half of each partition, it steps by the half.
        Engines and DMA step by whole partitions, and such kernels give right results on the device: their
        patterns and offsets count from the first element of the view, as the API page says of offsets.
        """
        width = math.prod(self.shape[1:]) * old.itemsize
        return step * new.itemsize == width and is_row_major(self.shape[1:], self.strides[1:])

    # --- checks

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


def _dtype(value: Any) -> DType:
    try:
        return as_dtype(value)
    except TypeError as cause:
        raise error("NKI-V032", str(cause)) from None


def _scale(elements: int, old: DType | int, new: DType, tensor: StridedView) -> int:
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
