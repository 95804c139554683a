"""Rules about partitions, elements and shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nki_isa.constraints.operands import (
    ARCHITECTURE,
    STUB,
    each_tensor,
    elements_per_partition,
    listed,
    shape_of,
)
from nki_isa.ir.constraint import Complaint, Constraint
from nki_isa.ir.fields import Role
from nki_isa.rules import elementwise
from nki_isa.tensor.tensor import NkiTensor

#: Values by generation or by instruction: a constant, or a function of instruction and target.
#: None where other operands leave it open.
Limit = int | Callable[[Any, Any], int | None]


def _given(limit: Limit, instruction: Any, target: Any) -> int | None:
    return limit(instruction, target) if callable(limit) else limit


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
