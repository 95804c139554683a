"""Programs of 200,000 instructions: seconds and memory to place it, check it, and report on it.

    python benchmarks/large_program.py [INSTRUCTIONS]

One is an unrolled matmul-like stream: loads, matmuls into PSUM, copies out, elementwise work and stores,
with tiles that live from a few to thousands of instructions. The others are the hardest for the checks: two
tensors that contend for one address, on two engines and on one. Goals: placing and checking each in under
20 s of processor time and 2 GB, counted from the finished Program.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from streams import Stream

from nki_isa.diagnostics import NkiError
from nki_isa.ir.program import Program
from nki_isa.machine.enums import Engine
from nki_isa.machine.targets import as_target
from nki_sim.placement.place import Placement, place
from nki_sim.report.html import ReportedCore, page
from nki_sim.report.usage import memory_report
from nki_sim.sanitize import execute_checked

SECONDS, GIGABYTES = 20.0, 2.0
T = TypeVar("T")


def main(instructions: int) -> None:
    """Print the rows of each program; exit with status 1 if one goes beyond the goals."""
    missed = [measured(stream(instructions), "tiles that the compiler places", reports=True)]
    for engine in ("gpsimd", "vector"):
        program = contended(instructions, engine)
        missed.append(measured(program, f"two tensors at one address, vector and {engine} engine"))
    sys.exit(any(missed))


def measured(program: Program, what: str, *, reports: bool = False) -> bool:
    """Place and check `program`; True if that goes beyond the goals."""
    target = as_target(program.target)
    count = sum(1 for _ in program.walk())
    print(f"{what}: {count} instructions, {len(program.storages)} tensors; {gigabytes():.2f} GB before")
    placing, placement = timed("place", lambda: place(program, target))
    inputs = [np.ones(tensor.shape, np.float32) for tensor in program.inputs]
    checking, found = timed("execute with all checks", lambda: findings(program, placement, inputs))
    peak, total = gigabytes(), placing + checking
    print(f"  place and check: {total:.2f} s, {peak:.2f} GB; goals {SECONDS:.0f} s, {GIGABYTES:.0f} GB")
    print(f"  peak {placement.sbuf.peak / 1024:.2f} KiB, {found} findings")
    if reports:
        timed("memory report", lambda: memory_report(program, placement))
        _, text = timed("HTML page", lambda: page([[_Run(program, placement)]]))
        print(f"  page of {len(text) / 2**20:.1f} MiB, {gigabytes():.2f} GB in all")
    return total > SECONDS or peak > GIGABYTES


def findings(program: Program, placement: Placement, inputs: list[np.ndarray]) -> int:
    """How many things the checks find."""
    try:
        return len(execute_checked([program], [placement.addresses], inputs)[1])
    except NkiError as refused:
        return len(refused.diagnostics)


class _Run(ReportedCore):
    """A run without times."""

    timeline = None

    def __init__(self, program: Program, placement: Placement):
        self._program, self._placement = program, placement

    program = property(lambda self: self._program)  # type: ignore[assignment]
    placement = property(lambda self: self._placement)  # type: ignore[assignment]


def timed(what: str, function: Callable[[], T]) -> tuple[float, T]:
    """Seconds of processor time a step takes, printed with those on the clock, and its result."""
    clock, start = time.perf_counter(), time.process_time()
    result = function()
    seconds, elapsed = time.process_time() - start, time.perf_counter() - clock
    print(f"  {what:28}{seconds:8.2f} s, {elapsed:.2f} s on the clock")
    return seconds, result


def gigabytes() -> float:
    """The most memory this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def stream(instructions: int) -> Program:
    """The program: groups of 8 instructions, and a tile in 50 groups that lives for 400 groups."""
    stream = Stream("large", "trn2")
    source, result = stream.input((128, 128), "float32"), stream.output((128, 128), "float32")
    weights = stream.load(source)
    kept = []
    for group in range(instructions // 8):
        tile = stream.load(source)
        product = stream.psum((128, 128))
        stream.nc_matmul(product, weights, tile, accumulate=False)
        copy, total = stream.sbuf((128, 128), "float32"), stream.sbuf((128, 128), "float32")
        stream.tensor_copy(dst=copy, src=product)
        stream.tensor_tensor(dst=total, data1=copy, data2=tile, op="add")
        stream.tensor_scalar(dst=total, data=total, op0="multiply", operand0=0.5)
        if group % 50 == 0:
            kept.append(total)
        stream.tensor_tensor(dst=total, data1=total, data2=kept[max(0, len(kept) - 8)], op="maximum")
        stream.tensor_scalar(dst=copy, data=total, op0="add", operand0=1.0)
        stream.dma_copy(dst=result, src=copy)
    return stream.program


def contended(instructions: int, engine: str) -> Program:
    """Two tensors at one address that take turns, so that the order of their accesses matters all along.

    Each in turn is cleared and added to; the second is cleared on `engine`.
    """
    stream = Stream("contended", "trn2")
    result = stream.output((128, 64), "float32")
    first, second = (stream.sbuf((128, 64), "float32", address=(0, 0)) for _ in range(2))
    for _ in range(instructions // 4):
        stream.memset(dst=first, value=0.0)
        stream.tensor_scalar(dst=first, data=first, op0="add", operand0=1.0)
        stream.memset(dst=second, value=0.0, engine=Engine[engine])
        stream.tensor_scalar(dst=second, data=second, op0="add", operand0=1.0)
    stream.dma_copy(dst=result, src=second)
    return stream.program


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
