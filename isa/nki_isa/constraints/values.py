"""Rules about scalar operands and attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nki_isa.constraints.operands import NUMBERS, STUB, elements_per_partition, listed, shape_of, value_of
from nki_isa.ir.constraint import Complaint, Constraint
from nki_isa.machine.operators import Operator
from nki_isa.rules import elementwise
from nki_isa.rules.rule import Rule
from nki_isa.tensor.tensor import NkiTensor


def column(name: str, like: str, *, fp32: bool = True, source: str = STUB) -> Constraint:
    """Scalar operand `name` is an immediate or a tile of one element per partition of `like` (NKI-V109).

    Args:
        fp32: the tile must be float32.
    """

    def broken(instruction: Any, target: Any) -> str | None:
        values = instruction.__dict__
        value = values[name]
        if not isinstance(value, NkiTensor):
            return None
        reference = values[like]
        if elements_per_partition(value) != 1:
            message = (
                f"{name} {shape_of(value)} has {elements_per_partition(value)} elements per partition, "
                "it must have 1"
            )
            row = isinstance(reference, NkiTensor) and value.shape[0] == 1 != reference.shape[0]
            tile = f"nl.broadcast_to({name}, {like}.shape)" if row else name
            return Complaint(
                message,
                f"pass a number or a tile of shape ({like}.shape[0], 1); with a value for each element write "
                f"nisa.tensor_tensor(dst=..., data1={like}, data2={tile}, op=...)",
            )
        if isinstance(reference, NkiTensor) and value.shape[0] != reference.shape[0]:
            return (
                f"{name} has {value.shape[0]} partitions, {like} has {reference.shape[0]}: they must be equal"
            )
        if not value.storage.region.on_chip:
            return f"{name} is in HBM, it must be in SBUF or PSUM"
        if fp32 and value.dtype != "float32":
            return f"{name} is {value.dtype}, a scalar operand must be float32"
        return None

    typed = " float32" if fp32 else ""
    return Constraint(
        "NKI-V109",
        f"{name} is an immediate or a{typed} tile of one element per partition of {like}.",
        broken,
        f"pass a number, or a{typed} SBUF or PSUM tile of shape ({like}.shape[0], 1)",
        source,
        elementwise.SCALAR_COLUMN,
    )


def scalar_dtype(name: str, operator: str, *, source: str = STUB) -> Constraint:
    """A tile `name` is float32 if `operator` is arithmetic, an integer type if it is bitvec (NKI-V109)."""

    def broken(instruction: Any, target: Any) -> str | None:
        value, op = instruction.__dict__[name], instruction.__dict__[operator]
        if isinstance(op, Operator):
            bitvec = op.kind == "bitvec"
            if isinstance(value, NkiTensor):
                if bitvec and value.dtype.kind not in ("int", "uint"):
                    return f"{name} is {value.dtype} and {operator} is {op.name}: it must be an integer type"
                if not bitvec and value.dtype != "float32":
                    return f"{name} is {value.dtype} and {operator} is {op.name}: it must be float32"
            elif bitvec and isinstance(value, NUMBERS) and not float(value).is_integer():
                return f"{name} is {value!r} and {operator} is {op.name}: it must be an integer"
        return None

    rule = f"{name} is float32 with an arithmetic {operator}, an integer with a bitvec one."
    help = f"pass {name} as a number, or copy the tile to that type"
    return scalar_rule(rule, broken, help, source=source, row=elementwise.SCALAR_DTYPE)


def scalar_rule(
    rule: str,
    broken: Callable[[Any, Any], str | None],
    help: str,
    *,
    source: str = STUB,
    row: Rule | None = None,
) -> Constraint:
    """A rule of its own about a scalar operand (NKI-V109)."""
    return Constraint("NKI-V109", rule, broken, help, source, row)


def unary_operand(op_name: str, operand_name: str) -> Constraint:
    """With a unary operator its operand is None or 0 (NKI-V109)."""

    def broken(instruction: Any, target: Any) -> str | None:
        op, value = instruction.__dict__[op_name], instruction.__dict__[operand_name]
        if isinstance(op, Operator) and "unary" in op.kinds:
            if isinstance(value, NkiTensor) or (value is not None and value != 0):
                return f"{op_name} is {op.name}, which takes one argument, and {operand_name} is given"
        elif isinstance(op, Operator) and value is None:
            return f"{op_name} is {op.name}, which takes two arguments, and {operand_name} is None"
        return None

    return scalar_rule(
        f"{operand_name} is None or 0 with a unary {op_name}, and given with any other.",
        broken,
        f"pass {operand_name}=0 with a unary operator, a number or a tile otherwise",
    )


def value_in(name: str, values: Iterable[Any], *, source: str = STUB) -> Constraint:
    """Attribute `name` has one of `values` (NKI-V111)."""
    allowed = tuple(values)
    shown = listed(value_of(v) for v in allowed)

    def broken(instruction: Any, target: Any) -> str | None:
        value = instruction.__dict__[name]
        return None if value in allowed else f"{name} is {value_of(value)}, it must be {shown}"

    return Constraint(
        "NKI-V111", f"{name} is {shown}.", broken, f"pass {name}={value_of(allowed[0])}", source
    )


def attribute_rule(
    rule: str,
    broken: Callable[[Any, Any], str | None],
    help: str,
    *,
    source: str = STUB,
    row: Rule | None = None,
) -> Constraint:
    """A rule of its own about attribute values (NKI-V111)."""
    return Constraint("NKI-V111", rule, broken, help, source, row)


def excludes(
    rule: str, broken: Callable[[Any, Any], str | None], help: str, *, source: str = STUB
) -> Constraint:
    """A rule about options that do not combine (NKI-V113)."""
    return Constraint("NKI-V113", rule, broken, help, source)
