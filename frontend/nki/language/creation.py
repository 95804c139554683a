"""Making tensors: storage in a memory region and the view of all of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from nki import levels
from nki.compiler.specializer.recorder import current
from nki.levels import dtype_named
from nki_isa.diagnostics import error
from nki_isa.ir.instruction import REGISTRY
from nki_isa.machine.dtypes import DTYPES, DType
from nki_isa.machine.dtypes import cast as cast_values
from nki_isa.rules import language
from nki_isa.tensor.constants import read_constant
from nki_isa.tensor.kinds import Dtype, Shape, is_whole
from nki_isa.tensor.storage import INPUT, MemoryRegion
from nki_isa.tensor.tensor import NkiTensor


def ndarray(
    shape: Shape,
    dtype: Dtype,
    buffer: Any = MemoryRegion.sbuf,
    name: str | None = "",
    address: tuple[int, ...] | None = None,
) -> NkiTensor:
    """A new tensor; its bytes are unset until something writes them.

    Args:
        shape: sizes, each at least 1; dimension 0 is the partition dimension (at most
            128) in SBUF and PSUM, where a tensor has at least two dimensions and ``[1]`` means ``[1, 1]``.
        dtype: an NKI dtype.
        buffer: ``nl.sbuf``, ``nl.psum``, ``nl.private_hbm`` (``nl.hbm``) or ``nl.shared_hbm``.
        name: a label for reports; by default the variable it is assigned to.
        address: ``(partition, byte)`` to place it at, from API level 0.7 on ``(byte,)`` in HBM; None lets the
            placer decide.

    Raises:
        NkiError: NKI-V120 to NKI-V123 for a bad shape, dtype, buffer or address.
    """
    return new_tensor(shape, dtype, buffer, name, address)


def new_tensor(
    shape: Shape,
    dtype: Dtype,
    buffer: Any = MemoryRegion.sbuf,
    name: str | None = "",
    address: tuple[int, ...] | None = None,
    part: str = "",
) -> NkiTensor:
    """:func:`ndarray`; `part` says what a tensor holds that is only a step towards the user's."""
    recorder = current()
    region = _region(buffer)
    sizes = _sizes(shape, region)
    return recorder.allocate(
        sizes, named_dtype(dtype), region, name or "", _address(address, region), part=part
    )


def named_dtype(dtype: Any) -> DType:
    """The data type that a kernel names; one of numpy is warned of, which the compiler knows nothing of."""
    if type(dtype) is DType:
        return dtype
    if isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        name = np.dtype(dtype).name
        current().tell(
            language.NUMPY_DTYPE, f"the data type is numpy's {name}", help=f"write nl.{dtype_named(dtype)}"
        )
    return dtype_named(dtype)


def _region(buffer: Any) -> MemoryRegion:
    if isinstance(buffer, MemoryRegion):
        return MemoryRegion.shared_hbm if buffer is INPUT else buffer
    names = {region.value: region for region in MemoryRegion} | {"hbm": MemoryRegion.private_hbm}
    if isinstance(buffer, str) and buffer in names:
        if levels.before("0.3"):
            return names[buffer]
        raise error(
            "NKI-V122",
            f"the buffer is {buffer!r}, a text; memories go by their names from API level 0.3 on",
            help=f"write nl.{buffer}",
            notes=levels.taken_before("0.3"),
        )
    raise error(
        "NKI-V122",
        f"{buffer!r} is not a memory region",
        help="use nl.sbuf, nl.psum, nl.private_hbm or nl.shared_hbm",
    )


def _sizes(shape: Any, region: MemoryRegion) -> tuple[int, ...]:
    if isinstance(shape, (int, np.integer)):
        shape = (shape,)
    sizes = tuple(shape)
    if not all([type(size) is int and size >= 1 for size in sizes]):
        sizes = _whole(sizes)
    if region.on_chip and sizes == (1,):
        return 1, 1  # one element: the page of nisa.register_load makes it so; on chip nothing is below 2-D
    if region.on_chip and len(sizes) < 2:
        raise error(
            "NKI-V120",
            f"shape {sizes} has {len(sizes)} dimension in {region.value}, "
            "which needs a partition and a free dimension",
            help=f"write shape ({sizes[0] if sizes else 1}, 1)",
        )
    if region.on_chip and sizes[0] > 128:
        raise error(
            "NKI-V102",
            f"shape {sizes} spans {sizes[0]} partitions; {region.value} has 128",
            help="tile dimension 0 by nl.tile_size.pmax and loop, or move it to a free dimension",
        )
    if not sizes:
        raise error("NKI-V120", "the shape is empty", help="give at least one dimension, such as (1,)")
    return sizes


def _whole(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
            raise error(
                "NKI-V120",
                f"shape {sizes} holds {size!r}; every size is an int of at least 1",
                help="compute sizes with // so that they stay ints",
            )
    return tuple(int(size) for size in sizes)


def _address(address: Any, region: MemoryRegion) -> tuple[int, int] | None:
    if address is None:
        return None
    parts = tuple(address) if isinstance(address, (tuple, list)) else ()
    wanted = 2 if region.on_chip else 0 if levels.before("0.7") else 1
    if not wanted or len(parts) != wanted or not all(is_whole(part) and part >= 0 for part in parts):
        form = {2: "a (partition, byte) pair", 1: "a (byte,) tuple", 0: "possible"}[wanted]
        how = "address=(4096,)" if wanted == 1 else "address=(0, 1024)"
        raise error(
            "NKI-V123",
            f"address {address!r} in {region.value} is not {form}",
            help=f"write {how}, or leave it out to have the tensor placed"
            if wanted
            else "leave it out: tensors in HBM have an address from API level 0.7 on",
        )
    return (int(parts[0]), int(parts[1])) if wanted == 2 else (0, int(parts[0]))


def constant_of(value: float, dtype: DType) -> float:
    """`value` as a memset takes it: an int for an integer data type, where it is one."""
    whole = dtype.kind in ("int", "uint") and isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def full(
    shape: Shape, fill_value: float, dtype: Dtype, buffer: Any = MemoryRegion.sbuf, name: str | None = ""
) -> NkiTensor:
    """A new tensor with every element set to `fill_value` (a memset for on-chip tensors)."""
    tensor = ndarray(shape, dtype, buffer, name)
    if tensor.buffer.on_chip:
        current().emit(REGISTRY["memset"](tensor, constant_of(fill_value, tensor.dtype)))
        return tensor
    constant = cast_values(np.full(tensor.shape, fill_value, np.float32), tensor.dtype)
    current().emit(REGISTRY["dma_copy"](tensor, _constant(constant, tensor.dtype, "constant")))
    return tensor


def zeros(shape: Shape, dtype: Dtype, buffer: Any = MemoryRegion.sbuf, name: str | None = "") -> NkiTensor:
    """A new tensor of zeros."""
    return full(shape, 0.0, dtype, buffer, name)


def ones(shape: Shape, dtype: Dtype, buffer: Any = MemoryRegion.sbuf, name: str | None = "") -> NkiTensor:
    """A new tensor of ones."""
    return full(shape, 1.0, dtype, buffer, name)


def zeros_like(
    x: NkiTensor, dtype: Dtype | None = None, buffer: Any = None, name: str | None = ""
) -> NkiTensor:
    """Zeros of the shape of `x`, and of its dtype and buffer unless others are given."""
    return zeros(x.shape, *like(x, dtype, buffer), name)


def like(x: NkiTensor, dtype: Any, buffer: Any) -> tuple[Any, Any]:
    """The dtype and the buffer of what is to be as `x` but for what is given of them."""
    return (x.dtype if dtype is None else dtype), (x.buffer if buffer is None else buffer)


def shared_constant(constant: Any) -> NkiTensor:
    """An HBM tensor holding `constant`: a numpy array, or the path of a ``.npy`` file.

    Raises:
        NkiError: NKI-V121 for a dtype the NeuronCore lacks, NKI-L026 for a missing file.
    """
    return _constant(read_constant(constant))


def _constant(constant: Any, dtype: DType | None = None, part: str = "") -> NkiTensor:
    """`constant`, whose bytes are those of `dtype` where it is given."""
    values = np.ascontiguousarray(constant)
    kind = dtype or dtype_named(values.dtype)
    shape = values.shape or (1,)
    return current().allocate(
        shape, kind, MemoryRegion.shared_hbm, kind="constant", data=values.tobytes(), part=part
    )


def shared_identity_matrix(n: int, dtype: Dtype = DTYPES["uint8"], dst: NkiTensor | None = None) -> NkiTensor:
    """The `n` by `n` identity in SBUF (``n`` at most 128), copied from a constant in HBM.

    Args:
        n: rows and columns.
        dtype: of the result.
        dst: an SBUF tensor to write instead of a new one.
    """
    if not 1 <= n <= 128:
        raise error(
            "NKI-V120", f"nl.shared_identity_matrix got n={n!s:.40}, it is 1 to 128", help="tile the matrix"
        )
    kind = dtype_named(dtype)
    tensor = dst if dst is not None else ndarray((n, n), kind)
    identity = cast_values(np.eye(n, dtype=np.float32), kind)
    current().emit(REGISTRY["dma_copy"](tensor, _constant(identity, kind, "constant")))
    return tensor
