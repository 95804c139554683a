"""How fast kernels are traced: against plain Python running the same code, and per recorded instruction.

    python benchmarks/tracing.py

A kernel of Python that plans with dataclasses, comprehensions and generators, then emits instructions, is
traced, and run in plain CPython with functions that do nothing in the place of nki's.
Times are of this process. The goal: at most 1.2 times the plain time, plus 10 us for each instruction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np

import nki
import nki.isa as nisa
import nki.language as nl
from nki.compiler.language import frontends
from nki.compiler.specializer.specialize import specialize_call
from nki_isa.machine.targets import as_target

REPEATS = 7
TARGET = as_target("trn2")


@dataclass(frozen=True)
class Tile:
    row: int
    column: int
    size: int = 128

    @property
    def area(self) -> int:
        return self.row * self.column + self.size


def chosen(tiles, least):
    for tile in tiles:
        if tile.area % 3 == 0:
            yield tile, least + tile.area


def kernel(x, plans, instructions):
    out = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.shared_hbm)
    total = 0
    for plan in range(plans):
        tiles = [Tile(row, column) for row in range(16) for column in range(16)]
        table = {f"{tile.row}.{tile.column}": area for tile, area in chosen(tiles, plan)}
        total += sum(table.values())
    tile = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    for i in range(instructions):
        nisa.tensor_scalar(dst=tile, data=tile, op0=nl.add, operand0=float(i % 7))
    nisa.dma_copy(dst=out, src=tile)
    return out


def _nothing(*values: Any, **options: Any) -> None:
    return None


#: What the same function finds in the place of nki: functions that do nothing.
_STUBS = {
    "nisa": SimpleNamespace(dma_copy=_nothing, tensor_scalar=_nothing),
    "nl": SimpleNamespace(ndarray=_nothing, float32=None, sbuf=None, shared_hbm=None, add=None),
}
plain = FunctionType(kernel.__code__, {**globals(), **_STUBS}, "plain")


def best(function: Callable[[], Any]) -> float:
    """Seconds of the fastest of some runs."""
    found = []
    for _ in range(REPEATS):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    x = np.ones((128, 512), np.float32)
    traced = nki.jit(kernel)
    before = frontends.use("tracer")
    try:
        for plans, instructions in ((200, 0), (0, 5_000), (100, 2_000)):
            work = x, plans, instructions
            ours = best(lambda work=work: specialize_call(traced, work, {}, target=TARGET))
            python = best(lambda work=work: plain(*work))
            goal = 1.2 * python + 10e-6 * (instructions + 2)
            verdict = "within" if ours <= goal else "OVER"
            print(
                f"{plans:4} plans, {instructions:5} instructions: traced {ours * 1e3:7.1f} ms, plain "
                f"{python * 1e3:7.1f} ms, goal {goal * 1e3:7.1f} ms: {verdict}"
                + (f"; {(ours - python) / instructions * 1e6:.1f} us an instruction" if instructions else "")
            )
    finally:
        frontends.use(before)


if __name__ == "__main__":
    main()
