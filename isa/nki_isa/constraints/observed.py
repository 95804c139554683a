"""Constraints that compilers and devices were seen to keep, shared by instructions.

Each names the row of :mod:`nki_isa.rules` that says what it is known from; rows of one instruction stand
beside it in :mod:`nki_isa.ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from nki_isa.constraints.operands import shape_of, tensors_of
from nki_isa.ir.constraint import Constraint
from nki_isa.machine.enums import Engine
from nki_isa.machine.operators import Operator
from nki_isa.rules import elementwise, engine_access, psum
from nki_isa.rules.rule import Rule
from nki_isa.tensor.tensor import NkiTensor

_WORD, _HALF = 4, 2  # bytes: what PSUM is written in, and a result that can start within it


def seen(row: Rule, broken: Callable[[Any, Any], str | None], help: str, *, source: str = "") -> Constraint:
    """The constraint whose findings `row` is about; `broken` and `help` as for every constraint."""
    return Constraint(row.code, row.sentence, broken, help, source or str(row.evidence), row)


def _on_chip(instruction: Any) -> Iterator[tuple[str, NkiTensor]]:
    """The operands in SBUF and PSUM, each with the name of its parameter."""
    for field, value in instruction.operands():
        for tensor in tensors_of(value):
            if tensor.storage.on_chip:
                yield field.name, tensor


# --- where operands are


def _run_time_offset(instruction: Any, target: Any) -> str | None:
    for name, tensor in _on_chip(instruction):
        if tensor.dynamic is not None and tensor.dynamic.kind == "scalar":
            where = instruction.on.name
            return f"{name} is at an offset known at run time only, and the {where} engine accesses it"
    return None


_STATIC = (
    "write an offset known when the kernel is compiled, or fetch the slice from HBM with nisa.dma_copy, "
    "which takes run-time offsets"
)

RUN_TIME_OFFSET_TRN1 = seen(engine_access.RUN_TIME_OFFSET_TRN1, _run_time_offset, _STATIC)
RUN_TIME_OFFSET = seen(engine_access.RUN_TIME_OFFSET, _run_time_offset, _STATIC)


def _reshaped_row(instruction: Any, target: Any) -> str | None:
    for name, tensor in _on_chip(instruction):
        storage = tensor.storage
        is_part = tensor.size * tensor.dtype.itemsize < storage.row_bytes
        if storage.partitions == 1 and is_part and tensor.ndim > max(2, len(storage.shape)):
            return f"{name} {shape_of(tensor)} is a reshaped part of {storage.name}, a tile of one partition"
    return None


RESHAPED_ROW = seen(
    engine_access.RESHAPED_ROW,
    _reshaped_row,
    "copy the part to a tile of that shape with nisa.tensor_copy, and use that",
)

#: What the vector, scalar and gpsimd engines were seen to ask of their operands, and the tensor engine.
COMPUTE: tuple[Constraint, ...] = (RUN_TIME_OFFSET_TRN1, RUN_TIME_OFFSET, RESHAPED_ROW)
TENSOR: tuple[Constraint, ...] = (RUN_TIME_OFFSET_TRN1, RESHAPED_ROW)


# --- bitvec operators


def bitvec_result(operator: str, dst: str, *data: str) -> tuple[Constraint, ...]:
    """With a bitvec `operator` the result `dst` has the data type of each of `data`."""

    def other(instruction: Any) -> tuple[str, NkiTensor, NkiTensor] | None:
        values = instruction.__dict__
        op, result = values[operator], values[dst]
        if not isinstance(op, Operator) or op.kind != "bitvec" or not isinstance(result, NkiTensor):
            return None
        for name in data:
            value = values[name]
            if isinstance(value, NkiTensor) and value.dtype != result.dtype:
                return name, value, result
        return None

    def width(instruction: Any, target: Any) -> str | None:
        found = other(instruction)
        if found is None or found[1].dtype.itemsize == found[2].dtype.itemsize:
            return None
        name, value, result = found
        op = instruction.__dict__[operator].name
        return f"{dst} is {result.dtype}, {name} is {value.dtype} and {operator} is {op}: widths differ"

    def kind(instruction: Any, target: Any) -> str | None:
        found = other(instruction)
        if found is None or found[1].dtype.itemsize != found[2].dtype.itemsize:
            return None
        name, value, result = found
        return f"{dst} is {result.dtype}, {name} is {value.dtype} and {operator} is a bitvec operator"

    help = f"allocate {dst} with the data type of {data[0]}, or view one as the other: t.view(nl.int32)"
    return (
        seen(elementwise.BITVEC_WIDTH, width, f"allocate {dst} with the data type of {data[0]}"),
        seen(elementwise.BITVEC_DTYPE, kind, help),
    )


# --- PSUM


def _psum_alignment(instruction: Any, target: Any) -> str | None:
    dst = instruction.__dict__["dst"]
    if instruction.on is not Engine.tensor or not isinstance(dst, NkiTensor) or not dst.storage.row_bytes:
        return None
    item, storage = dst.dtype.itemsize, dst.storage
    if item != _HALF:
        return None
    start = dst.offset * item % storage.row_bytes + (storage.address[1] if storage.address else 0)
    if start % _WORD:
        return f"dst starts at byte {start} of its partitions, in the middle of a word of {_WORD} bytes"
    return None


PSUM_ALIGNMENT = seen(
    psum.PSUM_ALIGNMENT,
    _psum_alignment,
    "give each row of results an even number of 2-byte elements, or allocate a tile for each",
)
