"""A program of 200,000 instructions: seconds and memory to place it, check it, and report on it.

    python benchmarks/large_program.py [INSTRUCTIONS]

The program is an unrolled matmul-like stream: loads, matmuls into PSUM, copies out, elementwise work and
stores, with tiles that live from a few to thousands of instructions. Goals: placing and checking in under
20 s and 2 GB together, counted from the finished Program.
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

from nki_isa.program import Program
from nki_isa.target import as_target
from nki_sim.place import place
from nki_sim.report.html import Core, page
from nki_sim.report.usage import memory_report
from nki_sim.sanitize import execute_checked

SECONDS, GIGABYTES = 20.0, 2.0
T = TypeVar("T")


def main(instructions: int) -> None:
    """Print a row per step; exit with status 1 beyond the goals."""
    program = stream(instructions)
    target = as_target(program.target)
    count = sum(1 for _ in program.walk())
    print(f"{count} instructions, {len(program.storages)} tensors; {gigabytes():.2f} GB before")
    placing, placement = timed("place", lambda: place(program, target))
    inputs = [np.ones(tensor.shape, np.float32) for tensor in program.inputs]
    checking, (_, found) = timed(
        "execute with all checks", lambda: execute_checked([program], [placement.addresses], inputs)
    )
    peak = gigabytes()
    total = placing + checking
    print(f"place and check: {total:.2f} s, {peak:.2f} GB; goals {SECONDS:.0f} s, {GIGABYTES:.0f} GB")
    print(f"peak {placement.sbuf.peak / 1024:.2f} KiB, {len(found)} findings")
    timed("memory report", lambda: memory_report(program, placement))
    _, text = timed("HTML page", lambda: page([[_Run(program, placement)]]))
    print(f"  page of {len(text) / 2**20:.1f} MiB, {gigabytes():.2f} GB in all")
    sys.exit(total > SECONDS or peak > GIGABYTES)


class _Run(Core):
    """A run without times."""

    timeline = None

    def __init__(self, program: Program, placement: object):
        self._program, self._placement = program, placement

    program = property(lambda self: self._program)  # type: ignore[assignment]
    placement = property(lambda self: self._placement)  # type: ignore[assignment]


def timed(what: str, function: Callable[[], T]) -> tuple[float, T]:
    """Seconds a step takes, printed, and its result."""
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    print(f"  {what:28}{seconds:8.2f} s")
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


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
