"""How fast the simulator is, each figure beside its goal.

    python benchmarks/speed.py [INSTRUCTIONS]

INSTRUCTIONS is the length of the data-free program, 1,000,000 by default; fewer are scaled up. Exits with
status 1 if a goal is missed.

A busy host may not decide: times are those of the processor, which others add little to, the least of
several, and what is compared is measured in turns. A ratio to a product of numpy compares work with work:
both on one BLAS thread, as the simulator multiplies tiles, since threads that wait for others count as busy.
The times on the clock, with numpy on all its threads, are in the note.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cached_call
import ml_dtypes
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import matmul

import nki
import nki.isa as nisa
import nki.language as nl
from nki.compiler.specializer.specialize import specialize_call
from nki.kernel import Kernel
from nki.runtime import session
from nki_isa.ir.program import Program
from nki_isa.machine.targets import TRN2
from nki_sim import process
from nki_sim.cores.core_times import CoreTimes, simulate
from nki_sim.cores.device import execute
from nki_sim.execution.machine import Machine
from nki_sim.placement.fit_in_memory import fit
from nki_sim.report.profile import Profile
from nki_sim.sanitize import execute_checked
from nki_sim.schedule.compiler import scheduled

_MILLION = 1_000_000
_WIDE, _TILE = 512, 32


@nki.jit
def tiles(x, turns):
    """Small tiles, one after the other: load, two instructions, store."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for i in range(turns):
        start = i % 16 * 32
        tile = nl.ndarray((128, 32), dtype=x.dtype, buffer=nl.sbuf)
        total = nl.ndarray((128, 32), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[:, start : start + 32])
        nisa.tensor_scalar(dst=total, data=tile, op0=nl.add, operand0=1.0)
        nisa.tensor_tensor(dst=total, data1=total, data2=tile, op=nl.add)
        nisa.dma_copy(dst=out[:, start : start + 32], src=total)
    return out


@nki.jit
def steps(x, turns):
    """Two instructions on the same two tiles, over and over."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    other = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    for _ in range(turns):
        nisa.tensor_scalar(dst=other, data=tile, op0=nl.add, operand0=1.0)
        nisa.tensor_tensor(dst=tile, data1=tile, data2=other, op=nl.multiply)
    nisa.dma_copy(dst=out, src=tile)
    return out


def arithmetic(x: np.ndarray, turns: int) -> None:
    """What numpy does for :func:`tiles`."""
    tile, out = np.empty((128, _TILE), np.float32), np.empty_like(x)
    total = np.empty_like(tile)
    for i in range(turns):
        columns = slice(i % 16 * _TILE, i % 16 * _TILE + _TILE)
        tile[...] = x[:, columns]
        np.add(tile, np.float32(1), out=total)
        np.add(total, tile, out=total)
        out[:, columns] = total


def least(
    function: Callable[[], Any], rounds: int = 5, clock: Callable[[], float] = time.process_time
) -> float:
    """Seconds of the fastest of several calls; what they give is freed after the clock has stopped."""
    times = []
    for _ in range(rounds):
        start = clock()
        given = function()
        times.append(clock() - start)
        del given
    return min(times)


def in_turns(
    *functions: Callable[[], Any], rounds: int = 9, clock: Callable[[], float] = time.process_time
) -> list[float]:
    """Seconds of the fastest of several calls of each, made in turns, so that a busy host slows all alike."""
    found = [float("inf")] * len(functions)
    for _ in range(rounds):
        for k, function in enumerate(functions):
            found[k] = min(found[k], least(function, 1, clock))
    return found


class Table:
    """The lines printed so far."""

    missed = 0

    def line(
        self, what: str, figure: float, unit: str, goal: float, *, smallest: bool = False, note: str = ""
    ) -> None:
        """Print a figure beside its goal, the most that it may be, or the `smallest`."""
        is_met = figure >= goal if smallest else figure <= goal
        self.missed += not is_met
        sign, verdict = ">=" if smallest else "<=", "met" if is_met else "missed"
        print(f"{what:58}{figure:12,.2f} {unit:7}{sign} {goal:<10,g}{verdict:8}{note}", flush=True)


def unrolled(table: Table, kernel: Kernel, *args: Any) -> None:
    """Timing, scheduling and specialization of unrolled code."""
    name = kernel.function.__name__

    def specialized() -> Program:
        return specialize_call(kernel, args, {}, target=TRN2).program

    with process.no_collection():
        program = specialized()
        count = sum(1 for _ in program.walk())
        seconds = least(specialized)
        fitted = fit(program, TRN2)
        timed = least(lambda: simulate(fitted.program, fitted.placement))
        ordered = least(lambda: scheduled(fitted.program, TRN2, fitted.placement))
    table.line(f"timing, {name}", timed / count * 1e6, "us", 10)
    table.line(f"scheduling as the compiler, {name}", ordered / count * 1e6, "us", 25)
    table.line(f"specialization, {name}", count / seconds, "/s", 100_000, smallest=True)


def checked(table: Table) -> None:
    """Execution with all checks."""
    x, turns = np.ones((128, _WIDE), np.float32), 2500
    fitted = fit(specialize_call(tiles, (x, turns), {}, target=TRN2).program, TRN2)
    run = [fitted.program], [fitted.placement.addresses], [x]
    beyond = least(lambda: execute_checked(*run), 3) - least(lambda: arithmetic(x, turns), 3)
    table.line("data and all checks beyond the arithmetic, tiles", beyond / (4 * turns) * 1e6, "us", 45)


def repeated(table: Table, goal: float, kernel: Kernel, *args: Any) -> None:
    """A program that runs again: its equal instructions together, against one by one."""
    program = specialize_call(kernel, args, {}, target=TRN2).program
    placement = fit(program, TRN2).placement.addresses

    def machine(together: bool) -> Callable[[], None]:
        made = Machine(program, placement, repeated=together)
        made.load([value for value in args if isinstance(value, np.ndarray)])

        def run() -> None:
            with process.one_thread(), process.arithmetic():
                list(made.run())

        run()
        return run

    together, alone = in_turns(machine(True), machine(False))
    count = sum(1 for _ in program.walk())
    note = f"{together / count * 1e6:.2f} us an instruction, {alone / count * 1e6:.2f} one by one"
    table.line(f"together to one by one, {kernel.function.__name__}", together / alone, "x", goal, note=note)


def product(table: Table, what: str, goal: float, size: int, run: Callable[[list[np.ndarray]], None]) -> None:
    """A matmul of two bf16 matrices against numpy's float32 product of that size."""
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((size, size), np.float32) for _ in range(2))
    given = [a.astype(ml_dtypes.bfloat16), b.astype(ml_dtypes.bfloat16)]

    def alone() -> None:
        with process.one_thread():
            a.T @ b

    run(given)
    ours, numpy = in_turns(lambda: run(given), alone)
    shown = [1e3 * t for t in in_turns(lambda: run(given), lambda: a.T @ b, clock=time.perf_counter)]
    note = f"{ours * 1e3:.0f} ms, numpy {numpy * 1e3:.0f}; clock {shown[0]:.0f} ms, numpy {shown[1]:.0f}"
    table.line(what, ours / numpy, "x", goal, note=note)


def blocked(given: list[np.ndarray]) -> None:
    """The blocked matmul from its arguments to its timeline."""
    made = specialize_call(matmul.matmul_blocked, tuple(given), {}, target=TRN2)
    fitted = fit(made.program, TRN2)
    times = CoreTimes(TRN2, [fitted.placement])
    execute(fitted.program, fitted.placement.addresses, given, listeners=[times])
    times.timelines()


def tiled(given: list[np.ndarray]) -> None:
    """A call of the tiled matmul, with all checks."""
    matmul.matmul_tiled(*given)


def calls(table: Table) -> None:
    """A second call of a kernel."""
    name, ours, work, _ = cached_call.measure()[0]
    note = f"{ours:.0f} us, numpy {work:.0f} us"
    table.line(f"cached call beyond the arithmetic, {name}", ours - work, "us", 50, note=note)


def long(instructions: int) -> None:
    """A program from source to profile without data, in a process of its own: seconds and GB as JSON."""
    x, start = np.zeros((128, _WIDE), np.float32), time.process_time()
    with session(data=False, timing=True, check="none") as record:
        tiles(x, instructions // 4)
    timeline = record.launches[0].timeline
    assert timeline is not None
    Profile.of(timeline)
    status = Path("/proc/self/status").read_text()  # of this process alone; getrusage starts at its parent's
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    print(json.dumps([time.process_time() - start, peak]))


def data_free(table: Table, instructions: int) -> None:
    """A long program without data."""
    found = []
    for count in dict.fromkeys((8, instructions)):
        command = [sys.executable, __file__, "--long", str(count)]
        environment = {**os.environ, "NKI_SIM_MAX_STEPS": str(20 * _MILLION)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        found.append(json.loads(done.stdout))
    (_, before), (seconds, peak) = found[0], found[-1]
    scale = _MILLION / instructions
    what = f"{_MILLION:,} instructions, source to profile" + (f" (of {instructions:,})" if scale != 1 else "")
    table.line(what, seconds * scale, "s", 20)
    table.line(what, before + (peak - before) * scale, "GB", 1.2)


def main(instructions: int) -> None:
    """Print the table."""
    table = Table()
    small = np.zeros((1024, 1024), ml_dtypes.bfloat16)
    x, square = np.zeros((128, _WIDE), np.float32), np.zeros((2048, 2048), ml_dtypes.bfloat16)
    unrolled(table, steps, x, 5000)
    unrolled(table, tiles, x, 2500)
    unrolled(table, matmul.matmul_blocked, square, square)
    unrolled(table, matmul.matmul_tiled, square, square)
    checked(table)
    repeated(table, 0.75, tiles, x, 2500)
    repeated(table, 1.05, matmul.matmul_tiled, small, small)  # large tiles: nothing to gain, nothing to lose
    product(table, "2048^3 bf16 blocked, parse to timeline", 1.25, 2048, blocked)
    product(table, "1024^3 bf16 tiled, all checks, warm", 1.5, 1024, tiled)
    calls(table)
    data_free(table, instructions)
    sys.exit(table.missed > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--long"]:
        long(int(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else _MILLION)
