"""What one instruction costs on the host, for every instruction on tiles of 128 by 128.

``python benchmarks/instructions.py [NAME ...]`` prints for each: microseconds of its arithmetic (the call of
`compute` alone), of executing it with results at hand (casting, storing, calling), and of timing it on the
scoreboard. Each is the best of several rounds, with BLAS on one thread as kernels run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from nki_isa.ir.fields import Role
from nki_isa.ir.instruction import REGISTRY, Instruction
from nki_isa.ir.program import Program
from nki_isa.machine.target import Target
from nki_isa.machine.targets import TRN2, TRN3
from nki_isa.ops.samples import sample
from nki_isa.tensor.storage import VirtualRegister
from nki_isa.tensor.tensor import NkiTensor
from nki_sim import process
from nki_sim.execution.machine import Machine
from nki_sim.placement.place import place
from nki_sim.timing.scoreboard import Scoreboard

GOAL = 40.0
"""Microseconds of executing and timing beyond the arithmetic."""

COPIES, ROUNDS = 50, 7


def program_of(instruction: Instruction, target: Target) -> Program:
    """`COPIES` times the same instruction."""
    storages = {t.storage.index: t.storage for t in (*instruction.reads, *instruction.writes)}
    program = Program("one", target.name, [storages[k] for k in sorted(storages)], registers=1)
    program.inputs = [NkiTensor.whole(s) for s in program.storages if s.region.is_hbm]
    program.body = [instruction] * COPIES
    return program


def arguments(instruction: Instruction, machine: Machine) -> list[object]:
    """What `compute` gets: the state, then an array or number for each operand that is read."""
    found: list[object] = [machine.state] if instruction.stateful else []
    for name, field in instruction.fields.items():
        value = instruction.__dict__[name]
        if field.role in (Role.attribute, Role.write, Role.register_write):
            continue
        if isinstance(value, NkiTensor):
            value = machine.memory.view(value)
        elif isinstance(value, VirtualRegister):
            value = 0
        elif isinstance(value, list):
            value = [machine.memory.view(v) for v in value]
        found.append(value)
    return found


def fill(machine: Machine, program: Program) -> None:
    """Small numbers in every tensor: valid as values, as indices and as exponents."""
    rng = np.random.default_rng(0)
    for storage in program.storages:
        view = machine.memory.view(NkiTensor.whole(storage))
        if storage.dtype.kind == "float":
            view[...] = rng.standard_normal(view.shape).astype(view.dtype)
        else:
            view[...] = rng.integers(0, 100, view.shape).astype(view.dtype)
        if storage.dtype.kind == "packed":
            view[...] = 0


def microseconds(run: Callable[[], object], count: int = 1) -> float:
    """Least time of `run`, by `count`."""
    run()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e6 * min(times) / count


def measure(opcode: str) -> tuple[float, float, float]:
    """Microseconds of arithmetic, of executing beyond it, and of timing."""
    instruction = sample(opcode)
    target = TRN3 if instruction.since == 4 else TRN2
    program = program_of(instruction, target)
    placed = place(program, target)
    machine = Machine(program, placed.addresses)
    fill(machine, program)
    given = arguments(instruction, machine)

    def arithmetic() -> None:
        for _ in range(COPIES):
            instruction.compute(*given)

    alone = microseconds(arithmetic, COPIES)
    results = instruction.compute(*given)
    instruction.__dict__["compute"] = lambda *_: results  # from here on, all but the arithmetic

    def execution() -> None:
        for _ in machine.run():
            pass

    def timing() -> None:
        board = Scoreboard(target, placed)
        for _ in range(COPIES):
            board.issue(instruction, machine.memory.registers)

    return alone, microseconds(execution, COPIES), microseconds(timing, COPIES)


def main(names: list[str]) -> int:
    """Print the table; 1 if an instruction misses the goal."""
    print(f"{'instruction':26} {'numpy us':>9} {'execute us':>11} {'time us':>8} {'overhead us':>12}")
    over = []
    for opcode in names or sorted(REGISTRY):
        cls = REGISTRY[opcode]
        if cls.synchronises or cls.is_free:
            continue  # runs on several cores; is not timed
        with process.one_thread():
            alone, executed, timed = measure(opcode)
        mark = "" if executed + timed <= GOAL else "  over the goal"
        over += [opcode] if mark else []
        print(f"{opcode:26} {alone:9.1f} {executed:11.1f} {timed:8.1f} {executed + timed:12.1f}{mark}")
    print(f"goal: at most {GOAL:.0f} us beyond the arithmetic; {len(over)} over it")
    return bool(over)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
