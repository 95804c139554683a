"""Rules about data types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nki_isa.constraints.operands import (
    STUB,
    each_tensor,
    listed,
)
from nki_isa.ir.constraint import Constraint
from nki_isa.machine.operators import Operator
from nki_isa.rules.rule import Rule
from nki_isa.tensor.tensor import NkiTensor

Names = tuple[str, ...] | Callable[[Any, Any], tuple[str, ...]]


def unpacked(*names: str, source: str = "nki/api/nki.api.shared (data types, note 2)") -> Constraint:
    """None of `names` has a packed four-in-one data type (NKI-V105)."""

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        if tensor.dtype.lanes > 1:
            return f"is {tensor.dtype}, which only quantize_mx, nc_matmul_mx and copies take"
        return None

    rule = f"{listed(names, 'and')} {'has' if len(names) == 1 else 'have'} no packed data type."
    return Constraint(
        "NKI-V105",
        rule,
        each_tensor(names, test),
        "compute on float data, then pack with nisa.quantize_mx",
        source,
    )


def dtypes(
    name: str, names: Names, *, shown: str = "", source: str = STUB, row: Rule | None = None
) -> Constraint:
    """The dtype of `name` is one of `names`, constant or by instruction and target (NKI-V105).

    `shown` says which they are where that depends.
    """

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        allowed = names(instruction, target) if callable(names) else names
        if tensor.dtype in allowed:
            return None
        return f"is {tensor.dtype}, it must be {listed(allowed)}"

    shown = shown if callable(names) else listed(names)
    help = f"allocate {name} as {shown}"
    return Constraint("NKI-V105", f"{name} is {shown}.", each_tensor((name,), test), help, source, row)


def not_dtypes(name: str, *names: str, why: str = "", source: str = STUB) -> Constraint:
    """The dtype of `name` is none of `names` (NKI-V105)."""
    reason = f": {why}" if why else ""

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        if tensor.dtype in names:
            return f"is {tensor.dtype}, which it cannot be{reason}"
        return None

    rule = f"{name} is not {listed(names)}{reason}."
    return Constraint(
        "NKI-V105", rule, each_tensor((name,), test), f"copy {name} to another data type first", source
    )


def same_dtype(first: str, *others: str, source: str = STUB, row: Rule | None = None) -> Constraint:
    """`others` have the dtype of `first` (NKI-V105)."""

    def broken(instruction: Any, target: Any) -> str | None:
        values = instruction.__dict__
        reference = values[first]
        if isinstance(reference, NkiTensor):
            for name in others:
                value = values[name]
                if isinstance(value, NkiTensor) and value.dtype != reference.dtype:
                    return f"{name} is {value.dtype}, {first} is {reference.dtype}: they must be equal"
        return None

    rule = f"{listed((first, *others), 'and')} have the same data type."
    return Constraint("NKI-V105", rule, broken, f"allocate them with the data type of {first}", source, row)


def packed_alike(first: str, second: str, *, source: str = STUB) -> Constraint:
    """A packed dtype of `first` or `second` is the dtype of both; none is converted (NKI-V105)."""

    def broken(instruction: Any, target: Any) -> str | None:
        a, b = instruction.__dict__[first], instruction.__dict__[second]
        if not isinstance(a, NkiTensor) or not isinstance(b, NkiTensor) or a.dtype == b.dtype:
            return None
        if a.dtype.lanes == b.dtype.lanes == 1:
            return None
        return f"{first} is {a.dtype} and {second} is {b.dtype}: packed data are not converted"

    rule = f"{first} and {second} have equal data types if either is packed."
    return Constraint("NKI-V105", rule, broken, "pack with nisa.quantize_mx", source)


def bitvec_dtypes(operator: str, *names: str, source: str = STUB) -> Constraint:
    """With a bitvec `operator`, each of `names` has an integer dtype (NKI-V105)."""

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        if tensor.dtype.kind in ("int", "uint"):
            return None
        op = instruction.__dict__[operator]
        return f"is {tensor.dtype} and {operator} is {op.name}: bitvec operators need integer types"

    each = each_tensor(names, test)

    def broken(instruction: Any, target: Any) -> str | None:
        op = instruction.__dict__[operator]
        return each(instruction, target) if isinstance(op, Operator) and op.kind == "bitvec" else None

    rule = f"With a bitvec {operator}, {listed(names, 'and')} have integer data types."
    return Constraint(
        "NKI-V105",
        rule,
        broken,
        "view the bits as an integer type: tensor.view(nl.int32)",
        source,
    )
