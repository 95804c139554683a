"""Constructors of :class:`~nki_isa.ir.constraint.Constraint` rows, shared by all instructions.

An instruction states ``constraints = rules(memory("dst", SBUF, PSUM), ...)``. Each
constructor takes field names and limits; the row it returns says in its message
the value received and the limit. A row looks only at operands of the kind it
speaks of: an operand of a wrong kind is the business of :data:`OPERAND_KINDS`,
an absent optional operand of nobody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from nki_isa.constraints.access_patterns import (
    consecutive_partitions,
    fits_partition,
    max_dims,
    start_partition,
)
from nki_isa.constraints.operands import (
    ARCHITECTURE,
    NUMBERS,
    PSUM,
    SBUF,
    STUB,
    each_tensor,
    elements_per_partition,
    free_size_of,
    in_psum,
    listed,
    region_name,
    rules,
    shape_of,
    start_of,
    value_of,
)
from nki_isa.ir.constraint import Complaint, Constraint
from nki_isa.ir.fields import Role
from nki_isa.machine.enums import Engine
from nki_isa.machine.operators import Operator
from nki_isa.machine.target import Feature
from nki_isa.machine.targets import since
from nki_isa.rules import elementwise
from nki_isa.rules.rule import Rule
from nki_isa.tensor.kinds import kind_of
from nki_isa.tensor.tensor import MemoryRegion, NkiTensor

__all__ = [
    "ARCHITECTURE",
    "PSUM",
    "SBUF",
    "STUB",
    "access",
    "attribute_rule",
    "bitvec_dtypes",
    "column",
    "consecutive_partitions",
    "dtypes",
    "elements",
    "elements_multiple",
    "elements_per_partition",
    "engine_allowed",
    "engine_since",
    "excludes",
    "fits_partition",
    "free_size",
    "free_size_of",
    "in_psum",
    "listed",
    "max_dims",
    "memory",
    "memory_since",
    "not_both_psum",
    "not_dtypes",
    "operator_in",
    "packed_alike",
    "operator_kind",
    "partitions",
    "partitions_multiple",
    "reduction",
    "region_name",
    "rules",
    "same_dtype",
    "same_elements_per_partition",
    "same_partitions",
    "same_shape",
    "scalar_dtype",
    "scalar_rule",
    "shape_of",
    "start_of",
    "start_partition",
    "tile",
    "unpacked",
    "value_in",
]

#: Values by generation or by instruction: a constant, or a function of instruction and target.
#: None where other operands leave it open.
Limit = int | Callable[[Any, Any], int | None]
Names = tuple[str, ...] | Callable[[Any, Any], tuple[str, ...]]


def _given(limit: Limit, instruction: Any, target: Any) -> int | None:
    return limit(instruction, target) if callable(limit) else limit


# --- memory


def memory(*names_and_regions: str | MemoryRegion, source: str = STUB) -> Constraint:
    """Each of the operands named lives in one of the regions given (NKI-V101)."""
    names = tuple(x for x in names_and_regions if isinstance(x, str))
    regions = frozenset(x for x in names_and_regions if isinstance(x, MemoryRegion))
    wanted = listed(dict.fromkeys(region_name(r) for r in MemoryRegion if r in regions))

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        if tensor.storage.region in regions:
            return None
        return f"is in {region_name(tensor.storage.region)}, it must be in {wanted}"

    rule = f"{listed(names, 'and')} {'is' if len(names) == 1 else 'are'} in {wanted}."
    copy = f"copy the operand to {wanted} first"
    allocate = f"allocate the result in {wanted}, and copy it from there"
    help = allocate if names == ("dst",) else f"{copy}; {allocate}" if "dst" in names else copy
    return Constraint("NKI-V101", rule, each_tensor(names, test), help, source)


def memory_since(name: str, feature: Feature, *, source: str = STUB) -> Constraint:
    """`name` lives in SBUF, on generations with `feature` also in PSUM (NKI-V101)."""
    version = since(feature)

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        if tensor.storage.region is PSUM and not target.has(feature):
            return f"is in PSUM, which is possible since NeuronCore-v{version}; the target is {target.name}"
        return None

    rule = f"{name} is in PSUM only since NeuronCore-v{version}."
    return Constraint("NKI-V101", rule, each_tensor((name,), test), f"allocate {name} in SBUF", source)


def not_both_psum(first: str, second: str, *, source: str = STUB) -> Constraint:
    """`first` and `second` are not both in PSUM (NKI-V101)."""

    def broken(instruction: Any, target: Any) -> str | None:
        values = instruction.__dict__
        if in_psum(values[first]) and in_psum(values[second]):
            return f"{first} and {second} are both in PSUM, at most one of them may be"
        return None

    rule = f"At most one of {first} and {second} is in PSUM."
    help = f"copy {first} or {second} to SBUF first"
    return Constraint("NKI-V101", rule, broken, help, source, elementwise.TWO_PSUM_SOURCES)


# --- sizes


def partitions(*names: str, limit: Limit = 128, shown: str = "", source: str = ARCHITECTURE) -> Constraint:
    """Each of `names` spans at most `limit` partitions (NKI-V102); `shown` says which limit that is."""

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        most = limit if type(limit) is int else _given(limit, instruction, target)
        if most is not None and tensor.shape and tensor.shape[0] > most:
            return f"has {tensor.shape[0]} partitions, at most {most} are possible"
        return None

    rule = f"{listed(names, 'and')} span{'s' * (len(names) == 1)} at most {shown or limit} partitions."
    return Constraint("NKI-V102", rule, each_tensor(names, test), "split the work into smaller tiles", source)


def same_partitions(first: str, *others: str, source: str = STUB) -> Constraint:
    """`others` have as many partitions as `first` (NKI-V103)."""

    def broken(instruction: Any, target: Any) -> str | None:
        values = instruction.__dict__
        reference = values[first]
        if not isinstance(reference, NkiTensor):
            return None
        count = reference.shape[0]
        for name in others:
            value = values[name]
            if isinstance(value, NkiTensor) and value.shape[0] != count:
                message = f"{name} has {value.shape[0]} partitions, {first} has {count}: they must be equal"
                lone = first if count == 1 else name if value.shape[0] == 1 else None
                if lone is None or instruction.fields[lone].role is Role.write:
                    return message
                rows = max(count, value.shape[0])
                help = (
                    f"write nl.broadcast_to({lone}, shape) for a tile with that row in {rows} partitions, or "
                    f"load it so: nisa.dma_copy(dst=tile, src=x.broadcast(0, {rows}))"
                )
                return Complaint(message, help)
        return None

    rule = f"{listed((first, *others), 'and')} have the same number of partitions."
    help = f"slice both to the partitions of {first}"
    return Constraint("NKI-V103", rule, broken, help, source, elementwise.PARTITION_COUNTS)


def same_elements_per_partition(first: str, *others: str, source: str = STUB) -> Constraint:
    """`others` have as many elements per partition as `first`, in any shape (NKI-V103)."""

    def broken(instruction: Any, target: Any) -> str | None:
        values = instruction.__dict__
        reference = values[first]
        if not isinstance(reference, NkiTensor):
            return None
        shape = reference.shape[1:]
        count = math.prod(shape)
        for name in others:
            value = values[name]
            if isinstance(value, NkiTensor) and value.shape[1:] != shape:
                got = elements_per_partition(value)
                if got != count:
                    return (
                        f"{name} {shape_of(value)} has {got} elements per partition, "
                        f"{first} {shape_of(reference)} has {count}: they must be equal"
                    )
        return None

    rule = f"{listed((first, *others), 'and')} have the same number of elements per partition."
    help = "give the operands the same free size; one value per partition is repeated by "
    help += "t.broadcast(1, size), or is the operand0 of nisa.tensor_scalar"
    return Constraint("NKI-V103", rule, broken, help, source, elementwise.ELEMENT_COUNTS)


def same_shape(first: str, *others: str, source: str = STUB) -> tuple[Constraint, ...]:
    """`others` have the partitions and the elements per partition of `first` (NKI-V103)."""
    return (
        same_partitions(first, *others, source=source),
        same_elements_per_partition(first, *others, source=source),
    )


def elements(name: str, count: Limit, what: str, *, source: str = STUB) -> Constraint:
    """`name` has exactly `count` elements per partition; `what` says what they are (NKI-V103)."""

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        expected = count if type(count) is int else _given(count, instruction, target)
        got = elements_per_partition(tensor)
        if expected is not None and got != expected:
            return f"{shape_of(tensor)} has {got} elements per partition, it must have {expected}: {what}"
        return None

    number = "" if callable(count) else f"{count} element{'s' * (count != 1)}: "
    rule = f"In each partition {name} has {number}{what}."
    return Constraint(
        "NKI-V103", rule, each_tensor((name,), test), f"allocate {name} with that free size", source
    )


def elements_multiple(name: str, factor: int, what: str, *, source: str = STUB) -> Constraint:
    """The elements per partition of `name` are a multiple of `factor` (NKI-V103)."""

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        got = elements_per_partition(tensor)
        if got % factor or got == 0:
            return f"has {got} elements per partition, it must have a multiple of {factor}: {what}"
        return None

    rule = f"The elements per partition of {name} are a multiple of {factor}: {what}."
    return Constraint(
        "NKI-V103", rule, each_tensor((name,), test), f"give {name} a multiple of {factor} elements", source
    )


def partitions_multiple(name: str, factor: int, *, source: str = STUB) -> Constraint:
    """`name` spans a multiple of `factor` partitions (NKI-V103)."""

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        if tensor.shape[0] % factor:
            return f"has {tensor.shape[0]} partitions, it must have a multiple of {factor}"
        return None

    rule = f"{name} spans a multiple of {factor} partitions."
    return Constraint(
        "NKI-V103", rule, each_tensor((name,), test), f"pad {name} to {factor} partitions", source
    )


def free_size(name: str, limit: int, *, least: int = 1, source: str = STUB) -> Constraint:
    """`name` has between `least` and `limit` elements per partition (NKI-V104)."""

    def test(tensor: NkiTensor, instruction: Any, target: Any) -> str | None:
        got = elements_per_partition(tensor)
        if got > limit:
            return f"has {got} elements per partition, at most {limit} are possible"
        if got < least:
            return f"has {got} elements per partition, at least {least} are needed"
        return None

    rule = f"{name} has {least} to {limit} elements per partition."
    return Constraint(
        "NKI-V104", rule, each_tensor((name,), test), f"split {name} along its free dimension", source
    )


# --- what operands of a compute engine obey


def access(*names: str) -> tuple[Constraint, ...]:
    """What every operand of a compute engine obeys: partitions, start, stride, dimensions."""
    return (
        partitions(*names),
        start_partition(*names),
        consecutive_partitions(*names),
        max_dims(*names),
    )


def tile(*names: str, packed: bool = False) -> tuple[Constraint, ...]:
    """What every streamed operand of the vector, scalar and gpsimd engines obeys.

    Args:
        packed: four-in-one data types are possible.
    """
    common = (memory(*names, SBUF, PSUM), *access(*names), fits_partition(*names))
    return common if packed else (*common, unpacked(*names))


# --- data types


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


# --- engines, operators, attributes


def engine_since(engine: Engine, feature: Feature, *, source: str = STUB) -> Constraint:
    """It runs on `engine` of generations with `feature` (NKI-V106)."""
    version = since(feature)

    def broken(instruction: Any, target: Any) -> str | None:
        if instruction.on is engine and not target.has(feature):
            return (
                f"engine is {engine.name}, which runs it since NeuronCore-v{version}; "
                f"the target {target.name} is NeuronCore-v{target.nc_version}"
            )
        return None

    rule = f"It runs on the {engine.name} engine since NeuronCore-v{version}."
    row = elementwise.SCALAR_ENGINE_COPY if engine is Engine.scalar else None
    return Constraint("NKI-V106", rule, broken, "choose another engine for this target", source, row)


def engine_allowed(
    rule: str, broken: Callable[[Any, Any], str | None], help: str, *, source: str = STUB
) -> Constraint:
    """A rule of its own about which engine runs an instruction (NKI-V106)."""
    return Constraint("NKI-V106", rule, broken, help, source)


def _computed_by(op: Operator) -> str:
    """The instruction that computes `op`, as a help."""
    if "activation" in op.kinds:
        return f"write nisa.activation(dst=..., op=nl.{op.name}, data=...)"
    if "unary" in op.kinds:
        return f"write nisa.tensor_scalar(dst=..., data=..., op0=nl.{op.name}, operand0=0)"
    return (
        f"write nisa.tensor_tensor(dst=..., data1=..., data2=..., op=nl.{op.name}), or nisa.tensor_scalar "
        "for a number or one value per partition"
    )


def operator_kind(name: str, *kinds: str, unary: bool = True, source: str = STUB) -> Constraint:
    """`name` is an operator of one of `kinds`, of two arguments unless `unary` (NKI-V107)."""

    def broken(instruction: Any, target: Any) -> str | None:
        op = instruction.__dict__[name]
        if isinstance(op, Operator) and not op.kinds.isdisjoint(kinds):
            if not unary and "unary" in op.kinds:
                return f"{name} is {op.name}, which takes one argument; it must take two"
            if not target.has(op.needs) and "activation" not in kinds:
                return (
                    f"{name} is {op.name}, which exists since NeuronCore-v{since(op.needs)}; "
                    f"the target {target.name} is NeuronCore-v{target.nc_version}"
                )
            return None
        if op is None and instruction.fields[name].default is None:
            return None
        shown = f"{op.name}, of kind {listed(sorted(op.kinds))}" if isinstance(op, Operator) else kind_of(op)
        message = f"{name} is {shown}; it must be of kind {listed(kinds)}"
        return Complaint(message, _computed_by(op)) if isinstance(op, Operator) else message

    rule = f"{name} is an operator of kind {listed(kinds)} that the generation has."
    return Constraint("NKI-V107", rule, broken, f"choose an operator of kind {listed(kinds)}", source)


def operator_in(name: str, *allowed: str, source: str = STUB) -> Constraint:
    """`name` is one of the operators named (NKI-V107)."""

    def broken(instruction: Any, target: Any) -> str | None:
        op = instruction.__dict__[name]
        if isinstance(op, Operator) and op.name in allowed:
            return None
        if op is None and instruction.fields[name].default is None:
            return None
        shown = op.name if isinstance(op, Operator) else kind_of(op)
        return f"{name} is {shown}, it must be {listed(allowed)}"

    return Constraint(
        "NKI-V107",
        f"{name} is {listed(allowed)}.",
        broken,
        f"use {listed(f'nl.{a}' for a in allowed)}",
        source,
    )


def reduction(name: str, *, source: str = "nki/api/nki.api.shared (operator table)") -> Constraint:
    """`name` is an operator the table allows for reductions (NKI-V107)."""

    def broken(instruction: Any, target: Any) -> str | None:
        op = instruction.__dict__[name]
        if isinstance(op, Operator) and not op.reduction:
            return f"{name} is {op.name}, which is not a legal reduction operator"
        return None

    return Constraint(
        "NKI-V107",
        f"{name} is a legal reduction operator.",
        broken,
        "use add, multiply, maximum, minimum, subtract, a logical operator, or bitwise and, or, xor",
        source,
    )


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
