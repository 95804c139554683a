"""Arguments of activation functions outside the range that is documented as valid."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nki_isa.diagnostics import Severity, Span, span_of
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Program
from nki_isa.machine.operators import Operator
from nki_sim.execution.memory import Array
from nki_sim.observe import Core
from nki_sim.sanitize.check import Check, Scene


@dataclass(slots=True, eq=False)
class _Seen:
    """What one line of the kernel gave one function."""

    instruction: Instruction
    op: Operator
    outside: int = 0
    total: int = 0
    low: float = np.inf
    high: float = -np.inf
    nan: bool = False


def _applies_one(program: Program) -> bool:
    """True if an instruction of `program` has an operator with a valid range; one of each form is asked."""
    once = {instruction.form or instruction: instruction for instruction in program.walk()}
    values = itertools.chain.from_iterable(instruction.__dict__.values() for instruction in once.values())
    return any(isinstance(value, Operator) and bool(value.domain) for value in values)


class Domains(Check):
    """Is told the arguments of every function that has a valid range; reports once for each line."""

    name = "numeric"
    finds = "arguments outside the valid range of an activation function (NKI-N003)"
    codes = ("NKI-N003",)
    listed = 11
    needs_data = True

    @classmethod
    def sees(cls, scene: Scene) -> bool:
        """Programs that apply a function with a valid range."""
        return any(map(_applies_one, scene.programs))

    def __init__(self, scene: Scene):
        super().__init__(scene)
        self._findings = scene.findings
        self._seen: dict[tuple[Span | Instruction, Operator], _Seen] = {}

    def start(self, cores: Sequence[Core]) -> None:
        """Ask to be told."""
        for core in cores:
            core.state.arguments = self.told

    def told(self, instruction: Instruction, op: Operator, values: Array) -> None:
        """`instruction` applies `op` to `values`."""
        key = span_of(instruction.stack) or instruction, op
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = _Seen(instruction, op)
        seen.total += values.size
        outside = op.outside(values)
        if outside:
            seen.outside += outside
            seen.low = min(seen.low, float(np.fmin.reduce(values, axis=None)))
            seen.high = max(seen.high, float(np.fmax.reduce(values, axis=None)))
            seen.nan = seen.nan or bool(np.isnan(values).any())

    def finish(self) -> None:
        """Report what was seen."""
        for key, seen in self._seen.items():
            if seen.outside and not self._findings.known(("NKI-N003", key)):
                self._report(("NKI-N003", key), seen)

    def _report(self, key: tuple[object, ...], seen: _Seen) -> None:
        op, instruction = seen.op, seen.instruction
        valid = " or ".join(f"[{low:.6g}, {high:.6g}]" for low, high in op.domain)
        among = " and NaN among them" if seen.nan else ""
        self._findings.add(
            key,
            "NKI-N003",
            f"{instruction.opcode} applies {op.name} to {seen.outside} of {seen.total} values outside "
            f"{valid}, where it is valid; the values lie in [{seen.low:.6g}, {seen.high:.6g}]{among}",
            stack=instruction.stack,
            help=f"write nl.{op.name}(tile), which subtracts whole periods first (as nl.cos and nl.tan do)"
            if op.periodic
            else f"bring the argument into the range of {op.name} first, for example with nisa.tensor_scalar "
            "and nl.maximum or nl.minimum",
            notes=("source: nki/api/nki.api.shared (supported activation functions)",),
            severity=Severity.warning,
        )
