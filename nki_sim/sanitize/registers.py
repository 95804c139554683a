"""Reads of registers that nothing set: virtual registers, and the accumulator registers of an engine.

Which are set when needs no data: registers are numbered, and how many accumulator registers an
instruction touches is the size of its tiles. A device loop counts as run, so nothing is said after a
loop that would be wrong only for no turns at all.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from nki_isa.diagnostics import Frame, span_of
from nki_isa.ir.instruction import Instruction
from nki_isa.ir.program import Loop, Node, Program
from nki_isa.machine.enums import Engine
from nki_isa.ops.base import Accumulating
from nki_isa.tensor.storage import VirtualRegister
from nki_sim.sanitize.findings import Findings, done_by, label_at

CODE = "NKI-H013"

_SET = (
    "set it first: nisa.register_alloc(0), nisa.register_move(register, 0) or "
    "nisa.register_load(register, tile)"
)
_START = (
    "start the first accumulation with reduce_cmd=nisa.reduce_cmd.reset_reduce and go on with "
    "nisa.reduce_cmd.reduce"
)


@dataclass(frozen=True, slots=True)
class Unset:
    """A read of something unset.

    Attributes:
        key: of its finding.
        where: the register, or the lanes of an engine.
        stays: True if the instruction leaves there what it found.
    """

    key: Hashable
    where: VirtualRegister | tuple[Engine, slice]
    stays: bool


class Registers:
    """One walk over a Program, in program order.

    Attributes:
        unset: by instruction, what it reads that is not set.
        sites: keys of the findings whose weight depends on what becomes of the value, in order.
    """

    def __init__(self, program: Program, findings: Findings):
        self.unset: dict[Instruction, list[Unset]] = {}
        self.sites: list[Hashable] = []
        self._findings = findings
        self._set: set[int] = set()
        self._lanes: dict[Engine, int] = {}  # the first so many accumulator registers are set
        self._spoilers: dict[Engine, Instruction] = {}  # what left unknown values there last
        self._numbered = program.registers > 0
        self._walk(program.body)

    def _walk(self, body: list[Node]) -> None:
        for node in body:
            if isinstance(node, Instruction):
                self._instruction(node)
                continue
            if isinstance(node, Loop):
                for name in ("start", "stop"):
                    self._controls(getattr(node, name), f"the {name} of a device loop", node.stack)
                self._set.add(node.index.index)
            else:
                self._controls(node.condition, "the condition of a device loop", node.stack)
            self._walk(node.body)

    def _instruction(self, node: Instruction) -> None:
        if self._numbered:
            written = {register.index for register in node.registers_written}
            for register in node.registers_read:
                if register.index not in self._set:
                    key = self._register(register, node.opcode, node, node.stack, self.sites)
                    self._keep(node, Unset(key, register, register.index not in written))
            self._set |= written
        if isinstance(node, Accumulating):
            self._accumulating(node)

    # --- virtual registers

    def _controls(self, value: int | VirtualRegister, what: str, stack: tuple[Frame, ...]) -> None:
        if isinstance(value, VirtualRegister) and value.index not in self._set:
            self._register(value, what, what, stack, [])

    def _register(
        self,
        register: VirtualRegister,
        what: str,
        reader: Hashable,
        stack: tuple[Frame, ...],
        sites: list[Hashable],
    ) -> Hashable:
        """Report a read of `register`; the key of the finding, which joins `sites` if it is new."""
        origin = span_of(register.stack)
        key = CODE, span_of(stack) or reader, origin or register.index
        if not self._findings.known(key):
            sites.append(key)
            self._findings.add(
                key,
                CODE,
                f"{what} reads register {register.index}, which nothing has set",
                stack=stack,
                labels=label_at(origin, "the register is allocated here, without a value"),
                help=_SET,
            )
        return key

    # --- accumulator registers

    def _accumulating(self, node: Accumulating) -> None:
        engine, count, ready = node.on, node.lanes, self._lanes.get(node.on, 0)
        if node.reads_accumulators and count > ready:
            unset = Unset(self._accumulators(node, ready), (engine, slice(ready, count)), node.is_idle)
            self._keep(node, unset)
        if node.is_idle and node.idle_spoils:
            self._lanes[engine], self._spoilers[engine] = 0, node
        elif node.uses_engine_state:  # a read of what is unset counts as set from here on: one finding
            self._lanes[engine] = max(ready, count)

    def _accumulators(self, node: Accumulating, ready: int) -> Hashable:
        """Report a read of accumulator registers beyond the first `ready`; the key of the finding."""
        engine = node.on
        key = CODE, span_of(node.stack) or node, engine
        if not self._findings.known(key):
            self.sites.append(key)
            spoiler = self._spoilers.get(engine)
            which = f"{ready} to {node.lanes - 1} " if ready else ""
            why = "which nothing has reset" if spoiler is None else "whose values are unknown"
            self._findings.add(
                key,
                CODE,
                f"{node.opcode} reads accumulator registers {which}of the {engine.name} engine, {why}",
                stack=node.stack,
                labels=done_by(spoiler, "with reduce_cmd idle this instruction may change them"),
                help=_START,
            )
        return key

    def _keep(self, node: Instruction, unset: Unset) -> None:
        self.unset.setdefault(node, []).append(unset)
