"""Rules about operators, and about the engines that run them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nki_isa.constraints.operands import STUB, listed
from nki_isa.ir.constraint import Complaint, Constraint
from nki_isa.machine.enums import Engine
from nki_isa.machine.operators import Operator
from nki_isa.machine.target import Feature
from nki_isa.machine.targets import since
from nki_isa.rules import elementwise
from nki_isa.tensor.kinds import kind_of


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


def bitvec_on_vector(*names: str) -> Constraint:
    """A bitvec operator in one of `names` runs on the vector engine (NKI-V106)."""

    def broken(instruction: Any, target: Any) -> str | None:
        for name in names:
            op = instruction.__dict__[name]
            if isinstance(op, Operator) and op.kind == "bitvec" and instruction.on is not Engine.vector:
                return f"engine is {instruction.on.name} and {name} is {op.name}, a bitvec operator"
        return None

    return engine_allowed(
        "Bitvec operators run on the vector engine.", broken, "leave engine unset, or pass nisa.engine.vector"
    )


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
