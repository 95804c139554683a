"""SBUF, PSUM and HBM as bytes, and views of them as numpy arrays over those bytes.

Nothing is copied when a view is bound, so reinterpreting casts, overlaps and
aliasing behave as on the chip. Views whose address is known only at run time
are resolved here too: a register or a one-element tensor shifts a view; a
tensor of indices gathers (a copy) or scatters (:meth:`Memory.store`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.diagnostics import NkiError, error
from nki_isa.tensor import MemoryRegion, NkiTensor, Storage, VirtualRegister

if TYPE_CHECKING:
    from nki_isa.program import Program
    from nki_isa.target import Target

Array = NDArray[Any]
Placement = Mapping[int, tuple[int, int]]

#: Bytes to fill uninitialised memory with: 0xFF is NaN in every float type that has one, -1 as an integer.
ZEROS, NANS = 0x00, 0xFF

#: Partitions that share one list of offsets in tensor indirection; the tensor engine reads 32.
INDIRECTION_GROUP, TENSOR_INDIRECTION_GROUP = 16, 32


@dataclass(frozen=True, slots=True)
class Address:
    """Where a view starts and how it steps, in bytes of the array that holds it."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


class Memory:
    """The memories of one core while a Program runs.

    Attributes:
        sbuf: (partitions, bytes per partition) of uint8.
        psum: the same for PSUM.
        hbm: one flat uint8 array for each HBM storage, by the storage's index.
        registers: 32-bit values, as signed Python ints, by the register's index.
    """

    def __init__(self, target: Target, program: Program, placement: Placement, *, fill: int = ZEROS):
        """Lay out `program`.

        Args:
            placement: (partition, byte) of each SBUF and PSUM storage, by the storage's index.
            fill: the byte of memory that nothing has written yet, :data:`ZEROS` or :data:`NANS`.
        """
        self.sbuf = _filled((target.partitions, target.sbuf_partition_bytes), fill)
        self.psum = _filled((target.partitions, target.psum_partition_bytes), fill)
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

    # --- static views

    def address(self, tensor: NkiTensor, shift: int = 0) -> Address:
        """The bytes of `tensor` moved on by `shift` elements, its dynamic offset left out."""
        storage = tensor.storage
        item = tensor.dtype.itemsize
        position = tensor.offset + shift
        if storage.region.is_hbm:
            return Address(tensor.shape, tuple(s * item for s in tensor.strides), position * item)
        capacity = self._on_chip(storage.region).shape[1]
        row = storage.row_bytes // item
        partition, byte = self._placement[storage.index]
        partition += position // row
        byte += position % row * item
        first = tensor.strides[0]
        strides = (first // row * capacity + first % row * item, *(s * item for s in tensor.strides[1:]))
        return Address(tensor.shape, strides, partition * capacity + byte)

    def buffer(self, storage: Storage) -> Array:
        """The array whose bytes hold `storage`."""
        return self.hbm[storage.index] if storage.region.is_hbm else self._on_chip(storage.region)

    def view(self, tensor: NkiTensor, shift: int = 0) -> Array:
        """The bytes of `tensor`, dynamic offset left out, as an array of its dtype; no copy."""
        address = self.address(tensor, shift)
        buffer: Any = self.buffer(tensor.storage)
        return np.ndarray(address.shape, tensor.dtype.numpy, buffer, address.offset, address.strides)

    # --- any view

    def bind(self, tensor: NkiTensor) -> Array:
        """`tensor` as a numpy array of its dtype: the bytes themselves, or a copy where indices gather them.

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
        return self.gather(tensor)[0]

    def store(self, tensor: NkiTensor, values: Array, where: Array | None = None) -> None:
        """Write `values`, of the dtype and shape of `tensor`, into its bytes.

        Where several indices of a scatter are equal, the last one in order of partitions stays.

        Args:
            where: elements to write; all of them if None.

        Raises:
            NkiError: NKI-H001, a run-time index is outside its dimension.
        """
        dynamic = tensor.dynamic
        if dynamic is None or dynamic.kind == "scalar":
            write(self.bind(tensor), values, where)
        else:
            self.scatter(tensor, values, where)

    # --- run-time offsets

    def offset_value(self, index: NkiTensor | VirtualRegister) -> int:
        """The value of a scalar offset: a register's, or that of a tensor's one element."""
        if isinstance(index, VirtualRegister):
            return self.registers[index.index]
        return int(self.bind(index).reshape(-1)[0])

    def scalar_shift(self, tensor: NkiTensor) -> int | None:
        """Elements by which the scalar offset of `tensor` moves it; None if that leaves the tensor."""
        dynamic = tensor.dynamic
        if dynamic is None:
            return 0
        value = self.offset_value(dynamic.index)
        shift = value * dynamic.stride
        low = tensor.offset + shift
        high = low + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
        size = tensor.storage.partitions * tensor.storage.row_bytes // tensor.dtype.itemsize
        return shift if 0 <= value < dynamic.limit and low >= 0 and high < size else None

    def gather(self, tensor: NkiTensor, *, skip: bool = False) -> tuple[Array, Array | None]:
        """The elements a vector of indices selects, and which of them are inside the tensor.

        Args:
            skip: tolerate indices outside the dimension (``oob_mode.skip``).

        Returns:
            The elements, a copy of the shape of `tensor` (zero bytes where outside), and a bool array of
            that shape, or None where all are inside.

        Raises:
            NkiError: NKI-H001, an index is outside the dimension and `skip` is False.
        """
        rows, indices, inside = self._rows(tensor, skip)
        if inside is None:
            return rows[indices], None
        values = np.zeros((len(indices), *rows.shape[1:]), rows.dtype)
        values[inside] = rows[indices[inside]]
        shape = (len(indices),) + (1,) * (rows.ndim - 1)
        return values, np.broadcast_to(inside.reshape(shape), values.shape)

    def scatter(
        self, tensor: NkiTensor, values: Array, where: Array | None = None, *, skip: bool = False
    ) -> None:
        """Write `values` to the elements indices select; see :meth:`gather` and :meth:`store`."""
        rows, indices, inside = self._rows(tensor, skip)
        if where is None and inside is None:
            rows[indices] = values
            return
        for position, row in enumerate(indices.tolist()):
            if inside is None or inside[position]:
                write(rows[row], values[position], None if where is None else where[position])

    def _rows(self, tensor: NkiTensor, skip: bool) -> tuple[Array, Array, Array | None]:
        """All rows the indices of `tensor` may select, the indices, and which are inside (None: all)."""
        dynamic = tensor.dynamic
        if dynamic is None or dynamic.kind != "vector" or dynamic.dim != 0:
            kind = "no" if dynamic is None else dynamic.kind
            raise error(
                "NKI-U010",
                f"{tensor.name} is addressed with {kind} indirection along dimension "
                f"{0 if dynamic is None else dynamic.dim}, which is not modelled",
            )
        count = tensor.shape[0]
        assert isinstance(dynamic.index, NkiTensor)
        indices = self.bind(dynamic.index).T.reshape(-1)[:count].astype(np.int64)
        # Only as many rows as fit, so that a limit too large cannot reach beyond the storage.
        size = tensor.storage.row_bytes // tensor.dtype.itemsize
        inner = zip(tensor.shape[1:], tensor.strides[1:], strict=True)
        reach = tensor.offset + sum((n - 1) * s for n, s in inner)
        limit = min(dynamic.limit, (size - 1 - reach) // dynamic.stride + 1)
        rows = self.view(
            NkiTensor(
                (max(limit, 0), *tensor.shape[1:]),
                (dynamic.stride, *tensor.strides[1:]),
                tensor.offset,
                tensor.dtype,
                tensor.storage,
            )
        )
        inside = (indices >= 0) & (indices < limit)
        if inside.all():
            return rows, indices, None
        if not skip:
            position = int(np.argmin(inside))
            raise out_of_bounds(tensor, int(indices[position]), position)
        return rows, indices, inside


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
    return error(
        "NKI-H001",
        f"run-time index {value} ({who}{element}) is outside {tensor.name}: "
        f"the dimension it indexes has {dynamic.limit} elements and the access spans {_extent(tensor)}",
        help="keep indices below the dimension's size, or pass oob_mode=nisa.oob_mode.skip to skip them",
    )


def _extent(tensor: NkiTensor) -> str:
    return "[" + ", ".join(str(n) for n in tensor.shape) + "]"


def _filled(shape: tuple[int, ...], fill: int) -> Array:
    return np.zeros(shape, np.uint8) if fill == 0 else np.full(shape, fill, np.uint8)
