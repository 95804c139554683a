"""SBUF, PSUM and HBM as bytes, and views of them as numpy arrays over those bytes.

Nothing is copied when a view is bound, so reinterpreting casts, overlaps and
aliasing behave as on the chip. Views whose address is known only at run time
are resolved here too: a register or a one-element tensor shifts a view; a
tensor of indices gathers (a copy) or scatters (:meth:`Memory.store`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nki_isa.diagnostics import Diagnostic, Label, NkiError, error
from nki_isa.machine.dtypes import DType, cast
from nki_isa.tensor.storage import MemoryRegion, Storage, VirtualRegister
from nki_isa.tensor.strides import reach
from nki_isa.tensor.tensor import NkiTensor

if TYPE_CHECKING:
    from nki_isa.ir.program import Program
    from nki_isa.machine.target import Target

Array = NDArray[Any]
Addresses = Mapping[int, tuple[int, int]]

#: Bytes to fill uninitialised memory with: 0xFF is NaN in every float type that has one, -1 as an integer.
ZEROS, NANS = 0x00, 0xFF

#: Bytes between partitions: a power of two from one to the next would have them share few lines of the host's
#: cache.
_APART = 64

#: Partitions that share one list of offsets in tensor indirection; the tensor engine reads 32.
INDIRECTION_GROUP, TENSOR_INDIRECTION_GROUP = 16, 32


class Address(NamedTuple):
    """Where a view starts and how it steps, in bytes of the array that holds it."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


def host_bytes(programs: Sequence[Program]) -> int:
    """Bytes of the host's memory that running `programs` takes, one for each core: HBM, copies of results."""
    shared = [s.row_bytes for s in programs[0].storages if s.region is MemoryRegion.shared_hbm]
    private = (
        s.row_bytes
        for program in programs
        for s in program.storages
        if s.region.is_hbm and s.region is not MemoryRegion.shared_hbm
    )
    results = (tensor.size * tensor.dtype.itemsize for tensor in programs[0].outputs)
    return sum(shared) + sum(private) + sum(results)


class Memory:
    """The memories of one core while a Program runs.

    Attributes:
        sbuf: (partitions, bytes per partition and some to spare) of uint8.
        psum: the same for PSUM.
        hbm: one flat uint8 array for each HBM storage, by the storage's index.
        registers: 32-bit values, as signed Python ints, by the register's index.
    """

    def __init__(self, target: Target, program: Program, placement: Addresses, *, fill: int = ZEROS):
        """Lay out `program`.

        Args:
            placement: (partition, byte) of each SBUF and PSUM storage, by the storage's index.
            fill: the byte of memory that nothing has written yet, :data:`ZEROS` or :data:`NANS`.
        """
        self.sbuf = _filled((target.partitions, target.sbuf_partition_bytes + _APART), fill)
        self.psum = _filled((target.partitions, target.psum_partition_bytes + _APART), fill)
        self.hbm: dict[int, Array] = {}
        self.registers: list[int] = [0] * program.registers
        self._placement = placement
        for storage in program.storages:
            if storage.region.is_hbm:
                self.hbm[storage.index] = _filled((storage.row_bytes,), fill)
            else:
                self._check_placed(storage)
            if storage.data is not None:
                whole = self.bind(NkiTensor.whole(storage))
                whole[...] = np.frombuffer(storage.data, whole.dtype).reshape(whole.shape)

    def _check_placed(self, storage: Storage) -> None:
        place = self._placement.get(storage.index)
        partitions, capacity = self._on_chip(storage.region).shape
        capacity -= _APART
        if place is None:
            raise error("NKI-I001", f"{storage.name} has no place in {storage.region.value}")
        if place[0] + storage.partitions > partitions or place[1] + storage.row_bytes > capacity:
            raise error(
                "NKI-I001",
                f"{storage.name} is placed at partition {place[0]}, byte {place[1]}, but has "
                f"{storage.partitions} partitions of {storage.row_bytes} bytes in a memory of {partitions} "
                f"partitions of {capacity} bytes",
            )

    def _on_chip(self, region: MemoryRegion) -> Array:
        return self.sbuf if region is MemoryRegion.sbuf else self.psum

    def share(self, storage: Storage, octets: Array) -> None:
        """Take `octets`, another core's bytes, for the HBM tensor `storage`."""
        self.hbm[storage.index] = octets

    # --- static views

    def address(self, tensor: NkiTensor, shift: int = 0) -> Address:
        """The bytes of `tensor` moved on by `shift` elements, its dynamic offset left out."""
        storage = tensor.storage
        item = tensor.dtype.itemsize
        position = tensor.offset + shift
        if not storage.on_chip:
            return Address(tensor.shape, tuple([s * item for s in tensor.strides]), position * item)
        capacity = self._on_chip(storage.region).shape[1]
        row = storage.row_bytes // item
        partition, byte = self._placement[storage.index]
        partition += position // row
        byte += position % row * item
        first = tensor.strides[0]
        strides = (first // row * capacity + first % row * item, *[s * item for s in tensor.strides[1:]])
        return Address(tensor.shape, strides, partition * capacity + byte)

    def place(self, storage: Storage) -> tuple[int, int]:
        """(partition, byte) of a storage on chip."""
        return self._placement[storage.index]

    def buffer(self, storage: Storage) -> Array:
        """The array whose bytes hold `storage`."""
        return self._on_chip(storage.region) if storage.on_chip else self.hbm[storage.index]

    def view(self, tensor: NkiTensor, shift: int = 0) -> Array:
        """The bytes of `tensor`, dynamic offset left out, as an array of its dtype; no copy."""
        address = self.address(tensor, shift)
        buffer: Any = self.buffer(tensor.storage)
        return np.ndarray(address.shape, tensor.dtype.numpy, buffer, address.offset, address.strides)

    # --- any view

    def bind(self, tensor: NkiTensor, group: int = INDIRECTION_GROUP) -> Array:
        """`tensor` as a numpy array of its dtype: the bytes themselves, or a copy where indices gather them.

        Args:
            group: partitions that share a list of offsets, for tensor indirection.

        Raises:
            NkiError: NKI-H001, a run-time index is outside its dimension.
        """
        dynamic = tensor.dynamic
        if dynamic is None:
            return self.view(tensor)
        if dynamic.kind == "scalar":
            shift = self.scalar_shift(tensor)
            if shift is None:
                raise out_of_bounds(tensor, self.offset_value(dynamic.index))
            return self.view(tensor, shift)
        return self.gather(tensor, group=group)[0]

    def store(
        self, tensor: NkiTensor, values: Array, where: Array | None = None, group: int = INDIRECTION_GROUP
    ) -> None:
        """Write `values`, of the dtype and shape of `tensor`, into its bytes.

        Where several indices of a scatter are equal, the last one stays.

        Args:
            where: elements to write; all of them if None.
            group: partitions that share a list of offsets, for tensor indirection.

        Raises:
            NkiError: NKI-H001, a run-time index is outside its dimension.
        """
        dynamic = tensor.dynamic
        if dynamic is None or dynamic.kind == "scalar":
            write(self.bind(tensor), values, where)
        else:
            self.scatter(tensor, values, where, group=group)

    # --- run-time offsets

    def offset_value(self, index: NkiTensor | VirtualRegister) -> int:
        """The value of a scalar offset: a register's, or that of a tensor's one element."""
        if isinstance(index, VirtualRegister):
            return self.registers[index.index]
        return int(self.view(index).reshape(-1)[0])

    def scalar_shift(self, tensor: NkiTensor) -> int | None:
        """Elements by which the scalar offset of `tensor` moves it; None if that leaves the tensor."""
        dynamic = tensor.dynamic
        if dynamic is None:
            return 0
        value = self.offset_value(dynamic.index)
        shift = value * dynamic.stride
        low, high = (tensor.offset + shift + far for far in reach(tensor.shape, tensor.strides))
        size = tensor.storage.partitions * tensor.storage.row_bytes // tensor.dtype.itemsize
        return shift if 0 <= value < dynamic.limit and low >= 0 and high < size else None

    def outside(self, tensor: NkiTensor) -> NDArray[np.bool_]:
        """For each run-time index of `tensor`, a dynamic view, whether it is out of bounds."""
        if tensor.dynamic is None or tensor.dynamic.kind == "scalar":
            return np.array([self.scalar_shift(tensor) is None])
        whole, indices = self.selection(tensor)
        return (indices < 0) | (indices >= whole.shape[_indexed_axis(tensor)])

    def gather(
        self, tensor: NkiTensor, *, skip: bool = False, group: int = INDIRECTION_GROUP
    ) -> tuple[Array, Array | None]:
        """The elements that indices select, and which of them are inside the tensor.

        Args:
            skip: tolerate indices outside the dimension (``oob_mode.skip``).
            group: as in :meth:`bind`.

        Returns:
            The elements, a copy of the shape of `tensor` (zero bytes where outside), and a bool array of
            that shape, or None where all are inside.

        Raises:
            NkiError: NKI-H001, an index is outside the dimension and `skip` is False.
        """
        lines, indices, inside = self._lines(tensor, skip, group)
        if inside is None:
            selected = lines[indices]
            mask = None
        else:
            selected = np.zeros((len(indices), *lines.shape[1:]), lines.dtype)
            selected[inside] = lines[indices[inside]]
            mask = np.zeros(selected.shape, np.bool_)
            mask[inside] = True
        axis = _indexed_axis(tensor)
        return np.moveaxis(selected, 0, axis), None if mask is None else np.moveaxis(mask, 0, axis)

    def scatter(
        self,
        tensor: NkiTensor,
        values: Array,
        where: Array | None = None,
        *,
        skip: bool = False,
        group: int = INDIRECTION_GROUP,
    ) -> None:
        """Write `values` to the elements indices select; see :meth:`gather` and :meth:`store`."""
        lines, indices, inside = self._lines(tensor, skip, group)
        axis = _indexed_axis(tensor)
        values = np.moveaxis(np.broadcast_to(values, tensor.shape), axis, 0)
        if where is None and inside is None:
            lines[indices] = values
            return
        chosen = None if where is None else np.moveaxis(np.broadcast_to(where, tensor.shape), axis, 0)
        for position, line in enumerate(indices.tolist()):
            if inside is None or inside[position]:
                write(lines[line], values[position], None if chosen is None else chosen[position])

    def selection(self, tensor: NkiTensor, group: int = INDIRECTION_GROUP) -> tuple[NkiTensor, Array]:
        """What a gathered or scattered view selects from, and the indices as they are.

        Returns:
            A view with every line the indices may name along the indexed dimension, and one index for each
            position of that dimension; those outside the view name nothing.
        """
        dynamic, axis = tensor.dynamic, _indexed_axis(tensor)
        if dynamic is None or not isinstance(dynamic.index, NkiTensor):
            raise error("NKI-I002", f"{tensor.name} is gathered without indices")
        count = tensor.shape[axis]
        if dynamic.kind == "vector":
            indices = self.view(dynamic.index).T.reshape(-1)[:count].astype(np.int64)
        else:
            indices = _snake(self.view(dynamic.index), count, group, tensor)
        shape, strides = list(tensor.shape), list(tensor.strides)
        shape[axis], strides[axis] = 1, dynamic.stride
        limit = dynamic.limit
        if tensor.storage.region.is_hbm and dynamic.stride:
            # Only as many lines as fit, so that a limit too large cannot reach beyond the storage.
            size = tensor.storage.row_bytes // tensor.dtype.itemsize
            last = tensor.offset + reach(shape, strides)[1]
            limit = min(limit, (size - 1 - last) // dynamic.stride + 1)
        shape[axis] = max(limit, 0)
        return NkiTensor(tuple(shape), tuple(strides), tensor.offset, tensor.dtype, tensor.storage), indices

    def _lines(self, tensor: NkiTensor, skip: bool, group: int) -> tuple[Array, Array, Array | None]:
        """All lines the indices of `tensor` may select (first axis), the indices, and which are inside.

        The last is None if all are.
        """
        axis = _indexed_axis(tensor)
        whole, indices = self.selection(tensor, group)
        limit = whole.shape[axis]
        lines = np.moveaxis(self.view(whole), axis, 0)
        inside = (indices >= 0) & (indices < limit)
        if inside.all():
            return lines, indices, None
        if not skip:
            position = int(np.argmin(inside))
            raise out_of_bounds(tensor, int(indices[position]), position)
        return lines, indices, inside


def _indexed_axis(tensor: NkiTensor) -> int:
    """The dimension of a gathered or scattered view whose positions take their own index."""
    return tensor.dynamic.dim if tensor.dynamic is not None else 0


def _snake(index: Array, count: int, group: int, tensor: NkiTensor) -> Array:
    """The first `count` offsets of a tensor indirection: offset ``i`` is ``index[i % group, i // group]``.

    The documentation gives that formula for the first group of partitions only, so the other groups must
    hold the same offsets.
    """
    groups = [index[start : start + group] for start in range(0, index.shape[0], group)]
    size = len(groups[0])
    lists = [g.T.reshape(-1)[:count].astype(np.int64) for g in groups if len(g) == size]
    if count > len(lists[0]):
        raise error(
            "NKI-U010",
            f"{tensor.name} is addressed by {count} offsets, a group of {size} partitions of the index holds "
            f"{len(lists[0])}; where more would come from is not documented",
            help="give the index more columns, or pass num_elem",
        )
    if any(not np.array_equal(lists[0], other) for other in lists[1:]):
        raise error(
            "NKI-U010",
            f"the index of {tensor.name} holds different offsets in different groups of {group} partitions; "
            "which of them apply is not documented",
            help=f"repeat the offsets of the first {group} partitions in every group",
        )
    return lists[0]


def stored(result: Any, dtype: DType, shape: tuple[int, ...]) -> Array:
    """`result` as it is stored in a tensor of `dtype` and `shape`."""
    values = cast(np.asarray(result), dtype)
    return values if values.shape == shape or values.size == 1 else values.reshape(shape)


def write(destination: Array, values: Array, where: Array | None) -> None:
    """Copy `values` into `destination`, only where `where` is true if it is given."""
    if where is None:
        np.copyto(destination, values)
    else:
        np.copyto(destination, values, where=where)


def out_of_bounds(tensor: NkiTensor, value: int, position: int | None = None) -> NkiError:
    """NKI-H001: the run-time index `value` of `tensor`, a dynamic view, leaves the dimension it indexes."""
    dynamic: Any = tensor.dynamic
    index = dynamic.index
    who = f"register {index.index}" if isinstance(index, VirtualRegister) else index.name
    element = "" if position is None else f", element {position}"
    refusal = Diagnostic(
        "NKI-H001",
        f"run-time index {value} ({who}{element}) is outside {tensor.name}: "
        f"the dimension it indexes has {dynamic.limit} elements and the access spans {_extent(tensor)}",
        help="keep indices below the dimension's size, or pass oob_mode=nisa.oob_mode.skip to skip them",
        labels=tuple(Label(f.span, f"{tensor.name} is allocated here") for f in tensor.storage.stack[-1:]),
    )
    return NkiError([refusal])


def _extent(tensor: NkiTensor) -> str:
    return "[" + ", ".join(str(n) for n in tensor.shape) + "]"


def _filled(shape: tuple[int, ...], fill: int) -> Array:
    return np.zeros(shape, np.uint8) if fill == 0 else np.full(shape, fill, np.uint8)
