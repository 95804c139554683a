"""What the instructions of the systolic array share: tiles of it, transposes, PSUM banks, operand widths.

Sources: SDK ``nki.isa.nc_matmul``, ``nki.isa.nc_matmul_mx`` and the architecture guides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nki_isa.constraints.guard import Test, tensors_only
from nki_isa.constraints.indirection import is_indirect
from nki_isa.constraints.operands import ARCHITECTURE, elements_per_partition, free_pattern, listed, shape_of
from nki_isa.constraints.values import attribute_rule, excludes
from nki_isa.diagnostics import error
from nki_isa.ir.constraint import Complaint, Constraint
from nki_isa.machine.dtypes import DTYPES
from nki_isa.machine.target import Feature, Target
from nki_isa.tensor.strides import reach
from nki_isa.tensor.tensor import NkiTensor

Array = NDArray[Any]

ARRAY = 128  # rows and columns of processing elements

#: Row and column tile sizes, each with the feature of generations that have it; None if all have.
TILE_SIZES: dict[int, Feature | None] = {32: Feature.narrow_tiles, 64: None, 128: None}

_both = tensors_only("dst", "stationary", "moving")


# --- tiles of the array


def _tile_pairs(i: Any, target: Target) -> str | None:
    for name in ("tile_position", "tile_size"):
        value = i.__dict__[name]
        pair = isinstance(value, tuple) and len(value) in (0, 2) and all(isinstance(v, int) for v in value)
        if not pair:
            return f"{name} is {value!r}, it must be (row, column)"
    if len(i.tile_position) != len(i.tile_size):
        given, missing = ("tile_position", "tile_size") if i.tile_position else ("tile_size", "tile_position")
        return f"{given} is {i.__dict__[given]}, but {missing} is not given"
    return None


def _tile_fits(columns: dict[int, Feature | None]) -> Test:
    def broken(i: Any, target: Target) -> str | None:
        if _tile_pairs(i, target) is not None or not i.tile_size:
            return None
        axes = zip(("row", "column"), i.tile_position, i.tile_size, (TILE_SIZES, columns), strict=True)
        for axis, start, size, sizes in axes:
            allowed = [size for size, feature in sizes.items() if target.has(feature)]
            if size not in allowed:
                return f"tile_size has {size} {axis}s, on {target.name} it must have {listed(allowed)}"
            if start % size or not 0 <= start < ARRAY:
                wanted = f"a multiple of {size} below {ARRAY}"
                return f"the start {axis} of tile_position is {start}, it must be {wanted}"
        return None

    return broken


def tiling(source: str, *, column_tiling: bool) -> tuple[Constraint, ...]:
    """``tile_position`` and ``tile_size`` name a tile the array has (NKI-V111)."""
    more = " and columns" if column_tiling else ", 128 columns"
    return (
        attribute_rule(
            "tile_position and tile_size are given together, each as (row, column).",
            _tile_pairs,
            "write tile_position=(start_row, start_column), tile_size=(row_size, column_size), or neither",
            source=source,
        ),
        attribute_rule(
            f"A tile has 128, 64 or (since NeuronCore-v3) 32 rows{more}, and starts at a multiple of them.",
            _tile_fits(TILE_SIZES if column_tiling else {ARRAY: None}),
            "choose a tile size of this generation and a start that is a multiple of it",
            source=source,
        ),
    )


# --- transposes


def transposed(data: Array, identity: Array) -> Array:
    """data.T with its columns in the order `identity` has them, without arithmetic.

    Args:
        data: [K, ...] as stored.
        identity: [K, N] with one 1 in each column, zeros elsewhere.

    Raises:
        NkiError: NKI-N001, `identity` is something else, which transpose mode does not multiply.
    """
    pattern = identity.reshape(data.shape[0], -1)
    order = pattern.argmax(axis=0)
    nonzero = np.count_nonzero(pattern)
    if nonzero != len(order) or not (pattern[order, np.arange(len(order))] == 1).all():
        raise error(
            "NKI-N001",
            "in transpose mode moving must have a single 1 in each column and zeros elsewhere; "
            f"the one given has {nonzero} elements other than 0 in {len(order)} columns",
            help="pass an identity matrix as moving, or leave is_transpose unset for a real product",
        )
    return data.reshape(data.shape[0], -1)[order].T


def paired(dst: NkiTensor) -> NkiTensor:
    """Where a transpose of one-byte elements onto every second one of `dst` goes: 16-bit elements.

    `dst` itself where its elements are wider, or not two apart.
    """
    if dst.dtype.itemsize != 1 or _unpaired(dst) is not None:
        return dst
    strides = tuple(s // 2 for s in dst.strides)
    return NkiTensor(dst.shape, strides, dst.offset // 2, DTYPES["uint16"], dst.storage)


def in_pairs(dst: NkiTensor, values: Array) -> Array:
    """Transposed elements as they are stored in :func:`paired` of `dst`: the upper byte is zero."""
    return values if paired(dst) is dst else values.view(np.uint8).astype(np.uint16)


def _unpaired(dst: NkiTensor) -> str | None:
    strides = [stride for stride, _ in free_pattern(dst)]
    if any(stride % 2 for stride in strides):
        return f"has strides {strides}"
    if dst.offset % 2:
        return f"starts at byte {dst.offset % dst.storage.row_bytes} of its partitions"
    if dst.storage.row_bytes % 2:
        return f"is part of partitions of {dst.storage.row_bytes} bytes"
    return None


def fp8_pairs(is_transpose: Callable[[Any], bool], source: str) -> Constraint:
    """A transpose of one-byte elements on the tensor engine writes 16-bit elements (NKI-V114)."""

    def broken(i: Any, target: Target) -> str | None:
        dst = i.dst
        if not isinstance(dst, NkiTensor) or dst.dtype.itemsize != 1:
            return None
        if Feature.bit_exact_transpose not in target.features:
            return None
        problem = _unpaired(dst)
        if problem is None or not is_transpose(i):
            return None
        return f"dst {shape_of(dst)} {problem}, results of fp8 are pairs of bytes"

    return Constraint(
        "NKI-V114",
        "Since NeuronCore-v3 a transpose of fp8 writes 16-bit elements, the upper byte zero.",
        broken,
        "allocate dst twice as wide and pass every second element, dst[:, ::2]",
        source,
    )


# --- destinations and widths


@_both
def _one_bank(i: Any, target: Target) -> str | None:
    dst = i.dst
    if Feature.joined_banks in target.features or dst.dynamic is not None:
        return None
    storage, item = dst.storage, dst.dtype.itemsize
    start = dst.offset * item % storage.row_bytes + (storage.address[1] if storage.address else 0)
    before, after = reach(dst.shape[1:], dst.strides[1:])
    start, last = start + before * item, start + (after + 1) * item - 1
    bank = target.psum_bank_bytes
    if start // bank != last // bank:
        return f"dst spans bytes {start} to {last} of its partitions, a bank has {bank} bytes"
    return None


ONE_BANK = Constraint(
    "NKI-V104",
    "Before NeuronCore-v4, a matmul writes to one PSUM bank of 2 KiB per partition.",
    _one_bank,
    "write tiles of at most 512 float32 elements that do not cross a multiple of 2048 bytes",
    ARCHITECTURE,
)


def moving_limit(i: Any, target: Target) -> int:
    """Most columns of moving: a PSUM bank of float32, from NeuronCore-v4 on all of PSUM."""
    if Feature.joined_banks not in target.features:
        return target.moving_max
    return target.psum_partition_bytes // int(i.dst.dtype.itemsize)


_SWAP = "exchange stationary and moving: dst has a partition for each column of stationary"


def widths(columns: Callable[[NkiTensor, Any], int], source: str) -> tuple[Constraint, ...]:
    """Columns of stationary, moving and dst fit the array, PSUM and each other (NKI-V104, NKI-V103).

    Args:
        columns: the columns of an operand of an instruction.
    """

    @_both
    def limits(i: Any, target: Target) -> str | None:
        for name, limit in (("stationary", i.columns), ("moving", moving_limit(i, target))):
            got = columns(i.__dict__[name], i)
            if got > limit:
                shape = shape_of(i.__dict__[name])
                message = f"{name} {shape} has {got} columns, at most {limit} are possible"
                fits = name == "stationary" and columns(i.moving, i) <= i.columns
                return Complaint(message, _SWAP) if fits and got <= moving_limit(i, target) else message
        return None

    @_both
    def product(i: Any, target: Target) -> str | None:
        m, n = columns(i.stationary, i), columns(i.moving, i)
        got = i.dst.shape[0], elements_per_partition(i.dst)
        if got != (m, n):
            message = (
                f"dst {shape_of(i.dst)} is {got[0]} by {got[1]}, the product is {m} by {n} "
                "(columns of stationary by columns of moving)"
            )
            return Complaint(message, _SWAP) if got == (n, m) else message
        return None

    return (
        Constraint(
            "NKI-V104",
            "stationary has at most 128 columns (or those of its tile); moving has at most 512, since "
            "NeuronCore-v4 4096 for a float32 and 8192 for a bfloat16 dst.",
            limits,
            "split the columns of the operand over several matmuls",
            source,
        ),
        Constraint(
            "NKI-V103",
            "dst has a partition for each column of stationary and an element for each column of moving.",
            product,
            "allocate dst as [columns of stationary, columns of moving]",
            source,
        ),
    )


# --- tensor indirection


def _untiled(i: Any, target: Target) -> str | None:
    for name in ("dst", "stationary", "moving"):
        if is_indirect(i.__dict__[name]) and i.tile_position not in ((), (0, 0)):
            return f"{name} is an indirect view and tile_position is {i.tile_position}, it must be (0, 0)"
    return None


def untiled_indirection(source: str) -> Constraint:
    """Indirect views are not combined with tiling (NKI-V113)."""
    return excludes(
        "Tensor indirection is not combined with tiling of the array.",
        _untiled,
        "leave tile_position unset",
        source=source,
    )
